"""Reply to IDENTIFY DEVICE: who an ATA disk is, and what it can do (ACS-3 7.12)."""

from __future__ import annotations

import struct
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.reply import text

LENGTH: Final = 512  # bytes
IDENTIFY_DEVICE: Final = 0xEC
SIGNATURE: Final = 0xA5  # of the checksum
SSD: Final = 1  # of the rotation rate
TRANSPORT_SPEEDS: Final = {1: "1.5 Gb/s", 2: "3.0 Gb/s", 3: "6.0 Gb/s"}


@dataclass(frozen=True)
class IdentifyData:
    """What an ATA disk says of itself."""

    model: str
    serial: str
    firmware: str
    blocks: int
    """Logical sectors that can be addressed."""
    block_size: int
    """Bytes of a logical sector."""
    physical_size: int
    """Bytes of a physical sector."""
    rotation_rate: int
    """Rotations a minute; 1 does not rotate, 0 is not reported."""
    has_smart: bool
    smart_enabled: bool
    has_write_cache: bool
    write_cache_enabled: bool
    has_trim: bool
    security_supported: bool
    security_enabled: bool
    security_locked: bool
    security_frozen: bool
    link_speed: str | None
    """The speed of the SATA link, where it is known."""
    fastest_link: str | None
    """The fastest one that the disk can do, where it is known."""
    checksum_fits: bool | None
    """Whether the checksum is right; None if there is none."""

    @classmethod
    def parse(cls, data: bytes) -> IdentifyData:
        """Parse 512 bytes. Raises MalformedReply for another length, and for bytes that are all the same."""
        if len(data) != LENGTH or data.count(data[:1]) == LENGTH:
            raise MalformedReply(f"IDENTIFY DEVICE: the {len(data)} bytes received are no identification")
        words = struct.unpack("<256H", data)
        large = words[106] if words[106] & 0xC000 == 0x4000 else 0
        size = 2 * (words[117] | words[118] << 16) if large & 0x1000 else 512
        security = words[128]
        return cls(
            model=ata_text(data, 27, 20),
            serial=ata_text(data, 10, 10),
            firmware=ata_text(data, 23, 4),
            blocks=_blocks(words),
            block_size=size,
            physical_size=size << (large & 0xF) if large & 0x2000 else size,
            rotation_rate=words[217],
            has_smart=bool(words[82] & 0x0001),
            smart_enabled=bool(words[85] & 0x0001),
            has_write_cache=bool(words[82] & 0x0020),
            write_cache_enabled=bool(words[85] & 0x0020),
            has_trim=bool(words[169] & 1),
            security_supported=bool(security & 0x01),
            security_enabled=bool(security & 0x02),
            security_locked=bool(security & 0x04),
            security_frozen=bool(security & 0x08),
            link_speed=TRANSPORT_SPEEDS.get(words[77] >> 1 & 7),
            fastest_link=fastest_link(words[76]),
            checksum_fits=None if data[510] != SIGNATURE else sum(data) & 0xFF == 0,
        )

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.blocks * self.block_size


def _blocks(words: tuple[int, ...]) -> int:
    if words[83] & 0x0400:  # 48-bit addresses
        return words[100] | words[101] << 16 | words[102] << 32 | words[103] << 48
    return words[60] | words[61] << 16


def fastest_link(capabilities: int) -> str | None:
    """Return the highest of the speeds of a SATA disk (word 76), where each has a bit; 0 and FFFFh: it is none."""
    known = [] if capabilities == 0xFFFF else [code for code in TRANSPORT_SPEEDS if capabilities >> code & 1]
    return TRANSPORT_SPEEDS[max(known)] if known else None


def ata_text(data: bytes, word: int, count: int) -> str:
    """Return a text, whose two bytes of each word are swapped."""
    part = data[2 * word : 2 * (word + count)]
    swapped = bytes(byte for at in range(0, len(part), 2) for byte in (part[at + 1], part[at]))
    return text(swapped)
