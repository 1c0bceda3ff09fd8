"""The kernel's messages: those that are new, and which of them are warnings or alarms that no test may cause."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

if sys.platform != "linux":
    raise ImportError("the kernel's log is read on Linux only")

WARNING = 4  # log level of the kernel; higher numbers are less serious
ALARM = re.compile(r"\b(BUG|Oops|WARNING|general protection fault|Call Trace|KASAN|blocked for more than)\b")
# What the kernel says when its machine stood still: the emulator's processors wait for a busy host.
STARVED = re.compile(
    r"(hrtimer|perf): interrupt took|clocksource|hogged CPU|RT throttling|soft lockup|rcu.* (stall|starved)"
)


class Message(NamedTuple):
    """One message: its level, 0 (emergency) to 7 (debug), and its text."""

    level: int
    text: str


class KernelLog:
    """The kernel's messages since the last call of `new`, or since this object was made."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def new(self) -> list[Message]:
        """Return the new messages, without those that only say that the machine stood still."""
        found: list[Message] = []
        while True:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return [message for message in found if not STARVED.search(message.text)]
            except BrokenPipeError:  # unread messages were overwritten: continue with the oldest that is left
                continue
            found.append(_parsed(record))

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)


def _parsed(record: bytes) -> Message:
    head, _, text = record.decode(errors="replace").partition(";")
    return Message(int(head.partition(",")[0]) & 7, text.partition("\n")[0])


def alarms(messages: Iterable[Message]) -> list[str]:
    """Return the texts that report a fault of the kernel."""
    return [message.text for message in messages if ALARM.search(message.text)]


def warnings(messages: Iterable[Message]) -> list[str]:
    """Return the texts of the messages at the level of a warning or worse."""
    return [message.text for message in messages if message.level <= WARNING]
