"""Which general purpose logs an ATA disk has (ACS-3 annex A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scsiusb.ata.extended import GENERAL_LOGS_BIT, GENERAL_LOGS_WORD, read_log
from scsiusb.ata.identify import IDENTIFY_DEVICE
from scsiusb.ata.passthrough import SAT, SECTOR, Ata
from scsiusb.ata.refusals import refusals_named
from scsiusb.errors import DeviceUnsupported, MalformedReply
from scsiusb.scsi.unit import LogicalUnit

DIRECTORY: Final = 0x00
NAMES: Final[Mapping[int, str]] = {
    0x00: "directory",
    0x01: "summary error log",
    0x02: "comprehensive error log",
    0x03: "extended comprehensive error log",
    0x04: "device statistics",
    0x06: "self-test log",
    0x07: "extended self-test log",
    0x08: "power conditions",
    0x09: "selective self-test log",
    0x0A: "device statistics notifications",
    0x0C: "pending defects",
    0x0D: "LPS misalignment log",
    0x10: "NCQ command error",
    0x11: "SATA PHY event counters",
    0x12: "NCQ queue management",
    0x13: "NCQ send and receive",
    0x19: "LBA status",
    0x21: "write stream errors",
    0x22: "read stream errors",
    0x30: "IDENTIFY DEVICE data",
    0xE0: "SCT command and status",
    0xE1: "SCT data",
}
HOST_LOGS, VENDOR_LOGS = range(0x80, 0xA0), range(0xA0, 0xE0)
MOST_PAGES: Final = 64  # of a log that is read; the standard has 25 for the errors


def log_name(address: int) -> str:
    """Return the name of a log; "host specific" and "vendor specific" for those of others."""
    if address in HOST_LOGS or address in VENDOR_LOGS:
        return "host specific" if address in HOST_LOGS else "vendor specific"
    return NAMES.get(address, "reserved")


def sizes_of_logs(unit: LogicalUnit) -> dict[int, int]:
    """Return the number of pages of each log that the disk has, by its address (General Purpose Log Directory).

    Raises DeviceUnsupported where the unit is no disk, or the disk has no such logs; as `extended.read_log`.
    """
    with refusals_named("general purpose logs", (SAT,)):
        identity = Ata(unit).read(IDENTIFY_DEVICE)
        at = 2 * GENERAL_LOGS_WORD
        word = int.from_bytes(identity[at : at + 2], "little")
        if word & 0xC000 != 0x4000 or not word & GENERAL_LOGS_BIT:
            raise DeviceUnsupported("the disk has no general purpose logs")
        return parse_directory(read_log(unit, DIRECTORY))


def check_log(sizes: Mapping[int, int], address: int, what: str) -> int:
    """Return the pages of a log, MOST_PAGES at most. Raise DeviceUnsupported where the disk does not have it."""
    if address not in sizes:
        raise DeviceUnsupported(
            f"the disk keeps no {what}", "`scsiusb smart --log directory` shows the logs that it has"
        )
    return min(sizes[address], MOST_PAGES)


def parse_directory(data: bytes) -> dict[int, int]:
    """Parse the directory: pages by address. Raises MalformedReply."""
    if len(data) != SECTOR or not data[0] | data[1]:
        raise MalformedReply(f"general purpose log directory: the {len(data)} bytes received are none")
    pages = {at: int.from_bytes(data[2 * at : 2 * at + 2], "little") for at in range(1, SECTOR // 2)}
    return {address: count for address, count in pages.items() if count}
