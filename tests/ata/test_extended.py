"""ATA commands of 48 bits: their bytes, the logs that they read, TRIM and sanitize."""

from __future__ import annotations

import struct
from random import Random

import pytest

import scsiusb
from scsiusb import DeviceUnsupported, MalformedReply
from scsiusb.ata.device import read_smart
from scsiusb.ata.extended import AtaExtendedPlain, AtaExtendedRead, AtaExtendedSend, extended_registers_of
from scsiusb.ata.general_logs import (
    parse_extended_errors,
    parse_extended_tests,
    parse_queue_error,
    read_extended_errors,
    read_extended_tests,
    read_queue_error,
)
from scsiusb.ata.health import figures, judge
from scsiusb.ata.log_directory import log_name, parse_directory, sizes_of_logs
from scsiusb.ata.passthrough import Ata
from scsiusb.ata.power import power_mode
from scsiusb.ata.sanitize import begin_sanitize, read_sanitize
from scsiusb.ata.smart_logs import LoggedError, PastTest
from scsiusb.ata.statistics import Statistic, parse_page_list, parse_statistics, read_statistics
from scsiusb.ata.trim import lists, trim
from scsiusb.scsi.sense import Sense
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.target.ata import AtaDisk

FAILED = 0x12345678  # the block of a failing virtual disk


def disk_of(ata: AtaDisk, medium: Memory | None = None) -> Unit:
    return Unit(medium or Memory(bytearray(b"x" * 512 * 4096)), ata=ata, removable=False)


@pytest.mark.parametrize(
    ("command", "cdb"),
    [  # as SAT-3 12.2.3 has the bytes; the first as sg_sat_read_gplog sends it, but for the device register
        (AtaExtendedRead(0x2F, lba=0x0104), "85 09 0e 00 00 00 01 00 04 00 01 00 00 40 2f 00"),
        (AtaExtendedRead(0x2F, 0x1122, 0x0203, 0x665544332211), "85 09 0e 11 22 02 03 44 11 55 22 66 33 40 2f 00"),
        (AtaExtendedSend(0x06, 1, bytes(1024)), "85 0d 06 00 01 00 02 00 00 00 00 00 00 40 06 00"),
        (AtaExtendedPlain(0xB4, 0x12, 0, 0x426B4572), "85 07 20 00 12 00 00 42 72 00 45 00 6b 40 b4 00"),
    ],
)
def test_each_byte_is_where_the_standard_has_it(command: scsiusb.Command[object], cdb: str) -> None:
    assert command.cdb().hex(" ") == cdb


def test_registers_of_48_bits_come_in_descriptor_format_only() -> None:
    raw = bytes.fromhex("72 01 00 1d 00 00 00 0e 09 0c 01 04 80 05 44 11 55 22 66 33 40 50")
    assert extended_registers_of(Sense.parse(raw)) == (4, 0x50, 0x8005, 0x665544332211)
    assert extended_registers_of(Sense.parse(raw[:-1])) is None
    fixed = bytes.fromhex("70 00 01 04 50 40 05 0a 60 11 22 33 00 1d 00 00 00 00")
    assert extended_registers_of(Sense.parse(fixed)) is None


def test_the_extended_logs_have_lbas_of_more_than_28_bits() -> None:
    with scsiusb.open("virtual:?profile=sat-hdd&health=failing") as disk:
        errors = read_extended_errors(disk.unit)
        assert errors.count == 2
        assert errors.errors == (
            LoggedError(2, "uncorrectable data", FAILED, 51099, 0x25),
            LoggedError(1, "uncorrectable data", 1000, 51098, 0x25),
        )
        assert read_extended_tests(disk.unit) == (PastTest("short", "failed: reading", False, 51099, FAILED),)
        queued = read_queue_error(disk.unit)
        assert (queued.tag, queued.lba, queued.what) == (5, FAILED, "uncorrectable data")
        assert sizes_of_logs(disk.unit) == {0x03: 1, 0x04: 8, 0x07: 1, 0x10: 1}


