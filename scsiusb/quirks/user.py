"""The quirks that the user sets: by an option, in the environment, or in a file."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from scsiusb.quirks.model import Quirk, parse_letters

VARIABLE: Final = "SCSIUSB_QUIRKS"
GIVEN: Final = "--quirks"
GIVEN_LETTERS: Final = "quirks= of open"
ROW: Final = re.compile(r"\s*(?:0[xX])?([0-9a-fA-F]{1,4}):(?:0[xX])?([0-9a-fA-F]{1,4}):([^:]*)")
EXAMPLE: Final = "VID:PID:letters, such as 152d:2329:r"
COMMENT: Final = "#"
LARGEST: Final = 1 << 20  # bytes of the file
NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)  # Windows does not have it, nor FIFOs in its file systems


class UserRow(NamedTuple):
    """The quirks that the user sets for a device; they replace the table's, even if there are none."""

    vid: int
    pid: int
    quirks: Quirk
    source: str
    why: str = ""


def parse_rows(text: str, source: str, why: str = "") -> list[UserRow]:
    """Parse "VID:PID:letters,VID:PID:letters". Raises ValueError, which names the `source`."""
    return [_row(part, source, why) for part in text.split(",") if part.strip()]


def _row(text: str, source: str, why: str) -> UserRow:
    """Parse "VID:PID:letters"."""
    match = ROW.fullmatch(text)
    if match is None:
        raise ValueError(f"{source}: {_shown(text)} is not {EXAMPLE}")
    try:
        quirks = parse_letters(match[3])
    except ValueError as error:
        raise ValueError(f"{source}: {_shown(text)}: {error}") from None
    return UserRow(int(match[1], 16), int(match[2], 16), quirks, source, why)


def _shown(text: str) -> str:
    """Return the text as an error message quotes it."""
    text = text.strip()
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def row_for(vid: int, pid: int, given: str | None = None) -> UserRow | None:
    """Return the user's row for the device, if any: from `given`, the environment, the file, in this order.

    `given` are the device's letters, or rows. Raises ValueError if a source that was read cannot be parsed, OSError if
    the file cannot be read.
    """
    if given is not None and ":" not in given:
        return UserRow(vid, pid, _letters_given(given), GIVEN_LETTERS)
    for rows in _sources(given):
        for row in rows:
            if (row.vid, row.pid) == (vid, pid):
                return row
    return None


def _sources(given: str | None) -> Iterator[list[UserRow]]:
    """Yield the rows of each source. A source is parsed completely, so that no error in it stays unnoticed."""
    yield [] if given is None else parse_rows(given, GIVEN)
    yield parse_rows(os.environ.get(VARIABLE, ""), VARIABLE)
    yield list(_file())


def _letters_given(text: str) -> Quirk:
    """Parse the letters that were passed to `scsiusb.open`."""
    try:
        return parse_letters(text)
    except ValueError as error:
        raise ValueError(f"{GIVEN_LETTERS}: {error}") from None


def path() -> str:
    """Return the path of the user's file, which need not exist. A line of it is "VID:PID:letters  # why"."""
    if sys.platform == "linux":  # the path of platformdirs, whose import takes longer than most commands
        named = os.environ.get("XDG_CONFIG_HOME", "")
        return os.path.join(named if os.path.isabs(named) else os.path.expanduser("~/.config"), "scsiusb", "quirks")
    import platformdirs

    return os.path.join(platformdirs.user_config_dir("scsiusb", appauthor=False), "quirks")


def _file() -> Iterator[UserRow]:
    """Yield the rows of the user's file, if there is one.

    Raises OSError if it cannot be read, ValueError if it is too large or a line of it cannot be parsed.
    """
    name = path()
    try:
        data = _read(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    text = data.decode("utf-8-sig", errors="replace")
    # Not splitlines: it also splits at characters, such as U+2028, that may be in a comment, and the line numbers in
    # errors would differ from an editor's.
    for number, line in enumerate(text.split("\n"), 1):
        content, _, why = line.partition(COMMENT)
        yield from parse_rows(content, f"{name}, line {number}", why.strip())


def _read(name: str) -> bytes:
    """Read the file without blocking, even if it is a FIFO. Raises OSError, ValueError."""
    with open(name, "rb", opener=lambda file, flags: os.open(file, flags | NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "the file of your quirks is not a regular file", str(name))
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{name}: the file of your quirks has more than {LARGEST} bytes; make it shorter")
    return data
