"""`readinto` writes only to its buffer, and never leaves wrong data in it, whatever a device answers.

If it returns, every byte is from this read. If it raises, blocks that were not read are unchanged: they never hold what
an earlier command left in the memory for transfers.
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
from tests.fuzz.exchange import BLOCK_SIZE, FAULTY_TIMEOUT, HEALTHY_TIMEOUT, RETRY, content, small_bounds
from tests.fuzz.faults import texts_of
from tests.sticks import Answer, InterceptedBus, Wire, csw

BLOCKS: Final = 64
PIECE: Final = 8  # blocks per command
GUARD: Final = 4096  # bytes before and after the buffer, which must not change
GUARD_BYTE: Final = b"\xa5"
OLD_BYTE: Final = b"\xb6"  # what the caller had in the buffer
STALE: Final = 40  # first block of an earlier read, whose data is still in the memory for transfers
MOST_VALUES: Final = 4  # values tried of one kind of fault
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
    """A stick with different content in each block; blocks outside of the tested range have been read before."""

    def __init__(self, bus: InterceptedBus, disk: Disk) -> None:
        self.bus = bus
        self.disk = disk
        self.stick: Stick = bus._connections[2].stick
        self.read_elsewhere()

    def read_elsewhere(self) -> None:
        self.disk.unit.timeout = HEALTHY_TIMEOUT
        assert self.disk.read(STALE, 2 * PIECE) == b"".join(map(block, range(STALE, STALE + 2 * PIECE)))
        self.disk.unit.timeout = FAULTY_TIMEOUT

    def into(self, view: memoryview) -> bool:
        """Read from block 0 on; return whether there was no error."""
        try:
            assert self.disk.readinto(0, view) == len(view) // BLOCK_SIZE
        except ScsiUsbError:
            return False
        return True

    def check(self, size: int) -> bool:
        """Read `size` bytes into the middle of a larger buffer, check it, and return whether there was no error."""
        whole = bytearray(GUARD_BYTE * GUARD + OLD_BYTE * size + GUARD_BYTE * GUARD)
        with memoryview(whole) as view, view[GUARD : GUARD + size] as buffer:
            returned = self.into(buffer)
        assert whole[:GUARD] == whole[-GUARD:] == GUARD_BYTE * GUARD, "the guard bytes were written to"
        check(bytes(whole[GUARD:-GUARD]), returned)
        return returned


def check(data: bytes, returned: bool) -> None:
    """Check that every block is correct or, after an error, unchanged."""
    for at in range(len(data) // BLOCK_SIZE):
        piece = data[at * BLOCK_SIZE :][:BLOCK_SIZE]
        if piece != block(at):
            assert not returned, f"block {at} was reported as read, but is {piece[:16].hex()}…"
            assert piece == OLD_BYTE * BLOCK_SIZE, f"block {at} was changed after an error: {piece[:16].hex()}…"


@contextmanager
def reader(bot_options: BotOptions | None = None) -> Iterator[Reader]:
    data = b"".join(map(block, range(BLOCKS)))
    bus = InterceptedBus(Stick([Unit(Memory(data), maximum_transfer=PIECE)], bot_options=bot_options))
    with small_bounds(), open_on(bus, timeout=HEALTHY_TIMEOUT) as disk:
        disk.unit.retry = RETRY
        yield Reader(bus, disk)
    bus.close()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 9], ids=["once", "again and again"])
@pytest.mark.parametrize("kind", sorted({Fault.parse(text).name for text in FAULTS}))
def test_no_fault_changes_memory_outside_the_buffer_or_leaves_old_data_in_it(kind: str, times: int) -> None:
    """The fault is in the second of two commands."""
    for text in FAULTS:
        if Fault.parse(text).name == kind:
            with reader() as made:
                made.stick.faults.add(f"{text},opcode=28,lba={PIECE}-{2 * PIECE - 1},times={times}")
                made.check(2 * PIECE * BLOCK_SIZE)


Sent = tuple[bytes, Code]


def answering(*sent: Sent) -> Callable[[Wire, int, memoryview], Answer | None]:
    """Answer each READ(10) with these transfers instead of the device's; `tag!` in the data becomes the tag."""
    left: list[Sent] = []

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
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

    return intercept


def status(residue: int = 0, status: int = 0, signature: bytes = b"USBS", tag: bytes = b"tag!") -> bytes:
    return csw(int.from_bytes(tag, "little"), residue, status, signature)


SIZE: Final = 2 * BLOCK_SIZE
RIGHT: Final = block(0) + block(1)
LENGTHS: Final = (0, 1, 13, 511, 512, 1023, 1024, 1025)


