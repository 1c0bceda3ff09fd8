"""Locks on files, and the folders that hold leases.

Opening them is safe against files and links that other users planted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from scsiusb.base.locks import try_lock as try_lock
from scsiusb.base.locks import unlock as unlock
from scsiusb.base.releases import Descriptors, close_all, open_into

NAME: Final = "scsiusb"
ON_LINUX: Final = sys.platform == "linux"
ON_WINDOWS: Final = sys.platform == "win32"
RUN: Final = Path("/run") if ON_LINUX else Path("/var/run")
OWN_DESCRIPTORS: Final = "/proc/self/fd"
USERS: Final = Path("/run/user")
ROOT_UID: Final = 0
WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
PASSWD: Final = Path("/etc/passwd")
MOUNTINFO: Final = Path("/proc/self/mountinfo")
# Limits, as other users may make any number of folders and files.
MAX_SCANNED: Final = 10000
MAX_NAMES: Final = 4096
FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# O_NOFOLLOW refuses symbolic links; O_NONBLOCK keeps the open of a FIFO from waiting for its other end.
SAFE_FLAGS: Final = FLAGS | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Folder:
    """An open folder that belongs to the user `owner` (by default this one) and that only its owner may write to.

    Names are looked up in the folder that was opened, even if another one takes its path later. All methods raise
    OSError. Use it as a context manager, or `close` it.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        """Open the folder. Raises OSError if it is missing, a link, another user's or writable by others."""
        self.path = path
        self.owner = user() if owner is None else owner
        self._open = Descriptors()  # closes a folder that Ctrl-C kept from reaching its `with`
        if sys.platform == "win32":  # it is in the user's profile, which Windows protects
            os.listdir(path)  # raises the OSError of a folder that is missing
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        found = os.fstat(open_into(self._open, os.open, path, flags))
        if found.st_uid != self.owner or found.st_mode & WRITABLE_BY_OTHERS:
            self.close()
            raise PermissionError(f"{path} belongs to another user, or other users may write to it")

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder. May be called again."""
        close_all(self._open)

    @property
    def _descriptor(self) -> int | None:
        return self._open[-1] if self._open else None

    def names(self) -> list[str]:
        """Return the names of the files in the folder, sorted, at most MAX_NAMES."""
        where = self.path if self._descriptor is None else self._descriptor
        with os.scandir(where) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, MAX_NAMES))

    def open(self, name: str, flags: int, mode: int = 0o600, into: list[int] | None = None) -> int:
        """Open a file without blocking, and return the descriptor; `into`: see `open_into`.

        Raises OSError, also if it is not a regular file, has a second name (a hard link) or is not the folder owner's.
        """
        opened = [] if into is None else into
        opener = partial(os.open, dir_fd=self._descriptor)
        descriptor = open_into(opened, opener, self._name(name), flags | SAFE_FLAGS, mode)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or (not ON_WINDOWS and found.st_uid != self.owner):
            close_all(opened)
            raise PermissionError(f"{self.path / name} is not a regular file of the folder's owner with a single name")
        return descriptor

    def create_unnamed(self, into: list[int]) -> int:
        """Create a file that has no name until `link` gives it one, and return its descriptor; see `open_into`.

        Raises OSError where the system or the file system does not support that.
        """
        if sys.platform != "linux" or not os.path.isdir(OWN_DESCRIPTORS):  # `link` needs it
            raise OSError("files without a name are not supported")
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        return open_into(into, partial(os.open, dir_fd=self._descriptor), ".", flags, 0o600)

    def link(self, descriptor: int, name: str) -> None:
        """Give an unnamed file its name. Raises FileExistsError if the name is taken."""
        # open(2), O_TMPFILE: through /proc, as linkat with AT_EMPTY_PATH needs a privilege.
        os.link(f"{OWN_DESCRIPTORS}/{descriptor}", name, dst_dir_fd=self._descriptor, follow_symlinks=True)

    def has(self, descriptor: int, name: str) -> bool:
        """Return whether the name still refers to the open file."""
        try:
            named = os.stat(self._name(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(self._name(name), dir_fd=self._descriptor)

    def set_mode(self, mode: int) -> None:
        """Set the folder's permissions, if they differ; does nothing on Windows."""
        if sys.platform == "win32":
            return
        if self._descriptor is not None and stat.S_IMODE(os.fstat(self._descriptor).st_mode) != mode:
            os.fchmod(self._descriptor, mode)

    def _name(self, name: str) -> str:
        """Return the name as the os functions want it: relative to the descriptor, where there is one."""
        return name if self._descriptor is not None else str(self.path / name)


