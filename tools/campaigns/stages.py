"""Where a fault is tried: scsiusb on the stick itself, scsiusb through the kernel, and the kernel's own driver."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import scsiusb
from scsiusb.opening import open_on
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.virtual import Bus, Stick
from scsiusb.virtual.usbip.server import Server

BLOCK: Final = 512
TIMEOUT: Final = 45.0  # seconds for what the kernel does with a device, under emulation
T = TypeVar("T")
HOST: Final = Path("/sys/devices/platform/vhci_hcd.0")
DRIVER_TIMEOUT: Final = 4.0  # seconds


class Failed(Exception):
    """The operation ended with an error; the text of this exception is the outcome."""


class Target(Protocol):
    """A stick as a stage reaches it. Each operation raises `Failed`."""

    def read(self, lba: int, blocks: int) -> bytes:
        """Return the content of the blocks."""

    def write(self, lba: int, data: bytes) -> None:
        """Write the blocks and flush the cache."""

    def inquiry(self) -> str:
        """Return the vendor in the INQUIRY data."""

    def close(self) -> None:
        """Release the device."""


class Stage(Protocol):
    """Makes a target of a stick. What is done before the target is opened does not count as time of the operation."""

    def plugged(self, stick: Stick) -> AbstractContextManager[Callable[[], Target]]:
        """Plug the stick in; yield a function that opens it."""


class Disk:
    """The stick as scsiusb drives it."""

    def __init__(self, disk: scsiusb.Disk, timeout: float) -> None:
        self.disk = disk
        disk.unit.timeout = timeout
        disk.unit.retry = RetryPolicy(timeouts=1, becoming_ready=5)

    def read(self, lba: int, blocks: int) -> bytes:
        """See `Target.read`."""
        return self.do(lambda: self.disk.read(lba, blocks))

    def write(self, lba: int, data: bytes) -> None:
        """See `Target.write`."""

        def write() -> None:
            self.disk.write(lba, data)
            self.disk.flush()

        self.do(write)

    def inquiry(self) -> str:
        """See `Target.inquiry`."""
        return self.do(lambda: self.disk.inquiry().vendor)

    @staticmethod
    def do(action: Callable[[], T]) -> T:
        """Call the action; an error of scsiusb becomes `Failed` with its type's name."""
        try:
            return action()
        except scsiusb.ScsiUsbError as error:
            raise Failed(type(error).__name__) from error

    def close(self) -> None:
        """See `Target.close`; errors are ignored."""
        with suppress(scsiusb.ScsiUsbError):
            self.disk.close()


class InProcess:
    """scsiusb on the virtual bus."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    @contextmanager
    def plugged(self, stick: Stick) -> Iterator[Callable[[], Target]]:
        """See `Stage.plugged`."""
        bus = Bus(stick)
        try:
            yield lambda: _opened(lambda: open_on(bus), self._timeout)
        finally:
            bus.close()


class ThroughKernel:
    """scsiusb on libusb on the kernel's USB/IP host controller."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    @contextmanager
    def plugged(self, stick: Stick) -> Iterator[Callable[[], Target]]:
        """See `Stage.plugged`."""
        with attached(stick) as folder:
            yield lambda: _opened(lambda: scsiusb.open(folder.name), self._timeout)


def _opened(open_disk: Callable[[], scsiusb.Disk], timeout: float) -> Disk:
    try:
        return Disk(open_disk(), timeout)
    except scsiusb.ScsiUsbError as error:
        raise Failed(f"{type(error).__name__} at opening") from error


class Kernel:
    """The kernel's usb-storage and its block device, with the kernel's own retries."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    @contextmanager
    def plugged(self, stick: Stick) -> Iterator[Callable[[], Target]]:
        """See `Stage.plugged`."""
        with attached(stick) as folder:
            yield lambda: Node(folder, self._timeout)


class Node:
    """The stick as the kernel's driver shows it: a block device and a generic SCSI device."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self._disk, self._generic = _node(folder, "block"), _node(folder, "scsi_generic")
        self._timeout = timeout
        device = Path("/sys/block") / self._disk.name / "device"
        for name in ("timeout", "eh_timeout"):
            (device / name).write_text(str(round(timeout)))

    def read(self, lba: int, blocks: int) -> bytes:
        """See `Target.read`."""
        offset, count = lba * BLOCK, blocks * BLOCK
        return _run("dd", f"if={self._disk}", f"bs={count}", f"skip={offset // count}", "count=1", "iflag=direct")

    def write(self, lba: int, data: bytes) -> None:
        """See `Target.write`."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            words = (f"if={file.name}", f"of={self._disk}", f"bs={len(data)}", f"seek={lba * BLOCK // len(data)}")
            _run("dd", *words, "count=1", "oflag=direct", "conv=fsync,notrunc")

    def inquiry(self) -> str:
        """See `Target.inquiry`."""
        words = ("-b", "-r", "36", "-t", str(round(self._timeout)), str(self._generic), "12", "0", "0", "0", "24", "0")
        return _run("sg_raw", *words)[8:16].decode("ascii", "replace").strip()

    def close(self) -> None:
        """See `Target.close`; it holds nothing."""


def _run(*words: str) -> bytes:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:  # it is in an uninterruptible wait in the kernel
        process.kill()
        raise Failed(f"no end in {TIMEOUT:g} s") from error
    if process.returncode:
        text = errors.decode(errors="replace").strip().splitlines()
        raise Failed(
            next((line.rpartition(": ")[2] for line in text if "rror" in line), f"status {process.returncode}")
        )
    return out


def _node(folder: Path, kind: str) -> Path:
    """Wait until the kernel's driver has probed the device; return the path of its node."""
    deadline = time.monotonic() + TIMEOUT / 2
    while time.monotonic() < deadline:
        for entry in folder.glob(f"*:1.0/host*/target*/*:0/{kind}/*"):
            if (Path("/dev") / entry.name).exists():
                return Path("/dev") / entry.name
        time.sleep(0.05)
    raise Failed("no disk")


@contextmanager
def attached(stick: Stick) -> Iterator[Path]:
    """Attach the stick to the kernel by USB/IP; yield the device's folder in sysfs. Raises Failed."""
    with Server(stick, port=0) as server:
        subprocess.run(["modprobe", "vhci-hcd"], check=True)
        usbip = ["usbip", "--tcp-port", str(server.port), "attach", "-r", "127.0.0.1", "-b", "1-1"]
        subprocess.run(usbip, check=True, capture_output=True)
        try:
            yield _wait_for_folder()
        finally:
            server.close()
            _wait_for(lambda: _folder() is None, "the device to leave")


def _wait_for_folder() -> Path:
    """Wait for the device, and for the driver of its interface, which comes a moment later if there is one."""
    with suppress(TimeoutError):
        _wait_for(_folder, "the device")
    folder = _folder()
    if folder is None:
        raise Failed("the kernel did not accept the device")
    with suppress(TimeoutError):
        _wait_for(lambda: any((path / "driver").exists() for path in folder.glob("*:1.*")), "a driver", DRIVER_TIMEOUT)
    return folder


def _folder() -> Path | None:
    """Return the folder of the only device on the USB/IP host, whose serial number may be unreadable."""
    return next((path.parent for path in HOST.glob("usb*/*-*/bDeviceClass")), None)


def _wait_for(condition: Callable[[], object], what: str, seconds: float = TIMEOUT / 4) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sign of {what} after {seconds:g} s")
        time.sleep(0.02)