def test_a_good_disk_has_no_errors_in_its_extended_logs() -> None:
    with scsiusb.open("virtual:?profile=sat-ssd") as disk:
        assert read_extended_errors(disk.unit).errors == ()
        assert read_extended_tests(disk.unit) == (PastTest("short", "passed", True, 1233, None),)
        assert read_queue_error(disk.unit).tag is None


def test_statistics_are_those_that_the_disk_keeps() -> None:
    with scsiusb.open("virtual:?profile=sat-ssd&health=worn") as disk:
        found = {(each.page, each.name): each for each in read_statistics(disk.unit)}
    assert found[7, "percent_used"] == Statistic(7, "percent_used", 96, normalized=True, met=False)
    assert found[5, "lowest"].value == -3
    assert (3, "spindle_motor_hours") not in found


def test_flags_of_a_statistic() -> None:
    page = bytearray(512)
    page[0], page[2] = 1, 5
    page[8:16] = bytes((0xF6, *bytes(6), 0xC8))  # -10, and its limit was met
    page[16:24] = bytes((20, *bytes(6), 0x80))  # supported, and not known now
    page[24:32] = bytes((20, *bytes(6), 0x40))  # not supported
    assert parse_statistics(bytes(page)) == (
        Statistic(5, "current", -10, normalized=False, met=True),
        Statistic(5, "short_term_average", None, normalized=False, met=False),
    )


def test_the_ring_of_the_extended_error_log_goes_over_its_pages() -> None:
    data = bytearray(1024)
    struct.pack_into("<H", data, 2, 2)
    struct.pack_into("<H", data, 500, 300)
    for page in range(2):
        for at in range(4):
            data[512 * page + 4 + 124 * at + 90 + 1] = 0x04
            data[512 * page + 4 + 124 * at + 90 + 4] = 4 * page + at
    found = parse_extended_errors(bytes(data))
    assert [each.lba for each in found.errors] == [1, 0, 7, 6, 5, 4, 3, 2]
    assert [each.number for each in found.errors] == list(range(300, 292, -1))


@pytest.mark.parametrize(
    "parse",
    [
        *(parse_directory, parse_extended_errors, parse_extended_tests, parse_queue_error),
        *(parse_statistics, parse_page_list),
    ],
)
def test_nonsense_is_a_result_or_a_malformed_reply(parse: object) -> None:
    assert callable(parse)
    random = Random(48)
    for length in [*range(0, 2049, 64), *[512] * 200]:
        data = random.randbytes(length)
        try:
            parse(data)
        except MalformedReply:
            continue
    with pytest.raises(MalformedReply):
        parse(bytes(511))


def test_logs_have_their_names() -> None:
    assert [log_name(at) for at in (0x04, 0x85, 0xA5, 0x77)] == [
        "device statistics",
        "host specific",
        "vendor specific",
        "reserved",
    ]


def test_a_disk_behind_a_bridge_without_48_bits_has_none() -> None:
    with (
        scsiusb.open_on(Bus(Stick([disk_of(AtaDisk(short_only=True))]))) as disk,
        pytest.raises(scsiusb.IllegalRequest, match="general purpose logs"),
    ):
        read_statistics(disk.unit)


def test_trim_lets_the_disk_forget_these_blocks_alone() -> None:
    medium = Memory(bytearray(b"x" * 512 * 4096))
    with scsiusb.open_on(Bus(Stick([disk_of(AtaDisk(), medium)]))) as disk:
        trim(disk.unit, 8, 3000)
        with pytest.raises(ValueError, match="beyond"):
            trim(disk.unit, 4000, 97)
    assert bytes(medium.data) == b"x" * 8 * 512 + bytes(3000 * 512) + b"x" * (4096 - 3008) * 512


def test_ranges_of_trim_are_cut_at_16_bits_and_lists_at_what_the_disk_takes() -> None:
    (one,) = lists(1, 65536, 1)
    assert struct.unpack_from("<3Q", one) == (1 | 65535 << 48, 65536 | 1 << 48, 0)
    many = list(lists(0, 65535 * 65, 1))
    assert [len(each) for each in many] == [512, 512]
    assert struct.unpack_from("<2Q", many[1]) == (65535 * 64 | 65535 << 48, 0)


