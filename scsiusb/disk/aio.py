"""Disks for asyncio: commands run in a thread of the disk's own; cancelling one ends it and recovers the device."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

from scsiusb import ledger
from scsiusb.disk.disk import Disk
from scsiusb.manager.process import PROCESS
from scsiusb.scsi.command import Command
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.transport.base import Transport

R = TypeVar("R")


class AsyncDisk:
    """The methods of `Disk` as coroutines; any number of tasks may use it, their calls take turns.

    A call that is cancelled ends its command on the wire, waits until the device is in step again, and only then
    raises CancelledError: the disk is usable afterwards. What a cancelled write did is not known.
    """

    def __init__(self, opener: Callable[[], Disk]) -> None:
        self._opener = opener
        self._disk: Disk | None = None
        self._executor: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> AsyncDisk:
        if self._executor is not None:
            raise RuntimeError("this AsyncDisk was entered already")
        PROCESS.prepare()
        self._entry = ledger.acquire("thread", "of an asynchronous disk")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="scsiusb disk")
        try:
            await self._run(_Job(self._open))
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Flushes and gives the device back, after the calls that are under way. May be called again."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        try:
            if self._disk is not None:
                await _ended(asyncio.get_running_loop().run_in_executor(executor, self._disk.close))
        finally:
            executor.shutdown()
            self._entry.release()

    @property
    def disk(self) -> Disk:
        """What all this is about; its methods block."""
        if self._disk is None:
            raise RuntimeError("the disk is open only inside `async with`")
        return self._disk

    async def medium(self) -> tuple[int, int]:
        """The number of blocks and the bytes in one. Raises NoMedium, NotReady."""
        return await self._do(lambda: (self.disk.blocks, self.disk.block_size))

    async def inquiry(self) -> InquiryData:
        return await self._do(self.disk.inquiry)

    async def read(self, lba: int, blocks: int) -> bytes:
        """See `Disk.read`."""
        return await self._do(self.disk.read, lba, blocks)

    async def readinto(self, lba: int, buffer: bytearray | memoryview) -> int:
        """See `Disk.readinto`; leave the buffer alone until this has returned or raised."""
        return await self._do(self.disk.readinto, lba, buffer)

    async def write(self, lba: int, data: bytes | bytearray | memoryview) -> int:
        """See `Disk.write`; leave the data alone until this has returned or raised."""
        return await self._do(self.disk.write, lba, data)

    async def flush(self) -> None:
        """See `Disk.flush`."""
        await self._do(self.disk.flush)

    async def execute(self, command: Command[R]) -> R:
        """See `Disk.execute`."""
        return await self._do(self.disk.execute, command)

    def __del__(self) -> None:
        """The disk itself warns, with the place, and is closed."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._entry.release()

    def _open(self) -> None:
        with ledger.on_behalf_of(self._entry.place):
            self._disk = self._opener()

    async def _do(self, function: Callable[..., R], *arguments: Any) -> R:
        transport = self.disk.unit.transport
        return await self._run(_Job(function, *arguments, transport=transport))

    async def _run(self, job: _Job[R]) -> R:
        if self._executor is None:
            raise RuntimeError("the disk is open only inside `async with`")
        done = asyncio.get_running_loop().run_in_executor(self._executor, job)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            job.cancel()
            await _settled(done)
            raise


class _Job(Generic[R]):
    """A call for the disk's thread. Cancelled before its turn, it does nothing."""

    def __init__(self, function: Callable[..., R], *arguments: Any, transport: Transport | None = None) -> None:
        self._function = function
        self._arguments = arguments
        self._transport = transport
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._cancel: Callable[[], None] | None = None

    def __call__(self) -> R:
        if self._transport is None:
            return self._function(*self._arguments)
        with self._transport.cancellable() as cancel:
            with self._lock:
                self._cancel = cancel
                if self._is_cancelled:
                    raise asyncio.CancelledError
            try:
                return self._function(*self._arguments)
            finally:
                with self._lock:
                    self._cancel = None

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._cancel is not None:
                self._cancel()


async def _settled(future: asyncio.Future[Any]) -> None:
    """Waits to the end, however often this task is cancelled again, and drops what comes of it."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()


async def _ended(future: asyncio.Future[R]) -> R:
    """Its result, at its end; a cancellation meanwhile comes after it."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _settled(future)
        raise
