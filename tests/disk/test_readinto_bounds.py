"""Whatever a device answers to a read, `readinto` touches nothing but its buffer, and leaves nothing false in it.

If it returns, every byte is from this very command. If it raises, what was not read is as the caller had it: never
what an earlier command left in the memory that transfers go through.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb.disk.disk import Disk
from scsiusb.errors import ScsiUsbError
from scsiusb.opening import open_on
from scsiusb.usb.backend import ENDPOINT_IN, Code
from scsiusb.virtual import BotOptions, DataIn, Fault, Memory, Stick, Unit
from scsiusb.virtual.faults.faults import KINDS, Scope
from tests.fuzz import profiles
from tests.fuzz.exchange import BLOCK_SIZE, HASTY, PATIENT, RETRY, content, small_bounds
from tests.fuzz.faults import texts_of
from tests.sticks import Answer, MeddledBus, Wire, csw

BLOCKS: Final = 64
PIECE: Final = 8  # blocks in a command
GUARD: Final = 4096
GUARD_BYTE: Final = b"\xa5"
OLD_BYTE: Final = b"\xb6"  # what the caller had in the buffer
STALE: Final = 40  # the first block of what was read before, and is still in the memory for transfers
MOST_VALUES: Final = 4  # of a kind of fault
READ_10: Final = 0x28
FAULTS: Final = [
    text
    for name, kind in KINDS.items()
    if kind.scope is Scope.COMMAND
    for phase in kind.phases or ("",)
    for text in texts_of(name, phase)[:MOST_VALUES]
]


def block(lba: int) -> bytes:
    return content(lba, 1)


class Reader:
    """A stick whose blocks are told apart, with blocks read that the test does not read."""

    def __init__(self, bus: MeddledBus, disk: Disk) -> None:
        self.bus = bus
        self.disk = disk
        self.stick: Stick = bus._connections[2].stick
        self.read_elsewhere()

    def read_elsewhere(self) -> None:
        self.disk.unit.timeout = PATIENT
        assert self.disk.read(STALE, 2 * PIECE) == b"".join(map(block, range(STALE, STALE + 2 * PIECE)))
        self.disk.unit.timeout = HASTY

    def into(self, view: memoryview) -> bool:
        """Reads from block 0 on; did it return?"""
        try:
            assert self.disk.readinto(0, view) == len(view) // BLOCK_SIZE
        except ScsiUsbError:
            return False
        return True

    def judge(self, size: int) -> bool:
        """Reads `size` bytes into the middle of a larger buffer; did it return?"""
        whole = bytearray(GUARD_BYTE * GUARD + OLD_BYTE * size + GUARD_BYTE * GUARD)
        with memoryview(whole) as view, view[GUARD : GUARD + size] as buffer:
            returned = self.into(buffer)
        assert whole[:GUARD] == whole[-GUARD:] == GUARD_BYTE * GUARD, "the guard bytes were written to"
        judge(bytes(whole[GUARD:-GUARD]), returned)
        return returned


def judge(data: bytes, returned: bool) -> None:
    """Every block is the right one, or, after an error, as the caller had it."""
    for at in range(len(data) // BLOCK_SIZE):
        piece = data[at * BLOCK_SIZE :][:BLOCK_SIZE]
        if piece != block(at):
            assert not returned, f"block {at} was called read, and is {piece[:16].hex()}…"
            assert piece == OLD_BYTE * BLOCK_SIZE, f"block {at} looks as if it was read: {piece[:16].hex()}…"


@contextmanager
def reader(bot_options: BotOptions | None = None) -> Iterator[Reader]:
    data = b"".join(map(block, range(BLOCKS)))
    bus = MeddledBus(Stick([Unit(Memory(data), maximum_transfer=PIECE)], bot_options=bot_options))
    with small_bounds(), open_on(bus, timeout=PATIENT) as disk:
        disk.unit.retry = RETRY
        yield Reader(bus, disk)
    bus.close()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL):
        yield


@pytest.mark.parametrize("times", [1, 9], ids=["once", "again and again"])
@pytest.mark.parametrize("kind", sorted({Fault.parse(text).name for text in FAULTS}))
def test_no_fault_reaches_beyond_the_buffer_or_leaves_old_data_in_it(kind: str, times: int) -> None:
    """In the second of two commands."""
    for text in FAULTS:
        if Fault.parse(text).name == kind:
            with reader() as made:
                made.stick.faults.add(f"{text},opcode=28,lba={PIECE}-{2 * PIECE - 1},times={times}")
                made.judge(2 * PIECE * BLOCK_SIZE)


Sent = tuple[bytes, Code]


def answering(*sent: Sent) -> Callable[[Wire, int, memoryview], Answer | None]:
    """To each READ(10): these in place of what the device sends, one after another; `tag!` becomes the tag."""
    left: list[Sent] = []

    def meddle(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode != READ_10:
            return None
        if not endpoint & ENDPOINT_IN:
            left[:] = sent
            return Code.OK, len(buffer)
        data, code = left.pop(0) if left else (b"", Code.TIMEOUT)
        data = data.replace(b"tag!", wire.tag.to_bytes(4, "little"))
        room = min(len(data), len(buffer))
        wire.put(buffer, data[:room])
        return (Code.OVERFLOW if room < len(data) and code is Code.OK else code), room

    return meddle


def status(residue: int = 0, status: int = 0, signature: bytes = b"USBS", tag: bytes = b"tag!") -> bytes:
    return csw(int.from_bytes(tag, "little"), residue, status, signature)


SIZE: Final = 2 * BLOCK_SIZE
RIGHT: Final = block(0) + block(1)
LENGTHS: Final = (0, 1, 13, 511, 512, 1023, 1024, 1025)


@pytest.mark.parametrize("code", [Code.OK, Code.PIPE, Code.OVERFLOW, Code.TIMEOUT, Code.IO])
@pytest.mark.parametrize("length", LENGTHS)
def test_data_of_another_length_are_an_error(length: int, code: Code) -> None:
    for residue in (0, 512):
        reads_right_only_if_whole(length, code, residue)


def reads_right_only_if_whole(length: int, code: Code, residue: int) -> None:
    with reader() as made:
        made.bus.wire.meddle = answering(((RIGHT * 4)[:length], code), (status(residue), Code.OK))
        is_whole = length == SIZE if code is Code.OK else length >= SIZE and code is Code.PIPE
        assert made.judge(SIZE) == (is_whole and not residue)


@pytest.mark.parametrize(
    "last",
    [
        status(tag=b"gat?"),
        status(signature=b"USBC"),
        status(status=2),
        status(status=3),
        status()[:12],
        status() + b"!",
    ],
    ids=["tag", "signature", "phase error", "status", "short", "long"],
)
def test_data_with_a_wrong_csw_behind_them_are_an_error(last: bytes) -> None:
    with reader() as made:
        made.bus.wire.meddle = answering((RIGHT, Code.OK), (last, Code.OK))
        assert not made.judge(SIZE)


@pytest.mark.parametrize("behind", [(), ((status(), Code.OK),)], ids=["alone", "before the CSW"])
@pytest.mark.parametrize("data", [status(), status(1024, 1), status(tag=b"gat?"), status() + RIGHT[13:512]])
def test_a_csw_in_the_place_of_the_data_is_an_error(data: bytes, behind: tuple[Sent, ...]) -> None:
    with reader() as made:
        made.bus.wire.meddle = answering((data, Code.OK), *behind)
        assert not made.judge(SIZE)


def test_data_that_begin_like_a_csw_are_data() -> None:
    with reader() as made:
        made.bus.wire.meddle = answering((status() + RIGHT[13:], Code.OK), (status(), Code.OK))
        buffer = memoryview(bytearray(SIZE))
        assert made.into(buffer)
        assert bytes(buffer[:4]) == b"USBS"
        assert bytes(buffer[13:]) == RIGHT[13:]


@given(data=st.binary(max_size=1100), end=st.binary(max_size=20), code=st.sampled_from([Code.OK, Code.PIPE, Code.IO]))
@profiles.quick(15)
def test_any_answer_is_kept_out_of_the_buffer(data: bytes, end: bytes, code: Code) -> None:
    with reader() as made:
        made.bus.wire.meddle = answering((data, code), (end, Code.OK))
        assert not made.judge(SIZE)


@pytest.mark.parametrize("manner", list(DataIn))
@pytest.mark.parametrize("text", ["sense=3/11/00", "short=512@data", "residue=512@csw", "no-sense@csw"])
def test_padding_never_counts_as_data(manner: DataIn, text: str) -> None:
    """A device may pad up to what was asked for (BOT 6.7.2), and the padding is no data."""
    with reader(BotOptions(data_in=manner)) as made:
        made.stick.faults.add(f"{text},opcode=28,times=always")
        assert not made.judge(SIZE)


def test_pieces_before_the_failing_one_are_there_and_those_behind_it_are_not() -> None:
    with reader() as made:
        made.stick.faults.add(f"sense=3/11/00,opcode=28,lba={PIECE},times=always")
        whole = bytearray(OLD_BYTE * (3 * PIECE * BLOCK_SIZE))
        assert not made.into(memoryview(whole))
        assert whole[: PIECE * BLOCK_SIZE] == b"".join(map(block, range(PIECE)))
        assert whole[PIECE * BLOCK_SIZE :] == OLD_BYTE * (2 * PIECE * BLOCK_SIZE)


@pytest.mark.parametrize("text", ["stall=512@data", "long=64@data", "csw-as-data@data", "empty@data", "tag@csw"])
def test_memory_of_any_kind_is_kept_to(text: str) -> None:
    """An array of ctypes and a page of a memory map, with neighbours that must not change."""
    size = PIECE * BLOCK_SIZE
    array = (ctypes.c_ubyte * (3 * size))()
    with mmap.mmap(-1, 3 * size) as mapped:
        for exporter in (mapped, array):
            with (
                memoryview(exporter) as whole,
                whole.cast("B") as view,
                view[size : 2 * size] as buffer,
                reader() as made,
            ):
                made.stick.faults.add(f"{text},opcode=28,times=always")
                view[:] = GUARD_BYTE * size + OLD_BYTE * size + GUARD_BYTE * size
                returned = made.into(buffer)
                assert view.tobytes().replace(buffer.tobytes(), b"") == GUARD_BYTE * (2 * size)
                judge(buffer.tobytes(), returned)


def test_memory_for_transfers_is_as_large_as_the_transfer_and_no_larger() -> None:
    """The kernel or the host controller can then not be made to write behind it."""
    offered: list[int] = []

    def note(wire: Wire, endpoint: int, buffer: memoryview) -> None:
        if wire.opcode == READ_10 and endpoint & ENDPOINT_IN and not wire.log[-1].startswith("cbw"):
            offered.append(len(buffer))

    with reader() as made:
        made.bus.wire.meddle = note
        assert made.judge(3 * BLOCK_SIZE)
        assert offered == [3 * BLOCK_SIZE, 512]  # the second is the CSW's packet
