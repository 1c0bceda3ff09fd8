"""The digit of a lease that says whether a command is in progress. It is written twice per command."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from scsiusb.base.releases import Descriptors, close_all, open_into
from scsiusb.leases.warden_main import IN_COMMAND

DIGITS: Final = b"01"  # no, yes


class Digit:
    """The digit in an open lease: written through a map, so that it stays in the file when this process is killed.

    If another program truncates the file, a store into the map would end this process by SIGBUS. So on Linux the kernel
    copies the digit there from a memfd, by preadv with the map as its buffer, which then fails with EFAULT. It takes
    about half a microsecond more than a store, as a pwrite does; but a pwrite would write into another file, if the
    program had closed the descriptor of the lease and its number were another file's by now.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the file; the descriptor may be closed afterwards. Raises OSError, and ValueError for an empty file."""
        self._source = Descriptors()
        self.put: Callable[[bool], object] = bool  # does nothing
        self._view: mmap.mmap | None = None
        view = mmap.mmap(descriptor, IN_COMMAND + 1)
        if sys.platform == "linux" and hasattr(os, "memfd_create"):  # some builds of Python have none
            source = open_into(self._source, os.memfd_create, "scsiusb")
            os.write(source, DIGITS)
            # A call without any Python code: it is made twice per command.
            self.put = partial(os.preadv, source, [memoryview(view)[IN_COMMAND:]])
        else:
            self._view = view
            self.put = partial(_store, view)

    def close(self) -> None:
        """End the map; a `put` of another thread keeps it until its end. May be called again."""
        self.put = bool
        close_all(self._source)
        if self._view is not None:  # Windows does not remove a file that is mapped
            self._view.close()


def _store(view: mmap.mmap, value: bool) -> None:
    """Write the digit by a store into the map, unless another thread has closed it."""
    with suppress(ValueError):
        view[IN_COMMAND] = DIGITS[value]
