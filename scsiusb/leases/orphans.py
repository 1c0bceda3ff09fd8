"""Recovery: what programs and their wardens left behind when they died is put right by whoever comes next."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.leases import folders
from scsiusb.leases.folders import ON_WINDOWS, Folder, try_lock
from scsiusb.leases.lease import Seen, in_folder, look
from scsiusb.leases.record import Record, holding_of, of_this_boot
from scsiusb.leases.warden_main import GONE, Kernel, give_back, lock_for_recovery

ON_LINUX: Final = sys.platform == "linux"


@dataclass(frozen=True)
class Recovered:
    """What became of a lease whose process is dead; not `ok`: it is still to be put right."""

    record: Record
    done: str
    ok: bool


def recover(address: str | None = None) -> list[Recovered]:
    """Puts right every orphan that we can see, or those of one device; leaves alone what somebody is putting right."""
    return list(_recover(address, Kernel() if ON_LINUX else None))


def _recover(address: str | None, kernel: Kernel | None) -> Iterator[Recovered]:
    for folder in folders.visible():
        for seen in in_folder(folder):
            if seen.state == "orphaned" and _is_meant(seen.record, address):
                recovered = _put_right(folder, seen, kernel)
                if recovered is not None:
                    yield recovered


def _is_meant(record: Record, address: str | None) -> bool:
    return address in (None, record.address, record.name, record.name.partition(":")[0])


def _put_right(folder: Folder, seen: Seen, kernel: Kernel | None) -> Recovered | None:
    """None: somebody else did it, or is at it, or there is nothing to do that we may do."""
    name = seen.path.name
    try:
        descriptor = folder.open(name, os.O_RDONLY)
    except OSError:
        return None
    try:
        if not _lock(descriptor) or not folder.has(descriptor, name):
            return None
        now = look(folder, name)
        if now is None:
            return None
        ok, done, was_needed = _give_back(now, kernel)
        if ok and not ON_WINDOWS and not _remove(folder, name) and not was_needed:
            return None
    finally:
        os.close(descriptor)
    if ok and ON_WINDOWS:  # what is open cannot be removed there
        _remove(folder, name)
    return Recovered(now.record, done, ok)


def _lock(descriptor: int) -> bool:
    return try_lock(descriptor) if ON_WINDOWS else lock_for_recovery(descriptor)


def _give_back(seen: Seen, kernel: Kernel | None) -> tuple[bool, str, bool]:
    """Whether all is right now, what was done, and whether there was anything to do."""
    if kernel is None:  # no driver was taken from anybody
        return True, "its record is removed", False
    if not of_this_boot(seen.record):
        return True, GONE, False
    holding = holding_of(seen.record, None)
    holding.in_command = seen.in_command
    is_needed = kernel.has(holding) and kernel.driver(holding) in ("", "usbfs")
    return *give_back(kernel, holding), is_needed


def _remove(folder: Folder, name: str) -> bool:
    try:
        folder.unlink(name)
    except OSError:  # another user's, whose next program removes it; on Windows somebody has it open
        return False
    return True
