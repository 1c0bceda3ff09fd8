"""Disks for asyncio: commands run in a thread; cancelling a call ends its command and recovers the device."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from scsiusb import ledger
from scsiusb.base.copying import Uncopyable
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceGone, MediumChanged, NoMedium, ScsiUsbError
from scsiusb.manager.process import PROCESS
from scsiusb.scsi.command import Command
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.transport.base import Transport

R = TypeVar("R")


class AsyncDisk(Uncopyable):
    """The methods of `Disk` as coroutines. Any number of tasks may use it; one call runs at a time.

    A cancelled call ends its command on the bus, waits until the device is recovered, and then raises CancelledError:
    the disk is usable afterwards. Whether a cancelled write was carried out is not known.
    """

    def __init__(self, opener: Callable[[], Disk]) -> None:
        self._opener = opener
        self._disk: Disk | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._untold: ScsiUsbError | None = None
        """A change of the medium, or the loss of the device, that a cancelled call met: the next call raises it."""

    def __repr__(self) -> str:
        return "<AsyncDisk, not open>" if self._disk is None else f"<AsyncDisk {self._disk!r}>"

    async def __aenter__(self) -> AsyncDisk:
        if self._executor is not None:
            raise RuntimeError("this AsyncDisk was entered already")
        PROCESS.prepare()
        self._entry = ledger.acquire("thread", "of an asynchronous disk")
        self._process = os.getpid()
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
        """Flush and release the device, after the calls in progress. May be called again. Raises as `Disk.close`."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        try:
            if self._disk is not None and self._process == os.getpid():
                await _result_of(asyncio.get_running_loop().run_in_executor(executor, self._disk.close))
            self._raise_untold(DeviceGone)
        finally:
            executor.shutdown()
            self._entry.release()

    @property
    def disk(self) -> Disk:
        """The disk itself; its methods block. Raises RuntimeError outside of the `async with`."""
        if self._disk is None:
            raise RuntimeError("the disk is open only inside `async with`")
        return self._disk

    async def medium(self) -> tuple[int, int]:
        """Return the number of blocks, and of bytes in a block. Raises NoMedium, NotReady."""
        return await self._do(lambda: (self.disk.blocks, self.disk.block_size))

    async def inquiry(self) -> InquiryData:
        """See `Disk.inquiry`."""
        return await self._do(self.disk.inquiry)

    async def read(self, lba: int, blocks: int) -> bytes:
        """See `Disk.read`."""
        return await self._do(self.disk.read, lba, blocks)

    async def read_many(self, requests: Iterable[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        """See `Disk.read_many`; `requests` is iterated over in another thread."""
        found = self.disk.read_many(requests)
        while (one := await self._do(next, found, None)) is not None:
            yield one

    async def readinto(self, lba: int, buffer: bytearray | memoryview) -> int:
        """See `Disk.readinto`; the buffer must not be used until this has returned or raised."""
        return await self._do(self.disk.readinto, lba, buffer)

    async def write(self, lba: int, data: bytes | bytearray | memoryview) -> int:
        """See `Disk.write`; the data must not be changed until this has returned or raised."""
        return await self._do(self.disk.write, lba, data)

    async def flush(self) -> None:
        """See `Disk.flush`."""
        await self._do(self.disk.flush)

    async def execute(
        self, command: Command[R], *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> R:
        """See `Disk.execute`."""
        return await self._do(partial(self.disk.execute, command, timeout=timeout, retry=retry))

    def __del__(self) -> None:
        """End the thread. The disk itself warns that it was not closed, with the place, and closes."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._entry.release()

    def _open(self) -> None:
        with ledger.on_behalf_of(self._entry.place):
            self._disk = self._opener()

    async def _do(self, function: Callable[..., R], *arguments: Any) -> R:
        transport = self.disk.unit.transport
        self._raise_untold(MediumChanged, NoMedium, DeviceGone)
        if self._process != os.getpid():  # a fork's child, where the thread is not
            transport.check()
        return await self._run(_Job(function, *arguments, transport=transport))

    def _raise_untold(self, *kinds: type[ScsiUsbError]) -> None:
        untold, self._untold = self._untold, None
        try:
            if isinstance(untold, kinds):
                raise untold
        finally:
            del untold  # this frame is in its traceback

    async def _run(self, job: _Job[R]) -> R:
        if self._executor is None:
            raise RuntimeError("the disk is open only inside `async with`")
        done = asyncio.get_running_loop().run_in_executor(self._executor, job)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            job.cancel()
            error = await _wait_until_done(done)
            if isinstance(error, (MediumChanged, NoMedium, DeviceGone)):
                self._untold = error.with_traceback(None)
            del error
            raise


class _Job(Generic[R]):
    """A call for the disk's thread. If it is cancelled before it starts, it does nothing."""

    def __init__(self, function: Callable[..., R], *arguments: Any, transport: Transport | None = None) -> None:
        self._function = function
        self._arguments = arguments
        self._scope = None if transport is None else transport.scope()
        self._is_cancelled = False

    def __call__(self) -> R:
        if self._scope is None:
            return self._function(*self._arguments)
        if self._is_cancelled:
            raise asyncio.CancelledError
        return self._scope.run(self._function, *self._arguments)

    def cancel(self) -> None:
        """End the call's command, if it is running; if the call has not started, keep it from starting."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()


async def _wait_until_done(future: asyncio.Future[Any]) -> BaseException | None:
    """Wait until the future is done, even if this task is cancelled meanwhile; return its error, if any."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    return None if future.cancelled() else future.exception()


async def _result_of(future: asyncio.Future[R]) -> R:
    """Return the future's result. If this task is cancelled meanwhile, raise that after the future is done."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _wait_until_done(future)
        raise
