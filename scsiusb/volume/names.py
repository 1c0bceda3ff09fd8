"""Paths within a file system, and the names that its files may have on this computer."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

DEEPEST: Final = 64  # folders within each other; deeper is a circle, or made to harm
RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")  # devices of Windows
FORBIDDEN: Final = re.compile(r'[\x00-\x1f<>:"|?*\\/]')  # in a name on Windows


def components(path: str) -> tuple[str, ...]:
    """Return the names of which a path consists; the root's are none. `/` divides them.

    Raise ValueError for `..` and NUL.
    """
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names or "\0" in path:
        raise ValueError(f"the path {path!r} is not possible; give it from the root of the file system, without '..'")
    if len(names) > DEEPEST:
        raise ValueError(f"the path has {len(names)} names; {DEEPEST} are possible")
    return names


def joined(names: tuple[str, ...]) -> str:
    """Return a path from its names."""
    return "/" + "/".join(names)


def local_name(name: str) -> str:
    """Return the name that a file of a stick gets on this computer: never one that leads out of its folder.

    What a name must not have here is replaced by `_`: on Windows more than elsewhere.
    """
    name = name.replace("/", "_").replace("\0", "_")
    if os.name == "nt":
        name = FORBIDDEN.sub("_", name).rstrip(". ")
        if RESERVED.fullmatch(name):
            name = f"_{name}"
    return f"_{name}" if name in ("", ".", "..") else name


def not_found(path: str) -> FileNotFoundError:
    """Return the error for a path that is not there."""
    return FileNotFoundError(errno.ENOENT, "there is no such file on the device", path)


def is_a_directory(path: str) -> IsADirectoryError:
    """Return the error for a directory where a file is needed."""
    return IsADirectoryError(errno.EISDIR, "it is a directory", path)


def not_a_directory(path: str) -> NotADirectoryError:
    """Return the error for a file where a directory is needed."""
    return NotADirectoryError(errno.ENOTDIR, "it is not a directory", path)


def exists(path: str) -> FileExistsError:
    """Return the error for a path that is there already."""
    return FileExistsError(errno.EEXIST, "it exists on the device already", path)
