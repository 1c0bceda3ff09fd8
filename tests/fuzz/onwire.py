"""What a device can send in place of correct answers: CSW, data, GET MAX LUN, and strings by way of sysfs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from scsiusb.errors import CheckCondition, TransportError
from scsiusb.manager.client import Client
from scsiusb.scsi.retry import RetryPolicy
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction
from scsiusb.usb.backend import ENDPOINT_IN, Code, Device, Strings
from scsiusb.usb.interface import find
from scsiusb.usb.system import linux
from tests.fuzz.devices import Bytes, Shown, device_of
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import DEVICE, INQUIRY, SENSE
from tests.sticks import Answer, InterceptedBus, InterceptedHandle, Wire, client_on, csw, execute, stick

TAG: Final = b"tag!"  # replaced by the tag of the current command
TIMEOUT: Final = 5.0
AT_ONCE: Final = RetryPolicy(unit_attentions=2, becoming_ready=0)
CODES: Final = (Code.OK, Code.OK, Code.OK, Code.PIPE, Code.OVERFLOW, Code.TIMEOUT, Code.IO)
CSWS: Final = tuple(csw(int.from_bytes(TAG, "little"), residue, status) for residue, status in ((0, 0), (9, 1), (0, 2)))
READ: Final = bytes.fromhex("28000000000000000100")


@contextmanager
def wire_parsers() -> Iterator[tuple[Parser, ...]]:
    with ExitStack() as stack:
        bus = InterceptedBus(stick(8))
        stack.callback(bus.close)
        transport = client_on(bus)
        stack.callback(transport.close)
        script = _Script(bus.wire, transport)
        yield (
            Parser("CSW", script.csw, (*CSWS, b"", CSWS[0] + b"more"), (TransportError,)),
            Parser("data and CSW", script.data, _replies(bytes(512), CSWS[0]), (TransportError,)),
            Parser(
                "INQUIRY on the wire",
                script.inquiry,
                _replies(INQUIRY, CSWS[0]) + _replies(b"", CSWS[1], SENSE[0], CSWS[0]),
                (TransportError, CheckCondition),
            ),
            Parser("GET MAX LUN", script.max_lun, (b"\0", b"\x0f", b"", b"\0\0"), ()),
            stack.enter_context(_sysfs()),
        )


def _replies(*pieces: bytes) -> tuple[bytes, ...]:
    """Return the pieces, each preceded by its code and its length."""
    return (b"".join(b"\0" + len(piece).to_bytes(2, "big") + piece for piece in pieces),)


class _Script:
    """Answers with given bytes in place of the device."""

    def __init__(self, wire: Wire, transport: Client) -> None:
        self._wire = wire
        self._transport = transport
        self._unit = LogicalUnit(transport, retry=AT_ONCE)

    def csw(self, data: bytes) -> object:
        """Use the bytes as the CSW, also if it is read a second time."""

        def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
            return _put(wire, Code.OK, data, buffer) if endpoint & ENDPOINT_IN else (Code.OK, len(buffer))

        with memoryview(b"") as nothing, self._intercepting(intercept):
            completion = execute(self._transport, 0, bytes(6), Direction.NONE, nothing, TIMEOUT)
        assert completion.status in (0, 1)
        assert completion.residue == completion.transferred == 0
        return tuple(completion)

    def data(self, data: bytes) -> object:
        """Use the bytes as the results of the transfers of a READ(10), one after the other."""
        with self._answers(data), self._transport.memory.lend(512) as buffer:
            completion = execute(self._transport, 0, READ, Direction.IN, buffer, TIMEOUT)
        assert 0 <= completion.transferred <= 512
        assert 0 <= completion.residue <= 512
        return tuple(completion)

    def inquiry(self, data: bytes) -> object:
        with self._answers(data):
            self._transport.ignore_residue = False
            return self._unit.inquiry()

    def max_lun(self, data: bytes) -> object:
        bus = InterceptedBus(stick(8))
        with patch.object(InterceptedHandle, "control_in", lambda *arguments: data):
            transport = client_on(bus)
        most = transport.max_lun
        transport.close()
        bus.close()
        assert 0 <= most <= 15
        return most

    def _answers(self, data: bytes) -> Any:
        source = Bytes(data)

        def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
            if not endpoint & ENDPOINT_IN:
                return Code.OK, len(buffer)
            code = CODES[source.number() % len(CODES)] if source.left else Code.TIMEOUT
            return _put(wire, code, source.take(source.number(2)), buffer)

        return self._intercepting(intercept)

    @contextmanager
    def _intercepting(self, intercept: Any) -> Iterator[None]:
        self._wire.intercept = intercept
        try:
            yield
        finally:
            self._wire.intercept = None
            self._wire.log.clear()


def _put(wire: Wire, code: Code, data: bytes, buffer: memoryview) -> Answer:
    data = data.replace(TAG, wire.tag.to_bytes(4, "little"))
    room = min(len(data), len(buffer))
    wire.put(buffer, data[:room])
    return (Code.OVERFLOW if len(data) > room and code is Code.OK else code), room


class _BySysfs(Shown):
    def strings(self, device: Device) -> Strings:
        return linux.strings(device)


@contextmanager
def _sysfs() -> Iterator[Parser]:
    """Yield a parser of string descriptors as the kernel shows them in sysfs."""
    device, _ = device_of(DEVICE)
    with tempfile.TemporaryDirectory() as folder, patch.object(linux, "USB_DEVICES", Path(folder)):
        place = Path(folder, device.address)
        place.mkdir()

        def parse(data: bytes) -> object:
            for name in ("serial", "manufacturer", "product"):
                (place / name).write_bytes(data)
            return find(_BySysfs(device, Strings()))

        yield Parser("strings in sysfs", parse, (b"0123456789AB\n", "Müller\n".encode(), b"\x1b[2J\xff\n"), ())
