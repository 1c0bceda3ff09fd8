"""A program ends, or a device is unplugged, while a stream or a read of many devices is open."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import scsiusb
from scsiusb import ledger
from scsiusb.leases.lease import leases

from . import left_open
from .conftest import Figures
from .machine import USB, Device, is_native, wait_for
from .plugging import GADGETS, plug, pull
from .served import Served, served

if sys.platform == "linux":
    from .test_lifetime import NOTICED, device_nodes, given_back

assert sys.platform == "linux"

pytestmark = pytest.mark.native("under emulation they would take an hour")

GIVEN_BACK = 60.0  # seconds, as the machine may be busy; the aim is 2, and the run's last lines show what it took
STATUS = {"return": 0, "sys.exit": left_open.STATUS, "exception": 1, "os._exit": left_open.STATUS}
# Under emulation all combinations would take an hour.
STATES = left_open.STATES if is_native() else ("holding", "stepping")
ENDINGS = left_open.ENDINGS if is_native() else ("return", "os._exit")


@pytest.fixture
def two(gadget_super: Device, gadget_high: Device) -> list[Device]:
    """Two gadgets of the kernel's, which both labs have."""
    return [gadget_super, gadget_high]


@pytest.fixture
def medium(gadget_super: Device) -> Iterator[Path]:
    """The file by which the medium of the gadget's first unit is removed; it is inserted again after the test."""
    file = GADGETS / gadget_super.name / "functions" / "mass_storage.0" / "lun.0" / "file"
    backing = file.read_text()
    yield file
    if file.read_text() != backing:
        file.write_text(backing)
        (gadget_super.interface / "driver" / "unbind").write_text(gadget_super.interface.name)
        (USB / "drivers_probe").write_text(gadget_super.interface.name)
        gadget_super.wait()


def endings() -> list[tuple[str, str]]:
    """Return each state with the endings to try: all while something moves, where they differ most."""
    return [(state, end) for state in STATES for end in (ENDINGS if state in ("holding", "stepping") else ENDINGS[:1])]


@contextmanager
def ending_program(devices: Sequence[Device | Served], *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run left_open.py with these arguments after the devices."""
    addresses = ",".join(device.address for device in devices)
    command = [sys.executable, "-m", "tests.kernel.left_open", addresses, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], what: str) -> list[str]:
    """Return the other words of the program's next line, whose first one is `what`."""
    assert process.stdout is not None
    first, *others = process.stdout.readline().split() or [""]
    if first != what:
        pytest.fail(process.communicate(timeout=60)[1])
    return others


@pytest.mark.parametrize(("state", "ending"), endings())
@pytest.mark.parametrize("thread", left_open.THREADS)
@pytest.mark.parametrize("work", left_open.WORKS)
def test_the_interpreters_end_gives_the_drivers_back(
    two: list[Device], medium: Path, figures: Figures, work: str, state: str, thread: str, ending: str
) -> None:
    words = [work, state, thread, ending, str(medium)]
    with ending_program(two, *words) as process:
        began = float(said(process, "ending")[0])
        wait_for(lambda: all(device.bound() == device.driver for device in two), "both drivers", GIVEN_BACK)
        figures.add(f"drivers back after the interpreter's end by {ending}", time.monotonic() - began)
        _, error = process.communicate(timeout=60)
    assert process.returncode == STATUS[ending], error
    assert "Exception ignored" not in error
    assert error.count("Traceback") == (ending == "exception"), error
    given_back(two[0])


@pytest.mark.parametrize("ending", ["return", "os._exit"])
@pytest.mark.parametrize("thread", left_open.THREADS)
@pytest.mark.parametrize("work", [work for work in left_open.WORKS if work != "writing"])
def test_the_interpreters_end_in_a_command_that_is_never_answered_gives_the_driver_back(
    figures: Figures, work: str, thread: str, ending: str
) -> None:
    with served(faults=["nak@data,opcode=28,lba=8-15,times=always"]) as device:
        with ending_program([device], work, left_open.WAITING, thread, ending, "") as process:
            said(process, "reached")
            wait_for(lambda: device.stick.faults.fired, "the command that is not answered")
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
            began = float(said(process, "ending")[0])
            wait_for(lambda: device.bound() == "usb-storage", "the driver", GIVEN_BACK)
            figures.add(f"driver of a silent device back after the end by {ending}", time.monotonic() - began)
            _, error = process.communicate(timeout=60)
        assert process.returncode == STATUS[ending], error
        device.stick.faults.clear()
        device.wait()
        wait_for(lambda: not leases(), "the lease to go", GIVEN_BACK)


# --- unplug ---------------------------------------------------------------------------------------


@contextmanager
def held(work: str, disks: Sequence[scsiusb.Disk]) -> Iterator[None]:
    """Hold a piece of a stream of the first disk, or of each; ends at any error of a device that has gone."""
    with suppress(scsiusb.DeviceGone), ExitStack() as stack:
        if work == "writing":
            writing = stack.enter_context(disks[0].writing(0))
            writing.write(bytes(3 << 17))
            room = writing.room()
        elif work == "reading":
            room = next(stack.enter_context(disks[0].reading(0, 4096)))
        else:
            readings = [disk.reading(0, 4096) for disk in (disks if work == "many" else [disks[0]] * 2)]
            room = next(stack.enter_context(scsiusb.read_many(*readings))).piece
        yield
        room.release()


class Client:
    """A client of a device; `called` is when its `on_gone` was, None before."""

    def __init__(self, device: Device) -> None:
        self.called: float | None = None
        self.device = device
        self.disk = scsiusb.open(device.address, on_gone=self._on_gone)
        self.disk.max_blocks = 64

    def _on_gone(self) -> None:
        assert self.called is None, "called twice"
        self.called = time.monotonic()

    def seconds(self, since: float) -> float:
        wait_for(lambda: self.called is not None, f"on_gone of {self.device}", NOTICED)
        assert self.called is not None
        return self.called - since


@pytest.mark.parametrize("work", ["many", "two-of-one", "reading", "writing"])
def test_every_client_is_notified_of_an_unplug_while_the_caller_holds_a_piece(
    two: list[Device], figures: Figures, work: str
) -> None:
    clients = [[Client(device) for _ in range(3)] for device in two]
    try:
        with held(work, [first.disk for first, *_ in clients]):
            for device, its in zip(two, clients, strict=True):
                began = time.monotonic()
                pull(device)
                for client in its:
                    figures.add("on_gone after an unplug, a piece being held", client.seconds(began))
            assert device_nodes("self") == []
    finally:
        for client in itertools.chain(*clients):
            with suppress(scsiusb.ScsiUsbError):
                client.disk.close()
        for device in two:
            wait_until_gone(device)
            plug(device)
    assert ledger.outstanding() == []
    assert leases() == []
    for device in two:
        with scsiusb.open(device.address) as disk:
            assert disk.read(3, 5) == device.units[0].backing(3, 5)


def wait_until_gone(device: Device) -> None:
    wait_for(lambda: not device.present, f"the kernel to notice that {device} is gone")
