"""The faults of a phase of a command, as a host sees them on the bus."""

from __future__ import annotations

import re
import struct
import threading
import time
from pathlib import Path

import pytest

from scsiusb.usb.backend import Code
from scsiusb.virtual import KINDS, BotOptions, DataIn, Memory, Stick, Unit
from tests.sticks import PATIENCE, wait_until
from tests.virtual.faults.faulty import (
    BLOCKS,
    INQUIRY_36,
    NEW,
    READ_2,
    SOON,
    TEST_UNIT_READY,
    WRITE_2,
    check_recovered,
    class_reset,
    covers,
    good_csw,
    make,
    refused,
    reset_recovery,
    stored,
)
from tests.virtual.host import IN, OUT, Host, cbw, cdb10


def test_each_kind_has_a_test() -> None:
    """The test may be in any file of this directory."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    marks = [mark for source in sources for mark in re.findall(r"^@covers\((.*)\)$", source, re.MULTILINE)]
    assert {name for mark in marks for name in re.findall(r'"(.*?)"', mark)} == set(KINDS)


# --- stall ---------------------------------------------------------------------------------------


@covers("stall")
def test_a_cbw_is_stalled_until_the_halt_is_cleared_and_then_accepted() -> None:
    host = make("stall@cbw")
    packet = cbw(9, 0, 0, 0, TEST_UNIT_READY)
    assert host.write(packet) == (Code.PIPE, 0)
    assert host.write(packet) == (Code.PIPE, 0)
    host.handle.clear_halt(OUT)
    check_recovered(host)


@pytest.mark.parametrize("count", [0, 512, 700, 1023])
def test_data_in_is_stalled_after_n_bytes_with_a_correct_residue(count: int) -> None:
    host = make(f"stall={count}@data")
    host.command(READ_2, 1024)
    code, data = host.read(1024)
    assert data == BLOCKS[:count]
    assert code is (Code.OK if count % 512 else Code.PIPE)
    assert host.csw() == (0, 1024 - count)
    check_recovered(host)


def test_a_stall_after_the_last_byte_of_data_in_stalls_the_csw() -> None:
    host = make("stall=1024")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.OK, BLOCKS)
    assert host.read(13) == (Code.PIPE, b"")
    assert host.csw() == (0, 0)


@pytest.mark.parametrize(("count", "moved"), [(0, 0), (512, 512), (700, 1024)])
def test_data_out_is_stalled_and_the_complete_blocks_before_are_written(count: int, moved: int) -> None:
    host = make(f"stall={count}@data")
    result = host.do(WRITE_2, out=NEW)
    assert (result.moved, result.status, result.residue) == (moved, 0, 1024 - count)
    assert result.code is (Code.PIPE if moved < 1024 else Code.OK)
    whole = count - count % 512
    assert stored(host) == NEW[:whole] + BLOCKS[whole:]
    check_recovered(host)


def test_a_csw_is_stalled_once_and_then_sent() -> None:
    host = make("stall@csw")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.OK, BLOCKS)
    assert host.read(13) == (Code.PIPE, b"")
    assert host.csw() == (0, 0)
    check_recovered(host)


def test_a_csw_is_stalled_again_after_data_that_ended_with_a_stall() -> None:
    host = make("stall@csw")
    host.command(READ_2, 2048)
    assert host.read(2048) == (Code.PIPE, BLOCKS)
    host.handle.clear_halt(IN)
    assert host.read(13) == (Code.PIPE, b"")
    assert host.csw() == (0, 1024)
    check_recovered(host)


# --- silence -------------------------------------------------------------------------------------


@covers("nak")
@pytest.mark.parametrize("is_port_reset", [False, True])
@pytest.mark.parametrize("phase", ["cbw", "data", "csw"])
def test_the_device_is_silent_from_a_phase_until_a_reset(phase: str, is_port_reset: bool) -> None:
    host = make(f"nak@{phase}")
    packet = cbw(7, 1024, 0x80, 0, READ_2)
    taken = 0 if phase == "cbw" else 31
    assert host.write(packet, SOON) == (Code.OK if taken else Code.TIMEOUT, taken)
    if phase != "cbw":
        assert host.read(1024, SOON) == ((Code.OK, BLOCKS) if phase == "csw" else (Code.TIMEOUT, b""))
    assert host.read(13, SOON) == (Code.TIMEOUT, b"")
    assert host.write(packet, SOON) == (Code.TIMEOUT, 0)
    if is_port_reset:
        host.handle.reset()
        host.sense()
    else:
        class_reset(host)
    check_recovered(host)


def test_a_silent_device_does_not_accept_data_out() -> None:
    host = make("nak@data")
    host.command(WRITE_2, 1024, 0)
    assert host.write(NEW, SOON) == (Code.TIMEOUT, 0)
    class_reset(host)
    assert stored(host) == BLOCKS
    check_recovered(host)


def test_the_stall_that_ends_the_data_comes_before_the_silence_of_the_csw() -> None:
    host = make("nak@csw")
    host.command(READ_2, 2048)
    assert host.read(2048) == (Code.PIPE, BLOCKS)
    host.handle.clear_halt(IN)
    assert host.read(13, SOON) == (Code.TIMEOUT, b"")
    class_reset(host)
    check_recovered(host)


def test_a_failed_command_is_silent_too() -> None:
    host = make("nak@data")
    host.command(cdb10(0x28, 0xFFFFFF, 2), 1024)
    assert host.read(1024, SOON) == (Code.TIMEOUT, b"")
    reset_recovery(host)
    check_recovered(host)


@covers("hang")
@pytest.mark.parametrize("phase", ["cbw", "data", "csw"])
def test_the_device_is_silent_until_a_port_reset(phase: str) -> None:
    host = make(f"hang@{phase}")
    packet = cbw(7, 1024, 0x80, 0, READ_2)
    taken = 0 if phase == "cbw" else 31
    assert host.write(packet, SOON) == (Code.OK if taken else Code.TIMEOUT, taken)
    if phase == "csw":
        assert host.read(1024, SOON) == (Code.OK, BLOCKS)
    for _ in range(2):
        refused(Code.TIMEOUT, class_reset, host)
        host.handle.clear_halt(IN)
        assert host.read(13, SOON) == (Code.TIMEOUT, b"")
        assert host.write(packet, SOON) == (Code.TIMEOUT, 0)
    host.handle.reset()
    host.sense()
    check_recovered(host)


@covers("delay")
@pytest.mark.parametrize("phase", ["cbw", "data", "csw"])
def test_a_phase_is_delayed_and_then_the_command_continues(phase: str) -> None:
    host = make(f"delay=0.02@{phase}")
    start = time.monotonic()
    host.tag += 1
    assert host.write(cbw(host.tag, 1024, 0x80, 0, READ_2), 5000) == (Code.OK, 31)
    assert host.read(1024, 5000) == (Code.OK, BLOCKS)
    assert host.read(13, 5000) == (Code.OK, good_csw(host))
    assert time.monotonic() - start >= 0.02
    assert host.stick.faults.commands == 1
    check_recovered(host)


@pytest.mark.slow
def test_a_delay_that_is_longer_than_the_timeout_continues_after_it() -> None:
    host = make("delay=0.5@data")
    host.command(READ_2, 1024)
    assert host.read(1024, SOON) == (Code.TIMEOUT, b"")
    assert host.read(1024, 5000) == (Code.OK, BLOCKS)
    assert host.csw() == (0, 0)


def test_the_class_reset_ends_a_delay() -> None:
    host = make("delay=1000@data")
    host.command(READ_2, 1024)
    assert host.read(1024, SOON) == (Code.TIMEOUT, b"")
    class_reset(host)
    check_recovered(host)


def test_a_cbw_that_is_offered_repeatedly_is_one_command() -> None:
    host = make("nak@cbw,command=1", "stall@cbw,command=2")
    packet = cbw(1, 0, 0, 0, TEST_UNIT_READY)
    assert host.write(packet, 60) == (Code.TIMEOUT, 0)
    assert host.write(packet, SOON) == (Code.TIMEOUT, 0)
    assert host.stick.faults.commands == 1
    class_reset(host)
    assert host.write(packet) == (Code.PIPE, 0)


# --- lengths -------------------------------------------------------------------------------------


@covers("short")
@pytest.mark.parametrize("count", [0, 1, 512, 700])
def test_data_in_ends_early_with_a_short_packet_and_a_correct_residue(count: int) -> None:
    host = make(f"short={count}@data")
    result = host.do(READ_2, 1024)
    assert (result.code, result.data) == (Code.OK, BLOCKS[:count])
    assert (result.status, result.residue) == (0, 1024 - count)
    check_recovered(host)


def test_only_n_bytes_of_data_out_are_used() -> None:
    host = make("short=700@data")
    result = host.do(WRITE_2, out=NEW)
    assert (result.code, result.moved, result.status, result.residue) == (Code.OK, 1024, 0, 324)
    assert stored(host) == NEW[:512] + BLOCKS[512:]


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_csw_is_too_short(count: int) -> None:
    host = make(f"short={count}@csw")
    host.command(TEST_UNIT_READY)
    assert host.read(13) == (Code.OK, good_csw(host)[:count])
    assert host.read(13, SOON) == (Code.TIMEOUT, b"")
    check_recovered(host)


@covers("long")
@pytest.mark.parametrize("cdb", [READ_2, cdb10(0x28, 0, 1), INQUIRY_36])
@pytest.mark.parametrize("extra", [1, 64, 5000])
def test_too_much_data_in_overflows_a_buffer_of_the_requested_length(cdb: bytes, extra: int) -> None:
    host = make(f"long={extra}@data")
    length = 36 if cdb is INQUIRY_36 else 512 * cdb[8]
    host.command(cdb, length)
    code, data = host.read(length)
    assert (code, len(data)) == (Code.OVERFLOW, length)
    assert cdb[0] != 0x28 or data == BLOCKS[:length]
    assert host.csw() == (0, 0)
    check_recovered(host)


def test_too_much_data_in_fits_a_larger_buffer() -> None:
    host = make("long=10@data")
    host.command(INQUIRY_36, 36)
    code, data = host.read(512)
    assert (code, len(data)) == (Code.OK, 46)
    assert host.csw() == (0, 0)


def test_a_write_waits_for_more_data_than_announced() -> None:
    host = make("long=512@data")
    host.command(WRITE_2, 1024, 0)
    assert host.write(NEW) == (Code.OK, 1024)
    assert host.read(13, SOON) == (Code.TIMEOUT, b"")
    class_reset(host)
    assert stored(host) == NEW
    check_recovered(host)


def test_a_csw_is_too_long() -> None:
    host = make("long=3@csw,times=2")
    host.command(TEST_UNIT_READY)
    assert host.read(13) == (Code.OVERFLOW, good_csw(host))
    host.command(TEST_UNIT_READY)
    assert host.read(512) == (Code.OK, good_csw(host) + b"\xee" * 3)
    check_recovered(host)


@covers("empty")
def test_an_empty_packet_replaces_the_data() -> None:
    host = make("empty@data", "empty@data,command=2")
    result = host.do(READ_2, 1024)
    assert (result.code, result.data, result.status, result.residue) == (Code.OK, b"", 0, 1024)
    result = host.do(WRITE_2, out=NEW)
    assert (result.code, result.status, result.residue) == (Code.OK, 0, 1024)
    assert stored(host) == BLOCKS


@pytest.mark.parametrize("data_in", [DataIn.STALL, DataIn.SHORT])
def test_an_empty_packet_comes_before_the_csw(data_in: DataIn) -> None:
    host = make("empty@csw", bot_options=BotOptions(data_in))
    host.command(READ_2, 2048)
    assert host.read(2048) == (Code.PIPE if data_in is DataIn.STALL else Code.OK, BLOCKS)
    host.handle.clear_halt(IN)
    assert host.read(13) == (Code.OK, b"")
    assert host.csw() == (0, 1024)
    check_recovered(host)


@covers("extra")
def test_extra_bytes_come_after_the_csw() -> None:
    host = make("extra=5@csw", "extra=600,command=2")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.OK, BLOCKS)
    assert host.csw() == (0, 0)
    host.command(TEST_UNIT_READY)
    assert host.read(13) == (Code.OK, b"\xee" * 5)
    assert host.csw() == (0, 0)
    assert host.read(13) == (Code.OVERFLOW, b"\xee" * 13)
    assert host.read(512) == (Code.OK, b"\xee" * 88)
    check_recovered(host)


def test_the_class_reset_drops_the_bytes_after_the_csw() -> None:
    host = make("extra")
    host.ok(TEST_UNIT_READY)
    class_reset(host)
    check_recovered(host)


@covers("csw-as-data")
def test_the_csw_replaces_the_data_and_nothing_follows() -> None:
    host = make("csw-as-data")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.OK, good_csw(host, 1024))
    assert host.read(13, SOON) == (Code.TIMEOUT, b"")
    check_recovered(host)


def test_data_out_is_not_accepted_when_the_csw_replaces_it() -> None:
    host = make("csw-as-data")
    host.command(WRITE_2, 1024, 0)
    assert host.write(NEW, SOON) == (Code.TIMEOUT, 0)
    assert host.csw() == (0, 1024)
    assert stored(host) == BLOCKS
    check_recovered(host)


# --- the CSW's fields ----------------------------------------------------------------------------


@covers("signature", "tag", "residue", "bogus-residue", "phase-error", "status")
@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        ("signature", (b"USBU", 1, 0, 0)),
        ("signature=0102030a", (b"\x01\x02\x03\x0a", 1, 0, 0)),
        ("tag", (b"USBS", 0, 0, 0)),
        ("tag=0xFFFFFFFF", (b"USBS", 0xFFFFFFFF, 0, 0)),
        ("residue=1025", (b"USBS", 1, 1025, 0)),
        ("residue=4294967295", (b"USBS", 1, 0xFFFFFFFF, 0)),
        ("bogus-residue", (b"USBS", 1, 1024, 0)),
        ("phase-error", (b"USBS", 1, 0, 2)),
        ("status=0", (b"USBS", 1, 0, 0)),
        ("status=255@csw", (b"USBS", 1, 0, 255)),
    ],
)
@pytest.mark.parametrize("writes", [False, True])
def test_a_field_of_the_csw_is_wrong_and_the_data_are_correct(
    fault: str, fields: tuple[bytes, int, int, int], writes: bool
) -> None:
    host = make(fault)
    host.tag = 0
    host.command(WRITE_2 if writes else READ_2, 1024, 0 if writes else 0x80)
    assert (host.write(NEW) if writes else host.read(1024)) == ((Code.OK, 1024) if writes else (Code.OK, BLOCKS))
    assert host.read(13) == (Code.OK, fields[0] + struct.pack("<IIB", *fields[1:]))
    assert stored(host) == (NEW if writes else BLOCKS)
    check_recovered(host)


@covers("no-sense")
def test_a_command_fails_without_sense_data() -> None:
    host = make("no-sense")
    result = host.do(READ_2, 1024)
    assert (result.data, result.status, result.residue) == (BLOCKS, 1, 0)
    assert host.sense() == (0, 0, 0)
    check_recovered(host)


def test_a_command_that_fails_anyway_can_be_without_sense_data_too() -> None:
    host = make("no-sense")
    assert host.fails(cdb10(0x28, 0xFFFFFF, 2), 1024) == (0, 0, 0)


@covers("sense")
def test_a_command_fails_with_any_sense() -> None:
    host = make("sense=3/11/00,opcode=28", "sense=4/44/00,opcode=2A", "sense=B/00/00", "sense=2/04/02")
    assert host.fails(READ_2, 1024) == (3, 0x11, 0)
    assert host.fails(WRITE_2, out=NEW) == (4, 0x44, 0)
    assert stored(host) == BLOCKS
    assert host.fails(TEST_UNIT_READY) == (0xB, 0, 0)
    assert host.fails(TEST_UNIT_READY) == (2, 4, 2)
    check_recovered(host)


# --- leaving the bus -----------------------------------------------------------------------------


@covers("disconnect")
@pytest.mark.parametrize("count", [0, 30])
def test_the_device_leaves_during_the_cbw(count: int) -> None:
    host = make(f"disconnect={count}@cbw")
    assert host.write(cbw(1, 0, 0, 0, TEST_UNIT_READY)) == (Code.NO_DEVICE, 0)
    check_gone(host)


def check_gone(host: Host) -> None:
    assert host.stick.is_gone
    assert host.bus.devices() == []
    assert host.read(13) == (Code.NO_DEVICE, b"")
    assert host.write(bytes(31)) == (Code.NO_DEVICE, 0)
    refused(Code.NO_DEVICE, class_reset, host)
    refused(Code.NO_DEVICE, host.bus.open, host.device)
    assert host.bus.plug(host.stick).number == host.device.number + 1


def test_the_device_leaves_after_the_cbw() -> None:
    host = make("disconnect=31@cbw")
    host.command(TEST_UNIT_READY)
    check_gone(host)


@pytest.mark.parametrize(("count", "moved"), [(0, 0), (511, 0), (512, 512), (1000, 512)])
def test_the_device_leaves_during_the_data_after_whole_packets(count: int, moved: int) -> None:
    host = make(f"disconnect={count}@data")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.NO_DEVICE, BLOCKS[:moved])
    check_gone(host)
    host = make(f"disconnect={count}@data")
    host.command(WRITE_2, 1024, 0)
    assert host.write(NEW) == (Code.NO_DEVICE, moved)
    assert stored(host) == NEW[:moved] + BLOCKS[moved:]
    check_gone(host)


def test_the_device_leaves_after_the_data() -> None:
    host = make("disconnect=1024@data")
    host.command(READ_2, 1024)
    assert host.read(1024) == (Code.OK, BLOCKS)
    check_gone(host)


@pytest.mark.parametrize("count", [0, 12])
def test_the_device_leaves_during_the_csw(count: int) -> None:
    host = make(f"disconnect={count}@csw")
    host.command(READ_2, 2048)
    assert host.read(2048) == (Code.PIPE, BLOCKS)
    host.handle.clear_halt(IN)
    assert host.read(13) == (Code.NO_DEVICE, b"")
    check_gone(host)


@pytest.mark.parametrize("count", [13, 100])
def test_the_device_leaves_after_the_csw(count: int) -> None:
    host = make(f"disconnect={count}@csw")
    host.ok(TEST_UNIT_READY)
    check_gone(host)


def test_the_device_leaves_during_the_data_phase_of_a_failed_command_too() -> None:
    host = make("disconnect@data")
    host.command(cdb10(0x28, 0xFFFFFF, 2), 1024)
    assert host.read(1024) == (Code.NO_DEVICE, b"")
    check_gone(host)


@covers("away")
@pytest.mark.parametrize("phase", ["cbw", "data", "csw"])
def test_the_device_leaves_and_comes_back_by_itself(phase: str) -> None:
    host = make(f"away=0.02@{phase}")
    watch = host.bus.watch()
    if phase == "cbw":
        assert host.write(cbw(1, 0, 0, 0, TEST_UNIT_READY)) == (Code.NO_DEVICE, 0)
    else:
        host.command(READ_2, 1024)
        assert host.read(1024) == ((Code.OK, BLOCKS) if phase == "csw" else (Code.NO_DEVICE, b""))
        assert host.read(13) == (Code.NO_DEVICE, b"")
    wait_until(host.bus.devices)
    assert watch.wait(PATIENCE)
    (device,) = host.bus.devices()
    assert (device.ports, device.number) == (host.device.ports, host.device.number + 1)
    assert not host.stick.is_gone
    watch.close()
    check_recovered(Host(host.stick, bus=host.bus))


def test_a_device_that_is_plugged_in_by_hand_does_not_come_back_a_second_time() -> None:
    host = make("away=1000@cbw")
    assert host.write(cbw(1, 0, 0, 0, TEST_UNIT_READY)) == (Code.NO_DEVICE, 0)
    assert (host.stick.is_away, host.bus.devices()) == (True, [])
    host.bus.plug(host.stick)
    assert (host.stick.is_away, host.stick.absence) == (False, None)
    host.bus.close()
    timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer) and each.interval == 1000]
    wait_until(lambda: not any(timer.is_alive() for timer in timers))


def test_transfers_of_other_threads_end_and_on_leave_is_called_once() -> None:
    host = make("disconnect@cbw")
    calls: list[str] = []
    host.stick.on_leave.append(lambda: calls.append("left"))
    watch = host.bus.watch()
    results: list[tuple[Code, bytes]] = []
    thread = threading.Thread(target=lambda: results.append(host.read(13, 60_000)))
    thread.start()
    assert host.write(cbw(1, 0, 0, 0, TEST_UNIT_READY), 60_000) == (Code.NO_DEVICE, 0)
    thread.join(PATIENCE)
    assert results == [(Code.NO_DEVICE, b"")]
    assert watch.wait(PATIENCE)
    assert calls == ["left"]


def test_a_stick_counts_commands_from_1_again_when_it_is_plugged_in_again() -> None:
    stick = Stick([Unit(Memory(4096))], faults=["disconnect@cbw,command=1,times=2", "sense=5/24/00,command=2"])
    host = Host(stick, attentions=True)
    assert host.write(cbw(1, 0, 0, 0, TEST_UNIT_READY))[0] is Code.NO_DEVICE
    host.bus.plug(stick)
    handle = host.bus.open(host.bus.devices()[0])
    handle.detach_driver(0)
    handle.claim(0)
    assert handle.bulk(OUT, memoryview(bytearray(cbw(1, 0, 0, 0, TEST_UNIT_READY))), 50)[0] is Code.NO_DEVICE
    assert [number for number, _ in stick.faults.fired] == [1, 1]
