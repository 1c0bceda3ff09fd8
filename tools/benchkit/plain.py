"""The obvious way with pyusb: CBW, data and CSW by `Device.write` and `Device.read`."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libusb_package
import usb.core
import usb.util

from benchkit import programs
from benchkit.work import Runner, timed
from tests.kernel.machine import Unit

READ_10 = 0x28
WRITE_10 = 0x2A
TIMEOUT_MS = 30000


@contextmanager
def read(unit: Unit, size: int) -> Iterator[Runner]:
    """Read with pyusb alone."""
    with _stick(unit, size) as stick:
        yield timed(stick.read)


@contextmanager
def write(unit: Unit, size: int) -> Iterator[Runner]:
    """Write with pyusb alone."""
    with _stick(unit, size) as stick:
        yield timed(stick.write, os.urandom(size))


class _Stick:
    def __init__(self, device: Any, endpoints: tuple[int, int], size: int, block_size: int) -> None:
        self._device = device
        self._in, self._out = endpoints
        self._size = size
        self._blocks = size // block_size
        self._tag = 0

    def read(self, lba: int) -> None:
        self._begin(0x80, READ_10, lba)
        data = self._device.read(self._in, self._size, TIMEOUT_MS)
        self._end(len(data))

    def write(self, lba: int, data: bytes) -> None:
        self._begin(0, WRITE_10, lba)
        self._end(self._device.write(self._out, data, TIMEOUT_MS))

    def _begin(self, flags: int, opcode: int, lba: int) -> None:
        self._tag += 1
        cdb = struct.pack(">BBIBHB", opcode, 0, lba, 0, self._blocks, 0)
        self._device.write(
            self._out, struct.pack("<4sIIBBB16s", b"USBC", self._tag, self._size, flags, 0, len(cdb), cdb)
        )

    def _end(self, count: int) -> None:
        status = self._device.read(self._in, 13, TIMEOUT_MS)
        if count != self._size or status[12]:
            raise OSError(f"{count} of {self._size} bytes transferred, CSW status {status[12]}")


@contextmanager
def _stick(unit: Unit, size: int) -> Iterator[_Stick]:
    folder = unit.device.wait().folder
    bus, number = (int((folder / name).read_text()) for name in ("busnum", "devnum"))
    backend = libusb_package.get_libusb1_backend()
    device = usb.core.find(backend=backend, custom_match=lambda d: (d.bus, d.address) == (bus, number))
    endpoints = programs.endpoints(unit)
    device.detach_kernel_driver(0)
    usb.util.claim_interface(device, 0)
    try:
        yield _Stick(device, endpoints, size, unit.block_size)
    finally:
        usb.util.release_interface(device, 0)
        device.attach_kernel_driver(0)
        usb.util.dispose_resources(device)
