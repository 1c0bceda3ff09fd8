"""Raw exchanges: any CBW, any data phase, whatever comes as the CSW, with all of it kept as evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from scsiusb.base.dataclass import dataclass
from scsiusb.conformance.outcome import Violation
from scsiusb.errors import TransportError
from scsiusb.transport.base import FAILED, GOOD, Direction
from scsiusb.transport.bot.formats import (
    CBW_CODEC,
    CLASS_INTERFACE_OUT,
    CSW_CODEC,
    CSW_SIGNATURE,
    FLAG_DATA_IN,
    MASS_STORAGE_RESET,
    MAX_CDB,
    STATUS_PHASE_ERROR,
)
from scsiusb.usb.backend import Code
from scsiusb.usb.port import Port, milliseconds

CONTROL_TIMEOUT: Final = 5.0  # USB 2.0 9.2.6.1
MOST_SHOWN: Final = 64  # bytes of one transfer in the evidence
MOST_STEPS: Final = 400
STANDARD_ENDPOINT: Final = 0x02  # bmRequestType
SET_FEATURE: Final = 3
ENDPOINT_HALT: Final = 0
FIRST_TAG: Final = 0x5C510000
CODES: Final = {
    Code.OK: "",
    Code.PIPE: "STALL",
    Code.TIMEOUT: "nothing within the time limit (NAK)",
    Code.OVERFLOW: "more than was asked for (babble)",
    Code.IO: "a transfer error",
}
T = TypeVar("T")


class Request(Protocol):
    """What `Exchange.command` sends: a declared `Command`, or a `Raw`."""

    @property
    def length(self) -> int: ...
    @property
    def direction(self) -> Direction: ...
    def cdb(self) -> bytes: ...


@dataclass(frozen=True)
class Raw:
    """A command block as it is."""

    name: str
    block: bytes
    length: int = 0
    direction: Direction = Direction.IN

    def cdb(self) -> bytes:
        return self.block

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ExchangeResult:
    """How an exchange ended, as far as it came."""

    asked: str
    tag: int
    length: int  # dCBWDataTransferLength
    cbw: Code
    data: bytes = b""  # data-in
    moved: int = 0  # bytes of the data phase
    data_code: Code = Code.OK
    csw: bytes = b""
    csw_code: Code = Code.OK
    csw_in_data: bool = False
    stalls: int = 0  # of the CSW
    empties: int = 0  # packets without data before it
    seconds: float = 0.0

    @property
    def has_csw(self) -> bool:
        return self.csw_code is Code.OK and len(self.csw) == CSW_CODEC.length and not self.csw_in_data

    @property
    def is_answered(self) -> bool:
        """Something came in the status phase, right or wrong."""
        return bool(self.csw)

    @property
    def fields(self) -> tuple[bytes, int, int, int]:
        """Signature, tag, residue, status."""
        signature, tag, residue, status = CSW_CODEC.unpack_from(memoryview(self.csw))
        return signature, tag, residue, status

    @property
    def residue(self) -> int:
        return self.fields[2]

    @property
    def status(self) -> int:
        return self.fields[3]

    @property
    def words(self) -> str:
        """What came, in words."""
        if self.cbw is not Code.OK:
            return f"the CBW met {words_of(self.cbw)}"
        data = f"{self.moved} bytes of data"
        if self.data_code is not Code.OK:
            data += f", then {words_of(self.data_code)}"
        return f"{data}, {self._csw_words}"

    @property
    def _csw_words(self) -> str:
        if self.csw_in_data:
            return "the CSW in the data phase"
        if self.csw_code is not Code.OK:
            return f"for the CSW {words_of(self.csw_code)}"
        if len(self.csw) != CSW_CODEC.length:
            return f"{len(self.csw)} bytes for the CSW"
        stalled = "STALL, then " if self.stalls else ""
        return f"{stalled}status {self.status}, residue {self.residue}"

    def wrong(self, expected: str) -> Violation:
        return Violation(self.asked, self.words, expected)

    def require(self, is_right: bool, expected: str) -> None:
        if not is_right:
            raise self.wrong(expected)

    def require_csw(self) -> ExchangeResult:
        """Demands that the exchange came to its end; what the CSW says is another question."""
        self.require(self.cbw is Code.OK, "that the device takes the CBW (BOT 5.3.1)")
        self.require(not self.csw_in_data, "data or a STALL before the CSW (BOT 5.3.2)")
        self.require(self.data_code is not Code.OVERFLOW, f"at most {self.length} bytes of data (BOT 6.7)")
        self.require(self.data_code in (Code.OK, Code.PIPE), "data or a STALL (BOT 5.3.2)")
        self.require(self.has_csw, "a CSW of 13 bytes (BOT 5.3.3)")
        self.require(self.status <= STATUS_PHASE_ERROR, "status 0, 1 or 2 (BOT 5.2)")
        return self

    @property
    def is_good(self) -> bool:
        return self.has_csw and self.status == GOOD

    @property
    def is_failed(self) -> bool:
        return self.has_csw and self.status == FAILED


def words_of(code: Code) -> str:
    return CODES.get(code) or f"the error {code.name}"


class Exchange:
    """Drives a port by hand. Raises DeviceGone; anything else that can happen on the wire is a result."""

    def __init__(self, port: Port, lun: int, timeout: float) -> None:
        self.port = port
        self.lun = lun
        self.timeout = timeout
        self.latencies: dict[str, list[float]] = {}
        self.last: ExchangeResult | None = None  # of the commands; none behind a CBW sent by hand
        self._tag = FIRST_TAG
        self.begin()

    def begin(self) -> None:
        """What follows is evidence of its own."""
        self.evidence: list[dict[str, Any]] = []

    def _note(self, **step: Any) -> None:
        if len(self.evidence) < MOST_STEPS:
            self.evidence.append(step)

    # --- bulk -----------------------------------------------------------------------------------

    def send(self, data: bytes, phase: str = "data-out") -> tuple[Code, int]:
        """Writes to the bulk-out endpoint."""
        if phase == "cbw":
            self.last = None
        with self._lent(len(data)) as buffer:
            buffer[:] = data
            code, count = self._checked(self.port.write(buffer, milliseconds(self.timeout)))
        self._note(phase=phase, sent=count, hex=data[:MOST_SHOWN].hex(), result=code.name)
        return code, count

    def receive(self, size: int, phase: str = "data-in") -> tuple[Code, bytes]:
        """Reads from the bulk-in endpoint."""
        with self._lent(size) as buffer:
            code, count = self._checked(self.port.read(buffer, milliseconds(self.timeout)))
            data = bytes(buffer[:count])
        self._note(phase=phase, asked=size, came=count, hex=data[:MOST_SHOWN].hex(), result=code.name)
        return code, data

    @contextmanager
    def _lent(self, size: int) -> Iterator[memoryview]:
        with self.port.memory.lend(max(size, 1)) as whole, whole[:size] as buffer:
            yield buffer

    def _checked(self, ended: tuple[Code, int]) -> tuple[Code, int]:
        if ended[0] in (Code.NO_DEVICE, Code.INTERRUPTED, Code.NO_MEM):
            self.port.check(ended[0], "an exchange")
        return ended

    # --- control --------------------------------------------------------------------------------

    def request_in(self, request_type: int, request: int, value: int, index: int, length: int) -> bytes:
        """A control request with data-in. Raises TransportError."""
        setup = f"{request_type:02x} {request:02x} {value:04x} {index:04x} {length:04x}"
        data = self._control(
            setup, lambda: self.port.control_in(request_type, request, value, index, length, CONTROL_TIMEOUT)
        )
        self._note(control=setup, hex=data[:MOST_SHOWN].hex(), came=len(data))
        return data

    def request_out(self, request_type: int, request: int, value: int, index: int, data: bytes = b"") -> None:
        setup = f"{request_type:02x} {request:02x} {value:04x} {index:04x} {len(data):04x}"
        self._control(setup, lambda: self.port.control_out(request_type, request, value, index, data, CONTROL_TIMEOUT))
        self._note(control=setup, result="OK")

    def _control(self, setup: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except TransportError as error:
            self._note(control=setup, result=type(error).__name__)
            raise

    def class_reset(self) -> None:
        self.request_out(CLASS_INTERFACE_OUT, MASS_STORAGE_RESET, 0, self.port.info.interface)

    def clear_halt_in(self) -> None:
        self._control("clear halt in", self.port.clear_halt_in)
        self._note(control="clear halt in", result="OK")

    def clear_halt_out(self) -> None:
        self._control("clear halt out", self.port.clear_halt_out)
        self._note(control="clear halt out", result="OK")

    def set_halt(self, endpoint: int) -> None:
        self.request_out(STANDARD_ENDPOINT, SET_FEATURE, ENDPOINT_HALT, endpoint)

    def is_halted(self, endpoint: int) -> bool:
        """GET_STATUS of the endpoint (USB 2.0 9.4.5)."""
        status = self.request_in(STANDARD_ENDPOINT | FLAG_DATA_IN, 0, 0, endpoint, 2)
        return bool(status and status[0] & 1)

    def reset_recovery(self) -> None:
        """BOT 5.3.4."""
        self.class_reset()
        self.clear_halt_in()
        self.clear_halt_out()

    # --- a command ------------------------------------------------------------------------------

    def cbw(
        self,
        request: Request,
        length: int,
        direction: Direction,
        *,
        tag: int | None = None,
        lun: int | None = None,
        flags: int | None = None,
        cdb_length: int | None = None,
    ) -> bytes:
        """A CBW's bytes; each field as the command needs it, if it is not given."""
        if tag is None:
            tag = self._tag = (self._tag + 1) & 0xFFFFFFFF
        cdb = request.cdb()
        if flags is None:
            flags = FLAG_DATA_IN if direction is Direction.IN else 0
        packet = bytearray(CBW_CODEC.length)
        row = (tag, length, flags, self.lun if lun is None else lun, cdb_length or len(cdb), cdb[:MAX_CDB])
        with memoryview(packet) as view:
            CBW_CODEC.pack_into(view, *row)
        return bytes(packet)

    def command(
        self,
        request: Request,
        length: int | None = None,
        direction: Direction | None = None,
        payload: bytes | None = None,
        **fields: int | None,
    ) -> ExchangeResult:
        """Runs a command whose CBW announces `length` bytes in `direction`, whatever the command means to move."""
        direction = request.direction if direction is None else direction
        if payload is not None:
            length, direction = len(payload), Direction.OUT
        length = request.length if length is None else length
        packet = self.cbw(request, length, direction, **fields)
        began = time.monotonic()
        code, _ = self.send(packet, "cbw")
        ended = ExchangeResult(_asked(request, length, direction), int.from_bytes(packet[4:8], "little"), length, code)
        if code is Code.OK:
            ended = self._data(ended, direction, bytes(length) if payload is None else payload)
        seconds = time.monotonic() - began
        if ended.has_csw:
            self.latencies.setdefault(str(request).partition(" of ")[0], []).append(seconds)
        self.last = replace(ended, seconds=seconds)
        return self.last

    def _data(self, ended: ExchangeResult, direction: Direction, payload: bytes) -> ExchangeResult:
        code, data, moved = Code.OK, b"", 0
        if ended.length and direction is Direction.IN:
            code, data = self.receive(ended.length)
            moved = len(data)
            if code is Code.PIPE:
                self.clear_halt_in()
        elif ended.length:
            code, moved = self.send(payload)
            if code is Code.PIPE:
                self.clear_halt_out()
        ended = replace(ended, data=data, moved=moved, data_code=code)
        if _ends_with_csw(data, ended.tag):
            return replace(ended, csw=data[-CSW_CODEC.length :], csw_in_data=True)
        if code not in (Code.OK, Code.PIPE, Code.OVERFLOW):
            return replace(ended, csw_code=code)
        return self.status(ended)

    def status(self, ended: ExchangeResult) -> ExchangeResult:
        """Reads the CSW, again after a STALL (BOT 5.3.3) or an empty packet."""
        packet = self.port.bulk_in.max_packet_size
        size = -(-CSW_CODEC.length // packet) * packet
        code, csw = self.receive(size, "csw")
        stalls = empties = 0
        while (code is Code.PIPE and not stalls) or (code is Code.OK and not csw and not empties):
            if code is Code.PIPE:
                stalls += 1
                self.clear_halt_in()
            else:
                empties += 1
            code, csw = self.receive(size, "csw")
        return replace(ended, csw=csw, csw_code=code, stalls=stalls, empties=empties)


def _asked(request: Request, length: int, direction: Direction) -> str:
    if direction is Direction.NONE or not length:
        return f"{request}, a CBW of 0 bytes"
    return f"{request}, a CBW of {length} bytes of data-{direction.value}"


def _ends_with_csw(data: bytes, tag: int) -> bool:
    """The device went on to the CSW without ending the data phase."""
    csw = data[-CSW_CODEC.length :]
    return len(csw) == CSW_CODEC.length and csw[:8] == CSW_SIGNATURE + tag.to_bytes(4, "little")
