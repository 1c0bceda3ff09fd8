"""Leases: one file for each interface that a process holds, under a file lock that ends with the process.

The lock, not the file, says whether the interface is held, so the file of a dead process is recognized at once. Such a
file is an orphan; the next process takes it over or recovers its device.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.base.releases import Descriptors, close_all
from scsiusb.errors import DeviceBusy
from scsiusb.leases import folders as _folders
from scsiusb.leases import foreign
from scsiusb.leases.digit import Digit
from scsiusb.leases.folders import ON_LINUX, ON_WINDOWS, Folder, try_lock, unlock
from scsiusb.leases.record import Record, file_name, holding_of, is_foreign, is_running, parse, process_of, record_of
from scsiusb.leases.warden_main import (
    IN_COMMAND,
    Kernel,
    give_back,
    is_locked_by_running_process,
    is_locked_by_strangers_only,
)
from scsiusb.usb.interface import InterfaceInfo

__all__ = ["Lease", "Record", "Seen", "folders", "holder", "in_folder", "leases", "read_lease"]

MAX_LEASE_SIZE: Final = 65536  # bytes; the rest of a longer file is not read
READER_TIMEOUT: Final = 0.2  # seconds; a process that reads a lease locks it for a moment
RECOVERY_TIMEOUT: Final = 5.0  # seconds; a warden locks the lease while it recovers the device
POLL_INTERVAL: Final = 0.01  # seconds
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

Notify = Callable[[Record, Path], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A lease as it was read."""

    record: Record
    state: str
    """"live", or "orphaned" if its process is dead."""
    path: Path
    in_command: bool
    """Whether a command is, or was at the death, in progress."""


