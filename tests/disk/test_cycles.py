"""A handled exception is freed, with everything that the frames of its traceback refer to: it is in no cycle."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest

from scsiusb import Disk, ScsiUsbError, read_many
from scsiusb.opening import open_on
from scsiusb.scsi.commands import spc as primary
from scsiusb.usb.backend import Code
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.disk.polling import PolledBus
from tests.sticks import Answer, InterceptedBus, Wire, csw, garbage_collector_off

Way = Callable[[InterceptedBus, Stick], None]
CSW_PACKET = 512  # bytes, which a CSW is read into at high speed


def readinto(disk: Disk) -> None:
    disk.readinto(0, bytearray(4096))


def write(disk: Disk) -> None:
    disk.write(0, bytes(4096))


def read(disk: Disk) -> None:
    disk.read(0, 8)


def execute(disk: Disk) -> None:
    disk.execute(primary.TestUnitReady())


def stream(disk: Disk) -> None:
    with disk.reading(0, 64) as pieces:
        for _ in pieces:
            pass


def writing(disk: Disk) -> None:
    with disk.writing(0) as out:
        out.write(bytes(64 * 512))


def many(disk: Disk) -> None:
    with read_many(disk.reading(0, 64)) as parts:
        failed = [part.error is not None for part in parts]
    if any(failed):
        raise ScsiUsbError("a chunk has an error")


ACTIONS = (readinto, write, read, execute, stream, writing, many)


def io_errors(bus: InterceptedBus, stick: Stick) -> None:
    bus.wire.intercept = lambda wire, endpoint, buffer: (Code.IO, 0)


def an_unplug(bus: InterceptedBus, stick: Stick) -> None:
    bus.wire.intercept = lambda wire, endpoint, buffer: (Code.NO_DEVICE, 0)


def no_recovery(bus: InterceptedBus, stick: Stick) -> None:
    io_errors(bus, stick)
    bus.wire.fail_requests.update({"port reset": Code.IO, "request ff": Code.IO})


def false_csws(bus: InterceptedBus, stick: Stick) -> None:
    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        return wire.put(buffer, csw(wire.tag + 1)) if len(buffer) == CSW_PACKET else None

    bus.wire.intercept = intercept


def a_sense(text: str) -> Way:
    def answer(bus: InterceptedBus, stick: Stick) -> None:
        for opcode in ("00", "28", "2a"):
            stick.faults.add(f"sense={text},opcode={opcode},times=always")

    return answer


WAYS: dict[str, Way] = {
    "io": io_errors,
    "unplug": an_unplug,
    "no recovery": no_recovery,
    "csw": false_csws,
    "medium error": a_sense("3/11/00"),
    "aborted": a_sense("b/00/00"),
    "illegal": a_sense("5/24/00"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [InterceptedBus, PolledBus])
@pytest.mark.parametrize("way", WAYS)
def test_no_error_is_kept_by_a_cycle(kind: type[InterceptedBus], way: str) -> None:
    kept = {action.__name__: kept_by_cycles(kind, action, WAYS[way]) for action in ACTIONS}
    assert kept == {action.__name__: [] for action in ACTIONS}


def kept_by_cycles(kind: type[InterceptedBus], action: Callable[[Disk], None], way: Way) -> list[str]:
    """Return the frames and errors that only the garbage collector frees after the action failed."""
    stick = Stick([Unit(Memory(bytearray(64 * 512)))])
    bus = kind(stick)
    with open_on(bus) as disk:
        disk.read(0, 8)
        way(bus, stick)
        with pytest.raises(ScsiUsbError):  # what is done only once leaves objects of its own
            action(disk)
        with garbage_collector_off():
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                with suppress(ScsiUsbError):
                    action(disk)
                gc.collect()
                return [str(each) for each in gc.garbage if isinstance(each, (FrameType, ScsiUsbError))]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                bus.wire.intercept = None
                bus.wire.fail_requests.clear()


@pytest.mark.parametrize("kind", [Bus, PolledBus])
def test_a_loop_over_many_disks_that_is_left_early_keeps_none_open(kind: type[Bus]) -> None:
    """Each stream refers to its disk, and a cycle of streams would keep the devices until the collector runs."""
    bus = kind(Stick([Unit(Memory(1 << 20))]))
    with garbage_collector_off():
        disk = open_on(bus)
        with read_many(disk.reading(0, 2048)) as chunks:
            next(chunks)
        gone = weakref.ref(disk)
        with pytest.warns(ResourceWarning, match="not closed"):
            del disk, chunks
        assert gone() is None
    bus.close()
