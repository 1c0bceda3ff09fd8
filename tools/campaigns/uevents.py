"""The kernel's own events of devices that come and leave: the time against which all others are measured."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
FROM_KERNEL = 1  # multicast group of the kernel's messages
SUBSYSTEM = b"SUBSYSTEM=usb\0"


@dataclass(frozen=True)
class Uevent:
    """An event of a device or an interface, named as in sysfs: "2-1", "2-1:1.0"; `at` is of time.monotonic()."""

    action: str
    name: str
    at: float


class Uevents:
    """Records events in another process, which no thread of this one delays. Create it before any thread."""

    def __init__(self) -> None:
        receiver = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
        with receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            receiver.bind((0, FROM_KERNEL))
            self._notes, notes = os.pipe()
            self._pid = os.fork()
            if not self._pid:
                os.close(self._notes)
                _record(receiver, notes)
            os.close(notes)
        os.set_blocking(self._notes, False)
        self._rest = b""

    def close(self) -> None:
        """End the process."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._notes)

    def new(self) -> list[Uevent]:
        """Return the events since the last call."""
        data = self._rest
        with suppress(BlockingIOError):
            while piece := os.read(self._notes, 65536):
                data += piece
        *lines, self._rest = data.split(b"\n")
        words = (line.decode().split() for line in lines)
        return [Uevent(action, name, float(at)) for action, name, at in words]


def _record(receiver: socket.socket, notes: int) -> NoReturn:
    """Write each event to the pipe until the reader has gone."""
    try:
        while True:
            message = receiver.recv(65536)
            at = time.monotonic()
            action, _, path = message.partition(b"\0")[0].decode(errors="replace").partition("@")
            if SUBSYSTEM in message:
                os.write(notes, f"{action} {os.path.basename(path)} {at}\n".encode())
    finally:
        os._exit(0)
