"""The commands that all units support, byte by byte (SPC-4, MMC-6)."""

from __future__ import annotations

import struct

import pytest

from scsiusb.usb.backend import Code
from scsiusb.virtual import Identity, Memory, Sparse, Stick, Unit
from tests.virtual.host import Host, cdb10

TEST_UNIT_READY = bytes(6)
EJECT = bytes((0x1B, 0, 0, 0, 0x02, 0))
LOAD = bytes((0x1B, 0, 0, 0, 0x03, 0))
STOP = bytes((0x1B, 0, 0, 0, 0x00, 0))
START = bytes((0x1B, 0, 0, 0, 0x01, 0))
PREVENT = bytes((0x1E, 0, 0, 0, 1, 0))
ALLOW = bytes(6).replace(b"\0", b"\x1e", 1)
NO_MEDIUM = (0x2, 0x3A, 0x00)
INVALID_FIELD = (0x5, 0x24, 0x00)
POWER_ON = (0x6, 0x29, 0x00)
MEDIUM_CHANGED = (0x6, 0x28, 0x00)


def unit_host(unit: Unit | None = None, attentions: bool = False) -> Host:
    return Host(Stick([unit or Unit(Memory(1 << 16))]), attentions=attentions)


def inquiry(length: int = 36, page: int | None = None) -> bytes:
    return struct.pack(">BBBHB", 0x12, page is not None, page or 0, length, 0)


def report_luns(length: int, select: int = 0) -> bytes:
    return struct.pack(">BxB3xIxx", 0xA0, select, length)


# --- INQUIRY ------------------------------------------------------------------------------------


def test_standard_inquiry_data() -> None:
    expected = bytes.fromhex("00 80 06 02 1f 00 00 00") + b"scsiusb Virtual Stick   1.00"
    assert unit_host().data(inquiry(), 36) == expected


def test_standard_inquiry_data_of_a_fixed_disk_with_its_own_names() -> None:
    unit = Unit(Memory(512), removable=False, vendor="ACME", product="A name that is too long", revision="é", version=2)
    expected = bytes.fromhex("00 00 02 02 1f 00 00 00") + b"ACME    A name that is t?   "
    assert unit_host(unit).data(inquiry(), 36) == expected


@pytest.mark.parametrize("length", [0, 1, 5, 36, 255, 0x1234])
def test_inquiry_returns_at_most_the_allocation_length(length: int) -> None:
    result = unit_host().do(inquiry(length), length)
    assert (len(result.data), result.status) == (min(length, 36), 0)


def test_vital_product_data() -> None:
    host = unit_host(Unit(Memory(512), serial="S123", maximum_transfer=64))
    assert host.data(inquiry(255, 0x00), 8) == bytes.fromhex("00 00 0004 00 80 83 b0")
    assert host.data(inquiry(255, 0x80), 8) == bytes.fromhex("00 80 0004") + b"S123"
    designator = b"scsiusb Virtual Stick   S123"
    assert host.data(inquiry(255, 0x83), 36) == bytes.fromhex("00 83 0020 02 01 00 1c") + designator
    limits = host.data(inquiry(255, 0xB0), 64)
    assert limits == bytes.fromhex("00 b0 003c 0080 0000 00000040") + bytes(24) + bytes.fromhex(
        "0000000000010000 00000100"
    ) + bytes(16)


def test_a_unit_without_a_serial_number_uses_that_of_its_stick() -> None:
    host = unit_host(Unit(Memory(512)))
    serial = (Identity().serial or "").encode()
    assert host.data(inquiry(255, 0x80), 4 + len(serial))[4:] == serial
    assert host.data(inquiry(255, 0x83), 8 + 24 + len(serial)).endswith(serial)


def test_a_cd_rom_has_no_block_limits_page() -> None:
    host = unit_host(Unit.cd_rom())
    assert host.data(inquiry(255, 0x00), 7) == bytes.fromhex("05 00 0003 00 80 83")
    assert host.fails(inquiry(255, 0xB0), 64) == INVALID_FIELD


