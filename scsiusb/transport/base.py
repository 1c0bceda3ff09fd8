"""The transport seam: a command's bytes, a direction, a buffer and a timeout in; status and residue out."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from scsiusb.base.counter import EventCounter
from scsiusb.quirks.model import Quirk
from scsiusb.transport.helper import Helper
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.usb.port import Port

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

GOOD: Final = 0
FAILED: Final = 1


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
        """Return the bytes that both the wire and the device confirm."""
        return min(self.transferred, asked - self.residue)


class Call:
    """A step that blocks: a control request, a reset, a pause."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object]) -> None:
        """Take the function that the driver calls; its result is sent, or its exception thrown, into the story."""
        self.action = action


class Pause(Call):
    """A step that waits for much less than a millisecond. A poll loop waits, too: a thread would take longer."""

    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        """Take the time to wait."""
        super().__init__(partial(time.sleep, seconds))


class Await(Call):
    """A step that waits for something to happen to the transfers that are under way, at most so long."""

    __slots__ = ()


class Enter(Call):
    """A step that waits for a turn."""

    __slots__ = ("turn",)

    def __init__(self, turn: Turn) -> None:
        """Take the turn, which `try_enter` did not get."""
        super().__init__(turn.enter)
        self.turn = turn


Transfer = tuple[int, memoryview, float]
"""A bulk transfer: the endpoint, the buffer, and the deadline by `time.monotonic`; answered with (code, count)."""
Step = Transfer | Call
Story = Generator[Step, Any, R]
"""What a command does, step by step; it does no I/O, so that one story serves every way to wait."""


Request = tuple[bytes, memoryview]
"""A command that is sent with others at once: its CDB and its buffer."""


class Memory(Protocol):
    """Buffers that are quick to transfer: device memory where there is any."""

    def lend(self, size: int) -> AbstractContextManager[memoryview]:
        """Lend a writable buffer of `size` bytes for a `with`; what it held before is still in it."""

    def owns(self, view: memoryview) -> bool:
        """Return whether the view is of a buffer that `lend` lent, and without gaps."""


class Turn(Protocol):
    """The right to use a device, of one command. Made before it is taken, so that `leave` can always be registered."""

    def try_enter(self) -> bool:
        """Take the turn if it is free."""

    def enter(self) -> None:
        """Wait for the turn and take it; in a story as `Enter(turn)`, after `try_enter` returned False.

        Raise DeviceBusy in a signal handler that interrupted a command of this thread.
        """

    def leave(self) -> None:
        """Give the turn to the next; nothing if it was not taken.

        If Ctrl-C interrupts it, at its first instruction or later, it must be called again, as `leaving` does: no other
        thread can give the turn back. Only the frame that calls it can do that.
        """


@contextmanager
def leaving(turn: Turn) -> Iterator[None]:
    """Leave the turn at the end, if it was taken."""
    try:
        yield
    finally:
        try:
            turn.leave()
        except BaseException:
            turn.leave()
            raise


class Polled(Protocol[R_co]):
    """A story that one thread moves on beside those of other devices."""

    def proceed(self) -> bool:
        """Move on as far as is possible without waiting; return True when the story has ended."""

    @property
    def is_handed_over(self) -> bool:
        """Whether another thread has it until its end, which `Helper.wake` then tells."""

    def result(self) -> R_co:
        """Return what the ended story returned, or raise what it raised; once."""

    def cancel(self) -> None:
        """End the story in the middle; the device is recovered before its next command. Drop what an ended one gave."""


class Scope(Protocol):
    """The commands of one call, or of one stream, which can be cancelled without those of others on the same device."""

    def run(self, function: Callable[..., R], *arguments: object) -> R:
        """Call the function and return its result; the commands that it sends, in this thread, are this scope's."""

    def cancel(self) -> None:
        """End the command of this scope that is running, and let no more begin: they raise Cancelled. From any thread.

        A command that waits for its turn ends, too.
        """


class Transport(Protocol):
    """What logical units run on.

    A command is a story. It takes the turn, exchanges one command or several, and leaves; `drive` performs it.
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
    def resets(self) -> EventCounter:
        """Resets of the device at its port, and lost reports that may have been of one: its cache may be empty."""

    @property
    def losses(self) -> EventCounter:
        """Exchanges that did not end with an accepted status: what the device said in them, it may not say again."""

    @property
    def doubts(self) -> EventCounter:
        """The losses, and the resets that a unit reported: after each, a removable medium may be another one."""

    @property
    def memory(self) -> Memory:
        """The buffers that transfers use; other memory is copied through them."""

    ignore_residue: bool
    """Set for a device whose residue is known to be false; completions then say 0."""

    @property
    def is_here(self) -> bool:
        """Whether this thread is in the middle of a command to the device: in a signal handler, or in `__del__`."""

    def check(self) -> None:
        """Raise DeviceGone or DeviceClosed if no command can be sent."""

    # --- stories --------------------------------------------------------------------------------

    def turn(self) -> Turn:
        """Return a turn, not yet taken, of this user, in the scope that this thread is in, if any."""

    def exchange(
        self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float
    ) -> Story[Completion]:
        """Run one command, within a turn that was taken; `buffer` is the whole data phase, empty for none.

        `timeout` in seconds. Raise TransportError; whether the command was carried out is then not known.
        """

    @property
    def depth(self) -> int:
        """How many commands the device takes at once; with more than 1, there is `exchange_many`."""

    def exchange_many(
        self, lun: int, requests: Sequence[Request], direction: Direction, timeout: float, depth: int | None = None
    ) -> Story[list[tuple[Completion, bytes]]]:
        """Run commands of one direction at once, within a turn that was taken; return how each ended, and its sense.

        They are carried out in any order, so many at a time as `depth` says; None: as many as the device takes.
        `timeout`: seconds for each. Raise TransportError for all: none counts then.
        """

    def check_identity(self) -> None:
        """Raise DeviceGone if the device that answers now is not the one that was opened. Blocks."""

    # --- drivers --------------------------------------------------------------------------------

    def drive(self, story: Story[R]) -> R:
        """Perform a story to its end and return its result."""

    @property
    def descriptor(self) -> int | None:
        """The file descriptor to poll for writing while a story is polled; None if none can be polled."""

    def poll(self, story: Story[R], helper: Helper, scope: Scope) -> Polled[R]:
        """Return a story to be polled, which begins at its first `proceed`; only if there is a `descriptor`.

        `helper` performs what blocks, for one story at a time; its `wake` is called from another thread when something
        other than a transfer moved the story on. `scope` is one of this transport; where another thread moves the story
        on, the commands are of this scope.
        """

    # --- the rest -------------------------------------------------------------------------------

    def scope(self) -> Scope:
        """Return a new scope, a part of the scope that this thread is in, if any. It needs no release."""

    def reset_port(self) -> None:
        """Reset the device at its port, which empties its cache. Raise TransportError; the device is then recovered."""

    def probing(self) -> AbstractContextManager[Port]:
        """Lend the port for exchanges that break the protocol's rules; the device is recovered after them.

        Raise DeviceUnsupported if there is no port to lend, or if the protocol is not BOT.
        """

    def close(self) -> None:
        """End this use of the device; may be called again."""
