"""IDENTIFY PACKET DEVICE: of the virtual drive, by its bytes, and of nothing else."""

from __future__ import annotations

import struct

import pytest

import scsiusb
from scsiusb import DeviceUnsupported, MalformedReply
from scsiusb.ata.packet import PacketIdentity, read_packet_identity


def test_an_optical_drive_says_who_it_is_by_the_long_form() -> None:
    with scsiusb.open("virtual:?profile=cd-rw") as disk:
        found = read_packet_identity(disk.unit)
    assert (found.model, found.firmware, found.serial) == ("VIRTUAL CD-RW CRX1234U", "1.0a", "0123456789AB")
    assert (found.removable, found.packet_length, found.checksum_fits) == (True, 12, True)
    assert (found.link_speed, found.fastest_link) == ("1.5 Gb/s", "1.5 Gb/s")


def test_another_unit_is_not_asked() -> None:
    with scsiusb.open("virtual:?profile=sat-ssd") as disk, pytest.raises(DeviceUnsupported, match="optical drive"):
        read_packet_identity(disk.unit)


def test_bytes_of_a_disk_or_of_nothing_are_refused() -> None:
    disk = struct.pack("<256H", 0x0040, *range(1, 256))
    for data in (disk, bytes(512), disk[:511], b""):
        with pytest.raises(MalformedReply):
            PacketIdentity.parse(data)
    sixteen = struct.pack("<256H", 0x8581, *bytes(255))
    assert PacketIdentity.parse(sixteen).packet_length == 16
    assert PacketIdentity.parse(sixteen).checksum_fits is None