def user() -> int:
    """Return the effective user id; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    return os.geteuid()


def is_root() -> bool:
    """Return whether this process runs as root; False on Windows."""
    return not ON_WINDOWS and user() == 0


def modes() -> tuple[int, int]:
    """Return the permissions of this user's folder and of the files in it: all users may read root's leases."""
    return (0o755, 0o644) if is_root() else (0o700, 0o600)


def own() -> list[Path]:
    """Return the folders in which this user's leases may be put, the preferred one first."""
    found = [RUN / NAME] if is_root() else _runtime()
    with contextlib.suppress(OSError):  # there is no temporary folder
        found.append(Path(tempfile.gettempdir()) / (NAME if ON_WINDOWS else f"{NAME}-{user()}"))
    return list(dict.fromkeys(found))


def make(path: Path) -> Folder:
    """Open the folder, and create it if it is missing. Raises OSError if it cannot be used."""
    mode, _ = modes()
    os.makedirs(path, mode, exist_ok=True)
    if not ON_WINDOWS:
        above = os.stat(path.parent)
        # Users who may write to the parent may replace the folder, except under the sticky bit, as in /tmp.
        open_to_others = above.st_mode & WRITABLE_BY_OTHERS and not above.st_mode & stat.S_ISVTX
        if above.st_uid not in (user(), ROOT_UID) or open_to_others:
            raise PermissionError(f"other users may replace {path}")
    folder = Folder(path)
    folder.set_mode(mode)
    return folder


def visible() -> Iterator[Folder]:
    """Yield each folder in which this user may see leases: the user's own, the system's; for root every user's.

    A folder is open until the next one is asked for. Folders that are missing or not safe are left out.
    """
    places = dict.fromkeys((path, user()) for path in own())
    if not ON_WINDOWS:
        places[RUN / NAME, ROOT_UID] = None
    if is_root():
        places |= dict.fromkeys(_all_users())
    for path, owner in places:
        try:
            folder = Folder(path, owner)
        except OSError:
            continue
        with folder:
            yield folder


def _runtime() -> list[Path]:
    """Return the runtime folders of a user who is not root, the preferred one first."""
    # Not by platformdirs on Linux, where it warns if the session has no runtime folder.
    if not ON_LINUX:
        import platformdirs

        return [platformdirs.user_runtime_path(NAME, appauthor=False)]
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [Path(named)] if os.path.isabs(named) else []
    return [base / NAME for base in (*bases, USERS / str(user())) if os.path.isdir(base)]


def _all_users() -> Iterator[tuple[Path, int]]:
    """Yield the folders that the users of this machine have, each with the user who must own it."""
    fuse = _fuse_mounts()
    found = [(path / NAME, path.name) for path in USERS.glob("[0-9]*")]
    found += _temporary()
    for path, owner in found:
        # A FUSE file system is a program of the user's: it could answer late, or never.
        if owner.isascii() and owner.isdecimal() and not fuse.intersection((path, *path.parents)):
            yield path, int(owner)


def _temporary() -> list[tuple[Path, str]]:
    """Return the folders of users in the folder for temporary files, each with its owner.

    Another user may make any number of folders there, with any names, so that the real ones would not be found among
    them: those of the users in /etc/passwd are looked up by name, and others count only if their owner is the one in
    the name.
    """
    with contextlib.suppress(OSError):  # there is no temporary folder
        temporary = Path(tempfile.gettempdir())
        names = dict.fromkeys(f"{NAME}-{uid}" for uid in _local_users())
        with os.scandir(temporary) as entries:
            listed = itertools.islice(entries, MAX_SCANNED)
            names |= dict.fromkeys(sorted(entry.name for entry in listed if entry.name.startswith(f"{NAME}-")))
        owned = ((temporary / name, name.removeprefix(f"{NAME}-")) for name in names)
        return [(path, owner) for path, owner in owned if str(_owner(path)) == owner]
    return []


def _local_users() -> list[str]:
    """Return the ids of the users in /etc/passwd (passwd(5))."""
    # Not by `pwd`, which may ask a directory service that does not answer.
    try:
        lines = PASSWD.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [fields[2] for line in lines if len(fields := line.split(":")) > 2]


def _owner(path: Path) -> int | None:
    """Return the owner of a file or folder, not of what a link refers to; None if there is none."""
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _fuse_mounts() -> set[Path]:
    """Return where FUSE file systems are mounted, as far as this process sees (proc(5), mountinfo)."""
    try:
        lines = MOUNTINFO.read_bytes().decode("utf-8", "replace").split("\n")
    except OSError:
        return set()
    parts = [line.partition(" - ") for line in lines]
    return {Path(fields.split(" ")[4]) for fields, _, rest in parts if rest.startswith("fuse")}
