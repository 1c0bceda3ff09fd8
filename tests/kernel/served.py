"""A virtual stick on the guest's kernel: served over USB/IP by a thread of the test, and attached to vhci_hcd."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from scsiusb.virtual import Fault, File, Identity, Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import InterfaceDescriptor
from scsiusb.virtual.usbip.server import Server

from .machine import USB, Device, LabError, wait_for
from .machine import Unit as Place

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
FREE = 4  # status of a free port: VDEV_ST_NULL
SPEEDS = {"full": 2, "high": 3, "super": 5}  # enum usb_device_speed
MBITS = {"full": 12, "high": 480, "super": 5000}
SUPER = ("5000", "10000")  # speeds of the root hub; Linux 6.12 made it SuperSpeedPlus
USBDEVFS_RESET = 0x5514

_serials = itertools.count(0x5C51_0000_0000)


@dataclass
class Served:
    """An attached stick; changes of `stick.faults` apply at once."""

    stick: Stick
    server: Server
    serial: str
    driver: str = "usb-storage"
    """The kernel's driver for it."""
    port: int = -1
    _device: Device | None = field(default=None, repr=False)

    # --- place ----------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The address as the kernel prints it, from the port number, so that it exists also if enumeration failed."""
        hub, port = _hub(self.speed)
        return f"{(hub / 'busnum').read_text().strip()}-{self.port - port + 1}"

    @property
    def speed(self) -> str:
        return self.stick.identity.speed

    @property
    def folder(self) -> Path:
        return USB / "devices" / self.address

    @property
    def interface(self) -> Path:
        return self.folder / f"{self.address}:1.0"

    @property
    def device(self) -> Device:
        """The stick described as a device of the zoo."""
        if self._device is None:
            device = Device(f"virtual-{self.serial}", "virtual", self.driver, self.serial, MBITS[self.speed], (), ())
            units = tuple(_place(device, lun, unit) for lun, unit in enumerate(self.stick.units))
            object.__setattr__(device, "units", units)
            self._device = device
        return self._device

    @property
    def node(self) -> Path:
        """The block node, /dev/sdX; waits for it."""
        return self.device.units[0].node

    @property
    def sg(self) -> Path:
        """The generic node, /dev/sgN; waits for it."""
        return self.device.units[0].sg

    def bound(self) -> str | None:
        """Return the name of the driver that is bound to the interface, if any."""
        try:
            return (self.interface / "driver").readlink().name
        except FileNotFoundError:
            return None

    # --- actions --------------------------------------------------------------------------------

    def attach(self) -> None:
        """Plug in the stick and return at once."""
        base = _hub(self.speed)[1]
        self.port = next(port for port, status in _ports() if status == FREE and 0 <= port - base < _half())
        with _imported(self.server) as (connection, device_id):
            words = f"{self.port} {connection.fileno()} {device_id} {SPEEDS[self.speed]}"
            (VHCI / "attach").write_text(words)

    def wait(self, driver: str | None = "usb-storage", seconds: float = 60.0) -> None:
        """Wait until the kernel's driver is bound and all nodes exist; for no driver, until the interface exists."""
        if driver is None:
            wait_for((self.interface / "authorized").exists, f"the interface of {self.address}", seconds)
        else:
            wait_for(self.device.ready, f"{driver} to have {self.address}", seconds)

    def detach(self) -> None:
        """Unplug the stick and wait until the kernel has removed the device; may be called again."""
        if self.port < 0:
            return
        with suppress(OSError):  # already detached
            (VHCI / "detach").write_text(str(self.port))
        wait_for(lambda: not self.folder.exists(), f"the kernel to forget {self.address}")
        wait_for(lambda: dict(_ports())[self.port] == FREE, f"port {self.port} to be free")
        wait_for(lambda: not self.server.is_attached, "the server to be free")

    def reset(self) -> None:
        """Let the kernel reset the port, through usbfs."""
        if sys.platform != "linux":
            raise NotImplementedError
        import fcntl

        numbers = [int((self.folder / name).read_text()) for name in ("busnum", "devnum")]
        with open("/dev/bus/usb/{:03}/{:03}".format(*numbers), "wb") as file:
            fcntl.ioctl(file, USBDEVFS_RESET, 0)


