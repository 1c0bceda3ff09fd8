"""Who a device is: what must be the same when a job goes on after it was interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceMismatch

BEGIN_ANEW: Final = "remove the journal, and begin anew without --resume"
MOST_SAMPLES: Final = 64


@dataclass(frozen=True)
class DiskIdentity:
    """The device, its unit and its medium; not its address, which changes when it is plugged in again."""

    vid: int
    pid: int
    serial: str | None
    lun: int
    vendor: str
    product: str
    revision: str
    blocks: int
    block_size: int

    @classmethod
    def of(cls, disk: Disk) -> DiskIdentity:
        """Ask the device. Raise NoMedium, NotReady, TransportError."""
        info, unit = disk.unit.transport.info, disk.inquiry()
        return cls(
            info.vid,
            info.pid,
            info.serial,
            disk.unit.lun,
            unit.vendor,
            unit.product,
            unit.revision,
            disk.blocks,
            disk.block_size,
        )

    def record(self) -> dict[str, Any]:
        """Return it as names and values for JSON."""
        return asdict(self)

    def check(self, known: object) -> None:
        """Raise DeviceMismatch unless `known`, which is what `record` returned for a device, is of this one."""
        if not isinstance(known, dict):
            raise DeviceMismatch("the journal does not say which device the job began with", BEGIN_ANEW)
        for field in fields(self):
            now, then = getattr(self, field.name), known.get(field.name)
            if now != then:
                what = f"another device, or another medium, is attached: its {field.name} is {now!r}, it was {then!r}"
                raise DeviceMismatch(what, "attach the one that the job began with")


class Piece(NamedTuple):
    """Blocks that a job is done with, by which their device is known again."""

    lba: int
    blocks: int
    digest: str
    """Of all of its bytes."""
    first: str
    """Of its first block."""


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """Return the digest by which a job knows bytes again: SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def check_contents(disk: Disk, pieces: Sequence[Piece]) -> None:
    """Read the last piece, and a block of some others. Raise DeviceMismatch if they are not what they were.

    Two devices of one model may say that they have the same serial number.
    """
    if not pieces:
        return
    step = -(-len(pieces) // MOST_SAMPLES)
    samples = [(each.lba, 1, each.first) for each in pieces[::step]]
    last = pieces[-1]
    for lba, blocks, digest in (*samples, (last.lba, last.blocks, last.digest)):
        if digest_of(disk.read(lba, blocks)) != digest:
            what = f"LBA {lba} does not have what it had when the job was interrupted: the device is another one"
            raise DeviceMismatch(f"{what}, or was changed", f"attach the one that the job began with, or {BEGIN_ANEW}")