class Lease:
    """An interface held by this process; `path` is None if no folder could be used.

    Without a path, all methods work and change no file.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.path: Path | None = None
        self._open: list[int] = []  # the descriptor of the file; see `open_into`
        self._is_ours = False  # whether the file's lock is this lease's: only then the file may be removed
        self._owner = os.getpid()
        self._digit: Digit | None = None
        self._put: Callable[[bool], object] = bool  # the digit's, or does nothing
        self._stat: os.stat_result | None = None  # of the file
        self._is_in_command = self._was_repaired = False

    def __del__(self) -> None:
        """Release a lease that Ctrl-C kept from reaching its caller."""
        if getattr(self, "_open", None):
            self.release()

    @property
    def _descriptor(self) -> int | None:
        return self._open[-1] if self._open else None

    @classmethod
    def acquire(cls, info: InterfaceInfo, folder: Path | None = None, notify: Notify | None = None) -> Lease:
        """Take the interface for this process; an orphaned lease of it is recovered and taken over.

        `folder`: the one to use, instead of the first usable one of `folders.own`. `notify` is called with the record
        and the lease's path before the lease can be seen: a warden that has the record by then covers a kill at any
        moment. Raises DeviceBusy, which names the process that holds the interface, or says why it could not be
        recovered. If no folder can be used, logs a warning and returns a lease without a file.
        """
        if folder is None:
            _refuse_if_held(info)
        lease = cls(record_of(info))
        try:
            reason = lease._acquire(info, [folder] if folder else _folders.own(), notify or _no_warden)
        except BaseException:
            lease.release()
            raise
        if reason is None:
            return lease
        lease.path = None
        log.warning("%s is used without a lease, so other processes cannot see what uses it: %s", info, reason)
        return lease

    def _acquire(self, info: InterfaceInfo, paths: list[Path], notify: Notify) -> str | None:
        """Take the file in the first folder that can be used; return why there is none, None if there is one."""
        reason = "there is no folder for it"
        for path in paths:
            try:
                with _folders.make(path) as place:
                    self.path = path / self.record.file_name
                    self._take(place, info, notify)
                    self._stat = os.fstat(self._open[-1])
                    self._digit = Digit(self._open[-1])
                    self._put = self._digit.put
                    return None
            except OSError as error:
                self.release()
                reason = str(error)
        return reason

    def _take(self, folder: Folder, info: InterfaceInfo, notify: Notify) -> None:
        """Create the file, locked and with the record in it, or take over an orphan's. Raises DeviceBusy, OSError."""
        began, record = time.monotonic(), self.record
        notify(record, folder.path / record.file_name)
        while True:
            with contextlib.suppress(FileExistsError):
                return self._create(folder)
            try:
                descriptor = folder.open(record.file_name, os.O_RDWR, into=self._open)
            except FileNotFoundError:  # it was released since `_create` found it
                continue
            if _take_over(folder, descriptor, record, notify):
                self._is_ours = True
                return None
            _wait_or_refuse(folder, descriptor, record, info, time.monotonic() - began)
            close_all(self._open)
            time.sleep(POLL_INTERVAL)

    def _create(self, folder: Folder) -> None:
        """Create the file, locked and written. Raises FileExistsError if there is one.

        Where the system supports files without a name, no other process can see it before it is locked and complete.
        """
        _, mode = _folders.modes()
        name = self.record.file_name
        try:
            descriptor, unnamed = folder.create_unnamed(self._open), True
        except OSError:
            descriptor, unnamed = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, into=self._open), False
        try:
            if not try_lock(descriptor):  # another process opened and locked it first
                raise FileExistsError(name)
            self._is_ours = True
            _write(descriptor, self.record)
            if sys.platform != "win32":
                os.fchmod(descriptor, mode)  # regardless of the umask
            if unnamed:
                folder.link(descriptor, name)
        except FileExistsError:
            self._is_ours = False
            close_all(self._open)
            raise

    def record_driver(self, name: str | None) -> None:
        """Write the kernel's driver into the lease, before it is detached; None if none is bound. Raises OSError."""
        self.record = replace(self.record, driver=name)
        if self._descriptor is not None:
            _write(self._descriptor, self.record, self.in_command)

    @property
    def in_command(self) -> bool:
        """Return whether a command is in progress, or failed and was not recovered from.

        If so, and if the process dies now, the device needs a port reset.
        """
        return self._digit is not None and self._is_in_command

    def note_command(self, is_begun: bool) -> None:
        """Record that a command begins, or that it is complete, or recovered from."""
        self._is_in_command = is_begun
        try:
            self._put(is_begun)
        except OSError as error:
            if error.errno == errno.EFAULT:
                self._repair()

    def _repair(self) -> None:
        """Write a lease again that another program has truncated; log a warning, the first time only."""
        done = "it was written again"
        try:
            # The program may have closed the descriptor, and its number be another file's by now.
            if (
                self._descriptor is None
                or self._stat is None
                or not os.path.samestat(os.fstat(self._descriptor), self._stat)
            ):
                raise OSError("its descriptor was closed")
            _write(self._descriptor, self.record, self.in_command)
        except OSError as error:
            done = f"other processes cannot see what uses the device: {error}"
        if not self._was_repaired:
            self._was_repaired = True
            log.warning("another program has truncated %s, the lease of a device in use; %s", self.path, done)

    def release(self) -> None:
        """Remove the file and end the lock. May be called again."""
        descriptor = self._descriptor
        # Remove while locked: after the lock has ended, the file may be another process's lease.
        is_ours = descriptor is not None and self._is_ours and self._owner == os.getpid()
        if is_ours and not ON_WINDOWS:
            self._unlink(descriptor)
        self._is_ours = False
        self.after_fork()
        if is_ours and ON_WINDOWS:  # an open file cannot be removed there
            self._unlink(None)

    def after_fork(self) -> None:
        """Close the file without removing it: in a forked child, where the lease is the parent's."""
        digit, self._digit, self._put = self._digit, None, bool
        if digit is not None:
            digit.close()
        close_all(self._open)

    def _unlink(self, descriptor: int | None) -> None:
        """Remove the file, unless another file has its name by now; a failure is only logged."""
        assert self.path is not None
        deadline = time.monotonic() + (READER_TIMEOUT if ON_WINDOWS else 0)
        while True:
            try:
                with Folder(self.path.parent) as folder:
                    if descriptor is None or folder.has(descriptor, self.path.name):
                        folder.unlink(self.path.name)
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTOR and descriptor is not None:
                    _unlink_by_path(descriptor, self.path)
                    return
                # On Windows a file that another process reads, which takes a moment, cannot be removed.
                if not isinstance(error, PermissionError) or time.monotonic() >= deadline:
                    log.debug("%s was not removed: %s", self.path, error)
                    return
            time.sleep(POLL_INTERVAL)


