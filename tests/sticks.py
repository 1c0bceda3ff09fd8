"""Virtual sticks with a hand on the wire: a test can answer any bulk transfer in the device's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scsiusb.transport.bot import BulkOnlyTransport
from scsiusb.usb.backend import ENDPOINT_IN, Code, Device, UsbError
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from scsiusb.virtual import Bus, Memory, Stick, Unit, VirtualHandle

Answer = tuple[Code, int]
Meddle = Callable[["Wire", int, memoryview], "Answer | None"]

CBW_LENGTH = 31
CSW_LENGTH = 13


def csw(tag: int, residue: int = 0, status: int = 0, signature: bytes = b"USBS") -> bytes:
    """A CSW's bytes, written by hand (BOT 5.2)."""
    return signature + tag.to_bytes(4, "little") + residue.to_bytes(4, "little") + bytes([status])


@dataclass
class Wire:
    """What the handle does, in order, and who may answer in the device's place."""

    log: list[str] = field(default_factory=list)
    tag: int = 0
    opcode: int = -1
    meddle: Meddle | None = None
    fail_requests: dict[str, Code] = field(default_factory=dict)

    def put(self, buffer: memoryview, data: bytes) -> Answer:
        buffer[: len(data)] = data
        return Code.OK, len(data)


class MeddledHandle(VirtualHandle):
    """A virtual handle whose transfers pass by the wire first."""

    wire: Wire

    def bulk(self, endpoint: int, buffer: memoryview, timeout: int) -> Answer:
        wire = self.wire
        if not endpoint & ENDPOINT_IN and len(buffer) == CBW_LENGTH and bytes(buffer[:4]) == b"USBC":
            wire.tag = int.from_bytes(buffer[4:8], "little")
            wire.opcode = buffer[15]
            wire.log.append(f"cbw {wire.opcode:02x}")
        else:
            wire.log.append("in" if endpoint & ENDPOINT_IN else "out")
        answer = wire.meddle(wire, endpoint, buffer) if wire.meddle else None
        return super().bulk(endpoint, buffer, timeout) if answer is None else answer

    def clear_halt(self, endpoint: int) -> None:
        self._note("clear in" if endpoint & ENDPOINT_IN else "clear out")
        super().clear_halt(endpoint)

    def reset(self) -> None:
        self._note("port reset")
        super().reset()

    def control_out(self, request_type: int, request: int, value: int, index: int, data: bytes, timeout: int) -> None:
        self._note(f"request {request:02x}")
        super().control_out(request_type, request, value, index, data, timeout)

    def control_in(self, request_type: int, request: int, value: int, index: int, length: int, timeout: int) -> bytes:
        self._note(f"request {request:02x}")
        return super().control_in(request_type, request, value, index, length, timeout)

    def _note(self, name: str) -> None:
        self.wire.log.append(name)
        if name in self.wire.fail_requests:
            raise UsbError(self.wire.fail_requests[name])


class MeddledBus(Bus):
    """A bus whose handles pass by one wire."""

    def __init__(self, *sticks: Stick) -> None:
        super().__init__(*sticks)
        self.wire = Wire()

    def open(self, device: Device) -> VirtualHandle:
        handle = super().open(device)
        handle.__class__ = MeddledHandle
        assert isinstance(handle, MeddledHandle)
        handle.wire = self.wire
        return handle


def stick(blocks: int = 2048, block_size: int = 512, **attributes: Any) -> Stick:
    """A stick with one unit of known content: each block begins with its number."""
    data = bytearray(blocks * block_size)
    for number in range(blocks):
        data[number * block_size : number * block_size + 4] = number.to_bytes(4, "big")
    return Stick([Unit(Memory(data, block_size), **attributes)])


def transport_on(bus: Bus) -> BulkOnlyTransport:
    return BulkOnlyTransport(Port(bus, find(bus)[0]))
