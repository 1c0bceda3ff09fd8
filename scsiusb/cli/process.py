"""The process around a command: its streams, the signals that end it, and its log on stderr."""

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

from scsiusb.cli.failure import Terminated
from scsiusb.cli.options import LEVELS, Settings
from scsiusb.cli.output import naming, say

ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP")
DEFAULT: Final = (signal.SIG_DFL, signal.default_int_handler)


def prepare_streams() -> None:
    """No stream is missing, so that no device gets its number, and no character that cannot be shown is an error."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "r")  # reading it fails, as it does in C
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")  # so does writing
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """A full disk is met here, not when the interpreter ends."""
    with naming("stdout"):
        sys.stdout.flush()


def drop_what_cannot_be_written() -> None:
    """What is left in stdout's buffer must not fail once more when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def unwinding_signals() -> Iterator[None]:
    """The first signal to end unwinds every `with`, which gives the device back; the next must not stop that."""
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
    """Log records as lines on stderr, as verbose as the settings say."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= LEVELS[min(self._settings.verbosity, len(LEVELS) - 1)]:
            say(f"scsiusb: {record.levelname.lower()}: {self.format(record)}")


@contextmanager
def log_lines(settings: Settings) -> Iterator[None]:
    logger, handler = logging.getLogger("scsiusb"), _Lines(settings)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
