"""Transfer buffers of a port: lent for one use each, kept for the next use, and freed all together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from scsiusb import ledger
from scsiusb.base.releases import Releases
from scsiusb.usb.backend import ABANDONED

PAGE: Final = 4096


class Buffers:
    """Pool of buffers. Their sizes are powers of two, so that few sizes serve all uses.

    The one other size is `most`: the bytes of the largest command, as `Port.limit_transfer_size` returned them.
    """

    def __init__(self, allocate: Callable[[int], memoryview], name: str) -> None:
        """`name`: the interface that the buffers belong to, for the ledger."""
        self._allocate = allocate
        self._name = name
        self.lock = threading.RLock()  # reentrant: a signal handler may close the port while a buffer is lent
        self.idle: dict[int, list[memoryview]] = {}
        self._all: dict[int, tuple[memoryview, ledger.Entry]] = {}
        self.is_drained = False
        self.most = 0

    def lend(self, size: int) -> Loan:
        """Lend `size` bytes for a `with`; what the memory held before is still in it."""
        return Loan(self, size)

    def allocate(self, size: int) -> memoryview:
        """Return a buffer of at least `size` bytes, an idle one if there is any.

        Raises what the allocator raises.
        """
        capacity = self._capacity(size)
        try:
            return self.idle[capacity].pop()
        except LookupError:
            return self._make(capacity)

    def _capacity(self, size: int) -> int:
        capacity = max(PAGE, 1 << (size - 1).bit_length())
        return self.most if capacity > self.most >= max(size, PAGE) else capacity

    def _make(self, capacity: int) -> memoryview:
        entry = ledger.entry("memory", f"of {capacity} bytes for {self._name}")
        whole = self._allocate(capacity)
        with self.lock:
            if not self.is_drained:
                self.idle.setdefault(capacity, [])
                self._all[id(whole.obj)] = whole, entry  # from now on, `drain` releases it
                entry.hold()
        return whole

    def owns(self, view: memoryview) -> bool:
        """Return whether the view is of one of these buffers, and without gaps."""
        return view.c_contiguous and id(view.obj) in self._all

    def drain(self, free: Callable[[memoryview], None]) -> None:
        """Free all buffers, also those that are lent: their memory stays valid as long as a slice of it exists."""
        with self.lock:
            self.is_drained = True
            self.idle.clear()
            releases = Releases()
            for key in self._all:
                releases.add(self._free_one, key, free)
            releases.close()

    def _free_one(self, key: int, free: Callable[[memoryview], None]) -> None:
        if key not in self._all:
            return
        whole, entry = self._all[key]
        entry.release()  # first: after Ctrl-C this is called again, and then the buffer may be free
        try:
            free(whole)
        finally:
            del self._all[key]


class Loan:
    """Lends a buffer for a `with`."""

    __slots__ = ("_buffers", "_size", "_view", "_whole")

    def __init__(self, buffers: Buffers, size: int) -> None:
        self._buffers = buffers
        self._size = size
        self._view: memoryview | None = None
        self._whole: memoryview | None = None

    def __enter__(self) -> memoryview:
        try:  # most sizes have an idle buffer; without a test for one first, as other threads take them, too
            self._whole = self._buffers.idle[self._size].pop()
        except LookupError:
            self._whole = self._buffers.allocate(self._size)
        try:
            self._view = self._whole[: self._size]
        except ValueError:  # another thread has drained the buffers since: the next one is not pooled, nor freed
            self._whole = self._buffers.allocate(self._size)
            self._view = self._whole[: self._size]
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        view, whole = self._view, self._whole
        self._whole = None  # a second exit, after Ctrl-C in the first, must not make the buffer idle twice
        if view is not None:
            view.release()
        if view is None or whole is None:
            return
        buffers = self._buffers
        with buffers.lock:
            # After `drain` the view is released: it has no `obj` any more. A buffer that the kernel may still write to
            # is not used again; `drain` frees it.
            if not buffers.is_drained and not (ABANDONED and id(whole.obj) in ABANDONED):
                buffers.idle[len(whole)].append(whole)
