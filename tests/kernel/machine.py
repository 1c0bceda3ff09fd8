"""The zoo as the guest's kernel sees it: address, driver and nodes of each device."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

USB = Path("/sys/bus/usb")
_places: dict[str, Path | None] = {}
_complete: set[tuple[Path, int]] = set()
PATIENCE = 60.0  # seconds; under emulation a probe can take several


class LabError(AssertionError):
    """The machine is not in the state that the tests need."""


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until the condition is true. Raises LabError, with `what`, after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"timeout after {seconds:g} s of waiting for {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Unit:
    """A logical unit as it was configured; `path` is its backing file, None without a medium."""

    device: Device
    lun: int
    type: str
    path: Path | None
    block_size: int
    blocks: int
    removable: bool
    read_only: bool
    regions: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"{self.device.name}:{self.lun}"

    @property
    def size(self) -> int:
        return self.blocks * self.block_size

    @property
    def sg(self) -> Path:
        """The kernel's generic node, /dev/sgN; waits for it, because the probe continues after the driver was bound."""
        return self._node("scsi_generic")

    @property
    def node(self) -> Path:
        """The kernel's block node, /dev/sdX or /dev/srX; waits for it."""
        return self._node("block")

    @property
    def partition(self) -> Path:
        """The block node of the first partition, /dev/sdX1; waits for it.

        To be asked anew after each use of the device by scsiusb: the kernel numbers partitions after it made the disk's
        node, and gives the disk another name if a program, udev's blkid say, has the disk of before still open.
        """
        made: list[Path] = []

        def there() -> bool:
            disk = self.node
            made[:] = [disk.with_name(f"{disk.name}1")]
            return _opens(made[0])

        wait_for(there, f"the first partition of {self}, which the kernel has as {self.node}")
        return made[0]

    def backing(self, lba: int, blocks: int) -> bytes:
        """Read blocks from the backing file, without the USB stack."""
        assert self.path is not None, f"{self} has no medium"
        if sys.platform != "linux":
            raise NotImplementedError
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), blocks * self.block_size, lba * self.block_size)

    def kernel_read(self, lba: int, blocks: int) -> bytes:
        """Read blocks through the kernel's block device, without its cache."""
        if sys.platform != "linux":
            raise NotImplementedError
        size = self.block_size
        with self.node.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), lba * size, blocks * size, os.POSIX_FADV_DONTNEED)
            return os.pread(file.fileno(), blocks * size, lba * size)

    def _node(self, kind: str) -> Path:
        self.device.wait()
        for folder in self.device.unit_folders(self.lun):
            for entry in (folder / kind).glob("*"):
                return Path("/dev") / entry.name
        raise LabError(f"the kernel has no {kind} node for {self}")

    def has_nodes(self) -> bool:
        folders = list(self.device.unit_folders(self.lun))
        return all(
            any(_opens(Path("/dev") / entry.name) for folder in folders for entry in (folder / kind).glob("*"))
            for kind in ("scsi_generic", "block")
        )


@dataclass(frozen=True, eq=False)
class Device:
    """A device of the zoo; `driver` is the kernel's for it.

    `qemu` is what QEMU's device_add takes; `udc` the device controller of a gadget of the kernel's.
    """

    name: str
    kind: str
    driver: str
    serial: str
    speed: int
    units: tuple[Unit, ...]
    qemu: tuple[dict[str, Any], ...]
    udc: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        """The device's folder in sysfs."""
        found = self._find()
        if found is None:
            raise LabError(f"the kernel sees no device with serial {self.serial}")
        return found

    @property
    def present(self) -> bool:
        return self._find() is not None

    @property
    def address(self) -> str:
        """The address as the kernel prints it: 2-1."""
        return self.folder.name

    @property
    def interface(self) -> Path:
        """The mass-storage interface's folder in sysfs."""
        folder = self.folder
        return folder / f"{folder.name}:1.0"

    def _find(self) -> Path | None:
        """Find the folder by the serial number, first where it was last, because a search of all devices is slow."""
        known = _places.get(self.serial)
        if known is None or _text(known / "serial") != self.serial:
            paths = (USB / "devices").glob("*/serial")
            known = _places[self.serial] = next((path.parent for path in paths if _text(path) == self.serial), None)
        return known

    def bound(self) -> str | None:
        """Return the name of the driver that is bound to the interface, if any."""
        if not self.present:
            return None
        try:
            return (self.interface / "driver").readlink().name
        except FileNotFoundError:
            return None

    def unit_folders(self, lun: int) -> Iterator[Path]:
        yield from self.interface.glob(f"host*/target*/*:{lun}")

    def ready(self) -> bool:
        """Return whether the kernel's driver is bound and all nodes exist."""
        if self.bound() != self.driver:
            return False
        # Each bind makes a new SCSI host, maybe with an old number: one that was complete once stays complete.
        hosts = [(path, _inode(path)) for path in self.interface.glob("host*")]
        if not hosts:  # the driver's link exists before the driver has probed the device
            return False
        if _complete.issuperset(hosts):
            return True
        if not all(unit.has_nodes() for unit in self.units):
            return False
        _complete.update(hosts)
        return True

    def wait(self) -> Device:
        """Wait until the device is ready; return it."""
        wait_for(self.ready, f"{self.driver} to have {self.name} and all its nodes")
        return self


def _opens(node: Path) -> bool:
    """Return whether the node has a device, which comes a moment after the node.

    A block node without a medium cannot be opened either, but with another error.
    """
    if sys.platform != "linux":
        raise NotImplementedError
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENXIO)
    return True


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def share() -> Path:
    """The folder shared with the host."""
    return Path(os.environ["SCSIUSB_LAB"])


def is_native() -> bool:
    """Return whether this is the native lab, which has no QEMU: every device is a gadget of the guest's kernel."""
    return os.environ.get("SCSIUSB_LAB_KIND") == "native"


@cache
def zoo() -> dict[str, Device]:
    """Every device by name."""
    rows = json.loads((share() / "zoo.json").read_text())
    return {row["name"]: _device(row) for row in rows}


def uas_devices() -> list[str]:
    """Name what speaks UAS: QEMU's with streams and without, or the kernel's target, which Linux itself uses by BOT."""
    return [name for name, device in zoo().items() if device.driver == "uas" or device.kind == "target"]


def units(*, medium: bool | None = None, bot: bool = False) -> list[Unit]:
    """The zoo's logical units, for parametrize: with or without a medium, of all devices or of those that speak BOT."""
    found = [unit for device in zoo().values() if device.driver == "usb-storage" or not bot for unit in device.units]
    return [unit for unit in found if medium is None or (unit.path is not None) == medium]


def _device(row: dict[str, Any]) -> Device:
    plain = {key: row[key] for key in ("name", "kind", "driver", "serial", "speed", "udc")}
    device = Device(**plain, units=(), qemu=tuple(row["qemu"]))
    made = tuple(_unit(device, unit) for unit in row["units"])
    object.__setattr__(device, "units", made)
    return device


def _unit(device: Device, row: dict[str, Any]) -> Unit:
    path = Path(row["path"]) if row["path"] else None
    regions = tuple((offset, length) for offset, length in row["regions"])
    return Unit(device, **{**row, "path": path, "regions": regions})


def _text(path: Path) -> str:
    """Read an attribute in sysfs; empty if the device has just been unplugged."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
