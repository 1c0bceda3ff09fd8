"""Turn any exception that ended a command into an exit status and at most one line: `what; what to do`."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import signal
from contextlib import suppress
from typing import Any, Final, NamedTuple

import click

from scsiusb.base.copying import PicklableError
from scsiusb.base.text import printable
from scsiusb.cli import status
from scsiusb.cli.output import jsonable, sense_record
from scsiusb.errors import ScsiUsbError

LOOK_CLOSER: Final = "run it again with -vv for details"
NO_ROOM: Final = "free some space, or write somewhere else"
NO_PERMISSION: Final = "ask the owner for permission, or run as another user"
OTHER_PATH: Final = "check the path"
RELEASED: Final = "all devices were released"
RUN_AGAIN: Final = "run the command again to complete it"

REMEDIES: Final = {  # for errors of the operating system
    errno.EACCES: NO_PERMISSION,
    errno.EADDRINUSE: "stop the program that listens there, or choose another port",
    errno.EADDRNOTAVAIL: "give an address of this machine",
    errno.EBADF: "the stream is closed: redirect it to a file or to /dev/null",
    errno.EBUSY: "close the program that uses it and try again",
    errno.EDQUOT: NO_ROOM,
    errno.EEXIST: "choose a file name that does not exist yet",
    errno.EFBIG: "write to a file system that supports larger files",
    errno.EINVAL: "use a regular file",
    errno.EIO: "the disk that holds it may be failing: use another file",
    errno.EISDIR: "give a file, not a directory",
    errno.ELOOP: "correct the symbolic links in the path",
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
    errno.ETXTBSY: "stop the program that runs from it",
}

MISTYPED: Final = re.compile(r"^No such command '([^']*)'")

log = logging.getLogger("scsiusb")


class Terminated(BaseException):
    """A signal asked the process to end. Unwinds like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def asks_to_stop(self) -> bool:
        """Whether it is the signal by which a service is stopped: SIGTERM; on Windows also SIGBREAK."""
        return self.number in (signal.SIGTERM, getattr(signal, "SIGBREAK", None))


class Refused(PicklableError):
    """The command was not executed, because the user declined or an argument does not allow it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


class UnfinishedJob(OSError):
    """An error of a file that ended a job, which can go on: `remedy` says how."""

    def __init__(self, error: OSError, remedy: str) -> None:
        super().__init__(error.errno, error.strerror, error.filename)
        self.remedy = remedy


class Failure(NamedTuple):
    """The exit status, and the two parts of the error line. No line is printed if `what` is empty."""

    status: int
    what: str = ""
    remedy: str = ""

    @property
    def line(self) -> str:
        """The error line, without line breaks and control characters."""
        text = f"{self.what}; {self.remedy}" if self.remedy else self.what
        return f"scsiusb: error: {printable(' '.join(text.split()))}"


def failure_of(error: BaseException) -> Failure:
    """Return the exit status and the error line for an exception."""
    if isinstance(error, click.exceptions.Exit):
        return Failure(error.exit_code)
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, (KeyboardInterrupt, Terminated)):
        return _of_signal(error)
    if isinstance(error, BrokenPipeError):
        return Failure(status.BROKEN_PIPE)  # the reader of stdout has gone; a message would not help
    if isinstance(error, Refused):
        return Failure(status.USAGE, error.what, error.remedy)
    if isinstance(error, ScsiUsbError):
        return Failure(status.status_of(error), error.what, error.remedy or LOOK_CLOSER)
    if isinstance(error, OSError):
        return _of_system(error)
    return _of_python(error)


def error_record(error: BaseException, failure: Failure) -> dict[str, Any]:
    """Return an error as names and values for JSON."""
    sense = getattr(error, "sense", None)
    record = {
        "type": type(error).__name__,
        "message": failure.what,
        "remedy": failure.remedy or None,
        "status": failure.status,
        "sense": None if sense is None else jsonable(sense_record(sense)),
        "lba": getattr(error, "lba", None),
    }
    return {"error": record}


def wrong_quirks(error: ValueError) -> Refused:
    """Return the error for quirks that cannot be parsed, from the option, the variable or the user's file."""
    what = str(error)
    return Refused(what, "correct it" if "--list" in what else "correct it; `scsiusb quirks --list` shows the letters")


def wrong_size(error: ValueError, path: str, block_size: int = 512) -> Refused:
    """Return the error for a virtual file; the remedy is a size in bytes that is a multiple of the block size."""
    with suppress(OSError):
        size = os.path.getsize(path)
        if os.path.isfile(path) and block_size > 0 and (not size or size % block_size):
            whole = (size // block_size + 1) * block_size
            return Refused(str(error), f"make it {whole} bytes long (`truncate -s {whole} {shlex.quote(path)}`)")
    what, mark, remedy = str(error).rpartition("; ")
    return Refused(what, remedy) if mark else Refused(remedy, "run `scsiusb --help`")


def _of_click(error: click.ClickException) -> Failure:
    what = error.format_message().partition(" Did you mean")[0].partition(" (Possible options")[0].rstrip(".")
    if not isinstance(error, click.UsageError):
        return Failure(status.CANNOT_OPEN, what, OTHER_PATH)
    hint = _suggestion(error)
    return Failure(status.USAGE, what, f"{hint}run `{error.ctx.command_path if error.ctx else 'scsiusb'} --help`")


def _suggestion(error: click.UsageError) -> str:
    """Return a hint with the nearest command or option, if there is one that is similar."""
    name, known = getattr(error, "option_name", None), list(getattr(error, "possibilities", None) or ())
    mistyped = MISTYPED.search(error.format_message())
    if mistyped is not None and error.ctx is not None and isinstance(error.ctx.command, click.Group):
        name, known = mistyped[1], error.ctx.command.list_commands(error.ctx)
    if not name or not known:
        return ""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1) or [other for other in known if other.startswith(name)]
    return f"did you mean {near[0]}? " if near else ""


def _of_signal(error: KeyboardInterrupt | Terminated) -> Failure:
    texts = [text for text in error.args if isinstance(text, str)]  # see `interruptible`
    reached = f": {texts[0]}" if texts else ""
    then = texts[1] if len(texts) > 1 else RUN_AGAIN
    remedy = f"{RELEASED}; {then}" if then else RELEASED
    if isinstance(error, Terminated):
        return Failure(
            status.SIGNALLED + error.number, f"ended by {signal.Signals(error.number).name}{reached}", remedy
        )
    return Failure(status.INTERRUPTED, f"interrupted{reached}", remedy)


def _of_system(error: OSError) -> Failure:
    if error.errno is None:
        return Failure(status.CANNOT_OPEN, str(error) or type(error).__name__, LOOK_CLOSER)
    what = error.strerror or errno.errorcode.get(error.errno, f"error {error.errno}")
    if error.filename is not None:
        name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
        what = f"{name or 'an empty file name'}: {what}"
    remedy = error.remedy if isinstance(error, UnfinishedJob) else REMEDIES.get(error.errno, LOOK_CLOSER)
    return Failure(status.CANNOT_OPEN, what, remedy)


def _of_python(error: BaseException) -> Failure:
    known = status.status_of(error)
    if known == status.USAGE:
        return Failure(known, str(error), "run `scsiusb --help`")
    log.debug("traceback", exc_info=error)
    return Failure(known, f"{type(error).__name__}: {error}", "report this as a bug, with the output of -vv")
