"""The user's own quirks: given with a command, in the environment, or in a file."""

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
UNBLOCKED: Final = getattr(os, "O_NONBLOCK", 0)  # Windows has neither it nor a FIFO among its files


class UserRow(NamedTuple):
    """What the user says of a device; without quirks: it has none, whatever the table says."""

    vid: int
    pid: int
    quirks: Quirk
    source: str
    why: str = ""


def parse_rows(text: str, source: str, why: str = "") -> list[UserRow]:
    """ "VID:PID:letters,VID:PID:letters". Raises ValueError with the source in it."""
    return [_row(part, source, why) for part in text.split(",") if part.strip()]


def _row(text: str, source: str, why: str) -> UserRow:
    match = ROW.fullmatch(text)
    if match is None:
        raise ValueError(f"{source}: {_shown(text)} is not {EXAMPLE}")
    try:
        quirks = parse_letters(match[3])
    except ValueError as error:
        raise ValueError(f"{source}: {_shown(text)}: {error}") from None
    return UserRow(int(match[1], 16), int(match[2], 16), quirks, source, why)


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def row_for(vid: int, pid: int, given: str | None = None) -> UserRow | None:
    """The user's row for the device: what was given with the command, the environment, the file, in this order."""
    if given is not None and ":" not in given:
        return UserRow(vid, pid, _letters_given(given), GIVEN_LETTERS)
    for rows in _sources(given):
        for row in rows:
            if (row.vid, row.pid) == (vid, pid):
                return row
    return None


def _sources(given: str | None) -> Iterator[list[UserRow]]:
    """Each is read to its end: what cannot be read in it must not stay unnoticed."""
    yield [] if given is None else parse_rows(given, GIVEN)
    yield parse_rows(os.environ.get(VARIABLE, ""), VARIABLE)
    yield list(_file())


def _letters_given(text: str) -> Quirk:
    try:
        return parse_letters(text)
    except ValueError as error:
        raise ValueError(f"{GIVEN_LETTERS}: {error}") from None


def path() -> str:
    """The user's file, which need not exist: "VID:PID:letters  # why", a device a line."""
    if sys.platform == "linux":  # as platformdirs does, which takes longer to load than most commands take
        named = os.environ.get("XDG_CONFIG_HOME", "")
        return os.path.join(named if os.path.isabs(named) else os.path.expanduser("~/.config"), "scsiusb", "quirks")
    import platformdirs

    return os.path.join(platformdirs.user_config_dir("scsiusb", appauthor=False), "quirks")


def _file() -> Iterator[UserRow]:
    """Raises OSError where there is a file that cannot be read, ValueError where it cannot be one of quirks."""
    name = path()
    try:
        data = _read(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    text = data.decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), 1):  # a comment may hold what else ends a line for Python
        content, _, why = line.partition(COMMENT)
        yield from parse_rows(content, f"{name}, line {number}", why.strip())


def _read(name: str) -> bytes:
    """Without a wait for whoever would write to a FIFO."""
    with open(name, "rb", opener=lambda file, flags: os.open(file, flags | UNBLOCKED)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "the file with your quirks is not a regular file", str(name))
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{name}: more than {LARGEST} bytes are no list of quirks; make it shorter")
    return data
