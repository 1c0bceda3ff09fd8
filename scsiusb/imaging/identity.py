"""Who a device is: what must be the same when a job goes on after it was interrupted."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceMismatch


@dataclass(frozen=True)
class Identity:
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
    def of(cls, disk: Disk) -> Identity:
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


BEGIN_ANEW = "begin anew without --resume"
