"""The process of a command: its streams, the signals that end it, and the log on stderr."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from scsiusb.base.logs import COMMANDS
from scsiusb.cli.failure import Terminated
from scsiusb.cli.options import LEVELS, Settings
from scsiusb.cli.output import STDOUT, naming, say

ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has SIGBREAK: Ctrl-Break, or a closed console
DEFAULT: Final = (signal.SIG_DFL, signal.default_int_handler)


def prepare_streams() -> None:
    """Replace missing standard streams, and escape characters that a stream cannot encode.

    Otherwise a device could get the file descriptor of a missing stream.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "r")  # reading fails, as with a closed stdin in C
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")  # writing fails, too
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Flush stdout, so that a full disk is an error here and not when Python exits."""
    with naming(STDOUT):
        sys.stdout.flush()


def drop_what_cannot_be_written() -> None:
    """Discard the buffer of stdout if it cannot be written, so that Python does not fail again when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def unwinding_signals() -> Iterator[None]:
    """Make the first signal of `ENDING` unwind all `with` statements (to release the device); ignore others."""
    previous: dict[int, Any] = {}

    def unwind(number: int, frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) in DEFAULT:
                previous[number] = signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Lines(logging.Handler):
    """Log handler that prints records to stderr, as verbose as the settings demand."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        least = LEVELS[min(self._settings.verbosity, len(LEVELS) - 1)]
        if record.levelno >= least or (record.name == COMMANDS and self._settings.verbosity):
            say(f"scsiusb: {record.levelname.lower()}: {self.format(record)}")


@contextmanager
def log_lines(settings: Settings) -> Iterator[None]:
    """Print log records of scsiusb to stderr."""
    logger, handler = logging.getLogger("scsiusb"), _Lines(settings)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
