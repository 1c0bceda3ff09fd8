"""A SCSI target: the logical units that share one transport."""

from __future__ import annotations

from collections.abc import Sequence

from scsiusb.virtual.target import pages
from scsiusb.virtual.target.primary import INQUIRY, REQUEST_SENSE, request_sense_fields
from scsiusb.virtual.target.sense import LUN_NOT_SUPPORTED
from scsiusb.virtual.target.task import Parameters, Task
from scsiusb.virtual.target.unit import Unit

_MAXIMUM_UNITS = 16  # bCBWLUN has four bits (BOT 5.1)


class Target:
    """A set of logical units: routes each command to its unit, and answers commands to units that do not exist.

    Raises ValueError unless there are 1 to 16 units.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        if not 1 <= len(units) <= _MAXIMUM_UNITS:
            raise ValueError(f"{len(units)} logical units; use 1 to {_MAXIMUM_UNITS}")
        self.units = tuple(units)
        for unit in self.units:
            unit.units = len(self.units)

    def execute(self, lun: int, cdb: bytes) -> Task:
        """Start a command and return its task; see `Unit.execute`."""
        if lun < len(self.units):
            return self.units[lun].execute(cdb)
        return _no_such_unit(cdb)


def _no_such_unit(cdb: bytes) -> Task:
    """Answer a command to a unit that does not exist (SPC-4 5.12): INQUIRY and REQUEST SENSE succeed and say so."""
    if cdb[0] == INQUIRY and len(cdb) >= 6:
        data = pages.inquiry(pages.NO_DEVICE, removable=False, version=0x06)
        return Parameters(data, int.from_bytes(cdb[3:5], "big"))
    if cdb[0] == REQUEST_SENSE and len(cdb) >= 6:
        descriptors, length = request_sense_fields(cdb)
        sense = LUN_NOT_SUPPORTED
        return Parameters(sense.descriptors() if descriptors else sense.fixed(), length)
    return Task(failed=True)
