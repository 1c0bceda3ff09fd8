"""Users, card readers and their cards, and what must be true of them after every step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from scsiusb import Disk, ledger
from scsiusb.disk.streaming import Writing
from scsiusb.errors import DeviceGone, DeviceNotFound, MediumChanged, NoMedium, ScsiUsbError, UnitAttention
from scsiusb.opening import open_on
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.usb.interface import find
from tests.fuzz.model.cards import ANY, BLOCK_SIZE, BLOCKS, PIECE, STAMP, Card, Slot, Stamp, stamps
from tests.fuzz.model.wire import Happenings, bus_of
from tests.sticks import wait_until

TIMEOUT: Final = 0.02  # seconds for a command while there may be faults
HEALTHY_TIMEOUT: Final = 20.0  # seconds for a command after they were removed
BOUND: Final = 60.0  # seconds for any call, so many that only a hang exceeds them, also on a busy machine
ATTEMPTS: Final = 6  # of reading, after the faults were removed
MOST_HELD: Final = 60  # entries of the ledger in the middle of a sequence
RETRY: Final = RetryPolicy(becoming_ready=TIMEOUT, interval=0.001)
CLIENTS: Final = (0, 0, 1)
"""The slot of each client."""
ENDINGS: Final = (UnitAttention, NoMedium, DeviceGone)
"""Errors of a flush after which the client knows that what it wrote may be lost."""

T = TypeVar("T")
Failure = BaseException | None


class Setup(NamedTuple):
    """What is chosen before the first step."""

    polled: bool = False
    removable: bool = True
    loses: bool = True
    blocks: tuple[int, int] = (BLOCKS, BLOCKS)
    """Of the two cards of each slot."""


class Client:
    """One user's disk, and what that user knows."""

    def __init__(self, number: int, slot: Slot) -> None:
        self.name = f"client {number}"
        self.slot = slot
        self.disk: Disk | None = None
        self.is_gone = False
        """Whether it was told that the device has gone: nothing is flushed then."""
        self.bound: Card | None = None
        """The card that its calls mean, until the client is told of a change."""
        self.acknowledged: dict[tuple[Card, int], int] = {}
        """The version of each block that was acknowledged since the last flush."""

    def learn(self, card: Card | None) -> None:
        """Take note which card a call found, if the client did not know one."""
        self.bound = self.bound or card

    def note(self, error: Failure) -> None:
        """Take note of an error that the client was told."""
        if isinstance(error, (MediumChanged, NoMedium)):
            self.bound = None
        self.is_gone |= isinstance(error, DeviceGone)

    def forget(self) -> None:
        """Know nothing any more: the disk is closed."""
        self.bound = None
        self.is_gone = False
        self.acknowledged.clear()


class Stream:
    """A stream of a client, bound to the card that it began with."""

    def __init__(self, client: Client, stream: Any) -> None:
        self.client = client
        self.stream: Any = stream
        self.bound = client.bound
        self.lba: int = stream.lba
        self.versions: list[int] = []
        """Of the blocks that were given to a stream of writes."""
        self.noted = 0
        """How many of them are known as acknowledged."""