@pytest.mark.parametrize("cdb", [inquiry(36, 0x7F), bytes((0x12, 0, 0x80, 0, 36, 0)), bytes((0x12, 2, 0, 0, 36, 0))])
def test_inquiry_refuses_pages_it_does_not_have(cdb: bytes) -> None:
    assert unit_host().fails(cdb, 36) == INVALID_FIELD


# --- REQUEST SENSE and unit attention -----------------------------------------------------------


def test_sense_is_reported_once_in_fixed_format() -> None:
    host = unit_host()
    host.do(b"\xff\0\0\0\0\0")
    expected = bytes.fromhex("70 00 05 00000000 0a 00000000 20 00 00 0000 00")
    assert host.data(bytes((0x03, 0, 0, 0, 18, 0)), 18) == expected
    assert host.sense() == (0, 0, 0)


def test_sense_in_descriptor_format() -> None:
    host = unit_host()
    host.do(b"\xff\0\0\0\0\0")
    assert host.data(bytes((0x03, 1, 0, 0, 252, 0)), 8) == bytes.fromhex("72 05 20 00 00 00 00 00")


def test_sense_in_descriptor_format_carries_the_information_as_a_descriptor() -> None:
    host = unit_host()
    host.do(cdb10(0x2F, 3, 1, 0x02), out=b"\1" * 512)
    expected = bytes.fromhex("72 0e 1d 00 00 00 00 0c 00 0a 80 00 0000000000000003")
    assert host.data(bytes((0x03, 1, 0, 0, 252, 0)), 20) == expected


def test_sense_is_kept_only_until_the_next_command() -> None:
    host = unit_host()
    assert host.do(b"\xff\0\0\0\0\0").status == 1
    host.ok(TEST_UNIT_READY)
    assert host.sense() == (0, 0, 0)


@pytest.mark.parametrize("length", [0, 4, 18])
def test_request_sense_returns_at_most_the_allocation_length(length: int) -> None:
    result = unit_host().do(bytes((0x03, 0, 0, 0, length, 0)), length)
    assert (len(result.data), result.status) == (length, 0)


def test_power_on_is_a_unit_attention_reported_by_one_command() -> None:
    host = unit_host(attentions=True)
    assert host.fails(TEST_UNIT_READY) == POWER_ON
    host.ok(TEST_UNIT_READY)


def test_inquiry_and_report_luns_leave_the_unit_attention_pending() -> None:
    host = unit_host(attentions=True)
    assert host.data(inquiry(), 36)
    assert host.data(report_luns(16), 16)
    assert host.fails(TEST_UNIT_READY) == POWER_ON


def test_request_sense_reports_a_pending_unit_attention_and_clears_it() -> None:
    host = unit_host(attentions=True)
    assert host.sense() == POWER_ON
    host.ok(TEST_UNIT_READY)


def test_a_changed_medium_is_a_unit_attention_after_that_of_power_on() -> None:
    unit = Unit()
    host = unit_host(unit, attentions=True)
    unit.insert(Memory(512))
    unit.insert(Memory(1024))
    assert host.fails(TEST_UNIT_READY) == POWER_ON
    assert host.fails(TEST_UNIT_READY) == MEDIUM_CHANGED
    assert host.data(cdb10(0x25, 0, 0), 8) == struct.pack(">II", 1, 512)


# --- TEST UNIT READY ----------------------------------------------------------------------------


def test_a_unit_that_is_becoming_ready_says_so_for_the_first_commands() -> None:
    host = unit_host(Unit(Memory(512), becoming_ready=2))
    assert host.fails(TEST_UNIT_READY) == (0x2, 0x04, 0x01)
    assert host.fails(cdb10(0x28, 0, 1), 512) == (0x2, 0x04, 0x01)
    host.ok(TEST_UNIT_READY)


