"""A user, a stick with any faults, a model of what its blocks may hold, and the properties that must always be true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar
from unittest.mock import patch

from scsiusb import ledger
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceClosed, DeviceGone, ScsiUsbError
from scsiusb.opening import open_on
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import Read10, ReadCapacity10, ReadCapacity16, Verify10
from scsiusb.scsi.commands.spc import ModeSense6, ReportLuns, RequestSense, TestUnitReady
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.virtual import Memory, Stick, Unit
from tests.fuzz.faults import HostFault, add_fault, clear_faults, has_left
from tests.sticks import InterceptedBus, wait_until

BLOCKS: Final = 24
BLOCK_SIZE: Final = 512
PIECE: Final = 8  # blocks, the maximum of the unit's block limits page: larger reads and writes are split
HEALTHY_TIMEOUT: Final = 20.0  # seconds for a command while there is no fault
FAULTY_TIMEOUT: Final = 0.02  # seconds for a command while there is one
BOUND: Final = 60.0  # seconds for any call, so many that only a hang exceeds them, also on a busy machine
RETRY: Final = RetryPolicy(becoming_ready=FAULTY_TIMEOUT, interval=0.001)
COMMANDS: Final[tuple[Command[Any], ...]] = (
    TestUnitReady(),
    ReadCapacity10(),
    ReadCapacity16(),
    ModeSense6(),
    ReportLuns(),
    RequestSense(),
    Verify10(0, BLOCKS),
)

T = TypeVar("T")


def content(lba: int, token: int) -> bytes:
    """Return what the `token`-th write puts into the block. A torn or misplaced block is no such content."""
    return (lba.to_bytes(2, "big") + token.to_bytes(6, "big")) * (BLOCK_SIZE // 8)


def token_of(lba: int, data: bytes) -> int | None:
    """Return the token of a block's content; None if it is torn or belongs to another block."""
    token = int.from_bytes(data[2:8], "big")
    return token if data == content(lba, token) else None


def _done(action: Callable[[], None]) -> bool:
    action()
    return True