@pytest.mark.parametrize("code", [Code.OK, Code.PIPE, Code.OVERFLOW, Code.TIMEOUT, Code.IO])
@pytest.mark.parametrize("length", LENGTHS)
def test_data_of_another_length_is_an_error(length: int, code: Code) -> None:
    for residue in (0, 512):
        reads_right_only_if_whole(length, code, residue)


def reads_right_only_if_whole(length: int, code: Code, residue: int) -> None:
    with reader() as made:
        made.bus.wire.intercept = answering(((RIGHT * 4)[:length], code), (status(residue), Code.OK))
        is_whole = length == SIZE if code is Code.OK else length >= SIZE and code is Code.PIPE
        assert made.check(SIZE) == (is_whole and not residue)


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
def test_data_with_a_wrong_csw_after_it_is_an_error(last: bytes) -> None:
    with reader() as made:
        made.bus.wire.intercept = answering((RIGHT, Code.OK), (last, Code.OK))
        assert not made.check(SIZE)


@pytest.mark.parametrize("following", [(), ((status(), Code.OK),)], ids=["alone", "before the CSW"])
@pytest.mark.parametrize("data", [status(), status(1024, 1), status(tag=b"gat?"), status() + RIGHT[13:512]])
def test_a_csw_in_the_place_of_the_data_is_an_error(data: bytes, following: tuple[Sent, ...]) -> None:
    with reader() as made:
        made.bus.wire.intercept = answering((data, Code.OK), *following)
        assert not made.check(SIZE)


def test_data_that_begins_like_a_csw_is_data() -> None:
    with reader() as made:
        made.bus.wire.intercept = answering((status() + RIGHT[13:], Code.OK), (status(), Code.OK))
        buffer = memoryview(bytearray(SIZE))
        assert made.into(buffer)
        assert bytes(buffer[:4]) == b"USBS"
        assert bytes(buffer[13:]) == RIGHT[13:]


@given(data=st.binary(max_size=1100), end=st.binary(max_size=20), code=st.sampled_from([Code.OK, Code.PIPE, Code.IO]))
@profiles.quick(15)
def test_no_random_answer_changes_the_buffer(data: bytes, end: bytes, code: Code) -> None:
    with reader() as made:
        made.bus.wire.intercept = answering((data, code), (end, Code.OK))
        assert not made.check(SIZE)


@pytest.mark.parametrize("data_in", list(DataIn))
@pytest.mark.parametrize("text", ["sense=3/11/00", "short=512@data", "residue=512@csw", "no-sense@csw"])
def test_padding_never_counts_as_data(data_in: DataIn, text: str) -> None:
    """A device may pad its data to the length asked for (BOT 6.7.2)."""
    with reader(BotOptions(data_in=data_in)) as made:
        made.stick.faults.add(f"{text},opcode=28,times=always")
        assert not made.check(SIZE)


def test_pieces_before_the_failed_one_are_in_the_buffer_and_later_ones_are_not() -> None:
    with reader() as made:
        made.stick.faults.add(f"sense=3/11/00,opcode=28,lba={PIECE},times=always")
        whole = bytearray(OLD_BYTE * (3 * PIECE * BLOCK_SIZE))
        assert not made.into(memoryview(whole))
        assert whole[: PIECE * BLOCK_SIZE] == b"".join(map(block, range(PIECE)))
        assert whole[PIECE * BLOCK_SIZE :] == OLD_BYTE * (2 * PIECE * BLOCK_SIZE)


@pytest.mark.parametrize("text", ["stall=512@data", "long=64@data", "csw-as-data@data", "empty@data", "tag@csw"])
def test_no_fault_changes_memory_around_a_ctypes_array_or_a_memory_map(text: str) -> None:
    """The buffer is the middle third of a ctypes array or of a memory map; the other thirds must not change."""
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
                check(buffer.tobytes(), returned)


def test_the_memory_for_a_transfer_has_exactly_the_size_of_the_transfer() -> None:
    """So the kernel or the host controller cannot write after its end."""
    offered: list[int] = []

    def note(wire: Wire, endpoint: int, buffer: memoryview) -> None:
        if wire.opcode == READ_10 and endpoint & ENDPOINT_IN and not wire.log[-1].startswith("cbw"):
            offered.append(len(buffer))

    with reader() as made:
        made.bus.wire.intercept = note
        assert made.check(3 * BLOCK_SIZE)
        assert offered == [3 * BLOCK_SIZE, 512]  # the second is the CSW's packet
