"""Where leases lie: runtime folders, opened so that no other user can play tricks there, and locks on files."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME: Final = "scsiusb"
ON_LINUX: Final = sys.platform == "linux"
ON_WINDOWS: Final = sys.platform == "win32"
RUN: Final = Path("/run") if ON_LINUX else Path("/var/run")
OWN_FILES: Final = "/proc/self/fd"
USERS: Final = Path("/run/user")
TRUSTED_TWO: Final = 0  # root's uid: what root owns is trusted by all
WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
MOST_FOLDERS: Final = 256
MOST_NAMES: Final = 4096
LOCK_AT: Final = 1 << 30  # Windows' locks keep others from reading what they cover: lock where there is nothing
FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
CAREFULLY: Final = FLAGS | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Folder:
    """An open folder whose owner is `owner` and where nobody else may write; raises OSError if it is not so.

    Names are looked up in what was opened, whatever takes its place later.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self.path = path
        self.owner = user() if owner is None else owner
        self._descriptor: int | None = None
        if ON_WINDOWS:  # it lies in the user's profile, which Windows guards
            os.listdir(path)
            return
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        if found.st_uid != self.owner or found.st_mode & WRITABLE_BY_OTHERS:
            self.close()
            raise PermissionError(f"{path} is not the user's alone")

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def names(self) -> list[str]:
        where = self.path if self._descriptor is None else self._descriptor
        return sorted(os.listdir(where)[:MOST_NAMES])

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a regular file of the owner's that has no second name; waits for nobody."""
        descriptor = os.open(self._name(name), flags | CAREFULLY, mode, dir_fd=self._descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or (not ON_WINDOWS and found.st_uid != self.owner):
            os.close(descriptor)
            raise PermissionError(f"{self.path / name} is no lease")
        return descriptor

    def create_unnamed(self) -> int:
        """A file that has no name until `link` gives it one; OSError where the file system has none such."""
        if not os.path.isdir(OWN_FILES):
            raise OSError("no files without a name")
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._descriptor)

    def link(self, descriptor: int, name: str) -> None:
        os.link(f"{OWN_FILES}/{descriptor}", name, dst_dir_fd=self._descriptor, follow_symlinks=True)

    def has(self, descriptor: int, name: str) -> bool:
        """Whether the name still is the file that is open."""
        try:
            named = os.stat(self._name(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))

    def unlink(self, name: str) -> None:
        os.unlink(self._name(name), dir_fd=self._descriptor)

    def set_mode(self, mode: int) -> None:
        if self._descriptor is not None and stat.S_IMODE(os.fstat(self._descriptor).st_mode) != mode:
            os.fchmod(self._descriptor, mode)

    def _name(self, name: str) -> str:
        return name if self._descriptor is not None else str(self.path / name)


def user() -> int:
    return 0 if sys.platform == "win32" else os.geteuid()


def is_root() -> bool:
    return not ON_WINDOWS and user() == 0


def modes() -> tuple[int, int]:
    """Of our folder and of the files in it: everybody may see what root holds."""
    return (0o755, 0o644) if is_root() else (0o700, 0o600)


def own() -> list[Path]:
    """Where this user's leases may lie, the best place first."""
    found = [RUN / NAME] if is_root() else _runtime()
    with contextlib.suppress(OSError):  # no temporary folder at all
        found.append(Path(tempfile.gettempdir()) / (NAME if ON_WINDOWS else f"{NAME}-{user()}"))
    return list(dict.fromkeys(found))


def make(path: Path) -> Folder:
    """Opens the folder, which is made if need be; OSError where it cannot be used."""
    mode, _ = modes()
    os.makedirs(path, mode, exist_ok=True)
    if not ON_WINDOWS:
        above = os.stat(path.parent)
        open_to_others = above.st_mode & WRITABLE_BY_OTHERS and not above.st_mode & stat.S_ISVTX
        if above.st_uid not in (user(), TRUSTED_TWO) or open_to_others:
            raise PermissionError(f"others may put another folder in the place of {path}")
    folder = Folder(path)
    folder.set_mode(mode)
    return folder


def visible() -> Iterator[Folder]:
    """Opens one after the other: the user's own folders, the system's; for root every user's."""
    places = dict.fromkeys((path, user()) for path in own())
    if not ON_WINDOWS:
        places[RUN / NAME, TRUSTED_TWO] = None
    if is_root():
        places |= dict.fromkeys(_all_users())
    for path, owner in places:
        try:
            folder = Folder(path, owner)
        except OSError:  # there is none, or it is not to be trusted
            continue
        with folder:
            yield folder


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Locks an open file until its last descriptor is closed; False: somebody else has it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, LOCK_AT, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # PermissionError: Windows' word for it
        return False
    return True


def unlock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, LOCK_AT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _runtime() -> list[Path]:
    """On Linux not by platformdirs, which warns the program's user where it finds no good folder."""
    if not ON_LINUX:
        import platformdirs

        return [platformdirs.user_runtime_path(NAME, appauthor=False)]
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [Path(named)] if os.path.isabs(named) else []
    return [base / NAME for base in (*bases, USERS / str(user())) if os.path.isdir(base)]


def _all_users() -> Iterator[tuple[Path, int]]:
    """The folders that users of this machine may have, each with the user whose it must be."""
    found = [(path / NAME, path.name) for path in USERS.glob("[0-9]*")]
    with contextlib.suppress(OSError):
        temporary = Path(tempfile.gettempdir()).glob(f"{NAME}-[0-9]*")
        found += [(path, path.name.removeprefix(f"{NAME}-")) for path in temporary]
    for path, owner in found[:MOST_FOLDERS]:
        if owner.isascii() and owner.isdecimal():
            yield path, int(owner)
