"""The transport seam: a command's bytes, a direction, a buffer and a timeout in; status and residue out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, NamedTuple, Protocol

from scsiusb.quirks.model import Quirk

GOOD = 0
FAILED = 1


class Direction(Enum):
    """Which way a command's data goes, as the host sees it."""

    NONE = "none"
    IN = "in"
    OUT = "out"


class Completion(NamedTuple):
    """How the device ended a command."""

    status: int  # GOOD or FAILED
    residue: int  # bytes that the device says were not processed, at most what was asked
    transferred: int  # bytes that went over the wire in the data phase

    def processed(self, asked: int) -> int:
        """Bytes that both the wire and the device vouch for."""
        return min(self.transferred, asked - self.residue)


class Transport(Protocol):
    """What logical units run on. One command at a time: `execute` waits its turn."""

    @property
    def max_lun(self) -> int: ...

    @property
    def max_transfer(self) -> int:
        """Bytes that one command should move at most on this bus."""

    @property
    def shared(self) -> dict[int, Any]:
        """What all who use a LUN of this transport must know in common; the transport only keeps it."""

    @property
    def quirks(self) -> Quirk:
        """What the device needs care for."""

    @property
    def resets(self) -> int:
        """How often the device was reset at its port, which may have emptied its cache."""

    ignore_residue: bool
    """Set for a device whose residue is known to be false; completions then say 0."""

    def execute(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Completion:
        """Runs one command; `buffer` is the whole data phase, empty for none; `timeout` in seconds.

        Raises TransportError; what became of the command is then not known.
        """

    def hold(self) -> AbstractContextManager[object]:
        """Keeps other threads' commands out, for a command and what must follow it at once."""

    def check_identity(self) -> None:
        """Raises DeviceGone where the device that answers now is not the one that was opened."""

    def buffer(self, size: int) -> AbstractContextManager[memoryview]:
        """Lends a writable buffer of `size` bytes that is quick to transfer."""

    def owns(self, buffer: memoryview) -> bool:
        """Is this one that `buffer` lent, or a part of it?"""

    def close(self) -> None: ...