@contextmanager
def served(
    path: Path | None = None,
    faults: Iterable[Fault | str] = (),
    *,
    size: int = 8 << 20,
    block_size: int = 512,
    speed: str = "high",
    read_only: bool = False,
    driver: str | None = "usb-storage",
    wait: bool = True,
    interfaces: Sequence[InterfaceDescriptor] | None = None,
) -> Iterator[Served]:
    """Attach a stick with one unit, on the file or in memory, and wait until the driver is bound.

    If `driver` is None, no kernel driver gets the interface. Without `wait`, which needs a driver, it returns at once,
    for sticks that the kernel may fail to enumerate.
    """
    medium = Memory(size, block_size) if path is None else File(path, block_size, read_only or None)
    if isinstance(medium, Memory):
        medium.data[63 * block_size] = 1  # scsiusb would not recognize a blank medium after a reset
    medium.read_only |= read_only
    identity = Identity(serial=f"{next(_serials):012X}", speed=speed)
    with (
        Stick([Unit(medium)], identity, interfaces, faults=faults) as stick,
        serving(stick, driver=driver, wait=wait) as device,
    ):
        yield device


@contextmanager
def serving(stick: Stick, *, driver: str | None = "usb-storage", wait: bool = True) -> Iterator[Served]:
    """Attach a stick of the caller, as `served` does; its serial number should be unique."""
    with Server(stick, port=0) as server:
        device = Served(stick, server, stick.identity.serial or "", driver or "usb-storage")
        _load()
        try:
            with _left_alone(device.speed, driver is None):
                device.attach()
                if wait or driver is None:  # the interface must exist before drivers are allowed again
                    device.wait(driver)
            if driver is None:
                (device.interface / "authorized").write_text("1")
            yield device
        finally:
            device.detach()


@cache
def _load() -> None:
    subprocess.run(["modprobe", "vhci-hcd"], check=True)
    wait_for(VHCI.exists, "vhci_hcd")


@cache
def _hub(speed: str) -> tuple[Path, int]:
    """Return the root hub for the speed, and the number of its first port."""
    _load()
    is_super = speed == "super"
    for hub in VHCI.glob("usb[0-9]*"):
        if ((hub / "speed").read_text().strip() in SUPER) == is_super:
            return hub, _half() if is_super else 0
    raise LabError(f"vhci_hcd has no root hub for {speed} speed")


@cache
def _half() -> int:
    """Return the number of ports of each of the two root hubs."""
    return len(list(_ports())) // 2


def _ports() -> Iterator[tuple[int, int]]:
    """Yield number and status of each port."""
    for line in (VHCI / "status").read_text().splitlines()[1:]:
        _, port, status, *_ = line.split()
        yield int(port), int(status)


@contextmanager
def _left_alone(speed: str, wanted: bool) -> Iterator[None]:
    """If `wanted`, keep the kernel from binding drivers to new interfaces on the root hub."""
    default = _hub(speed)[0] / "interface_authorized_default"
    if wanted:
        default.write_text("0")
    try:
        yield
    finally:
        if wanted:
            default.write_text("1")


@contextmanager
def _imported(server: Server) -> Iterator[tuple[socket.socket, int]]:
    """Import the stick over USB/IP; yield the connection and the device number, which the kernel needs."""
    if sys.platform != "linux":
        raise NotImplementedError
    with socket.create_connection((server.host, server.port), 30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(struct.pack(">HHI32s", 0x0111, 0x8003, 0, server.bus_id.encode()))
        reply = bytearray()
        while len(reply) < 8 + 312:
            piece = connection.recv(8 + 312 - len(reply))
            if not piece:
                raise LabError(f"the server refused the import: {reply.hex()}")
            reply += piece
        bus, number = struct.unpack_from(">II", reply, 8 + 288)
        os.set_blocking(connection.fileno(), True)
        yield connection, bus << 16 | number


def _place(device: Device, lun: int, unit: Unit) -> Place:
    medium = unit.medium
    block_size, blocks = (medium.block_size, medium.blocks) if medium else (512, 0)
    return Place(device, lun, "disk", None, block_size, blocks, unit.removable, unit.is_write_protected, ())