class World:
    """The state, and the frame of all steps. An AssertionError means that something happened which must not."""

    def __init__(self, setup: Setup) -> None:
        assert not ledger.outstanding()
        self._threads = set(threading.enumerate())
        self.slots = (
            Slot(1, removable=setup.removable, loses=setup.loses, blocks=setup.blocks),
            Slot(3, removable=True, loses=setup.loses, blocks=setup.blocks),
        )
        self.cards = {card.number: card for slot in self.slots for card in slot.cards}
        self.bus = bus_of([slot.stick for slot in self.slots], polled=setup.polled)
        self.happenings = Happenings(self.bus.wire)
        self.clients = [Client(number, self.slots[slot]) for number, slot in enumerate(CLIENTS)]
        self.streams: list[Stream] = []
        self.home: dict[int, Card] = {}
        """The card on which a write of a client that knew none has arrived, by its version."""
        self.version = 0
        self.timeout = TIMEOUT
        self.has_wrong_block_size = self.has_descriptor_faults = False

    # --- the frame of a call --------------------------------------------------------------------

    def call(self, action: Callable[[], T]) -> tuple[T | None, Failure]:
        """Return the result of the action, or its error: one of scsiusb, or a Ctrl-C that was asked for."""
        began = time.monotonic()
        try:
            result: T | None = action()
            error: Failure = None
        except (ScsiUsbError, KeyboardInterrupt) as failure:
            result, error = None, failure.with_traceback(None)
            assert str(error).isprintable()
        except ValueError:  # a buffer is no whole number of blocks if the reported block size is wrong
            if not self.has_wrong_block_size:
                raise
            result, error = None, ScsiUsbError("the block size is wrong")
        assert time.monotonic() - began < BOUND
        return result, error

    def of(self, client: Client, action: Callable[[Disk], T]) -> tuple[T | None, Failure]:
        """Return the result of an action with the client's disk, which is opened if necessary, or its error."""
        if client.disk is None:
            client.disk, error = self.call(partial(self._open, client))
            if client.disk is None:
                return None, error
        disk = client.disk
        disk.unit.timeout = self.timeout
        result, error = self.call(partial(action, disk))
        self.settle(client, error)
        return result, error

    def settle(self, client: Client, error: Failure) -> None:
        """Take note of what the client was told."""
        client.note(error)
        if isinstance(error, DeviceGone):
            self.close(client)

    def _open(self, client: Client) -> Disk:
        connection = self.bus._connection_of(client.slot.stick)
        infos = [each for each in find(self.bus) if connection and each.device.number == connection.number]
        if not infos:
            raise DeviceNotFound("the stick is not plugged in, or its descriptors show no interface")
        disk = open_on(self.bus, infos[0], timeout=self.timeout)
        disk.unit.retry = RETRY
        return disk

    def close(self, client: Client) -> None:
        """Close the client's disk after its streams; a close without an error has flushed."""
        for stream in [each for each in self.streams if each.client is client]:
            self.end(stream)
        disk, client.disk = client.disk, None
        if disk is not None:
            _, error = self.call(disk.close)
            if isinstance(error, KeyboardInterrupt):
                self.call(disk.close)
            if error is None and not client.is_gone:
                self.check_flushed(client)
        client.forget()

    def end(self, stream: Stream) -> None:
        """Leave a stream early."""
        self.streams.remove(stream)
        self.call(partial(stream.stream.__exit__, KeyError, KeyError(), None))
        self.note_written(stream)

    def note_written(self, stream: Stream) -> None:
        """Take note of what a stream of writes says was acknowledged."""
        if isinstance(stream.stream, Writing):
            first, stream.noted = stream.noted, stream.stream.lba - stream.lba
            for at, version in enumerate(stream.versions[first : stream.noted], first):
                card = stream.bound or self.home.get(version)
                if card is not None:
                    stream.client.acknowledged[card, stream.lba + at] = version

    # --- what must be true ------------------------------------------------------------------------

    def check_cards(self) -> None:
        """Check that each block on each card was written to that card; and that little is held."""
        for card in self.cards.values():
            for lba in range(card.blocks):
                found = Stamp(*STAMP.unpack_from(card.data, lba * BLOCK_SIZE))
                assert found.lba == lba, f"{found} is at LBA {lba} of {card}"
                home = self.home.setdefault(found.version, card) if found.card == ANY else self.cards[found.card]
                assert home is card, f"what was written to {home} is on {card}: {found}"
        assert len(ledger.outstanding()) < MOST_HELD, ledger.dump()

    def card_of(self, data: bytes | memoryview, lba: int, bound: Card | None) -> Card:
        """Return the card that blocks were read from. They must all be of one card, of `bound` if there is one."""
        card = bound
        for at, stamp in enumerate(stamps(data)):
            assert stamp.lba == lba + at, f"{stamp} was read as LBA {lba + at}"
            found = self.cards.get(stamp.card) or self.home.get(stamp.version)
            assert found is not None, f"{stamp} is of no card"
            card = card or found
            assert found is card, f"{stamp} was read from {found}, but the call began with {card}"
        assert card is not None
        return card

    def check_flushed(self, client: Client) -> None:
        """Check after a flush without an error that all that was acknowledged before is on its medium."""
        for (card, lba), version in client.acknowledged.items():
            stable = card.stable_version(lba)
            is_there = stable >= version or client.slot.flushes_falsely
            assert is_there, f"{client.name} has flushed version {version} of LBA {lba}; {card} has version {stable}"
        client.acknowledged.clear()

    def finish(self) -> None:
        """Check that all works again without faults, that what was flushed is there, and that nothing is held."""
        self.remove_faults()
        if self.has_descriptor_faults:  # a host reads descriptors only once
            for slot in self.slots:
                self.lose_power(slot)
        self.timeout = HEALTHY_TIMEOUT
        try:
            for stream in tuple(self.streams):
                self.end(stream)
            self.remove_faults()  # a command of a stream's thread may have met the last of them only now
            for client in self.clients:
                self._recover(client)
            self.check_cards()
        finally:
            self.close_all()
        assert ledger.outstanding() == [], ledger.dump()
        assert not self.bus.handles
        wait_until(lambda: set(threading.enumerate()) <= self._threads)
        self.check_cards()
        self.bus.close()

    def _recover(self, client: Client) -> None:
        """Read all and flush; both must work soon."""
        for attempt in range(ATTEMPTS):
            if attempt == ATTEMPTS // 2:  # a capacity that was reported wrong is asked for only once
                self.close(client)
            data, error = self.of(client, _read_all)
            _, error = self.of(client, Disk.flush) if data is not None else (None, error)
            if data is not None and error is None:
                client.learn(self.card_of(data, 0, client.bound))
                self.check_flushed(client)
                return
            if isinstance(error, ENDINGS):
                client.acknowledged.clear()
        raise AssertionError(f"{client.name} cannot read and flush without faults: {error!r}")

    def close_all(self) -> None:
        """Close all that is open."""
        for stream in tuple(self.streams):
            self.end(stream)
        for client in self.clients:
            self.close(client)

    # --- faults -----------------------------------------------------------------------------------

    def remove_faults(self) -> None:
        """Remove all faults, put in a card and plug in the sticks."""
        self.happenings.clear()
        for slot in self.slots:
            slot.stick.faults.clear()
            slot.reader.becoming_ready = 0
            del slot.reader._attentions[2:]
            if slot.card is None:
                slot.put_in(0)
            elif slot.reader.medium is None:
                slot.reader.load()
            self.plug(slot)

    def lose_power(self, slot: Slot) -> None:
        """Unplug the stick and plug it in again; the clients' disks are dead then."""
        if self.bus._connection_of(slot.stick) is not None:
            self.bus.unplug(slot.stick)
        self.plug(slot)

    def plug(self, slot: Slot) -> None:
        """Plug the stick in, if it has left."""
        if self.bus._connection_of(slot.stick) is None:
            for client in self.clients:
                if client.slot is slot:
                    self.close(client)
            self.bus.plug(slot.stick)


def _read_all(disk: Disk) -> bytes:
    """Read all blocks, in pieces that the unit accepts, also if the disk could not ask for its limits."""
    return b"".join(disk.read(lba, min(PIECE, disk.blocks - lba)) for lba in range(0, disk.blocks, PIECE))
