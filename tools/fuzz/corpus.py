"""Makes the seed corpus: traffic of a virtual stick and its clients, and the valid examples of the parsers' tests."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from fuzz.targets import DEVLIST, key
from scsiusb.opening import open_on
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import sbc as block
from scsiusb.scsi.commands import spc as primary
from scsiusb.usb.backend import ENDPOINT_IN, Code, Device
from scsiusb.virtual import Bus, Stick, VirtualHandle
from tests.fuzz.model.script import bytes_of
from tests.fuzz.onwire import wire_parsers
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import DEVICE, TWO_INTERFACES, all_parsers
from tests.fuzz.steps import STEPS

HERE: Final = Path(__file__).parent / "corpus"
SESSIONS: Final = 40
SEQUENCES: Final = 10
LONGEST: Final = 1024  # bytes of a seed
RECEIVED: Final[list[bytes]] = []
DEVICE_ID: Final = 0x00010002


def make() -> dict[str, int]:
    """Write every seed to a file named after its content; return the number of files per target."""
    made = {
        "replies": _replies(),
        "exchange": _exchange(),
        "model": map(bytes_of, range(SEQUENCES)),
        "descriptors": _descriptors(),
        "usbip": _usbip(),
    }
    counts = {}
    for name, seeds in made.items():
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            if len(seed) <= LONGEST:
                (folder / hashlib.sha256(seed).hexdigest()[:12]).write_bytes(seed)
        counts[name] = len(list(folder.iterdir()))
    return counts


def _replies() -> Iterator[bytes]:
    with wire_parsers() as on_wire:
        parsers = (*all_parsers(), *on_wire)
    for parser in parsers:
        for seed in parser.seeds:
            yield key(parser) + seed
    yield from _traffic({parser.name: parser for parser in parsers})


def _traffic(parsers: dict[str, Parser]) -> Iterator[bytes]:
    """Yield the replies of a stick to commands for which there are parsers."""
    bus = RecordingBus(Stick.formatted())
    commands: tuple[Command[Any], ...] = (
        primary.Inquiry(),
        primary.RequestSense(),
        primary.ModeSense6(),
        primary.ModeSense10(),
        primary.ReportLuns(),
        primary.InquiryVpdBytes(0x83),
        block.ReadCapacity10(),
        block.ReadCapacity16(),
    )
    with open_on(bus) as disk:
        for command in commands:
            disk.execute(command)
            yield key(parsers[type(command).__name__]) + RECEIVED[-2]
            yield key(parsers["CSW"]) + RECEIVED[-1]
    bus.close()


class RecordingBus(Bus):
    """A bus that records what its devices send."""

    def open(self, device: Device) -> VirtualHandle:
        """See `Backend.open`; the handle records its data-in."""
        handle = super().open(device)
        bulk = handle.bulk

        def record(endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
            code, count = bulk(endpoint, buffer, deadline)
            if endpoint & ENDPOINT_IN:
                RECEIVED.append(bytes(buffer[:count]))
            return code, count

        handle.bulk = record  # type: ignore[method-assign]
        return handle


def _exchange() -> Iterator[bytes]:
    """Yield sessions of steps; each kind of step begins at least one of them."""
    random = Random(4)
    for number in range(SESSIONS):
        yield bytes([number % len(STEPS)]) + random.randbytes(random.randint(5, 60))


def _descriptors() -> Iterator[bytes]:
    yield from (DEVICE, TWO_INTERFACES, DEVICE[:9], DEVICE + bytes(40))


def _usbip() -> Iterator[bytes]:
    """Yield what a client sends that lists, and what one sends that attaches and transfers."""
    attach = bytes.fromhex("0111 8003 00000000") + b"1-1".ljust(32, b"\0")
    cbw = struct.pack("<4sIIBBB16s", b"USBC", 7, 36, 0x80, 0, 6, bytes.fromhex("120000002400"))
    control = [
        _submit(1, 0, 1, 18, bytes.fromhex("8006000100001200")),
        _submit(2, 0, 0, 0, bytes.fromhex("0009010000000000")),
        _submit(3, 0, 1, 1, bytes.fromhex("a1fe000000000100")),
    ]
    inquiry = [_submit(4, 2, 0, len(cbw)) + cbw, _submit(5, 1, 1, 36), _submit(6, 1, 1, 13)]
    unlink = struct.pack(">IIIII", 2, 9, DEVICE_ID, 0, 0) + struct.pack(">I24x", 5)
    yield DEVLIST
    yield attach
    yield attach.replace(b"1-1", b"9-9")
    yield attach + b"".join(control)
    yield attach + b"".join((*control, *inquiry))
    yield attach + b"".join((*control, inquiry[1], unlink))
    yield attach + control[1] + b"".join(_submit(10 + number, 1, 1, 512) for number in range(8))


def _submit(seqnum: int, endpoint: int, direction: int, length: int, setup: bytes = bytes(8)) -> bytes:
    head = struct.pack(">IIIII", 1, seqnum, DEVICE_ID, direction, endpoint)
    return head + struct.pack(">IIIII8s", 0, length, 0, 0, 0, setup)


def seeds(target: str) -> list[bytes]:
    """Return the seeds of a target."""
    return [path.read_bytes() for path in sorted((HERE / target).iterdir())]


if __name__ == "__main__":
    print(make())
