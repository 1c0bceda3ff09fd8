"""A command and its end in one line of text, for a log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from scsiusb.scsi.catalog import OWN, name_of_cdb
from scsiusb.scsi.sense import Sense

INQUIRY, REQUEST_SENSE = 0x12, 0x03
STATUSES: Final = {0: "good", 1: "failed", 2: "phase error"}


class Ended(Protocol):
    """What is told of: a command of any transport, with what came of it."""

    lun: int
    cdb: bytes
    is_in: bool
    moved: int
    data: bytes
    status: int | None
    residue: int
    seconds: float
    problems: list[str]
    sense: bytes


class Teller:
    """Puts commands into words. It remembers the type of each unit, as operation codes depend on it."""

    def __init__(self, packages: Iterable[str] = OWN) -> None:
        """Name the commands that the modules of these packages declare."""
        self._packages = packages
        self._types: dict[int, int] = {}

    def line(self, ended: Ended) -> str:
        """Return the name and bytes of the CDB, the data's length, the status, the residue, the time, the sense."""
        cdb = ended.cdb
        self._note_type(ended)
        name = name_of_cdb(cdb, self._types.get(ended.lun, 0), self._packages) if cdb else "an empty CDB"
        data = f", {ended.moved} bytes {'in' if ended.is_in else 'out'}" if ended.moved else ""
        status = "no status" if ended.status is None else STATUSES.get(ended.status, f"status {ended.status}")
        residue = f", residue {ended.residue}" if ended.residue else ""
        problems = f" ({', '.join(ended.problems)})" if ended.problems else ""
        told = ended.sense or (ended.data if cdb[:1] == bytes((REQUEST_SENSE,)) else b"")
        sense = f": {Sense.parse(told)}" if told else ""
        seconds = f", {ended.seconds * 1000:.2f} ms" if ended.status is not None else ""
        return f"LUN {ended.lun}: {name} [{cdb.hex(' ')}]{data}: {status}{residue}{problems}{seconds}{sense}"

    def _note_type(self, ended: Ended) -> None:
        if len(ended.cdb) > 1 and ended.cdb[0] == INQUIRY and not ended.cdb[1] & 1 and ended.data:
            self._types[ended.lun] = ended.data[0] & 0x1F