class Exchange:
    """Each method is a step. An AssertionError means that something happened which must never happen."""

    def __init__(self) -> None:
        data = bytearray(b"".join(content(lba, 0) for lba in range(BLOCKS)))
        self.memory = Memory(data, BLOCK_SIZE)
        self.unit = Unit(self.memory, maximum_transfer=PIECE)
        self.stick = Stick([self.unit])
        self.bus = InterceptedBus(self.stick)
        self.possible = [{0} for _ in range(BLOCKS)]
        """For each block, the tokens that it may hold."""
        self.disk: Disk | None = None
        self.stale_disks: list[Disk] = []  # disks that were opened before an unplug
        self.history: list[str] = []
        self.calls = 0
        self.errors = 0
        self.is_faulty = False
        self._has_descriptor_faults = False
        self._gone = 0
        self._opened = 0
        self._token = 0
        self._threads = set(threading.enumerate())
        assert not ledger.outstanding()

    # --- what a user does -------------------------------------------------------------------------

    def open(self) -> None:
        if self.disk is not None:
            return
        self.disk = self._call("open", self._open)
        self._opened += self.disk is not None

    def _open(self) -> Disk:
        disk = open_on(self.bus, timeout=FAULTY_TIMEOUT if self.is_faulty else HEALTHY_TIMEOUT, on_gone=self._note_gone)
        disk.unit.retry = RETRY
        return disk

    def read(self, lba: int, blocks: int) -> None:
        disk = self._ready()
        if disk is None:
            return
        data = self._with(disk, f"read {lba} {blocks}", lambda: disk.read(lba, blocks))
        if data is not None:
            self._judge(lba, blocks, data)

    def readinto(self, lba: int, blocks: int) -> None:
        """Read into the middle of a larger buffer."""
        disk = self._ready()
        if disk is None:
            return
        size = blocks * BLOCK_SIZE
        whole = bytearray(b"\xa5" * (size + 64))
        with memoryview(whole) as view, view[32 : 32 + size] as buffer:
            done = self._with(disk, f"readinto {lba} {blocks}", lambda: disk.readinto(lba, buffer))
        assert whole[:32] == whole[-32:] == b"\xa5" * 32, "bytes outside the buffer were written"
        if done is not None:
            assert done * disk.block_size == size
            self._judge(lba, blocks, bytes(whole[32:-32]))
        else:
            self._judge_after_error(lba, bytes(whole[32:-32]))

    def write(self, lba: int, blocks: int) -> None:
        disk = self._ready()
        if disk is None or lba + blocks > BLOCKS:
            return
        self._token += 1
        data = b"".join(content(at, self._token) for at in range(lba, lba + blocks))
        done = self._with(disk, f"write {lba} {blocks}", lambda: disk.write(lba, data))
        for at in range(lba, lba + blocks):
            self.possible[at] = {self._token} if done is not None else {*self.possible[at], self._token}

    def inquiry(self) -> None:
        disk = self._ready()
        if disk is not None:
            found = self._with(disk, "inquiry", disk.inquiry)
            assert found is None or str(found)

    def capacity(self) -> None:
        disk = self._ready()
        if disk is not None:
            self._with(disk, "capacity", lambda: disk.blocks * disk.block_size)

    def flush(self) -> None:
        disk = self._ready()
        if disk is not None:
            self._with(disk, "flush", lambda: _done(disk.flush))

    def execute(self, number: int) -> None:
        disk = self._ready()
        if disk is not None:
            command = COMMANDS[number % len(COMMANDS)]
            self._with(disk, f"execute {command}", lambda: disk.execute(command) or True)

    def close(self) -> None:
        disk = self._ready()
        self.disk = None
        if disk is not None:
            self._call("close", lambda: _done(disk.close))
            self._check_unusable(disk)

    # --- what happens to the stick ----------------------------------------------------------------

    def unplug(self) -> None:
        self.history.append("unplug")
        if self._is_plugged:
            self.bus.unplug(self.stick)
        self._forget_disk()

    def plug(self) -> None:
        self.history.append("plug")
        if not self._is_plugged:
            self._forget_disk()
            self.bus.plug(self.stick)

    def _forget_disk(self) -> None:
        """Move the open disk to the stale ones."""
        if self.disk is not None:
            self.stale_disks.append(self.disk)
            self.disk = None

    def inject(self, fault: str | HostFault) -> None:
        self.history.append(f"fault {fault}")
        self.is_faulty = True
        self._has_descriptor_faults |= str(fault).startswith("descriptor=")
        add_fault(self.stick, self.bus, fault)

    def remove_faults(self) -> None:
        """Remove all faults, insert the medium, and end delays."""
        self.history.append("remove faults")
        self.is_faulty = False
        clear_faults(self.stick, self.bus)
        self.unit.becoming_ready = 0
        del self.unit._attentions[1:]
        if self.unit.medium is None:
            self.unit.insert(self.memory)

    # --- what must be true ------------------------------------------------------------------------

    def settle(self) -> None:
        """Check that reads are right without faults, after at most one more error, or that the device has left."""
        self.remove_faults()
        self._check_stale_disks()
        if self.disk is None:
            return
        for last in (False, True):
            found = self._read_all(self.disk, last)
            if found is not None:
                return
            if not last and has_left(self.stick, self.bus):
                return
        raise AssertionError("a healthy stick could not be read twice")

    def _read_all(self, disk: Disk, last: bool) -> bytes | None:
        """Read all blocks of the stick, whatever size was reported to the disk."""
        data = self._with(disk, "read all", lambda: disk.unit.execute(Read10(0, PIECE, block_size=BLOCK_SIZE)))
        for lba in range(PIECE, BLOCKS, PIECE):
            if data is None:
                break
            more = self._with(disk, "read all", lambda: disk.unit.execute(Read10(lba, PIECE, block_size=BLOCK_SIZE)))  # noqa: B023
            data = None if more is None else data + more
        if data is not None:
            self._judge(0, BLOCKS, data)
        return data

    def finish(self) -> None:
        """Check that everything is released, and that the stick, opened again, holds what was written."""
        try:
            self.settle()
        finally:
            self._give_back()
        if self._has_descriptor_faults:  # a host reads descriptors only once
            self.unplug()
        self.plug()
        self.open()
        self._no_error("opening a healthy stick failed")
        self.read(0, BLOCKS)
        self.close()
        self._no_error("reading or closing a healthy stick failed")
        self._check_nothing_held()
        self.bus.close()

    def _give_back(self) -> None:
        self.close()
        for disk in self.stale_disks:
            self._call("close a stale disk", lambda: _done(disk.close))  # noqa: B023

    def _check_stale_disks(self) -> None:
        """Check that a disk from before an unplug never works again."""
        for disk in self.stale_disks:
            found = self._call("read by a stale disk", lambda: disk.read(0, 1))  # noqa: B023
            assert found is None, "a disk works again after an unplug"
            self._check_unusable(disk)

    def _check_unusable(self, disk: Disk) -> None:
        try:
            disk.unit.execute(TestUnitReady())
        except (DeviceClosed, DeviceGone):
            return
        raise AssertionError("a disk that was closed or unplugged accepted a command")

    def _check_nothing_held(self) -> None:
        assert ledger.outstanding() == [], ledger.dump()
        assert not self.bus.handles
        wait_until(lambda: set(threading.enumerate()) <= self._threads)
        assert self._gone <= self._opened
        if self._is_plugged:
            assert self.bus.driver(self.bus.devices()[0], 0) == "usb-storage"

    def _judge(self, lba: int, blocks: int, data: bytes) -> None:
        """Check data that a read returned: each block whole, in its place, and one that was written there."""
        assert len(data) == blocks * BLOCK_SIZE, "a read succeeded with data of another length"
        for at in range(lba, lba + blocks):
            start = (at - lba) * BLOCK_SIZE
            token = token_of(at, data[start : start + BLOCK_SIZE])
            assert token in self.possible[at], f"block {at} has token {token}, not one of {self.possible[at]}"
            self.possible[at] = {token}

    def _judge_after_error(self, lba: int, data: bytes) -> None:
        """Check the buffer of a read that failed: each block is right or unchanged."""
        for at in range(len(data) // BLOCK_SIZE):
            block = data[at * BLOCK_SIZE :][:BLOCK_SIZE]
            untouched = block == b"\xa5" * BLOCK_SIZE
            assert untouched or token_of(lba + at, block) in self.possible[lba + at], (
                f"block {lba + at} holds data that were never there"
            )

    # --- the steps' frame -------------------------------------------------------------------------

    @property
    def _is_plugged(self) -> bool:
        return not has_left(self.stick, self.bus)

    def _note_gone(self) -> None:
        self._gone += 1

    def _ready(self) -> Disk | None:
        """Return the disk, with a short timeout while the stick has faults."""
        if self.disk is not None:
            self.disk.unit.timeout = FAULTY_TIMEOUT if self.is_faulty else HEALTHY_TIMEOUT
        return self.disk

    def _call(self, name: str, action: Callable[[], T]) -> T | None:
        """Return the result; None if it failed with an error of scsiusb."""
        self.calls += 1
        began = time.monotonic()
        self.error: ScsiUsbError | None = None
        result: T | None = None
        try:
            result = action()
        except ScsiUsbError as error:
            self.errors += 1
            self.error = error
        except ValueError:  # a buffer is no whole number of blocks if the reported block size is wrong
            if not self._has_wrong_block_size():
                raise
        took = time.monotonic() - began
        self.history.append(f"{name}: {'good' if self.error is None else repr(self.error)}, {took:.3f} s")
        assert str(self.error).isprintable()
        assert result is not None or self.error is not None or self._has_wrong_block_size()
        assert took < BOUND, f"{name} took {took:.1f} s"
        return result

    def _with(self, disk: Disk, name: str, action: Callable[[], T]) -> T | None:
        """Call with the open disk, as `_call` does; after DeviceGone the disk is stale."""
        result = self._call(name, action)
        if isinstance(self.error, DeviceGone):
            assert not self._is_plugged or self.is_faulty, "DeviceGone for a device that is plugged in and has no fault"
            self._forget_disk()
        return result

    def _has_wrong_block_size(self) -> bool:
        """Return whether a wrong block size was reported to the disk."""
        known = self.disk._known if self.disk else None
        return known is not None and known.block_size != BLOCK_SIZE

    def _no_error(self, otherwise: str) -> None:
        assert self.error is None, f"{otherwise}: {self.error!r}"


@contextmanager
def small_bounds() -> Iterator[None]:
    """Replace timeouts of seconds by short ones, for sticks that do not answer."""
    with ExitStack() as stack:
        for name in (
            "transport.recovery.CONTROL_TIMEOUT",
            "transport.recovery.LEAST_CONTROL_TIMEOUT",
            "transport.bot.transport.CONTROL_TIMEOUT",
            "disk.medium.PROBE_TIMEOUT",
        ):
            stack.enter_context(patch(f"scsiusb.{name}", FAULTY_TIMEOUT))
        yield


@contextmanager
def exchange() -> Iterator[Exchange]:
    """Yield an exchange; print its history if it fails."""
    made = Exchange()
    try:
        yield made
    except BaseException:
        print("\n".join(made.history))  # noqa: T201
        made.bus.close()
        raise
