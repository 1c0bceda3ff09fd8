"""Turns whatever ended a command into an exit status and at most one line: what; what to do."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import signal
from contextlib import suppress
from typing import Final, NamedTuple

import click

from scsiusb.base.text import printable
from scsiusb.cli import status
from scsiusb.errors import ScsiUsbError

LOOK_CLOSER: Final = "run it again with -vv to see more"
NO_ROOM: Final = "free some space, or write somewhere else"
NO_PERMISSION: Final = "ask who owns it, or run as a user who may"
OTHER_PATH: Final = "check the path"

REMEDIES: Final = {  # of the operating system's errors
    errno.EACCES: NO_PERMISSION,
    errno.EADDRINUSE: "end what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "name an address of this machine",
    errno.EBADF: "it is closed; redirect it to a file or to /dev/null",
    errno.EBUSY: "close whatever uses it and try again",
    errno.EDQUOT: NO_ROOM,
    errno.EEXIST: "name a file that is not there yet",
    errno.EFBIG: "write to a file system that takes larger files",
    errno.EINVAL: "name a file that can be read and written as one",
    errno.EIO: "the disk behind it may be failing; use another file",
    errno.EISDIR: "name a file, not a directory",
    errno.ELOOP: "mend the symbolic links on the way to it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENFILE: "close some programs",
    errno.ENODEV: OTHER_PATH,
    errno.ENOENT: OTHER_PATH,
    errno.ENOSPC: NO_ROOM,
    errno.ENOTDIR: OTHER_PATH,
    errno.ENXIO: OTHER_PATH,
    errno.EPERM: NO_PERMISSION,
    errno.EROFS: "write to a file system that is not read-only",
    errno.ETXTBSY: "close the program that runs from it",
}

log = logging.getLogger("scsiusb")


class Terminated(BaseException):
    """A signal asks the process to end: unwinds as KeyboardInterrupt does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Refused(Exception):
    """The command is not carried out: as the person at the terminal wants it, or for what was given to it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


class Failure(NamedTuple):
    """The exit status, and the line's two halves; no line without `what`."""

    status: int
    what: str = ""
    remedy: str = ""

    @property
    def line(self) -> str:
        """Without what could disturb a terminal or a script that reads lines."""
        text = f"{self.what}; {self.remedy}" if self.remedy else self.what
        return f"scsiusb: error: {printable(' '.join(text.split()))}"


def failure_of(error: BaseException) -> Failure:
    """What to say of anything that a command raised."""
    if isinstance(error, click.exceptions.Exit):
        return Failure(error.exit_code)
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, (KeyboardInterrupt, Terminated)):
        return _of_signal(error)
    if isinstance(error, BrokenPipeError):
        return Failure(status.BROKEN_PIPE)  # whoever read our output has gone; nobody is left to tell
    if isinstance(error, Refused):
        return Failure(status.USAGE, error.what, error.remedy)
    if isinstance(error, ScsiUsbError):
        return Failure(status.status_of(error), error.what, error.remedy or LOOK_CLOSER)
    if isinstance(error, OSError):
        return _of_system(error)
    return _of_python(error)


def wrong_quirks(error: ValueError) -> Refused:
    """Of the option, the variable or the user's file."""
    what = str(error)
    return Refused(what, "correct it" if "--list" in what else "correct it; `scsiusb quirks --list` has the letters")


def wrong_size(error: ValueError, path: str, block_size: int = 512) -> Refused:
    """Of a file that is to be a stick; one with another mistake has no remedy here."""
    with suppress(OSError):
        size = os.path.getsize(path)
        if block_size > 0 and (not size or size % block_size):
            whole = (size // block_size + 1) * block_size
            return Refused(str(error), f"make it {whole} bytes long (`truncate -s {whole} {shlex.quote(path)}`)")
    return Refused(str(error), "run `scsiusb --help`")


def _of_click(error: click.ClickException) -> Failure:
    what = error.format_message().partition(" Did you mean")[0].partition(" (Possible options")[0].rstrip(".")
    if not isinstance(error, click.UsageError):
        return Failure(status.CANNOT_OPEN, what, OTHER_PATH)
    near = getattr(error, "possibilities", None) or ()
    hint = f"did you mean {' or '.join(sorted(near))}? " if near else ""
    return Failure(status.USAGE, what, f"{hint}run `{error.ctx.command_path if error.ctx else 'scsiusb'} --help`")


def _of_signal(error: KeyboardInterrupt | Terminated) -> Failure:
    remedy = "nothing is held any more; run the command again to do all of it"
    if isinstance(error, Terminated):
        return Failure(status.SIGNALLED + error.number, f"ended by {signal.Signals(error.number).name}", remedy)
    return Failure(status.INTERRUPTED, "interrupted", remedy)


def _of_system(error: OSError) -> Failure:
    if error.errno is None:
        return Failure(status.CANNOT_OPEN, str(error) or type(error).__name__, LOOK_CLOSER)
    what = error.strerror or errno.errorcode.get(error.errno, f"error {error.errno}")
    if error.filename is not None:
        name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
        what = f"{name or 'an empty file name'}: {what}"
    return Failure(status.CANNOT_OPEN, what, REMEDIES.get(error.errno, LOOK_CLOSER))


def _of_python(error: BaseException) -> Failure:
    known = status.status_of(error)
    if known == status.USAGE:
        return Failure(known, str(error), "run `scsiusb --help`")
    log.debug("traceback", exc_info=error)
    return Failure(known, f"{type(error).__name__}: {error}", "report this with the output of -vv")
