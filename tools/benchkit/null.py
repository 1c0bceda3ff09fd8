"""Commands on a backend that does nothing: what remains is scsiusb's own cost. Runs in a separate process.

null.py cost COMMANDS        prints a JSON object: microseconds per command, by kind
null.py run KIND COMMANDS    runs so many commands, for a program that counts instructions
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import scsiusb
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.transport.bot.formats import CBW
from scsiusb.usb.backend import Code
from scsiusb.virtual import Bus, Stick
from scsiusb.virtual.bus.handle import VirtualHandle

SIZE = 4096
CBW_LENGTH = 31
CSW_LENGTH = 13
CSW_PACKET = 512
CSW_END = bytes(5)  # no residue, status GOOD
OK = Code.OK
READ = "readinto 4 KiB"
WRITE = "write 4 KiB"
IDLE = "of these, the idle backend's"
BUILD = "construct build of READ(10) and CBW alone"


@contextmanager
def idle_disk() -> Iterator[scsiusb.Disk]:
    """Open a virtual stick as usual; from then on it answers each command at once with success."""
    bulk, is_idle, tag = VirtualHandle.bulk, False, b""

    def answer(self: VirtualHandle, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        nonlocal tag
        if not is_idle:
            return bulk(self, endpoint, buffer, deadline)
        size = len(buffer)
        if size == CBW_LENGTH:
            tag = bytes(buffer[4:8])
        elif size < SIZE:  # the CSW's, which is a packet
            buffer[:CSW_LENGTH] = b"USBS" + tag + CSW_END
            return OK, CSW_LENGTH
        return OK, size

    VirtualHandle.bulk = answer  # type: ignore[method-assign]
    try:
        with scsiusb.open_on(Bus(Stick.formatted())) as disk:
            disk.read(0, 1)
            is_idle = True
            yield disk
            is_idle = False
    finally:
        VirtualHandle.bulk = bulk  # type: ignore[method-assign]


def actions(disk: scsiusb.Disk) -> dict[str, Callable[[], object]]:
    """Return the commands to measure, by kind."""
    buffer = bytearray(SIZE)
    bulk: Any = VirtualHandle.bulk
    lengths = {0x01: CBW_LENGTH, 0x81: SIZE, 0x82: CSW_PACKET}
    steps = [(endpoint, memoryview(bytearray(length))) for endpoint, length in lengths.items()]

    def phases_alone() -> None:
        for endpoint, view in steps:
            bulk(None, endpoint, view, 0.0)

    return {
        READ: lambda: disk.readinto(0, buffer),
        WRITE: lambda: disk.write(0, buffer),
        IDLE: phases_alone,
        BUILD: build,
    }


def build() -> bytes:
    """Build a CDB and a CBW with construct itself: the least that a command would cost that way."""
    cdb = Read10.CDB.build(_FIELDS)
    return bytes(CBW.build({**_WRAPPER, "cdb": cdb.ljust(16, b"\0")}))


_FIELDS = {name: getattr(Read10(0, 8, block_size=512), name) for name in Read10._packer.names}
_WRAPPER = {"tag": 1, "length": SIZE, "flags": 0x80, "lun": 0, "cdb_length": 10}


def cost(commands: int) -> dict[str, float]:
    """Return microseconds per command, by kind."""
    with idle_disk() as disk:
        return {kind: _microseconds(action, commands) for kind, action in actions(disk).items()}


def _microseconds(action: Callable[[], object], commands: int) -> float:
    action()
    began = time.perf_counter()
    for _ in range(commands):
        action()
    return (time.perf_counter() - began) / commands * 1e6


def run(kind: str, commands: int) -> None:
    """Run commands of a kind."""
    with idle_disk() as disk:
        action = actions(disk)[kind]
        for _ in range(commands):
            action()


def main() -> None:
    """Run what the arguments name."""
    what, *words = sys.argv[1:]
    if what == "run":
        run(words[0], int(words[1]))
    else:
        print(json.dumps(cost(int(words[0]))))


if __name__ == "__main__":
    main()
