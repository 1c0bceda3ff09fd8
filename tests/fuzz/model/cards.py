"""Media whose blocks name their medium, and the card readers that hold them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.faults.script import Command

BLOCKS: Final = 24
BLOCK_SIZE: Final = 512
PIECE: Final = 8  # blocks, the maximum of the unit's block limits page: larger reads and writes are split
STAMP: Final = struct.Struct(">HHI")
ANY: Final = 0
"""In place of a card's number: the block was written by a client that did not know the card."""
SYNCHRONIZE_CACHE: Final = (0x35, 0x91)
REQUEST_SENSE: Final = 0x03
FALSE_FLUSHES: Final = ("sense", "no-sense", "status")
"""Faults by which a SYNCHRONIZE CACHE that was not carried out looks refused, or done: no host can know better."""


class Stamp(NamedTuple):
    """What a block says of itself."""

    card: int
    lba: int
    version: int
    """The number of the write that it comes from; 0 for the original content."""


def content(card: int, lba: int, version: int) -> bytes:
    """Return the content of a block."""
    return STAMP.pack(card, lba, version) * (BLOCK_SIZE // STAMP.size)


def stamps(data: bytes | bytearray | memoryview) -> list[Stamp]:
    """Return what the blocks say of themselves. A block that is torn is a failure."""
    found = []
    for at in range(0, len(data), BLOCK_SIZE):
        stamp = Stamp(*STAMP.unpack_from(data, at))
        assert bytes(data[at : at + BLOCK_SIZE]) == content(*stamp), f"a block is torn; it begins as {stamp}"
        found.append(stamp)
    return found


class Card(Memory):
    """A medium with a volatile write cache: `data` is what a read gives, `stable` what outlives the cache."""

    def __init__(self, number: int, blocks: int) -> None:
        super().__init__(bytearray(b"".join(content(number, lba, 0) for lba in range(blocks))))
        self.number = number
        self.stable = bytearray(self.data)

    def __repr__(self) -> str:
        return f"card {self.number}"

    def flush(self) -> None:
        super().flush()
        self.stable[:] = self.data

    def lose(self) -> None:
        """Empty the cache without writing it."""
        self.data[:] = self.stable

    def stable_version(self, lba: int) -> int:
        """Return the version of a block that is on the medium itself."""
        return Stamp(*STAMP.unpack_from(self.stable, lba * BLOCK_SIZE)).version


class Reader(Unit):
    """A unit that loses what its cache holds when it is reset, and when its card is taken out, if `loses`."""

    loses = True

    def power_on(self) -> None:
        """See `Unit.power_on`."""
        super().power_on()
        self._lose()

    def take_out(self) -> None:
        """Remove the card, if there is one."""
        self._lose()
        self.remove()

    def put_in(self, card: Card) -> None:
        """Insert the card, after taking out the one that is there."""
        self._lose()
        self.insert(card)

    def _lose(self) -> None:
        if self.loses and isinstance(self.medium, Card):
            self.medium.lose()


class Slot:
    """A stick with one reader, and the cards for it."""

    def __init__(self, first: int, *, removable: bool, loses: bool, blocks: tuple[int, int]) -> None:
        self.cards = tuple(Card(first + number, count) for number, count in enumerate(blocks))
        self.reader = Reader(self.cards[0], removable=removable, maximum_transfer=PIECE)
        self.reader.loses = loses
        self.stick = Stick([self.reader])
        self.flushes_falsely = False
        """Whether a SYNCHRONIZE CACHE looked refused or done that was not carried out, or failed without a reason."""
        self._last = -1  # operation code
        self._faults = self.stick.faults.next_for_command
        self.stick.faults.next_for_command = self._next_faults  # type: ignore[method-assign]

    @property
    def card(self) -> Card | None:
        """The card that is in the reader; also while the unit has ejected it."""
        card = self.reader.medium or self.reader._tray
        assert card is None or isinstance(card, Card)
        return card

    def swap(self) -> None:
        """Exchange the card for the other one."""
        if self.reader.removable:
            self.reader.put_in(self.cards[self.card is self.cards[0]])

    def take_out(self) -> None:
        """Take the card out."""
        if self.reader.removable:
            self.reader.take_out()

    def put_in(self, number: int) -> None:
        """Put a card in, if there is none."""
        if self.reader.removable and self.card is None:
            self.reader.put_in(self.cards[number])

    def allows(self, fault: Fault) -> bool:
        """Return whether a host can detect what the fault does; this model has no rule for what it cannot."""
        if fault.name == "status":  # good status for a command that failed
            return fault.number != 0
        return not (fault.name.startswith("inquiry") and self.reader.removable)  # a card reader that says it is none

    def _next_faults(self, command: Command) -> tuple[Fault, ...]:
        found = self._faults(command)
        is_refused = command.cdb[0] in SYNCHRONIZE_CACHE and any(fault.name in FALSE_FLUSHES for fault in found)
        is_unexplained = command.cdb[0] == REQUEST_SENSE and self._last in SYNCHRONIZE_CACHE and bool(found)
        self.flushes_falsely |= is_refused or is_unexplained
        self._last = command.cdb[0]
        return found
