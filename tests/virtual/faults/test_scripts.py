"""The faults that do not belong to a phase, as a host sees them, and which fault of a script applies when."""

from __future__ import annotations

import struct
import threading
import time

import pytest

from scsiusb.usb.backend import Code, UsbError
from scsiusb.virtual import KINDS, Fault, Stick
from scsiusb.virtual.faults.faults import Scope
from tests.virtual.faults.faulty import (
    BLOCKS,
    CAPACITY_10,
    CAPACITY_16,
    INQUIRY_36,
    NEW,
    READ_2,
    SOON,
    TEST_UNIT_READY,
    WRITE_2,
    check_recovered,
    class_reset,
    covers,
    make,
    refused,
    reset_recovery,
    stored,
)
from tests.virtual.host import IN, Host, cbw, cdb10

# --- the thirteen cases --------------------------------------------------------------------------


@covers("case")
@pytest.mark.parametrize(
    ("case", "cdb", "length", "flags", "code", "moved", "status", "residue"),
    [
        (1, TEST_UNIT_READY, 0, 0, Code.OK, 0, 0, 0),
        (2, TEST_UNIT_READY, 0, 0, Code.OK, 0, 2, 0),
        (3, TEST_UNIT_READY, 0, 0, Code.OK, 0, 2, 0),
        (4, READ_2, 1024, 0x80, Code.PIPE, 0, 0, 1024),
        (5, READ_2, 1024, 0x80, Code.PIPE, 512, 0, 512),
        (6, READ_2, 1024, 0x80, Code.OK, 1024, 0, 0),
        (7, READ_2, 1024, 0x80, Code.OK, 1024, 2, 0),
        (8, READ_2, 1024, 0x80, Code.PIPE, 0, 2, 1024),
        (9, WRITE_2, 1024, 0, Code.PIPE, 0, 0, 1024),
        (10, WRITE_2, 1024, 0, Code.PIPE, 0, 2, 1024),
        (11, WRITE_2, 1024, 0, Code.PIPE, 512, 0, 512),
        (12, WRITE_2, 1024, 0, Code.OK, 1024, 0, 0),
        (13, WRITE_2, 1024, 0, Code.PIPE, 0, 2, 1024),
    ],
)
def test_the_device_behaves_as_in_one_of_the_thirteen_cases(
    case: int, cdb: bytes, length: int, flags: int, code: Code, moved: int, status: int, residue: int
) -> None:
    host = make(f"case={case}")
    result = host.do(cdb, length) if flags or not length else host.do(cdb, out=NEW)
    assert (result.code, result.moved, result.status, result.residue) == (code, moved, status, residue)
    assert result.data == (BLOCKS[:moved] if flags else b"")
    written = moved if cdb is WRITE_2 else 0
    assert stored(host) == NEW[:written] + BLOCKS[written:]
    check_recovered(host)


def test_a_device_with_more_data_than_the_command_has_pads_with_zeros() -> None:
    host = make("case=7")
    result = host.do(INQUIRY_36, 255)
    assert (result.code, len(result.data), result.data[36:], result.status) == (Code.OK, 255, bytes(219), 2)


@covers("rushed")
def test_a_host_that_continues_too_soon_gets_a_phase_error() -> None:
    host = make("rushed=20000000,times=3")
    result = host.do(READ_2, 1024)
    assert (result.code, result.data, result.status) == (Code.PIPE, b"", 2)
    result = host.do(WRITE_2, out=NEW)
    assert (result.code, result.moved, result.status) == (Code.PIPE, 0, 2)
    assert stored(host) == BLOCKS
    assert host.do(TEST_UNIT_READY).status == 2
    check_recovered(host)


def test_a_host_that_waits_long_enough_gets_no_phase_error() -> None:
    host = make("rushed=1000")
    for cdb, length in ((READ_2, 1024), (TEST_UNIT_READY, 0)):
        host.command(cdb, length)
        time.sleep(0.002)
        if length:
            assert host.read(length) == (Code.OK, BLOCKS)
        assert host.csw() == (0, 0)


# --- units ---------------------------------------------------------------------------------------


@covers("eject")
def test_the_medium_is_ejected_before_the_command() -> None:
    host = make("eject,command=2")
    assert host.data(READ_2, 1024) == BLOCKS
    assert host.fails(READ_2, 1024) == (2, 0x3A, 0)
    host.ok(bytes((0x1B, 0, 0, 0, 3, 0)))
    assert host.fails(TEST_UNIT_READY) == (6, 0x28, 0)


@covers("attentions")
def test_several_unit_attentions_follow_each_other() -> None:
    host = make("attentions=4")
    for _ in range(4):
        assert host.fails(READ_2, 1024) == (6, 0x29, 0)
    check_recovered(host)