@pytest.mark.parametrize(
    ("cdb", "length"), [(TEST_UNIT_READY, 0), (cdb10(0x25, 0, 0), 8), (cdb10(0x28, 0, 1), 512), (cdb10(0x35, 0, 0), 0)]
)
def test_without_a_medium(cdb: bytes, length: int) -> None:
    assert unit_host(Unit()).fails(cdb, length) == NO_MEDIUM


def test_a_medium_that_was_pulled_out_is_gone() -> None:
    unit = Unit(Memory(512))
    host = unit_host(unit)
    host.ok(PREVENT)
    assert isinstance(unit.remove(), Memory)
    assert host.fails(TEST_UNIT_READY) == NO_MEDIUM


# --- START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL ----------------------------------------------


def test_eject_and_load() -> None:
    host = unit_host()
    host.ok(EJECT)
    assert host.fails(TEST_UNIT_READY) == NO_MEDIUM
    host.ok(EJECT)
    host.ok(LOAD)
    assert host.fails(TEST_UNIT_READY) == MEDIUM_CHANGED
    host.ok(TEST_UNIT_READY)


def test_an_ejected_medium_can_be_taken_out() -> None:
    medium = Memory(512)
    unit = Unit(medium)
    host = unit_host(unit)
    host.ok(EJECT)
    assert unit.remove() is medium
    assert host.fails(LOAD) == NO_MEDIUM


def test_prevent_blocks_eject() -> None:
    host = unit_host()
    host.ok(PREVENT)
    assert host.fails(EJECT) == (0x5, 0x53, 0x02)
    host.ok(ALLOW)
    host.ok(EJECT)


def test_a_reset_ends_the_prevention() -> None:
    host = unit_host()
    host.ok(PREVENT)
    host.handle.reset()
    assert host.sense() == POWER_ON
    host.ok(EJECT)


def test_a_stopped_unit_needs_a_start() -> None:
    host = unit_host()
    host.ok(STOP)
    assert host.fails(TEST_UNIT_READY) == (0x2, 0x04, 0x02)
    host.ok(START)
    host.ok(TEST_UNIT_READY)


def test_power_conditions_are_accepted_and_reserved_ones_refused() -> None:
    host = unit_host()
    host.ok(bytes((0x1B, 0, 0, 0, 0x30, 0)))
    host.ok(TEST_UNIT_READY)
    assert host.fails(bytes((0x1B, 0, 0, 0, 0x40, 0))) == INVALID_FIELD


def test_a_fixed_disk_cannot_be_ejected() -> None:
    assert unit_host(Unit(Memory(512), removable=False)).fails(EJECT) == INVALID_FIELD


def test_reserved_values_of_prevent_are_refused() -> None:
    assert unit_host().fails(bytes((0x1E, 0, 0, 0, 2, 0))) == INVALID_FIELD


# --- MODE SENSE ---------------------------------------------------------------------------------

ERROR_RECOVERY = bytes.fromhex("010a c003000000000300 0000")
CACHING = bytes.fromhex("8812 04 0000000000000000000000000000000000")
CONTROL = bytes.fromhex("8a0a") + bytes(10)


def mode_6(page: int, flags: int = 0, length: int = 192, subpage: int = 0) -> bytes:
    return bytes((0x1A, flags, page, subpage, length, 0))


def mode_10(page: int, flags: int = 0, length: int = 192) -> bytes:
    return struct.pack(">BBBxxxxHB", 0x5A, flags, page, length, 0)


def test_mode_sense_6_returns_all_pages_after_a_block_descriptor() -> None:
    expected = bytes.fromhex("37 00 10 08 00000080 00000200") + ERROR_RECOVERY + CACHING + CONTROL
    assert unit_host().data(mode_6(0x3F), 56) == expected
    assert unit_host().data(mode_6(0x3F, subpage=0xFF), 56) == expected


