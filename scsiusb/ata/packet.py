"""IDENTIFY PACKET DEVICE: who an ATAPI drive behind a bridge is (ACS-3 IDENTIFY PACKET DEVICE)."""

from __future__ import annotations

import struct
from typing import Final

from scsiusb.ata.identify import LENGTH, SIGNATURE, TRANSPORT_SPEEDS, ata_text, fastest_link
from scsiusb.ata.passthrough import AtaPassThrough16, execute_shortly
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceUnsupported, MalformedReply
from scsiusb.scsi.pages.inquiry import CD_ROM
from scsiusb.scsi.unit import LogicalUnit

IDENTIFY_PACKET_DEVICE: Final = 0xA1
PACKET, PACKET_MASK = 0x8000, 0xC000  # of word 0: the device implements the PACKET command


@dataclass(frozen=True)
class PacketIdentity:
    """What an ATAPI drive says of itself."""

    model: str
    serial: str
    firmware: str
    removable: bool
    packet_length: int | None
    """Bytes of a command packet: 12 or 16; None for a value that is reserved."""
    link_speed: str | None
    """The speed of the SATA link, where it is known."""
    fastest_link: str | None
    """The fastest one that the drive can do, where it is known."""
    checksum_fits: bool | None
    """Whether the checksum is right; None if there is none."""

    @classmethod
    def parse(cls, data: bytes) -> PacketIdentity:
        """Parse 512 bytes. Raises MalformedReply for another length, or if they are not those of an ATAPI drive."""
        if not is_packet_device(data):
            raise MalformedReply(f"IDENTIFY PACKET DEVICE: the {len(data)} bytes received are no identification")
        words = struct.unpack("<256H", data)
        return cls(
            model=ata_text(data, 27, 20),
            serial=ata_text(data, 10, 10),
            firmware=ata_text(data, 23, 4),
            removable=bool(words[0] & 0x0080),
            packet_length={0: 12, 1: 16}.get(words[0] & 3),
            link_speed=TRANSPORT_SPEEDS.get(words[77] >> 1 & 7),
            fastest_link=fastest_link(words[76]),
            checksum_fits=None if data[510] != SIGNATURE else sum(data) & 0xFF == 0,
        )


def is_packet_device(data: bytes) -> bool:
    """Return whether these are 512 bytes of IDENTIFY PACKET DEVICE, by word 0."""
    return len(data) == LENGTH and int.from_bytes(data[:2], "little") & PACKET_MASK == PACKET


def read_packet_identity(unit: LogicalUnit) -> PacketIdentity:
    """Return the ATA identification of an optical drive behind a bridge that translates ATA commands.

    It is asked for by ATA PASS-THROUGH(16) alone: the code of the short form is BLANK to such a drive. Raises
    DeviceUnsupported for another unit, UnsupportedOpcode or IllegalRequest where the bridge does not translate,
    MalformedReply, and as `LogicalUnit.execute`.
    """
    data = unit.inquiry()
    if data.peripheral_device_type != CD_ROM:
        raise DeviceUnsupported(f"an optical drive is asked for, and the unit is one of type {data.type_text}")
    return PacketIdentity.parse(execute_shortly(unit, AtaPassThrough16(IDENTIFY_PACKET_DEVICE)))
