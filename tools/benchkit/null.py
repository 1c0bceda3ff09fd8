"""Commands over a backend that does nothing: what is left is scsiusb's own cost. Runs in a process of its own.

null.py cost COMMANDS        prints a JSON object: microseconds per command, of each kind
null.py run KIND COMMANDS    does so many, for whoever counts instructions from outside
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import scsiusb
from scsiusb.scsi.block import Read10
from scsiusb.transport.formats import CBW
from scsiusb.usb.backend import Code
from scsiusb.virtual import Bus, Stick
from scsiusb.virtual.handle import VirtualHandle

SIZE = 4096
CBW_LENGTH = 31
MOST_FOR_CSW = 1024  # the CSW is read into a packet at most
STATUS = struct.Struct("<4s4sIB")
READ = "readinto 4 KiB"
WRITE = "write 4 KiB"
IDLE = "of these, the idle backend's"
BUILD = "construct build of READ(10) and CBW alone"


@contextmanager
def idle_disk() -> Iterator[scsiusb.Disk]:
    """A virtual stick that is opened as always, and then answers each command at once, with success."""
    bulk, tag = VirtualHandle.bulk, bytearray(4)

    def answer(self: VirtualHandle, endpoint: int, buffer: memoryview, timeout: int) -> tuple[Code, int]:
        length = len(buffer)
        if length == CBW_LENGTH:
            tag[:] = buffer[4:8]
        elif endpoint & 0x80 and length <= MOST_FOR_CSW:
            STATUS.pack_into(buffer, 0, b"USBS", bytes(tag), 0, 0)
            return Code.OK, STATUS.size
        return Code.OK, length

    with scsiusb.open_on(Bus(Stick.formatted())) as disk:
        disk.read(0, 1)
        VirtualHandle.bulk = answer  # type: ignore[method-assign]
        try:
            yield disk
        finally:
            VirtualHandle.bulk = bulk  # type: ignore[method-assign]


def actions(disk: scsiusb.Disk) -> dict[str, Callable[[], object]]:
    buffer = bytearray(SIZE)
    bulk: Any = VirtualHandle.bulk
    phases = [memoryview(bytearray(length)) for length in (CBW_LENGTH, SIZE, STATUS.size)]

    def phases_alone() -> None:
        for endpoint, phase in zip((0x01, 0x81, 0x81), phases, strict=True):
            bulk(None, endpoint, phase, 0)

    return {
        READ: lambda: disk.readinto(0, buffer),
        WRITE: lambda: disk.write(0, buffer),
        IDLE: phases_alone,
        BUILD: build,
    }


def build() -> bytes:
    """What each command would cost at least if it were built by construct itself."""
    cdb = Read10.CDB.build(_FIELDS)
    return bytes(CBW.build({**_WRAPPER, "cdb": cdb.ljust(16, b"\0")}))


_FIELDS = {name: getattr(Read10(0, 8, block_size=512), name) for name in Read10._packer.names}
_WRAPPER = {"tag": 1, "length": SIZE, "flags": 0x80, "lun": 0, "cdb_length": 10}


def cost(commands: int) -> dict[str, float]:
    with idle_disk() as disk:
        return {kind: _microseconds(action, commands) for kind, action in actions(disk).items()}


def _microseconds(action: Callable[[], object], commands: int) -> float:
    action()
    began = time.perf_counter()
    for _ in range(commands):
        action()
    return (time.perf_counter() - began) / commands * 1e6


def run(kind: str, commands: int) -> None:
    with idle_disk() as disk:
        action = actions(disk)[kind]
        for _ in range(commands):
            action()


def main() -> None:
    what, *words = sys.argv[1:]
    if what == "run":
        run(words[0], int(words[1]))
    else:
        print(json.dumps(cost(int(words[0]))))


if __name__ == "__main__":
    main()