def test_mode_sense_without_block_descriptor_and_with_write_protection() -> None:
    host = unit_host(Unit(Memory(512), write_protected=True))
    assert host.data(mode_6(0x08, 0x08), 24) == bytes.fromhex("17 00 90 00") + CACHING
    assert host.data(mode_10(0x08, 0x08), 28) == bytes.fromhex("001a 00 90 00 00 0000") + CACHING


def test_mode_sense_10_with_short_and_long_block_descriptor() -> None:
    host = unit_host(Unit(Sparse(1 << 33, 4096)))
    short = bytes.fromhex("001a 00 10 00 00 0008 ffffffff 00001000") + ERROR_RECOVERY
    assert host.data(mode_10(0x01), 28) == short
    long = bytes.fromhex("0022 00 10 01 00 0010 0000000200000000 00000000 00001000") + ERROR_RECOVERY
    assert host.data(mode_10(0x01, 0x10), 36) == long


def test_mode_sense_needs_no_medium() -> None:
    assert unit_host(Unit()).data(mode_6(0x01), 24) == bytes.fromhex("17 00 10 08") + bytes(8) + ERROR_RECOVERY


def test_mode_sense_of_a_cd_rom_has_no_block_descriptor() -> None:
    host = unit_host(Unit.cd_rom(Memory(4096, 2048)))
    assert host.data(mode_6(0x01), 16) == bytes.fromhex("0f 00 00 00") + ERROR_RECOVERY


def test_only_some_bits_are_changeable() -> None:
    host = unit_host()
    assert host.data(mode_6(0x40 | 0x08, 0x08), 24) == bytes.fromhex("17 00 10 00 88 12 04") + bytes(17)
    assert host.data(mode_6(0x40 | 0x01, 0x08), 16) == bytes.fromhex("0f 00 10 00 01 0a") + bytes(10)


def select(host: Host, page: bytes, save: bool = False) -> object:
    return host.do(bytes((0x15, 0x10 | save, 0, 0, 4 + len(page), 0)), out=bytes(4) + page).status


def test_mode_select_changes_and_saves() -> None:
    unit = Unit(Memory(512 * 8))
    host = unit_host(unit)
    off = bytes((0x08, 0x12)) + bytes(18)
    assert select(host, off) == 0
    assert host.data(mode_6(0x08, 0x08), 24)[4:] == bytes((0x88, *off[1:]))
    assert host.data(mode_6(0x80 | 0x08, 0x08), 24)[4:] == CACHING, "the default"
    assert host.data(mode_6(0xC0 | 0x08, 0x08), 24)[4:] == CACHING, "the saved one"
    assert not unit.modes.has_write_cache
    unit.power_on()
    assert unit.modes.has_write_cache
    host.do(TEST_UNIT_READY)
    assert select(host, off, save=True) == 0
    unit.power_on()
    assert not unit.modes.has_write_cache


@pytest.mark.parametrize(
    ("page", "sense"),
    [
        (bytes((0x08, 0x12, 0x05)) + bytes(17), (5, 0x26, 0)),  # RCD cannot be changed
        (bytes((0x88, 0x12)) + bytes(18), (5, 0x26, 0)),  # PS is reserved here
        (bytes((0x08, 0x10)) + bytes(16), (5, 0x26, 0)),
        (bytes((0x08, 0x12)) + bytes(10), (5, 0x1A, 0)),
        (bytes((0x02, 0x0E)) + bytes(14), (5, 0x26, 0)),
        (b"\x08", (5, 0x1A, 0)),
    ],
)
def test_a_wrong_mode_select_is_refused_and_changes_nothing(page: bytes, sense: tuple[int, int, int]) -> None:
    unit = Unit(Memory(512 * 8))
    host = unit_host(unit)
    before = unit.modes.sense(0x3F, 0, 0)
    off = bytes((0x08, 0x12)) + bytes(18)
    assert select(host, off + page) == 1
    assert host.sense()[:3] == sense
    assert unit.modes.sense(0x3F, 0, 0) == before


