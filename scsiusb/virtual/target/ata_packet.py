"""An ATAPI drive behind a bridge that translates ATA commands: IDENTIFY PACKET DEVICE (ACS-3, SAT-3 12.2.3)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target.ata import PASS_THROUGH_16, PIO_IN
from scsiusb.virtual.target.ata_extended import returned
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, CommandFailed
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

IDENTIFY_PACKET: Final = 0xA1
SIGNATURE: Final = 0xEB14 << 8  # in the LBA, of a packet device that was given a command of disks
_ABORT, _ERROR = 0x04, 0x51


def furnish(unit: Unit) -> None:
    """Let the drive answer ATA PASS-THROUGH(16), not (12), whose code is BLANK."""
    unit.add(PASS_THROUGH_16, _pass_through)


def _pass_through(unit: Unit, cdb: bytes) -> Task:
    if cdb[14] != IDENTIFY_PACKET:
        raise CommandFailed(returned(0xB, _ABORT, _ERROR, cdb[6], SIGNATURE))
    if cdb[1] >> 1 & 0xF != PIO_IN or cdb[6] != 1:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Parameters(identify(unit), 512)


def identify(unit: Unit) -> bytes:
    """Return the 512 bytes of IDENTIFY PACKET DEVICE: of a drive for CDs with packets of 12 bytes."""
    words = [0] * 256
    words[0] = 0x8000 | 5 << 8 | 0x0080 | 0x0040  # ATAPI, CD drive, removable, ready within 50 microseconds
    words[49], words[53], words[63], words[64], words[80] = 0x0F00, 0x0006, 0x0407, 0x0003, 0x00F0
    words[65:69] = [120] * 4  # nanoseconds of a cycle
    words[76], words[77], words[82], words[83], words[84] = 0x0002, 0x0002, 0x0210, 0x4000, 0x4000
    words[85], words[87], words[88], words[222] = 0x0210, 0x4000, 0x203F, 0x101F
    data = bytearray(struct.pack("<256H", *words))
    texts = ((10, 10, unit.device_serial), (23, 4, unit.revision), (27, 20, f"{unit.vendor} {unit.product}"))
    for word, count, text in texts:
        field = text.encode("ascii", "replace")[: 2 * count].ljust(2 * count)
        data[2 * word : 2 * (word + count)] = bytes(field[at ^ 1] for at in range(2 * count))
    data[510] = 0xA5
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)