def folders() -> list[Path]:
    """Return the folders in which this user may see leases: the user's own, the system's; for root every user's."""
    return [folder.path for folder in _folders.visible()]


def leases() -> list[Seen]:
    """Read every lease that this user may see.

    Files that cannot be read, or are not leases, are left out; so are those of other users that root does not believe.
    """
    return [seen for folder in _folders.visible() for seen in in_folder(folder) if _is_believed(seen, folder)]


def holder(info: InterfaceInfo) -> Record | None:
    """Return the record of the process that holds the interface now; None if there is none, or it cannot be seen."""
    name = file_name(info.device.bus, info.device.number, info.interface)
    for folder in _folders.visible():
        seen = read_lease(folder, name)
        if seen is not None and seen.state == "live" and _is_believed(seen, folder):
            return seen.record
    return None


def _is_believed(seen: Seen, folder: Folder) -> bool:
    """Return whether the lease is of this user or root, or of another user who could hold its device."""
    if not ON_LINUX or folder.owner in (_folders.ROOT_UID, _folders.user()):
        return True
    return foreign.is_trusted(seen.record, folder.owner, Kernel())


def in_folder(folder: Folder) -> Iterator[Seen]:
    """Read the leases in one folder."""
    for name in folder.names():
        seen = read_lease(folder, name)
        if seen is not None:
            yield seen


def read_lease(folder: Folder, name: str) -> Seen | None:
    """Read the file `name`, which is not trusted; None if it is not a lease.

    Takes the lock for a moment, to find out whether the lease is live.
    """
    opened = Descriptors()
    try:
        descriptor = folder.open(name, os.O_RDONLY, into=opened)
        text = _read(descriptor)
        record = parse(text)
        if record is None or record.file_name != name:
            return None
        # A shared lock does not disturb other readers. The lock alone is not enough to be live: a forked child, or
        # any process that may read the file, can hold a lock after the lease's process has died.
        free = try_lock(descriptor, shared=True)
        if free:
            unlock(descriptor)
        state = "live" if not free and _is_held(descriptor, record) else "orphaned"
        return Seen(record, state, folder.path / name, text[IN_COMMAND : IN_COMMAND + 1] != b"0")
    except OSError:
        return None
    finally:
        close_all(opened)


# --- taking -------------------------------------------------------------------------------------


def _refuse_if_held(info: InterfaceInfo) -> None:
    """Raise DeviceBusy if a live lease in any visible folder is for the interface.

    Only root's and this user's folders count: another user's lease may be forged, and must not keep this user from
    the device. If it is true, the kernel refuses the claim.
    """
    name = file_name(info.device.bus, info.device.number, info.interface)
    for folder in _folders.visible():
        seen = read_lease(folder, name) if folder.owner in (_folders.ROOT_UID, _folders.user()) else None
        if seen is not None and seen.state == "live":
            raise _busy(info, seen.record)


def _is_held(descriptor: int, record: Record) -> bool:
    """Return whether a lease whose file is locked is held: the lock may be another process's.

    Of a process of another PID namespace only the lock is known, but not if it is a lock of a stranger's.
    """
    return is_running(record) and not (is_foreign(record) and is_locked_by_strangers_only(descriptor))