def test_a_unit_that_the_host_write_protects() -> None:
    host = unit_host(Unit(Memory(512 * 8)))
    page = bytes((0x0A, 0x0A, 0, 0, 0x08)) + bytes(7)
    assert host.do(bytes((0x55, 0x10, 0, 0, 0, 0, 0, 0, 20, 0)), out=bytes(8) + page).status == 0
    assert host.data(mode_6(0x08, 0x08), 24)[2] == 0x90
    assert host.do(bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0)), out=bytes(512)).status == 1
    assert host.sense()[:3] == (7, 0x27, 0)


@pytest.mark.parametrize("cdb", [mode_6(0x02), mode_6(0x08, subpage=1), mode_6(0x08, subpage=0xFF)])
def test_mode_pages_that_do_not_exist_are_refused(cdb: bytes) -> None:
    assert unit_host().fails(cdb, 192) == INVALID_FIELD


@pytest.mark.parametrize("length", [0, 4, 192])
def test_mode_sense_returns_at_most_the_allocation_length(length: int) -> None:
    assert len(unit_host().do(mode_6(0x3F, 0, length), length).data) == min(length, 56)


# --- REPORT LUNS and units that do not exist ----------------------------------------------------


@pytest.fixture
def three() -> Host:
    return Host(Stick([Unit(Memory(512)), Unit(), Unit.cd_rom()]))


def test_report_luns(three: Host) -> None:
    expected = bytes.fromhex("00000018 00000000 0000000000000000 0001000000000000 0002000000000000")
    assert three.data(report_luns(256), 32) == expected
    assert three.data(report_luns(256, 2), 32, lun=1) == expected
    assert three.data(report_luns(16), 16) == expected[:16]
    assert three.data(report_luns(16, 1), 8) == bytes(8)
    assert three.do(report_luns(0)).status == 0
    assert three.fails(report_luns(16, 3), 16) == INVALID_FIELD


def test_each_unit_has_its_own_sense(three: Host) -> None:
    assert three.do(TEST_UNIT_READY, lun=1).status == 1
    three.ok(TEST_UNIT_READY)
    assert three.do(cdb10(0xFF, 0, 0), lun=2).status == 1
    assert three.sense(1) == NO_MEDIUM
    assert three.sense(2) == (0x5, 0x20, 0x00)


def test_a_unit_beyond_the_last(three: Host) -> None:
    assert three.data(inquiry(), 36, lun=3)[:8] == bytes.fromhex("7f 00 06 02 1f 00 00 00")
    assert three.fails(TEST_UNIT_READY, lun=15) == (0x5, 0x25, 0x00)
    assert three.data(bytes((0x03, 1, 0, 0, 252, 0)), 8, lun=3) == bytes.fromhex("72 05 25 00 00 00 00 00")


def test_a_target_has_one_to_sixteen_units() -> None:
    for units in ([], [Unit() for _ in range(17)]):
        with pytest.raises(ValueError, match="logical units"):
            Stick(units)


# --- decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [0x01, 0x18, 0x42, 0x60, 0x99, 0xC0, 0xFF])
def test_an_unknown_operation_code(opcode: int) -> None:
    result = unit_host().do(bytes((opcode,)) + bytes(9), 512)
    assert (result.code, result.status, result.residue) == (Code.PIPE, 1, 512)


def test_a_cdb_that_is_too_short_or_asks_for_aca_is_refused() -> None:
    host = unit_host()
    assert host.fails(b"\x12") == INVALID_FIELD
    assert host.fails(cdb10(0x28, 0, 1)[:9], 512) == INVALID_FIELD
    assert host.fails(bytes((0, 0, 0, 0, 0, 4))) == INVALID_FIELD


def test_a_longer_cdb_is_accepted() -> None:
    unit_host().ok(bytes(12))


def test_a_device_type_without_commands_is_refused() -> None:
    with pytest.raises(ValueError, match="0x01"):
        Unit(device_type=0x01)
