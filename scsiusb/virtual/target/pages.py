"""Parameter data that describe a unit: standard INQUIRY data, vital product data pages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scsiusb.virtual.target import third_party_copy
from scsiusb.virtual.target import unmap as unmapping
from scsiusb.virtual.target import zoned as zoned_device

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

MOST_COMPARED = 128  # MAXIMUM COMPARE AND WRITE LENGTH of the Block Limits page
MOST_ATOMIC = 256  # MAXIMUM ATOMIC TRANSFER LENGTH, in blocks
MOST_SAME = 1 << 16  # MAXIMUM WRITE SAME LENGTH
DISK = 0x00  # PERIPHERAL DEVICE TYPE direct access block device
CD_ROM = 0x05
NO_DEVICE = 0x7F  # PERIPHERAL QUALIFIER 3, PERIPHERAL DEVICE TYPE 1Fh

_RMB = 0x80
_RESPONSE_DATA_FORMAT = 0x02
_LBPU, _LBPWS, _LBPWS10, _LBPRZ = 0x80, 0x40, 0x20, 0x04
_THIN = 2  # PROVISIONING TYPE
_HOST_AWARE = 0x10  # ZONED
_NOT_REQUIRED = 0x50  # WABEREQ and WACEREQ: what was erased can be read before it is written


def inquiry(
    peripheral: int, *, removable: bool, version: int, vendor: str = "", product: str = "", revision: str = ""
) -> bytes:
    """Return the first 36 bytes of standard INQUIRY data (SPC-4 6.6.2); `peripheral` is byte 0."""
    head = bytes((peripheral, _RMB if removable else 0, version, _RESPONSE_DATA_FORMAT, 31, 0, 0, 0))
    return head + ascii_field(vendor, 8) + ascii_field(product, 16) + ascii_field(revision, 4)


def ascii_field(text: str, width: int) -> bytes:
    """Return the text left-aligned and padded with spaces to `width` bytes (SPC-4 4.4.1)."""
    return text.encode("ascii", "replace")[:width].ljust(width)


def _supported_pages(unit: Unit) -> bytes:
    return bytes(sorted(vpd_pages(unit)))


def _unit_serial_number(unit: Unit) -> bytes:
    serial = unit.device_serial if unit.serial is None else unit.serial
    return serial.encode("ascii", "replace")


def _device_identification(unit: Unit) -> bytes:
    """Return a designator of the logical unit: T10 vendor ID based, ASCII (SPC-4 7.8.6.4); one more for copies."""
    name = ascii_field(unit.vendor, 8) + ascii_field(unit.product, 16) + _unit_serial_number(unit)[:200]
    more = b"" if unit.copies is None else third_party_copy.designator(_unit_serial_number(unit).decode())
    return bytes((0x02, 0x01, 0x00, len(name))) + name + more


def _block_limits(unit: Unit) -> bytes:
    """Return the 3Ch bytes after the header (SBC-3 6.5.3); MAXIMUM TRANSFER LENGTH 0 reports no limit."""
    unmap = (unmapping.MOST_BLOCKS, unmapping.MOST_RANGES) if unit.thin else (0, 0)
    limits = struct.pack(">xB2xI8x", MOST_COMPARED, unit.maximum_transfer)
    return limits + struct.pack(">II8xQI16x", *unmap, MOST_SAME, MOST_ATOMIC)


def _logical_block_provisioning(unit: Unit) -> bytes:
    """Return page B2h of a thin unit: by what it unmaps, and LBPRZ if its blocks read as zeros (SBC-3 6.5.4)."""
    return bytes((0, _LBPU | _LBPWS | _LBPWS10 | (_LBPRZ if unit.thin_zeros else 0), _THIN, 0))


def _ata_information(unit: Unit) -> bytes:
    """Return page 89h: who translates, the signature of an ATA disk, and its identification (SAT-3 12.4.2)."""
    names = ascii_field("scsiusb", 8) + ascii_field("Virtual SAT", 16) + ascii_field("1.00", 4)
    signature = bytes((0x34, 0, 0x50, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1)).ljust(20, b"\0")
    identification = unit.ata.identify(unit) if unit.ata is not None else bytes(512)
    return bytes(4) + names + signature + bytes((0xEC, 0, 0, 0)) + identification


def _block_device_characteristics(unit: Unit) -> bytes:
    """Return page B1h: the rotation rate, and the form factor 2.5 inch (SBC-3 6.5.2)."""
    rotation = unit.ata.rotation if unit.ata is not None else 1
    zoned = _HOST_AWARE if unit.zones is not None else 0
    return struct.pack(">HBBB", rotation, 0, _NOT_REQUIRED | 3, zoned).ljust(60, b"\0")


_VPD: Mapping[int, Callable[[Unit], bytes]] = {
    0x00: _supported_pages,
    0x80: _unit_serial_number,
    0x83: _device_identification,
    0x89: _ata_information,
    0x8F: lambda unit: third_party_copy.description(),
    0xB0: _block_limits,
    0xB1: _block_device_characteristics,
    0xB2: _logical_block_provisioning,
    0xB6: lambda unit: zoned_device.characteristics(),
}


def vpd_pages(unit: Unit) -> list[int]:
    """Return the page codes of the vital product data that the unit has."""
    if not unit.has_vpd:
        return []
    missing = {
        0x89: not unit.translates_ata,
        0xB0: unit.device_type != DISK,
        0x8F: unit.copies is None,
        0xB1: unit.ata is None and unit.nvme is None and not unit.thin,
        0xB2: not unit.thin,
        0xB6: unit.zones is None,
    }
    return [page for page in _VPD if not missing.get(page)]


def vpd(unit: Unit, page: int) -> bytes | None:
    """Return a vital product data page; None if the unit does not have it."""
    if page not in vpd_pages(unit):
        return None
    body = _VPD[page](unit)
    return struct.pack(">BBH", unit.device_type, page, len(body)) + body


def mode_block_descriptor(blocks: int, block_size: int, long_lba: bool) -> bytes:
    """Return a short or long LBA mode parameter block descriptor (SBC-3 6.4.2)."""
    if long_lba:
        return struct.pack(">Q4xI", blocks, block_size)
    return struct.pack(">II", min(blocks, 0xFFFFFFFF), block_size & 0xFFFFFF)
