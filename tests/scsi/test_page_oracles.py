"""Vital product data with random contents, decoded by us and by sg_vpd."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from scsiusb.scsi.pages.vpd import FieldsPage, parse_page
from tests.programs import needs

PAGES_EACH = 500
UNITS = ("Gigawatts", "Megawatts", "Kilowatts", "Watts", "Milliwatts", "Microwatts")
POLICIES = ("shared", "per target port", "per initiator port", "per I_T nexus")
Fields = dict[str, Any]


def policy(random: Random) -> bytes:
    return bytes((random.randrange(64), random.randrange(256), random.choice((0, 0x80)) | random.randrange(4), 0))


def address(random: Random) -> bytes:
    text = f"http://10.{random.randrange(256)}.0.{random.randrange(256)}/".encode()
    text = text.ljust((len(text) + 4) // 4 * 4, b"\0")
    return bytes((random.randrange(3) << 5 | random.randrange(5), 0)) + len(text).to_bytes(2, "big") + text


def port(random: Random) -> bytes:
    designator = bytes.fromhex("61930008") + b"\x50" + random.randbytes(7)
    number = random.randrange(1, 1 << 16).to_bytes(2, "big")
    return bytes(2) + number + bytes(6) + len(designator).to_bytes(2, "big") + designator


def consumption(random: Random) -> bytes:
    value = random.randrange(1000)  # sg_vpd writes more in a larger unit
    return bytes((random.randrange(256), random.randrange(6))) + value.to_bytes(2, "big")


def preset(random: Random) -> bytes:
    return random.randbytes(4) + bytes((random.choice((1, 5)),)) + bytes(2) + random.randbytes(57)


def positioning(random: Random) -> bytes:
    return random.randbytes(32)


MAKERS: dict[int, tuple[int, Callable[[Random], bytes] | int]] = {
    # the page: bytes before its list, and what makes an entry; or the length of a page without one
    0x85: (0, address),
    0x86: (0, 60),
    0x87: (0, policy),
    0x88: (0, port),
    0x8A: (0, 14),
    0x8D: (0, consumption),
    0xB3: (0, 12),
    0xB5: (0, 124),
    0xB7: (0, 12),
    0xB8: (0, preset),
    0xB9: (60, positioning),
}


def made(page: int, random: Random) -> bytes:
    start, maker = MAKERS[page]
    if isinstance(maker, int):
        body = random.randbytes(maker)
    else:
        body = bytes(start) + b"".join(maker(random) for _ in range(random.randrange(1, 4)))
    return bytes((0, page)) + len(body).to_bytes(2, "big") + body


def expected(page: int, fields: Fields, entries: tuple[Fields, ...]) -> Iterator[str]:
    """Yield what sg_vpd must print, in order."""
    match page:
        case 0x86:
            left_out = ("maximum_sense_length", "extended_self_test_minutes")
            yield from (f"{name.upper()}={value}" for name, value in fields.items() if name not in left_out)
        case 0x8A:
            flags = ("standby_y", "standby_z", "idle_c", "idle_b", "idle_a")
            yield " ".join(f"{name.capitalize()}={fields[name]}" for name in flags)
            for name in ("stopped", "standby_z", "standby_y", "idle_a", "idle_b", "idle_c"):
                yield f"{name.capitalize()} condition recovery time (ms) {fields[f'{name}_recovery']}"
        case 0xB3:
            yield f"User data segment size: {fields['segment_size']}"
            yield f"User data segment multiplier: {fields['segment_multiplier']}"
        case 0xB5:
            yield f"[{fields['utilization_type']:#x}]"
            yield f"[{fields['utilization_units']:#x}]"
            yield f"[{fields['utilization_interval']:#x}]"
            yield f"Utilization B: {fields['utilization_b']}"
            yield f"Utilization A: {fields['utilization_a']}"
        case 0xB7:
            yield f"Maximum number of streams: {fields['maximum_streams']}"
            yield f"Optimal stream write size: {fields['optimal_stream_write_size']} blocks"
            yield f"Stream granularity size: {fields['stream_granularity_size']}"
    for entry in entries:
        yield from expected_entry(page, entry)


def expected_entry(page: int, entry: Fields) -> Iterator[str]:
    match page:
        case 0x85:
            yield entry["address"]
        case 0x87:
            yield f"Policy page code: {entry['policy_page_code']:#x}"
            if entry["policy_subpage_code"]:
                yield f"subpage code: {entry['policy_subpage_code']:#x}"
            yield f"MLUS={entry['mlus']},  Policy: {POLICIES[entry['policy']]}"
        case 0x88:
            yield f"Relative port={entry['relative_port']}"
            yield f"0x{entry['target_port_designators'][8:]}"
        case 0x8D:
            yield f"identifier: {entry['power_consumption_id']:#x}"
            yield f"Maximum power consumption: {entry['value']} {UNITS[entry['units']]}"
        case 0xB8:
            yield f"Preset identifier: {entry['preset_identifier']:#x}"
            yield f"schema type: {entry['schema_type']}"
            yield f"exponent type: {entry['lb_per_pb_exponent']}"
            yield f"logical block length: {entry['block_length']}"
            yield f"last LBA: {entry['last_lba']:#x}"
            yield f"FMPT_INFO: {entry['fmtpinfo']}"
            yield f"protection field usage: {entry['protection_field_usage']}"
        case 0xB9:
            yield f"LBA range number: {entry['range_number']}"
            yield f"storage elements: {entry['storage_elements']}"
            yield f"starting LBA: {entry['lowest_lba']:#x}"
            yield f"number of LBAs: {entry['blocks']:#x}"


def sg_vpd(path: Path, page: int) -> str:
    words = ["sg_vpd", f"--inhex={path}", f"--page={page:#x}"]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.slow
@needs("sg_vpd")
@pytest.mark.parametrize("page", MAKERS, ids="{:02X}h".format)
def test_sg_vpd_reads_what_we_read(page: int, tmp_path: Path) -> None:
    random, path = Random(page), tmp_path / "page"
    for _ in range(PAGES_EACH):
        data = made(page, random)
        path.write_text(data.hex(" "))
        ours = parse_page(data, page)
        assert isinstance(ours, FieldsPage)
        theirs, at = sg_vpd(path, page), 0
        for phrase in expected(page, ours.fields, ours.entries):
            at = theirs.find(phrase, at)
            assert at >= 0, (phrase, data.hex(), theirs)


@pytest.mark.parametrize("page", MAKERS, ids="{:02X}h".format)
def test_of_a_page_that_ends_anywhere_what_is_there_is_shown(page: int) -> None:
    data = made(page, Random(page))
    whole = parse_page(data, page)
    assert isinstance(whole, FieldsPage)
    assert whole.fields or whole.entries
    clean = 0
    for end in range(4, len(data)):
        cut = parse_page(data[:2] + (end - 4).to_bytes(2, "big") + data[4:end], page)
        assert isinstance(cut, FieldsPage)
        assert cut.fields.items() <= whole.fields.items()
        assert len(cut.entries) <= len(whole.entries)
        assert cut.entries[:-1] == whole.entries[: max(len(cut.entries) - 1, 0)]
        clean += end >= 4 + MAKERS[page][0] and not cut.problems
    assert whole.problems == ()
    assert clean == (len(whole.entries) or len(data) - 4), "only between entries"
