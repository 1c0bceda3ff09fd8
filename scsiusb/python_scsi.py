"""A device for python-scsi: code that is written for its device object runs over scsiusb, on every platform.

from pyscsi.pyscsi.scsi import SCSI
from scsiusb.python_scsi import UsbDevice

with SCSI(UsbDevice("2-1"), 512) as scsi:
    print(scsi.readcapacity10().result)
"""

from __future__ import annotations

from typing import Any, Final

from pyscsi.pyscsi import scsi_enum_command
from pyscsi.pyscsi.scsi_sense import SCSICheckCondition

from scsiusb.disk.disk import Disk
from scsiusb.errors import CheckCondition
from scsiusb.opening import open as open_disk
from scsiusb.scsi.command import RawCommand
from scsiusb.scsi.sense import FIXED_CODES, Sense

FIXED_LENGTH: Final = 18  # bytes of sense data that python-scsi expects


class UsbDevice:
    """A USB device with the methods of python-scsi's `SCSIDevice`.

    `device` is an open `Disk`, which stays open, or what `scsiusb.open` takes, as are the options. Raises as that.
    Transport errors are those of scsiusb; a command that the device refuses raises python-scsi's `SCSICheckCondition`,
    with scsiusb's own error as its cause.
    """

    CheckCondition = SCSICheckCondition
    opcodes: Any = scsi_enum_command.spc
    """The operation codes that python-scsi uses; its class `SCSI` sets those of the device's type."""
    devicetype: int | None = None
    """The peripheral device type; python-scsi's class `SCSI` sets it."""

    def __init__(self, device: Disk | str | None = None, **options: Any) -> None:
        self._is_owner = not isinstance(device, Disk)
        self.disk = device if isinstance(device, Disk) else open_disk(device, **options)

    def execute(self, cmd: Any, en_raw_sense: bool = False) -> None:
        """Execute a command of python-scsi: send its `cdb` and `dataout`, or fill its `datain`.

        With `en_raw_sense`, a command that fails has its sense data in `raw_sense_data`.
        Raises ValueError for a command with data in both directions.
        """
        if cmd.dataout and cmd.datain:
            raise ValueError(f"{cmd!r} has data in both directions; Bulk-Only Transport has one")
        data = bytes(cmd.dataout) if cmd.dataout else None
        try:
            received = self.disk.execute(RawCommand(bytes(cmd.cdb), length=len(cmd.datain), data=data))
        except CheckCondition as error:
            cmd.sense = bytearray(error.sense.raw)
            if en_raw_sense:
                cmd.raw_sense_data = cmd.sense
            raise self.CheckCondition(_plain(error.sense)) from error
        cmd.datain[: len(received)] = received

    def open(self) -> None:
        """Do nothing: the device is open from the beginning."""

    def close(self) -> None:
        """Give the device back, unless it was given as an open `Disk`; may be called again."""
        if self._is_owner:
            self.disk.close()

    def __enter__(self) -> UsbDevice:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _plain(sense: Sense) -> bytearray:
    """Return fixed format sense data: those received, if they are whole, as python-scsi fails with others."""
    raw = sense.raw
    if len(raw) >= FIXED_LENGTH and raw[0] & 0x7F in FIXED_CODES:
        return bytearray(raw)
    return bytearray((0x70, 0, sense.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, sense.asc, sense.ascq, 0, 0, 0, 0))
