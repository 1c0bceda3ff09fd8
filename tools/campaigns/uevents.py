"""The kernel's own announcements of what comes and leaves: the time against which everybody else is measured."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
FROM_KERNEL = 1  # its multicast group
SUBSYSTEM = b"SUBSYSTEM=usb\0"


@dataclass(frozen=True)
class Uevent:
    """Of a device or an interface, named as in sysfs: "2-1", "2-1:1.0"."""

    action: str
    name: str
    at: float


class Uevents:
    """Noted by a process of its own, whose clock no thread of this one stops. To be made before there are threads."""

    def __init__(self) -> None:
        receiver = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
        with receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            receiver.bind((0, FROM_KERNEL))
            self._notes, notes = os.pipe()
            self._pid = os.fork()
            if not self._pid:
                os.close(self._notes)
                _note(receiver, notes)
            os.close(notes)
        os.set_blocking(self._notes, False)
        self._rest = b""

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._notes)

    def new(self) -> list[Uevent]:
        """Those since the last call."""
        data = self._rest
        with suppress(BlockingIOError):
            while piece := os.read(self._notes, 65536):
                data += piece
        *lines, self._rest = data.split(b"\n")
        words = (line.decode().split() for line in lines)
        return [Uevent(action, name, float(at)) for action, name, at in words]


def _note(receiver: socket.socket, notes: int) -> NoReturn:
    """Until nobody reads it any more."""
    try:
        while True:
            message = receiver.recv(65536)
            at = time.monotonic()
            action, _, path = message.partition(b"\0")[0].decode(errors="replace").partition("@")
            if SUBSYSTEM in message:
                os.write(notes, f"{action} {os.path.basename(path)} {at}\n".encode())
    finally:
        os._exit(0)
