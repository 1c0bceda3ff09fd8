"""Leases: one file for each interface that is held, under a lock that dies with its process: none goes stale."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceBusy
from scsiusb.leases import folders as _folders
from scsiusb.leases.folders import ON_LINUX, ON_WINDOWS, Folder, try_lock, unlock
from scsiusb.leases.record import Record, file_name, holding_of, parse, record_of, runs
from scsiusb.leases.warden_main import IN_COMMAND, Kernel, give_back, locked_by_the_living
from scsiusb.usb.interface import InterfaceInfo

__all__ = ["Lease", "Record", "Seen", "folders", "holder", "in_folder", "leases", "look"]

LONGEST: Final = 65536  # bytes of a lease that are looked at
READERS_PATIENCE: Final = 0.2  # seconds; somebody who only looks locks it for a moment, too
RECOVERY_PATIENCE: Final = 5.0  # while a warden gives the device back
PAUSE: Final = 0.01

Tell = Callable[[Record, Path], None]

NO, YES = b"01"  # the digit that stands at IN_COMMAND
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A lease as it was found: "live", or "orphaned" where its process is dead."""

    record: Record
    state: str
    path: Path
    in_command: bool


class Lease:
    """Our hold of an interface; `path` is None where no folder could be used."""

    def __init__(self, record: Record, path: Path | None = None, descriptor: int | None = None) -> None:
        self.record = record
        self.path = path
        self._descriptor = descriptor
        self._owner = os.getpid()
        self._map = None if descriptor is None else mmap.mmap(descriptor, IN_COMMAND + 1)

    def __del__(self) -> None:
        """Ctrl-C may have come before anybody had it."""
        if getattr(self, "_map", None) is not None:
            self.release()

    @classmethod
    def acquire(cls, info: InterfaceInfo, folder: Path | None = None, tell: Tell | None = None) -> Lease:
        """Takes the interface for this process; DeviceBusy names the process that has it.

        `tell` is called before the lease can be seen: a warden that knows of it by then misses no kill.
        """
        if folder is None:
            _refuse_if_held(info)
        record = record_of(info)
        reason = "there is no folder for it"
        for path in [folder] if folder else _folders.own():
            try:
                with _folders.make(path) as place:
                    return cls._of(*_take(place, record, info, tell or _nobody), path / record.file_name)
            except OSError as error:
                reason = str(error)
        log.warning("%s is used without a lease, so that nobody sees who has it: %s", info, reason)
        return cls(record)

    @classmethod
    def _of(cls, descriptor: int, record: Record, path: Path) -> Lease:
        """Closes the file if anything comes between; recovery removes it."""
        try:
            return cls(record, path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def record_driver(self, name: str | None) -> None:
        """Writes down the kernel's driver, before it is detached; None: there was none to detach."""
        self.record = replace(self.record, driver=name)
        if self._descriptor is not None:
            _write(self._descriptor, self.record, self.in_command)

    @property
    def in_command(self) -> bool:
        """Whether a command is on the wire: if the process dies now, the device is left in the middle of it."""
        view = self._map
        return view is not None and view[IN_COMMAND] != NO

    def note_command(self, is_begun: bool) -> None:
        """A command goes onto the wire, or the device is in step again."""
        try:  # not `suppress`, which costs more than all the rest, twice a command
            self._map[IN_COMMAND] = YES if is_begun else NO  # type: ignore[index]
        except (TypeError, ValueError):  # there is no map, or it was released meanwhile
            return

    def release(self) -> None:
        """Removes the file, then lets go of it. May be called again."""
        descriptor = self._descriptor
        if descriptor is not None and self._owner == os.getpid() and not ON_WINDOWS:
            self._unlink(descriptor)
        self.after_fork()
        if descriptor is not None and ON_WINDOWS:  # what is open cannot be removed there
            self._unlink(None)

    def after_fork(self) -> None:
        """In a fork's child: closes the file, which stays the parent's."""
        descriptor, self._descriptor = self._descriptor, None
        view, self._map = self._map, None
        if view is not None:
            view.close()
        if descriptor is not None:
            os.close(descriptor)

    def _unlink(self, descriptor: int | None) -> None:
        assert self.path is not None
        try:
            with Folder(self.path.parent) as folder:
                if descriptor is None or folder.has(descriptor, self.path.name):
                    folder.unlink(self.path.name)
        except OSError as error:
            log.debug("%s was not removed: %s", self.path, error)


def folders() -> list[Path]:
    """Where leases may be seen: the user's own folder, the system's; for root every user's."""
    return [folder.path for folder in _folders.visible()]


def leases() -> list[Seen]:
    """Every lease that can be seen; what cannot be read, or is none, is left out."""
    return [seen for folder in _folders.visible() for seen in in_folder(folder)]


def holder(info: InterfaceInfo) -> Record | None:
    """Who holds the interface now, as far as we may see."""
    name = file_name(info.device.bus, info.device.number, info.interface)
    found = (look(folder, name) for folder in _folders.visible())
    return next((seen.record for seen in found if seen and seen.state == "live"), None)


def in_folder(folder: Folder) -> Iterator[Seen]:
    for name in folder.names():
        seen = look(folder, name)
        if seen is not None:
            yield seen


def look(folder: Folder, name: str) -> Seen | None:
    """Reads a lease that may be anybody's work; None if it is none. The lock is tried, and let go at once."""
    try:
        descriptor = folder.open(name, os.O_RDONLY)
    except OSError:
        return None
    try:
        text = _read(descriptor)
        record = parse(text)
        if record is None or record.file_name != name:
            return None
        free = try_lock(descriptor, shared=True)
        if free:
            unlock(descriptor)
        state = "live" if not free and runs(record) else "orphaned"
        return Seen(record, state, folder.path / name, text[IN_COMMAND : IN_COMMAND + 1] != b"0")
    except OSError:
        return None
    finally:
        os.close(descriptor)


# --- taking -------------------------------------------------------------------------------------


def _refuse_if_held(info: InterfaceInfo) -> None:
    """By a lease in another folder than ours, if we can trust who wrote it: the kernel looks after the others."""
    name = file_name(info.device.bus, info.device.number, info.interface)
    for folder in _folders.visible():
        seen = look(folder, name) if folder.owner in (_folders.TRUSTED_TWO, _folders.user()) else None
        if seen is not None and seen.state == "live":
            raise _busy(info, seen.record)


def _busy(info: InterfaceInfo, record: Record | None) -> DeviceBusy:
    if record is None:
        return DeviceBusy(f"{info} is held by another program")
    return DeviceBusy(f"{info} is held by pid {record.pid} ({record.command}) since {record.since}")


def _nobody(record: Record, path: Path) -> None:
    pass


def _take(folder: Folder, record: Record, info: InterfaceInfo, tell: Tell) -> tuple[int, Record]:
    """A locked file that says what the record says; it may be an orphan's, whose driver is then ours to give back."""
    began = time.monotonic()
    tell(record, folder.path / record.file_name)
    while True:
        with contextlib.suppress(FileExistsError):
            return _create(folder, record), record
        try:
            descriptor = folder.open(record.file_name, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            taken = _take_over(folder, descriptor, record, tell)
            if taken is not None:
                return descriptor, taken
            _wait_or_refuse(folder, descriptor, record, info, time.monotonic() - began)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(PAUSE)


def _create(folder: Folder, record: Record) -> int:
    """A new file. Nobody sees it before it is locked and written, where the system knows files without a name."""
    _, mode = _folders.modes()
    try:
        descriptor, unnamed = folder.create_unnamed(), True
    except OSError:
        descriptor, unnamed = folder.open(record.file_name, os.O_RDWR | os.O_CREAT | os.O_EXCL), False
    try:
        if not try_lock(descriptor):  # another process was quicker
            raise FileExistsError(record.file_name)
        _write(descriptor, record)
        if not ON_WINDOWS:
            os.fchmod(descriptor, mode)
        if unnamed:
            folder.link(descriptor, record.file_name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take_over(folder: Folder, descriptor: int, record: Record, tell: Tell) -> Record | None:
    """An orphan's file becomes ours: None if it is no orphan's, or was removed meanwhile."""
    if not try_lock(descriptor) or not folder.has(descriptor, record.file_name):
        return None
    text = _read(descriptor)
    before = parse(text)
    if before is not None and _same_plugging_in(before, record):
        _put_right(before, in_command=text[IN_COMMAND : IN_COMMAND + 1] != b"0")
        tell(record, folder.path / record.file_name)
    _write(descriptor, record)
    return record


def _put_right(orphan: Record, in_command: bool) -> None:
    """What recovery would have done, had the process died a moment earlier. DeviceBusy if it cannot be done."""
    if not ON_LINUX:
        return
    holding = holding_of(orphan, None)
    holding.in_command = in_command
    right, done = give_back(Kernel(), holding)
    if not right:
        what = f"{orphan.address} was left behind by pid {orphan.pid} ({orphan.command}): {done}"
        raise DeviceBusy(what, "run `sudo scsiusb recover`")


def _same_plugging_in(before: Record, now: Record) -> bool:
    parts = ("boot", "name", "bus", "number", "vendor_id", "product_id", "serial")
    return all(getattr(before, part) == getattr(now, part) for part in parts)


def _wait_or_refuse(folder: Folder, descriptor: int, record: Record, info: InterfaceInfo, waited: float) -> None:
    """DeviceBusy once it is sure that a living process has it."""
    if not folder.has(descriptor, record.file_name):
        return
    there = parse(_read(descriptor))
    dead = there is not None and not runs(there)
    if waited < (RECOVERY_PATIENCE if dead else READERS_PATIENCE):
        return
    if not dead or ON_WINDOWS or locked_by_the_living(descriptor):
        raise _busy(info, there)
    # A fork's child keeps a dead process's lock, or somebody who may only read the file.
    folder.unlink(record.file_name)


# --- reading and writing ------------------------------------------------------------------------


def _write(descriptor: int, record: Record, in_command: bool = False) -> None:
    """In one write, which a kill does not cut; what is left of a longer text before is past the end of the line."""
    text = json.dumps({"in_command": int(in_command), **asdict(record)}) + "\n"
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, LONGEST)