def test_a_hard_disk_has_no_trim_and_another_geometry_is_refused() -> None:
    with (
        scsiusb.open_on(Bus(Stick([disk_of(AtaDisk("sat-hdd"))]))) as disk,
        pytest.raises(DeviceUnsupported, match="no TRIM"),
    ):
        trim(disk.unit, 0, 1)
    unit = Unit(Memory(bytearray(b"x" * 4096 * 16), 4096), ata=AtaDisk(), removable=False)
    with scsiusb.open_on(Bus(Stick([unit]))) as disk, pytest.raises(DeviceUnsupported, match="may be others"):
        trim(disk.unit, 0, 1)


@pytest.mark.parametrize(("method", "content"), [("block", 0), ("crypto", 0), ("overwrite", 0x44)])
def test_a_sanitize_runs_and_ends(method: str, content: int) -> None:
    medium = Memory(bytearray(b"x" * 512 * 64))
    with scsiusb.open_on(Bus(Stick([disk_of(AtaDisk(), medium)]))) as disk:
        before = read_sanitize(disk.unit)
        assert (before.methods, before.running, before.completed) == (("crypto", "overwrite", "block"), False, False)
        pattern = b"\x11\x22\x33\x44"
        begun = begin_sanitize(disk.unit, method, pattern=pattern)
        assert (begun.running, begun.percent) == (True, 50.0)
        after = read_sanitize(disk.unit)
        assert (after.running, after.completed, after.percent) == (False, True, None)
    assert bytes(medium.data) == bytes((content,)) * 512 * 64


def test_what_a_disk_cannot_sanitize_now_is_not_begun() -> None:
    frozen = AtaDisk()
    frozen.sanitizer.is_frozen = True
    with scsiusb.open_on(Bus(Stick([disk_of(frozen)]))) as disk:
        with pytest.raises(DeviceUnsupported, match="frozen"):
            begin_sanitize(disk.unit, "block")
        with pytest.raises(ValueError, match="no method"):
            begin_sanitize(disk.unit, "hammer")
        with pytest.raises(ValueError, match="17 passes"):
            begin_sanitize(disk.unit, "overwrite", passes=17)
        assert disk.read(0, 1) == b"x" * 512


def test_sense_data_of_more_than_18_bytes_are_asked_for_whole() -> None:
    """A bridge that returns registers in descriptor format has 22 bytes: the status is the last one."""
    with scsiusb.open_on(Bus(Stick([disk_of(AtaDisk(describes=True))]))) as disk:
        assert power_mode(disk.unit) == "active or idle"
        assert disk.unit.attentions.has_long_sense
        assert Ata(disk.unit).registers(0xE0) is not None
    with scsiusb.open_on(Bus(Stick([disk_of(AtaDisk(describes=True))]))) as disk:
        assert Ata(disk.unit).registers(0xE0) is None, "not sent twice: it changes something"


@pytest.mark.parametrize(("used", "verdict", "left"), [(3, "good", 97), (95, "worn", 5), (120, "worn", 0)])
def test_the_wear_of_an_ssd_whose_attributes_do_not_say_it_is_in_its_statistics(
    used: int, verdict: str, left: int
) -> None:
    ata = AtaDisk()
    ata.attributes = tuple(row for row in ata.attributes if row[0] != 177)
    ata.percent_used = used
    with scsiusb.open_on(Bus(Stick([disk_of(ata)]))) as disk:
        smart = read_smart(disk.unit)
    assert judge(smart).verdict == verdict
    assert figures(smart).life_left == left


def test_an_ssd_whose_attributes_say_its_wear_is_not_asked_for_logs() -> None:
    unit = disk_of(AtaDisk())
    sent: list[bytes] = []
    before = unit.execute
    unit.execute = lambda cdb: sent.append(bytes(cdb)) or before(cdb)  # type: ignore[method-assign, func-returns-value]
    with scsiusb.open_on(Bus(Stick([unit]))) as disk:
        assert figures(read_smart(disk.unit)).life_left == 97
    assert not [cdb for cdb in sent if cdb[0] == 0x85 and cdb[14] == 0x2F]
