"""Locks on whole files that end with their process: flock on POSIX systems, a locked byte on Windows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_AT: Final = 1 << 30  # a Windows lock keeps others from reading the bytes it covers: lock one after the end


@contextmanager
def at_lock(descriptor: int) -> Iterator[None]:
    """Move the file's position to LOCK_AT, where Windows locks, and back: the caller reads or writes at it."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, LOCK_AT, os.SEEK_SET)
    try:
        yield
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file until its last descriptor is closed; False if another process has the lock. Raises OSError.

    `shared` allows other shared locks beside this one; Windows has no such locks.
    """
    try:
        if sys.platform == "win32":
            with at_lock(descriptor):
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # Windows raises PermissionError
        return False
    return True


def unlock(descriptor: int) -> None:
    """End the lock that `try_lock` took. Raises OSError."""
    if sys.platform == "win32":
        with at_lock(descriptor):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_refused(descriptor: int, *, shared: bool) -> bool:
    """Lock the file and return whether another open of it has the lock; False on a file system without locks."""
    try:
        return not try_lock(descriptor, shared=shared)
    except OSError:
        return False
