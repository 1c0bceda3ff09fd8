"""Error recovery: class reset, then port reset; and the retry of commands that may be sent twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from scsiusb import (
    DeviceGone,
    DeviceTimeout,
    Disk,
    HardwareError,
    MediumChanged,
    RetryPolicy,
    TransportError,
    UnitAttention,
)
from scsiusb.opening import open_on
from scsiusb.usb.backend import Code
from scsiusb.virtual import Memory
from tests.sticks import Answer, Intercept, InterceptedBus, Wire, Worker, stick, wait_until

RECOVERY = ["request ff", "clear in", "clear out"]
BLOCK = 512


@contextmanager
def disk_on_wire(timeout: float | None = None) -> Iterator[tuple[Disk, InterceptedBus]]:
    """Open a disk on a new bus; the unit attention is cleared and the log is empty."""
    with_wire = InterceptedBus(stick())
    with open_on(with_wire, timeout=timeout) as disk:
        disk.read(0, 1)
        disk.medium_to_write(0)  # the write protection is asked for once
        with_wire.wire.log.clear()
        yield disk, with_wire
        with_wire.wire.intercept = None
    with_wire.close()


def cbws(bus: InterceptedBus) -> list[str]:
    return [entry.removeprefix("cbw ") for entry in bus.wire.log if entry.startswith("cbw")]


def fails_at(opcode: int, code: Code, times: int) -> Intercept:
    """Fail the CBW of the first `times` commands with that opcode."""
    left = [times]

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode != opcode or not wire.log[-1].startswith("cbw") or not left[0]:
            return None
        left[0] -= 1
        return code, 0

    return intercept


def content(bus: InterceptedBus) -> bytearray:
    medium = bus._connections[2].stick.units[0].medium
    assert isinstance(medium, Memory)
    return medium.data


def test_a_class_reset_that_did_not_help_is_followed_by_a_port_reset() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x28, Code.PIPE, 2)
        assert disk.read(1, 1)[:4] == b"\0\0\0\1"
        resets = [entry for entry in bus.wire.log if entry in ("request ff", "port reset")]
        assert resets == ["request ff", "request ff", "port reset"]


def test_a_class_reset_that_the_device_refuses_is_followed_by_a_port_reset_at_once() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.fail_requests = {"request ff": Code.PIPE}
        bus.wire.intercept = fails_at(0x28, Code.IO, 1)
        assert disk.read(1, 1)[:4] == b"\0\0\0\1"
        assert bus.wire.log[:3] == ["cbw 28", "request ff", "port reset"]


def test_a_read_fails_after_four_attempts_with_the_recovery_steps_in_the_error() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x28, Code.IO, 99)
        with pytest.raises(TransportError) as failed:
            disk.read(7, 2)
        assert cbws(bus).count("28") == 4
        assert failed.value.tried == ("class reset", "port reset")
        begin, end = "CBW phase, 1-1: the transfer failed", "class reset and port reset"
        assert failed.value.what.startswith("READ(10) of 2 blocks at LBA 7: ")
        assert failed.value.what.endswith(f"{begin} (recovered by {end}), 4 times")


def test_a_command_is_not_retried_if_the_recovery_fails_and_the_error_says_so() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.fail_requests = {"request ff": Code.PIPE, "port reset": Code.IO}
        bus.wire.intercept = fails_at(0x28, Code.IO, 99)
        with pytest.raises(TransportError, match="not recovered by class reset and port reset"):
            disk.read(0, 1)
        assert cbws(bus) == ["28"]
        bus.wire.fail_requests, bus.wire.intercept = {}, None
        assert disk.read(1, 1)[:4] == b"\0\0\0\1"


def test_each_recovery_step_is_one_log_record(caplog: pytest.LogCaptureFixture) -> None:
    with disk_on_wire() as (disk, bus), caplog.at_level(logging.DEBUG, "scsiusb.transport"):
        bus.wire.intercept = fails_at(0x28, Code.IO, 2)
        disk.read(0, 1)
        steps = [record.__dict__["recovery_step"] for record in caplog.records if "recovery_step" in record.__dict__]
        assert steps[:3] == ["class reset", "class reset", "port reset"]


def test_a_command_that_times_out_is_retried_once() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x28, Code.TIMEOUT, 1)
        assert disk.read(1, 1)[:4] == b"\0\0\0\1"
        bus.wire.log.clear()
        bus.wire.intercept = fails_at(0x28, Code.TIMEOUT, 99)
        with pytest.raises(DeviceTimeout):
            disk.read(0, 1)
        assert cbws(bus).count("28") == 2


def test_a_timeout_given_by_the_user_is_for_the_call_with_all_retries() -> None:
    with disk_on_wire(timeout=60) as (disk, bus):
        bus.wire.intercept = fails_at(0x28, Code.TIMEOUT, 1)
        with pytest.raises(DeviceTimeout):
            disk.read(0, 1)
        assert cbws(bus) == ["28"]


def test_there_is_no_retry_after_the_time_for_failures() -> None:
    with disk_on_wire() as (disk, bus):
        disk.unit.retry = RetryPolicy(failing=0.001)

        def fails_late(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
            time.sleep(0.002)
            return Code.IO, 0

        bus.wire.intercept = fails_late
        with pytest.raises(TransportError):
            disk.read(0, 1)
        assert cbws(bus) == ["28"]


def test_a_command_to_a_device_that_has_gone_is_not_retried() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x28, Code.NO_DEVICE, 1)
        with pytest.raises(DeviceGone):
            disk.read(0, 1)
        assert cbws(bus) == ["28"]


def test_a_cancelled_command_is_not_retried() -> None:
    with disk_on_wire() as (disk, bus):

        def cancels(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
            if wire.opcode != 0x28:
                return None
            scope.cancel()
            return Code.INTERRUPTED, 0

        scope = disk.unit.transport.scope()
        bus.wire.intercept = cancels
        with pytest.raises(TransportError, match="cancelled"):
            scope.run(disk.read, 0, 1)
        bus.wire.intercept = None
        assert cbws(bus) == ["28"]


def test_a_failed_write_is_retried_after_a_check_of_the_device() -> None:
    new = b"\xab" * BLOCK
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x2A, Code.IO, 1)
        disk.write(5, new)
        assert content(bus)[5 * BLOCK : 6 * BLOCK] == new
        assert bus.wire.log[1:9] == [*RECOVERY, "port reset", *["request 06"] * 3, "cbw 03"]
        again = cbws(bus).index("2a", 1)
        # What the unit has to say after the reset comes first; then the look at the medium, with a block of it.
        assert cbws(bus)[:again] == ["2a", "03", "00", "25", "28"]


def test_a_failed_write_is_not_retried_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_on_wire() as (disk, bus):
        identity = bus._connections[2].stick.identity
        bus.wire.intercept = fails_at(0x2A, Code.IO, 1)
        object.__setattr__(identity, "serial", "another one")
        before = bytes(content(bus))
        with pytest.raises(DeviceGone, match=r"another device .*another one.* answers in the place of"):
            disk.write(5, b"\xab" * BLOCK)
        assert bytes(content(bus)) == before
        assert cbws(bus) == ["2a"]


def test_a_failed_write_is_not_retried_on_another_medium() -> None:
    with disk_on_wire() as (disk, bus):
        unit = bus._connections[2].stick.units[0]

        def swaps(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
            if wire.opcode != 0x2A:
                return None
            unit.medium = Memory(BLOCK * 99)
            return Code.IO, 0

        bus.wire.intercept = swaps
        with pytest.raises(MediumChanged):
            disk.write(5, b"\xab" * BLOCK)
        assert not any(content(bus))
        assert "2a" not in cbws(bus)[1:]


def test_a_write_fails_after_four_attempts() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x2A, Code.IO, 99)
        with pytest.raises(TransportError, match=r"WRITE\(10\) of 1 block at LBA 5: CBW phase.*4 times"):
            disk.write(5, bytes(BLOCK))
        assert cbws(bus).count("2a") == 4


def test_a_write_with_a_reset_in_the_middle_is_written_again_from_its_start() -> None:
    """A reset may have lost the device's cache, and with it blocks that the device acknowledged before."""
    new = bytes(range(256)) * 2 * 1000
    with disk_on_wire() as (disk, bus):
        left, old = [1], bytes(content(bus))

        def fails_second(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
            if wire.opcode != 0x2A or not wire.log[-1].startswith("cbw") or cbws(bus).count("2a") < 2 or not left[0]:
                return None
            left[0] = 0
            content(bus)[:] = old  # what was cached is lost
            bus._connections[2].stick.units[0].power_on()
            return Code.IO, 0

        bus.wire.intercept = fails_second
        disk.write(0, new)
        disk.flush()
        assert bytes(content(bus)[: len(new)]) == new


def test_the_flush_fails_if_another_call_wrote_before_a_reset() -> None:
    with disk_on_wire() as (disk, bus):
        disk.write(0, bytes(BLOCK))
        bus._connections[2].stick.units[0].power_on()
        disk.write(1, bytes(BLOCK))
        with pytest.raises(UnitAttention, match="reset before the written blocks were flushed"):
            disk.flush()


def test_a_port_reset_by_the_driver_counts_even_if_its_unit_attention_was_lost() -> None:
    """The CSW of the command that failed with the unit attention is lost, and so is the sense.

    Found by `tools/campaign writes`.
    """
    with disk_on_wire() as (disk, bus):
        disk.write(0, bytes(BLOCK))
        disk.unit.retry = RetryPolicy(failures=1)
        bus.wire.intercept = fails_at(0x2A, Code.IO, 2)
        with pytest.raises(TransportError):
            disk.write(1, bytes(BLOCK))
        assert "port reset" in bus.wire.log
        bus._connections[2].stick.units[0]._attentions.clear()
        with pytest.raises(UnitAttention, match="reset before the written blocks were flushed"):
            disk.flush()


def test_a_device_that_waits_for_data_after_a_class_reset_gets_a_port_reset() -> None:
    """A device that ignores the class reset takes the next CBW as data. Found by fuzzing."""
    with disk_on_wire() as (disk, bus):
        stick_there = bus._connections[2].stick
        stick_there.faults.add("reset-ignored")
        stick_there.faults.add("nak@data,opcode=2A")
        disk.unit.timeout, disk.unit.retry = 0.05, RetryPolicy(timeouts=1)
        disk.write(4, b"\xcd" * BLOCK)
        assert bus.wire.log.count("port reset") == 1
        assert bytes(content(bus)[4 * BLOCK : 5 * BLOCK]) == b"\xcd" * BLOCK


def test_the_recovery_of_a_later_command_begins_with_a_class_reset() -> None:
    with disk_on_wire() as (disk, bus):
        bus.wire.intercept = fails_at(0x28, Code.IO, 99)
        with pytest.raises(TransportError):
            disk.read(0, 1)
        disk.unit.test_unit_ready()
        bus.wire.log.clear()
        bus.wire.intercept = fails_at(0x12, Code.IO, 1)
        disk.inquiry()
        assert bus.wire.log[:4] == ["cbw 12", *RECOVERY]


def swap(bus: InterceptedBus) -> None:
    """Insert another medium of the same size, filled with FFh."""
    bus._connections[2].stick.units[0].insert(Memory(bytearray(b"\xff" * BLOCK * 2048)))


@pytest.mark.parametrize("fault", ["phase-error@csw", "short=4@data", "empty@data", "tag@csw", "nak@csw"])
def test_a_medium_change_is_noticed_although_the_sense_that_reports_it_is_lost(fault: str) -> None:
    acts: list[Callable[[Disk], object]] = [lambda disk: disk.read(5, 1), lambda disk: disk.write(5, bytes(BLOCK))]
    for act in acts:
        with disk_on_wire() as (disk, bus):
            disk.unit.timeout = 0.1
            swap(bus)
            bus._connections[2].stick.faults.add(f"{fault},opcode=03")
            with pytest.raises((MediumChanged, TransportError)):
                act(disk)
            assert set(content(bus)) == {0xFF}


@pytest.mark.parametrize("fault", ["phase-error@csw,opcode=03", "tag@csw,opcode=03"])
def test_a_reset_is_noticed_although_the_sense_that_reports_it_is_lost(fault: str) -> None:
    with disk_on_wire() as (disk, bus):
        disk.write(0, bytes(BLOCK))
        stick_there = bus._connections[2].stick
        stick_there.units[0].power_on()
        stick_there.faults.add(fault)
        with pytest.raises((UnitAttention, MediumChanged)):
            disk.flush()


@pytest.mark.parametrize("sense", ["6/29/00", "B/00/00", "6/3F/0E", "4/44/00"])
def test_a_write_that_failed_with_sense_is_retried_only_on_the_same_medium(sense: str) -> None:
    with disk_on_wire() as (disk, bus):
        there = bus._connections[2].stick
        there.units[0].medium = small = Memory(BLOCK * 100)
        there.faults.add(f"sense={sense},opcode=2A")
        with pytest.raises(MediumChanged):
            disk.write(5, b"\xee" * BLOCK)
        assert not any(small.data)


def test_a_failed_flush_is_an_error_although_a_second_one_would_succeed() -> None:
    with disk_on_wire() as (disk, bus):
        disk.write(0, bytes(BLOCK))
        bus._connections[2].stick.faults.add("sense=4/03/00,opcode=35")
        with pytest.raises(HardwareError):
            disk.flush()


def test_a_write_stays_unflushed_although_another_thread_flushes_during_it() -> None:
    with disk_on_wire() as (disk, bus):
        flushed: list[int] = []

        def flushes(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
            if wire.opcode == 0x2A and wire.log[-1].startswith("cbw") and cbws(bus).count("2a") == 2 and not flushed:
                number, _ = disk._unflushed.begin_flush()  # as another thread's flush does, between two pieces
                disk._unflushed.settled = number
                flushed.append(number)
            return None

        bus.wire.intercept = flushes
        disk.write(0, bytes(BLOCK * 1000))
        assert flushed
        bus._connections[2].stick.units[0].power_on()
        with pytest.raises(UnitAttention, match="reset before the written blocks were flushed"):
            disk.flush()


def test_a_second_ctrl_c_in_the_last_flush_leaves_nothing_open() -> None:
    bus = InterceptedBus(stick())
    with pytest.raises(KeyboardInterrupt), open_on(bus) as disk:
        disk.write(0, bytes(BLOCK))

        def interrupted(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
            if wire.opcode == 0x35 and wire.log[-1].startswith("cbw"):
                bus.wire.intercept = None
                raise KeyboardInterrupt
            return None

        bus.wire.intercept = interrupted
        raise KeyboardInterrupt
    assert not bus.handles
    bus.close()


def test_waiting_for_a_unit_does_not_block_other_users() -> None:
    with disk_on_wire() as (disk, bus):
        there = bus._connections[2].stick.units[0]
        disk.unit.retry = RetryPolicy(interval=0.001)
        there.becoming_ready = 1 << 30
        with open_on(bus) as other:
            reader = Worker(lambda: disk.read(0, 1))
            wait_until(lambda: there.becoming_ready < (1 << 30) - 3)
            assert other.inquiry().vendor == "scsiusb"
            assert reader.is_alive()
            there.becoming_ready = 0
            reader.result()


def test_a_device_with_an_odd_serial_number_is_recognized_after_a_reset() -> None:
    for fault in ("descriptor=odd-string", "descriptor=huge-string"):
        thing = stick()
        thing.faults.add(fault)
        bus = InterceptedBus(thing)
        with open_on(bus) as disk:
            disk.read(0, 1)
            bus.wire.intercept = fails_at(0x2A, Code.IO, 1)
            disk.write(5, bytes(BLOCK))
        bus.close()