@covers("becoming-ready")
def test_the_unit_becomes_ready_after_some_commands() -> None:
    host = make("becoming-ready=2")
    assert len(host.data(INQUIRY_36, 36)) == 36
    for _ in range(2):
        assert host.fails(READ_2, 1024) == (2, 4, 1)
    check_recovered(host)


@covers("inquiry")
@pytest.mark.parametrize("length", [0, 1, 4, 5, 35, 36, 37, 96, 255])
def test_inquiry_data_have_the_given_length(length: int) -> None:
    host = make(f"inquiry={length}")
    whole = make().data(INQUIRY_36, 36)
    data = host.do(bytes((0x12, 0, 0, 0, 255, 0)), 255).data
    assert len(data) == length
    expected = bytearray(whole.ljust(length, b"\0")[:length])
    if length > 4:
        expected[4] = length - 5
    assert data == expected
    assert len(host.do(INQUIRY_36, 36).data) == min(length, 36)
    assert host.do(bytes((0x12, 1, 0x80, 0, 255, 0)), 255).data[1] == 0x80


@covers("inquiry-garbage")
def test_inquiry_data_are_random_bytes() -> None:
    data = make("inquiry-garbage").data(INQUIRY_36, 36)
    assert len(data) == 36
    assert data[8:16] != b"scsiusb "


@covers("capacity", "blocks", "block-size")
@pytest.mark.parametrize(
    ("fault", "last_10", "last_16", "size"),
    [
        ("capacity=+1", 130, 130, 512),
        ("capacity=-1", 128, 128, 512),
        ("capacity=-130", 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 512),
        ("blocks=0", 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 512),
        ("blocks=1", 0, 0, 512),
        ("blocks=0x200000000", 0xFFFFFFFF, 0x1FFFFFFFF, 512),
        ("block-size=0", 129, 129, 0),
        ("block-size=3", 129, 129, 3),
        ("block-size=0xFFFFFFFF", 129, 129, 0xFFFFFFFF),
    ],
)
def test_the_capacity_is_wrong(fault: str, last_10: int, last_16: int, size: int) -> None:
    host = make(fault)
    assert host.data(CAPACITY_10, 8) == struct.pack(">II", last_10, size)
    assert host.data(CAPACITY_16, 32)[:12] == struct.pack(">QI", last_16, size)
    check_recovered(host)


@covers("write-protected")
def test_the_medium_is_write_protected() -> None:
    host = make("write-protected")
    assert host.fails(WRITE_2, out=NEW) == (7, 0x27, 0)
    assert host.data(bytes((0x1A, 0, 0x3F, 0, 4, 0)), 4)[2] & 0x80
    assert host.data(READ_2, 1024) == BLOCKS
    host.stick.faults.clear()
    check_recovered(host)


# --- requests ------------------------------------------------------------------------------------


@covers("halt-stays")
def test_a_halt_remains_when_it_is_cleared_n_times() -> None:
    host = make("stall@csw", "halt-stays=2")
    host.command(TEST_UNIT_READY)
    for _ in range(3):
        assert host.read(13) == (Code.PIPE, b"")
        host.handle.clear_halt(IN)
    assert host.csw() == (0, 0)


def test_a_halt_remains_until_a_port_reset() -> None:
    host = make("stall@cbw", "halt-stays")
    packet = cbw(1, 0, 0, 0, TEST_UNIT_READY)
    for _ in range(3):
        assert host.write(packet) == (Code.PIPE, 0)
        reset_recovery(host)
    host.handle.reset()
    host.sense()
    check_recovered(host)


@covers("reset-stalls", "reset-hangs", "reset-ignored")
@pytest.mark.parametrize(
    ("fault", "code"), [("reset-stalls", Code.PIPE), ("reset-hangs", Code.TIMEOUT), ("reset-ignored", None)]
)
def test_only_a_port_reset_helps_where_the_class_reset_does_not(fault: str, code: Code | None) -> None:
    host = make("nak@data", fault)
    host.command(READ_2, 1024)
    if code is None:
        class_reset(host)
    else:
        refused(code, class_reset, host)
    assert host.read(1024, SOON) == (Code.TIMEOUT, b"")
    host.handle.reset()
    host.sense()
    check_recovered(host)


def get_max_lun(host: Host) -> bytes:
    return host.handle.control_in(0xA1, 0xFE, 0, 0, 1, SOON)


@covers("max-lun-stalls", "max-lun", "max-lun-hangs")
def test_get_max_lun_stalls_or_is_wrong_or_hangs() -> None:
    host = make("max-lun-stalls,times=1", "max-lun=255,times=1", "max-lun-hangs,times=1")
    refused(Code.PIPE, get_max_lun, host)
    assert get_max_lun(host) == b"\xff"
    refused(Code.TIMEOUT, get_max_lun, host)
    assert get_max_lun(host) == b"\x00"