def _busy(info: InterfaceInfo, record: Record | None) -> DeviceBusy:
    """Return the error that names the holder, as far as it is known."""
    if record is None:
        return DeviceBusy(f"{info} is held by another program")
    return DeviceBusy(f"{info} is held by {process_of(record)} since {record.since}")


def _no_warden(record: Record, path: Path) -> None:
    """Report to no warden."""


def _take_over(folder: Folder, descriptor: int, record: Record, notify: Notify) -> bool:
    """Recover an orphan and write the record into its file; False if it is not an orphan, or was removed meanwhile.

    Raises DeviceBusy if the orphan cannot be recovered.
    """
    if not try_lock(descriptor) or not folder.has(descriptor, record.file_name):
        return False
    text = _read(descriptor)
    before = parse(text)
    if before is not None and _same_plugging_in(before, record):
        _recover_orphan(before, in_command=text[IN_COMMAND : IN_COMMAND + 1] != b"0")
        # Again, because recovery can take seconds: a warden that died meanwhile is started anew.
        notify(record, folder.path / record.file_name)
    _write(descriptor, record)
    return True


def _recover_orphan(orphan: Record, in_command: bool) -> None:
    """Give back what the orphan's process held: it died after this process had run recovery.

    Raises DeviceBusy if that fails. Does nothing on other platforms than Linux.
    """
    if not ON_LINUX:
        return
    holding = holding_of(orphan, None)
    holding.in_command = in_command
    is_done, done = give_back(Kernel(), holding)
    if not is_done:
        held = f"{orphan.address} was held by {process_of(orphan)}, which died"
        what = f"{held}, and could not be recovered: {done}"
        raise DeviceBusy(what, "run `sudo scsiusb recover`")


def _same_plugging_in(before: Record, now: Record) -> bool:
    """Return whether both records are of one device that was not unplugged, nor the machine restarted, between them."""
    parts = ("boot", "name", "bus", "number", "vendor_id", "product_id", "serial")
    return all(getattr(before, part) == getattr(now, part) for part in parts)


def _wait_or_refuse(folder: Folder, descriptor: int, record: Record, info: InterfaceInfo, waited: float) -> None:
    """Raise DeviceBusy if a running process holds the lock; return if it is worth another try.

    `waited`: seconds since the first try.
    """
    if not folder.has(descriptor, record.file_name):
        return
    there = parse(_read(descriptor))
    dead = there is not None and not _is_held(descriptor, there)
    is_stuck = dead and not ON_WINDOWS and is_locked_by_strangers_only(descriptor)
    if waited < (RECOVERY_TIMEOUT if dead else READER_TIMEOUT) and not is_stuck:
        return
    if not dead or ON_WINDOWS or is_locked_by_running_process(descriptor):
        raise _busy(info, there)
    # The lock of a dead process lives on in a forked child, or a process that may only read the file shares it: it
    # does not count. Neither has a lock on the file that is created next.
    folder.unlink(record.file_name)


# --- reading and writing ------------------------------------------------------------------------


def _write(descriptor: int, record: Record, in_command: bool = False) -> None:
    """Write the record as one line of JSON. Raises OSError."""
    # A single write is not interrupted by a kill. The file is not truncated first, so that a reader never sees it
    # empty: what remains of a longer record follows the end of the line, and is not read.
    text = json.dumps({"in_command": int(in_command), **asdict(record)}) + "\n"
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _unlink_by_path(descriptor: int, path: Path) -> None:
    """Remove the open file without opening its folder: no descriptor is free. A failure is only logged."""
    try:
        if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            os.unlink(path)
    except OSError as error:
        log.debug("%s was not removed: %s", path, error)


def _read(descriptor: int) -> bytes:
    """Read the file from its start. Raises OSError."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, MAX_LEASE_SIZE)
