"""What sense data say besides their codes, as sg_decode_sense reads it; cut anywhere, what is there is shown."""

from __future__ import annotations

import subprocess
from random import Random

import pytest

from scsiusb.scsi.sense import Sense
from scsiusb.scsi.sense_details import KINDS, details
from tests.programs import needs

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
    for _ in range(500):
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


def test_every_type_of_the_standard_is_known() -> None:
    assert sorted({*KINDS, 0x02}) == list(range(0x10))
