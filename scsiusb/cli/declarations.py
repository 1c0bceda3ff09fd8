"""The rooms above SCSI that declare commands, loaded where commands are named by their CDBs."""

from __future__ import annotations

from importlib import import_module
from typing import Final

ROOMS: Final = ("scsiusb.ata",)


def load_declarations() -> None:
    """Import the rooms, which adds their commands to `scsiusb.scsi.catalog`."""
    for room in ROOMS:
        import_module(room)
