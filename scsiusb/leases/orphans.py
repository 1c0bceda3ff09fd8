"""Recovery: gives back devices whose process and warden have both died.

`scsiusb.open` and most commands run this first, so that the next program repairs what the last one left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.base.releases import Descriptors, close_all
from scsiusb.leases import folders, foreign
from scsiusb.leases.folders import ON_WINDOWS, Folder, try_lock
from scsiusb.leases.lease import Seen, in_folder, read_lease
from scsiusb.leases.record import Record, holding_of, of_this_boot
from scsiusb.leases.warden_main import GONE, Kernel, give_back, lock_for_recovery

ON_LINUX: Final = sys.platform == "linux"


@dataclass(frozen=True)
class Recovered:
    """The result of recovering one orphaned lease."""

    record: Record
    done: str
    """What was done, or what went wrong, in words."""
    ok: bool
    """False if the device still needs recovery."""


def recover(address: str | None = None) -> list[Recovered]:
    """Recover every orphan that this user may see, or those of one device.

    `address`: "2-1" or "2-1:1.0". Orphans that another process is recovering are left out, as are those that need
    nothing and that this user may not remove. Raises no OSError.
    """
    return list(_recover(address, Kernel() if ON_LINUX else None))


def _recover(address: str | None, kernel: Kernel | None) -> Iterator[Recovered]:
    for folder in folders.visible():
        is_foreign = folder.owner not in (folders.ROOT_UID, folders.user())
        for seen in _trusted(folder, kernel) if is_foreign else in_folder(folder):
            if seen.state == "orphaned" and _is_meant(seen.record, address):
                recovered = _recover_one(folder, seen, kernel, is_foreign=is_foreign)
                if recovered is not None:
                    yield recovered


def _trusted(folder: Folder, kernel: Kernel | None) -> Iterator[Seen]:
    """Read those leases of another user that root may act on."""
    if kernel is None:
        return
    for name in foreign.names(kernel):
        seen = read_lease(folder, name)
        if seen is not None and foreign.is_trusted(seen.record, folder.owner, kernel):
            yield seen


def _is_meant(record: Record, address: str | None) -> bool:
    return address in (None, record.address, record.name, record.name.partition(":")[0])


def _recover_one(folder: Folder, seen: Seen, kernel: Kernel | None, *, is_foreign: bool) -> Recovered | None:
    """Recover one orphan and remove its lease.

    None if another process did or does so, or if the device needs nothing and the lease may not be removed.
    `is_foreign`: it is another user's, whose lock is not waited for.
    """
    name = seen.path.name
    opened = Descriptors()
    try:
        try:
            descriptor = folder.open(name, os.O_RDONLY, into=opened)
        except OSError:
            return None
        is_locked = try_lock(descriptor) if is_foreign or ON_WINDOWS else lock_for_recovery(descriptor)
        if not is_locked or not folder.has(descriptor, name):
            return None
        now = read_lease(folder, name)  # read again under the lock: `seen` may be out of date
        # Another user may have put another file in its place since his lease was found to be believable.
        if now is None or (is_foreign and now.record != seen.record):
            return None
        ok, done, was_needed = _give_back(now, kernel)
        if ok and not ON_WINDOWS and not _remove(folder, name) and not was_needed:
            return None
    finally:
        close_all(opened)
    if ok and ON_WINDOWS:  # an open file cannot be removed there
        _remove(folder, name)
    return Recovered(now.record, done, ok)


def _give_back(seen: Seen, kernel: Kernel | None) -> tuple[bool, str, bool]:
    """Give the orphan's device back to the kernel.

    Returns whether it needs nothing more, what was done in words, and whether it needed recovery.
    """
    if kernel is None:  # on this platform no driver was detached
        return True, "its record is removed", False
    if not of_this_boot(seen.record):
        return True, GONE, False
    holding = holding_of(seen.record, None)
    holding.in_command = seen.in_command
    is_needed = kernel.has(holding) and kernel.driver(holding) in ("", "usbfs")
    return *give_back(kernel, holding), is_needed


def _remove(folder: Folder, name: str) -> bool:
    """Remove the lease and return whether that succeeded."""
    try:
        folder.unlink(name)
    except OSError:  # it is another user's, whose next program removes it; on Windows, another process has it open
        return False
    return True
