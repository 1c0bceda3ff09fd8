#!/usr/bin/env python3
"""Measures reading a device in 1 MiB commands: scsiusb's API beside a plain pyusb loop, interleaved."""

from __future__ import annotations

import statistics
import struct
import sys
import time
from collections.abc import Callable

import libusb_package
import usb.core
import usb.util

import scsiusb

MIB = 1 << 20
TOTAL = 64 * MIB
ROUNDS = 5


def with_scsiusb(serial: str) -> float:
    """MB/s of `readinto` into one buffer."""
    with scsiusb.open(f"serial={serial}") as disk:
        blocks = MIB // disk.block_size
        buffer = bytearray(MIB)
        disk.readinto(0, buffer)
        began = time.perf_counter()
        for lba in range(0, TOTAL // disk.block_size, blocks):
            disk.readinto(lba, buffer)
        return TOTAL / 1e6 / (time.perf_counter() - began)


def with_plain_pyusb(serial: str) -> float:
    """MB/s of what one writes first: CBW, data and CSW by `Device.write` and `Device.read`."""
    device = next(
        d for d in usb.core.find(find_all=True, backend=libusb_package.get_libusb1_backend()) if _serial(d) == serial
    )
    device.detach_kernel_driver(0)
    usb.util.claim_interface(device, 0)
    try:
        _read(device, 0, 0)
        began = time.perf_counter()
        for number in range(TOTAL // MIB):
            _read(device, number + 1, number * (MIB // 512))
        return TOTAL / 1e6 / (time.perf_counter() - began)
    finally:
        usb.util.release_interface(device, 0)
        device.attach_kernel_driver(0)
        usb.util.dispose_resources(device)


def _serial(device: usb.core.Device) -> str | None:
    return device.serial_number if device.bDeviceClass == 0 else None


def _read(device: usb.core.Device, tag: int, lba: int) -> None:
    into, out = (e.bEndpointAddress for e in sorted(device[0][0, 0], key=lambda e: -e.bEndpointAddress))
    cdb = struct.pack(">BBIBHB", 0x28, 0, lba, 0, MIB // 512, 0)
    device.write(out, struct.pack("<4sIIBBB16s", b"USBC", tag, MIB, 0x80, 0, len(cdb), cdb))
    data = device.read(into, MIB, 30000)
    status = device.read(into, 13, 30000)
    assert len(data) == MIB
    assert status[12] == 0


def main() -> None:
    serial = (
        sys.argv[1] if len(sys.argv) > 1 else next(i.serial or "" for i in scsiusb.devices() if i.protocol == "bot")
    )
    runs: dict[str, list[float]] = {"scsiusb": [], "plain pyusb": []}
    ways: dict[str, Callable[[str], float]] = {"scsiusb": with_scsiusb, "plain pyusb": with_plain_pyusb}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            runs[name].append(way(serial))
    for name, speeds in runs.items():
        print(f"{name:12} {statistics.median(speeds):7.1f} MB/s  ({min(speeds):.1f} to {max(speeds):.1f})")
    ratios = [fast / slow for fast, slow in zip(*runs.values(), strict=True)]
    print(f"ratio        {statistics.median(ratios):7.2f}       ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
