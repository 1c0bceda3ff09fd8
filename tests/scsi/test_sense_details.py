"""What sense data say besides their codes, as sg_decode_sense reads it; cut anywhere, what is there is shown."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import pytest

from scsiusb.scsi.sense import Sense
from scsiusb.scsi.sense_details import KINDS, Detail, details
from tests.programs import needs

RUNS = 500
CASES: tuple[tuple[str, dict[str, dict[str, object]]], ...] = (
    ("70 00 05 00000000 0a 00000000 24 00 05 cd 00 02", {"field pointer": {"in": "CDB", "byte": 2, "bit": 5}}),
    ("70 00 05 00000000 0a 00000000 26 00 00 80 00 0b", {"field pointer": {"in": "parameters", "byte": 11}}),
    ("70 00 02 00000000 0a 00000007 04 04 00 80 40 00", {"progress": {"percent": 25.0}}),
    (
        "f0 00 03 00001000 0a 00000000 11 00 00 80 00 09",
        {"retries": {"count": 9}, "information": {"information": 4096}},
    ),
    ("70 00 06 00000000 0a 00000000 29 00 00 81 00 00", {"unit attention queue": {"overflow": 1}}),
    ("70 e0 0a 00000000 0a 00000000 29 00 00 ab 00 07", {"segment pointer": {"in": "segment descriptor", "byte": 7}}),
    ("70 00 e3 00000000 0a 00000000 00 00 00", {"flags": {"filemark": 1, "eom": 1, "ili": 1}}),
    ("72 05 24 00 000000 08 0206 0000 cf000300", {"field pointer": {"in": "CDB", "byte": 3, "bit": 7}}),
    (
        "72 0b 00 00 000000 1c 000a 8000 0000000000001234 010a 0000 0000000000005678 0302 0009",
        {
            "information": {"valid": 1, "information": 0x1234},
            "command specific information": {"value": 0x5678},
            "field replaceable unit": {"code": 9},
        },
    ),
    (
        "72 04 00 00 000000 1a 0402 00e0 0502 0020 0a06 020404 00 8000 0f06 0000 0000 0010",
        {
            "stream commands": {"filemark": 1, "eom": 1, "ili": 1},
            "block commands": {"ili": 1},
            "another progress indication": {"key": 2, "asc": 4, "ascq": 4, "progress": 50.0},
            "microcode activation": {"seconds": 16},
        },
    ),
    (
        "72 01 00 1d 000000 0e 090c 01 04 02 05 22 11 33 22 44 33 a0 51",
        {"ATA status return": {"error": 4, "count": 0x205, "lba": 0x443322332211, "status": 0x51}},
    ),
    ("72 04 00 00 000000 0c 0c0a 8202 70000500000000 0a", {"forwarded sense": {"source": 2, "truncated": 1}}),
    ("72 04 00 00 000000 06 8004 01020304", {"vendor specific descriptor 80h": {}}),
    ("72 04 00 00 000000 06 4004 01020304", {"descriptor 40h": {}}),
)


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_details(text: str, expected: dict[str, dict[str, object]]) -> None:
    found = {each.name: each for each in details(Sense.parse(bytes.fromhex(text)))}
    for name, values in expected.items():
        assert found[name].values.items() >= values.items()
    assert all(str(each) for each in found.values())


def test_bytes_cut_anywhere_or_random_show_what_is_there() -> None:
    for text, _ in CASES:
        data = bytes.fromhex(text)
        for end in range(len(data)):
            assert isinstance(details(Sense.parse(data[:end])), tuple)
    random = Random(5)
    for _ in range(3000):
        data = bytes((random.choice((0x70, 0x71, 0x72, 0x73)),)) + random.randbytes(random.randrange(40))
        for each in details(Sense.parse(data)):
            assert str(each)
            assert len(each.raw) <= len(data)


def test_a_descriptor_that_ends_too_early_says_how_much_is_missing() -> None:
    (only,) = details(Sense.parse(bytes.fromhex("72 03 11 00 000000 0c 000a 8000 0000")))
    assert (only.name, only.values, only.missing) == ("information", {"valid": 1}, 6)
    assert str(only).endswith("6 bytes are missing")


@pytest.mark.slow
@needs("sg_decode_sense")
def test_sg_decode_sense_reads_what_we_read() -> None:
    random = Random(11)
    for _ in range(RUNS):
        key = random.choice((0, 1, 2, 3, 4, 5, 6, 10))
        specific = bytes((0x80 | random.randrange(0x80),)) + random.randbytes(2)
        unit = random.randrange(1, 256)
        data = bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, unit)) + specific
        words = ["sg_decode_sense", *(f"{byte:02x}" for byte in data)]
        theirs = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
        found = {each.name: each.values for each in details(Sense.parse(data))}
        assert f"Field replaceable unit code: {found['field replaceable unit']['code']}" in theirs
        if "progress" in found:
            shown = float(theirs.split("Progress indication: ")[1].split("%")[0])
            assert abs(float(found["progress"]["percent"]) - shown) < 0.03
        if "retries" in found:
            assert f"Actual retry count: {int(found['retries']['count']):#06x}" in theirs
        for name in ("field pointer", "segment pointer"):
            if name in found:
                at = found[name]
                assert f"byte {at['byte']}{' bit ' + str(at['bit']) if 'bit' in at else ''}" in theirs
                assert ("Command" in theirs) == (at["in"] == "CDB")
        if "unit attention queue" in found:
            assert f"overflow flag is {found['unit attention queue']['overflow']}" in theirs


def information(random: Random) -> bytes:
    return b"\x00\x0a" + bytes((random.choice((0, 0x80)), 0)) + random.randbytes(8)


def ata_status(random: Random) -> bytes:
    extend = random.choice((0, 1))
    registers = bytearray(random.randbytes(10))
    for at in (0, 2, 4, 6):  # the upper bytes of count and LBA
        registers[at + 0] &= 0xFF * extend
    return bytes((0x09, 0x0C, extend, random.randrange(256))) + bytes(registers)


def forwarded(random: Random) -> bytes:
    return bytes((0x0C, 10, random.choice((0, 0x80)) | random.randrange(1, 9), 2, 0x72, 5, 0x24, 0, 0, 0, 0, 0))


def block_device(random: Random) -> bytes:
    flags = random.choice((0, 0x20, 0x80, 0xA0))
    return bytes((0x0D, 0x1E, flags, 0, 0x80)) + random.randbytes(27)


DESCRIPTORS: dict[int, Callable[[Random], bytes]] = {  # what makes a descriptor, by its type
    0x00: information,
    0x01: lambda random: b"\x01\x0a\0\0" + random.randbytes(8),
    0x02: lambda random: bytes((0x02, 0x06, 0, 0, 0x80 | random.randrange(0x80))) + random.randbytes(2) + b"\0",
    0x03: lambda random: b"\x03\x02\0" + random.randbytes(1),
    0x04: lambda random: bytes((0x04, 0x02, 0, random.randrange(8) << 5)),
    0x05: lambda random: bytes((0x05, 0x02, 0, random.choice((0, 0x20)))),
    0x09: ata_status,
    0x0A: lambda random: (
        b"\x0a\x06" + bytes((random.randrange(16),)) + random.randbytes(2) + b"\0" + random.randbytes(2)
    ),
    0x0B: lambda random: bytes((0x0B, 0x02, random.randrange(2), 0)),
    0x0C: forwarded,
    0x0D: block_device,
    0x0F: lambda random: b"\x0f\x06\0\0\0\0" + random.randbytes(2),
    0x40: lambda random: b"\x40\x04" + random.randbytes(4),
    0x80: lambda random: b"\x80\x06" + random.randbytes(6),
}


Values = Mapping[str, Any]
STREAM = {"filemark": "FILEMARK", "eom": "End Of Medium (EOM)", "ili": "Incorrect Length Indicator (ILI)"}


def at_bit(values: Values) -> str:
    return f"byte {values['byte']}" + (f" bit {values['bit']}" if "bit" in values else "")


def registers(values: Values) -> tuple[str, ...]:
    lba = f"{values['lba']:#0{14 if values['extend'] else 8}x}"
    return (
        f"extend={values['extend']} error={values['error']:#x}",
        f"count={values['count']:#x} lba={lba} device={values['device']:#x} status={values['status']:#x}",
    )


def block_device_by_sg(values: Values) -> tuple[str, ...]:
    return (
        *(["ILI (incorrect length indication) set"] if values["ili"] else []),
        f"Field replaceable unit code: {values['field_replaceable_unit']:#x}",
        *([f"Information: {values['information']:#018x}"] if values["valid"] else []),
        f"Command specific: {values['command_specific']:#018x}",
    )


BY_SG: dict[str, Callable[[Values], Sequence[str]]] = {
    # What sg_decode_sense must print of a detail, in order. Where it differs, and who is right:
    # - Another progress indication: it prints 7.0211 for 7.11 percent, which is wrong. It cuts what we round (87.998 is
    #   87.99 and 88.0): whole percents are compared.
    # - Direct access block device: it leaves INFORMATION out if VALID is 0, when the field has no meaning (SPC-5); we
    #   show the field, and VALID. It leaves out an ILI of 0.
    # - Sense-key specific field of a key for which the standard has none: it prints the bytes, and so do we.
    "information": lambda values: (
        f"Information: {'' if values['valid'] else 'Valid=0 (-> vendor specific) '}{values['information']:#018x}",
    ),
    "command specific information": lambda values: (f"Command specific: {values['value']:#018x}",),
    "field replaceable unit": lambda values: (f"Field replaceable unit code: {values['code']:#x}",),
    "stream commands": lambda values: (
        "Stream commands: " + "".join(text for name, text in STREAM.items() if values[name]),
    ),
    "block commands": lambda values: (f"Incorrect Length Indicator (ILI) {('clear', 'set')[values['ili']]}",),
    "ATA status return": registers,
    "another progress indication": lambda values: (
        f"Another progress indication: {values['whole']}.",
        f"sense_key={values['key']:#x} asc,ascq={values['asc']:#x},{values['ascq']:#x}",
    ),
    "user data segment referral": lambda values: (f"Not all referrals: {values['not_all']}",),
    "forwarded sense": lambda values: (
        f"FSDT: {('clear', 'set')[values['truncated']]}",
        "Forwarded status: Check Condition",
        "Sense key: Illegal Request",
    ),
    "direct access block device": block_device_by_sg,
    "microcode activation": lambda values: (f"Microcode activation time: {values['seconds']} seconds",),
    "progress": lambda values: (f"Progress indication: {values['whole']}.",),
    "retries": lambda values: (f"Actual retry count: {values['count']}",),
    "field pointer": lambda values: (
        f"Error in {'Command' if values['in'] == 'CDB' else 'Data parameters'}: {at_bit(values)}",
    ),
    "unit attention queue": lambda values: (f"overflow flag is {values['overflow']}",),
    "segment pointer": lambda values: (at_bit(values),),
}


def said_by_sg(found: Detail) -> Sequence[str]:
    if found.name in BY_SG:
        whole = int.from_bytes(found.raw[-2:], "big") * 100 // 65536  # of a progress
        progress = found.values.get("percent", found.values.get("progress", whole))
        assert whole <= float(progress) <= whole + 1
        return BY_SG[found.name]({**found.values, "whole": whole})
    return (found.raw.hex(" ") if found.name == "sense-key specific" else found.raw[2:].hex(" "),)


@pytest.mark.slow
@needs("sg_decode_sense")
@pytest.mark.parametrize("kind", DESCRIPTORS, ids="{:02X}h".format)
def test_sg_decode_sense_reads_descriptors_as_we_do(kind: int) -> None:
    """Each type with one or two others of random types."""
    random = Random(kind)
    for _ in range(RUNS):
        kinds = [kind, *random.choices(tuple(DESCRIPTORS), k=random.randrange(3))]
        body = b"".join(DESCRIPTORS[each](random) for each in kinds)
        key = random.choice((0, 1, 2, 3, 4, 5, 6, 10, 11))
        data = bytes((0x72, key, random.randrange(0x80), random.randrange(0x80), 0, 0, 0, len(body))) + body
        words = ["sg_decode_sense", *(f"{byte:02x}" for byte in data)]
        theirs = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
        found, at = details(Sense.parse(data)), 0
        assert len(found) == len(kinds)
        for phrase in (phrase for each in found for phrase in said_by_sg(each)):
            place = re.compile(re.escape(phrase) + (r"(?!\w)" if phrase[-1].isalnum() else "")).search(theirs, at)
            assert place is not None, (phrase, data.hex(" "), theirs)
            at = place.end()


def test_every_type_of_the_standard_is_known() -> None:
    assert sorted({*KINDS, 0x02}) == list(range(0x10))
