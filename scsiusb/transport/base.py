"""The transport seam: a command's bytes, a direction, a buffer and a timeout in; status and residue out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, NamedTuple, Protocol

from scsiusb.quirks.model import Quirk
from scsiusb.usb.backend import AsyncTransfers, Code, Step
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.usb.port import Port, ResetCounter

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


class Memory(Protocol):
    """Buffers that are quick to transfer: device memory where there is any."""

    def lend(self, size: int) -> AbstractContextManager[memoryview]:
        """Lend a writable buffer of `size` bytes for a `with`; what it held before is still in it."""

    def owns(self, view: memoryview) -> bool:
        """Return whether the view is of a buffer that `lend` lent, and without gaps."""


class PolledCommand(Protocol):
    """A command whose transfers the caller makes by itself."""

    @property
    def steps(self) -> Sequence[Step]:
        """The transfers to make, in order, each only after the one before moved all of its buffer."""

    @property
    def deadline(self) -> float:
        """When the command must have ended, by `time.monotonic`."""

    @property
    def data(self) -> memoryview:
        """The data phase; empty for none."""

    @property
    def pause(self) -> float:
        """Seconds that the device needs between the command and its data; 0 for most."""


class Polling(Protocol):
    """Commands that one thread polls beside those of other devices."""

    @property
    def transfers(self) -> AsyncTransfers:
        """Makes the transfers of the command that was begun."""

    def begin(
        self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float
    ) -> PolledCommand | None:
        """Begin a command; `conclude` and `release` must follow.

        Return None where `Transport.execute` would have to wait, to recover the device, or to raise.
        """

    def conclude(self, cdb: bytes, timeout: float, number: int, code: Code, count: int) -> Completion:
        """Finish the command after its step `number` ended with `code` and `count` bytes; raise as `execute`."""

    def release(self) -> None:
        """Let other commands have the device. A command that was not concluded leaves the device out of step."""


class Transport(Protocol):
    """What logical units run on. One command at a time: `execute` waits for the one before.

    Any object with these members will do: `LogicalUnit`, `Disk`, streams, `read_many` and `AsyncDisk` use no others.
    """

    @property
    def info(self) -> InterfaceInfo:
        """The interface as it was found."""

    @property
    def max_lun(self) -> int:
        """The largest logical unit number."""

    @property
    def max_transfer(self) -> int:
        """Bytes that one command should move at most on this bus."""

    @property
    def shared(self) -> dict[int, Any]:
        """What all users of a LUN must know in common, by LUN; the transport only keeps it."""

    @property
    def quirks(self) -> Quirk:
        """What the device needs."""

    @property
    def resets(self) -> ResetCounter:
        """How often the device was reset at its port, which may have emptied its cache."""

    @property
    def memory(self) -> Memory:
        """The buffers that transfers use; other memory is copied through them."""

    @property
    def polling(self) -> Polling | None:
        """For one thread that polls many devices; None where the platform or the transport cannot."""

    ignore_residue: bool
    """Set for a device whose residue is known to be false; completions then say 0."""

    def check(self) -> None:
        """Raise DeviceGone, DeviceClosed or Cancelled if no command can be sent."""

    def execute(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Completion:
        """Run one command; `buffer` is the whole data phase, empty for none; `timeout` in seconds.

        Raise TransportError; whether the command was carried out is then not known.
        """

    def hold(self) -> AbstractContextManager[object]:
        """Keep other threads' commands out, for a command and what must follow it at once."""

    def cancellable(self) -> AbstractContextManager[Callable[[], None]]:
        """Yield a function that another thread may call to end the commands run inside; they raise Cancelled."""

    def check_identity(self) -> None:
        """Raise DeviceGone where the device that answers now is not the one that was opened."""

    def probing(self) -> AbstractContextManager[Port]:
        """Lend the port for exchanges that break the protocol's rules; the device is recovered after them.

        Raise DeviceUnsupported where there is no port to lend.
        """

    def close(self) -> None:
        """End this use of the device; may be called again."""