def test_a_request_that_hangs_ends_when_the_device_is_unplugged() -> None:
    host = make("max-lun-hangs")
    thread = threading.Timer(0.02, host.bus.unplug, [host.stick])
    thread.start()
    with pytest.raises(UsbError) as caught:
        host.handle.control_in(0xA1, 0xFE, 0, 0, 1, 20_000)
    assert caught.value.code is Code.NO_DEVICE
    thread.join()


# --- the script ----------------------------------------------------------------------------------


def applied_to(fault: str, *cdbs: tuple[bytes, int]) -> list[int]:
    """Return the numbers of the commands that the fault is applied to."""
    host = make(fault)
    for cdb, length in cdbs:
        host.do(cdb, length)
    return [number for number, _ in host.stick.faults.fired]


MIX = [(TEST_UNIT_READY, 0), (READ_2, 1024), (INQUIRY_36, 36), (cdb10(0x28, 8, 4), 2048), (cdb10(0x28, 3, 1), 512)]


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [
        ("", [1]),
        (",times=2", [1, 2]),
        (",times=always", [1, 2, 3, 4, 5]),
        (",command=3", [3]),
        (",opcode=28", [2]),
        (",opcode=28,times=2", [2, 4]),
        (",lba=1,times=always", [2]),
        (",lba=2,times=always", []),
        (",lba=2-8,times=always", [4, 5]),
        (",lun=1", []),
        (",lun=0", [1]),
        (",over=36", [2]),
        (",over=1024", [4]),
        (",cdb=28..000000.8", [4]),
        (",cdb=12,command=2", []),
        (",cdb=12,command=3", [3]),
        (",by=bot,command=3", [3]),
        (",by=uas", []),
    ],
)
def test_a_fault_applies_to_commands_that_fulfil_all_its_conditions(conditions: str, numbers: list[int]) -> None:
    assert applied_to("bogus-residue" + conditions, *MIX) == numbers


def test_a_fault_of_the_data_phase_applies_to_the_next_command_with_data() -> None:
    assert applied_to("short=1024@data", *MIX) == [2]


@pytest.mark.parametrize(
    ("cdb", "applies"),
    [
        ("08 000003 02 00", True),
        ("0a 000005 01 00", False),
        ("2a 00 00000004 00 0001 00", True),
        ("2f 00 00000000 00 0004 00", False),
        ("a8 00 00000004 00000001 00 00", True),
        ("88 00 0000000000000000 00000005 00 00", True),
        ("8f 00 0000000000000005 00000005 00 00", False),
        ("28 00 0000", False),
    ],
)
def test_the_condition_lba_works_for_cdbs_of_each_length(cdb: str, applies: bool) -> None:
    host = make("stall@cbw,lba=4")
    code, _ = host.write(cbw(1, 0, 0, 0, bytes.fromhex(cdb)))
    assert (code is Code.PIPE) is applies


def test_several_faults_apply_to_one_command() -> None:
    host = make("short=512", "bogus-residue", "status=1", "stall@csw")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.OK, BLOCKS[:512])
    assert host.read(13) == (Code.PIPE, b"")
    assert host.csw() == (1, 1024)
    assert [str(fault) for _, fault in host.stick.faults.fired] == [
        "short=512@data",
        "bogus-residue",
        "status=1",
        "stall@csw",
    ]
    check_recovered(host)


def test_the_script_can_be_changed_while_the_stick_is_in_use() -> None:
    stick = Stick.formatted(faults=[Fault("phase-error", times=2)])
    host = Host(stick, attentions=True)
    assert host.do(INQUIRY_36, 36).status == 2
    stick.faults.clear()
    assert host.do(INQUIRY_36, 36).status == 0
    assert stick.faults.add("status=3,command=3") == Fault("status", 3, command=3)
    assert host.do(INQUIRY_36, 36).status == 3
    assert host.do(INQUIRY_36, 36).status == 0
    assert stick.faults.fired == [(1, Fault("phase-error", times=2)), (3, Fault("status", 3, command=3))]


def test_a_port_reset_does_not_restart_the_count_of_commands() -> None:
    host = make("phase-error,command=2")
    host.ok(TEST_UNIT_READY)
    host.handle.reset()
    assert host.do(INQUIRY_36, 36).status == 2


def test_every_kind_has_a_description_and_a_syntax() -> None:
    for kind in KINDS.values():
        assert kind.about
        assert kind.usage.startswith(kind.name)
        assert kind.scope in Scope
