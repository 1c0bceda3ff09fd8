"""An emulation of Linux's sysfs and usbfs with one mass-storage interface: files, and a function instead of ioctl."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scsiusb.leases.record import Record
from scsiusb.leases.warden_main import Holding, Kernel

NAMES = {0: "control", 15: "claim", 16: "release", 18: "connect", 20: "reset", 21: "clear"}


class Usbfs:
    """`steps` are the requests that succeeded; `fail` maps a request to an errno; `intercept` is called before each."""

    def __init__(self, root: Path, driver: str | None = None, name: str = "2-1:1.0", number: int = 7) -> None:
        self.sysfs, self.dev = root / "sys", root / "dev"
        self.steps: list[tuple[str, bytes]] = []
        self.fail: dict[str, int] = {}
        self.intercept: Callable[[str], object] = lambda name: None
        self.takes: str | None = "usb-storage"
        devices = self.sysfs / "bus" / "usb" / "devices"
        self.device, self.interface = devices / name.partition(":")[0], devices / name
        for folder in (self.device, self.interface, self.dev / "bus" / "usb" / f"{int(name[0]):03}"):
            folder.mkdir(parents=True, exist_ok=True)
        self.node = self.dev / "bus" / "usb" / f"{int(name[0]):03}" / f"{number:03}"
        self.node.write_text("")
        for attribute, value in (("idVendor", "0781"), ("idProduct", "5581"), ("serial", "4C53")):
            (self.device / attribute).write_text(f"{value}\n")
        (self.device / "busnum").write_text(f"{name[0]}\n")
        (self.device / "devnum").write_text(f"{number}\n")
        (self.interface / "bInterfaceNumber").write_text("00\n")
        (self.interface / "bInterfaceClass").write_text("08\n")
        self.bind(driver)

    @property
    def kernel(self) -> Kernel:
        return Kernel(str(self.sysfs), str(self.dev), self.ioctl)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.steps]

    @property
    def driver(self) -> str | None:
        link = self.interface / "driver"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def bind(self, driver: str | None) -> None:
        link = self.interface / "driver"
        link.unlink(missing_ok=True)
        if driver:
            link.symlink_to(f"../drivers/{driver}")

    def unplug(self) -> None:
        for path in (self.node, self.device / "busnum", self.device / "devnum", self.interface / "bInterfaceNumber"):
            path.unlink()
        self.bind(None)

    def ioctl(self, descriptor: int, code: int, argument: Any) -> int:
        os.fstat(descriptor)  # it is open
        assert code >> 8 & 0xFF == ord("U")
        name = NAMES[code & 0xFF]
        self.intercept(name)
        if name in self.fail:
            raise OSError(self.fail[name], os.strerror(self.fail[name]))
        if not self.node.exists():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self.steps.append((name, argument if isinstance(argument, bytes) else b""))
        self._do(name)
        return 0

    def _do(self, name: str) -> None:
        if name == "claim":
            if self.driver:
                self.steps.pop()
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            self.bind("usbfs")
        elif name == "release":
            self.bind(None)
        elif name == "connect" and self.driver is None:
            self.bind(self.takes)


def holding(had_driver: bool = True, in_command: bool = False, **changes: Any) -> Holding:
    fields = {"name": "2-1:1.0", "bus": 2, "number": 7, "interface": 0, "bulk_in": 0x81, "bulk_out": 0x02}
    made = Holding(**{**fields, **changes}, had_driver=had_driver)
    made.in_command = in_command
    return made


RECORD = Record(
    pid=1234,
    started=5678,
    boot=None,
    command="python backup.py",
    since="2026-11-22T16:11:00+01:00",
    address="2-1",
    name="2-1:1.0",
    bus=2,
    number=7,
    interface=0,
    vendor_id=0x0781,
    product_id=0x5581,
    serial="4C53",
    driver="usb-storage",
    bulk_in=0x81,
    bulk_out=0x02,
    uid=None,
    pid_namespace=None,
)


def with_lease(path: Path, had_driver: bool = True) -> Holding:
    made = holding(had_driver)
    made.lease = os.fsencode(path)
    return made
