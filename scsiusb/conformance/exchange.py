"""Raw Bulk-Only exchanges: any CBW, any data phase, any CSW, recorded as evidence."""

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
    least_cdb,
)
from scsiusb.usb.backend import Code
from scsiusb.usb.port import Port

CONTROL_TIMEOUT: Final = 5.0  # seconds (USB 2.0 9.2.6.1)
MAX_SHOWN: Final = 64  # bytes of one transfer in the evidence
MAX_STEPS: Final = 400  # in the evidence of one check
STANDARD_ENDPOINT: Final = 0x02  # bmRequestType
SET_FEATURE: Final = 3
ENDPOINT_HALT: Final = 0
FIRST_TAG: Final = 0x5C510000
CODES: Final = {
    Code.OK: "",
    Code.PIPE: "STALL",
    Code.TIMEOUT: "no reply within the time limit (NAK)",
    Code.OVERFLOW: "more data than requested (babble)",
    Code.IO: "a transfer error",
}
T = TypeVar("T")


class Request(Protocol):
    """What `Exchange.command` sends: a declared `Command`, or a `Raw`. `length` is in bytes."""

    @property
    def length(self) -> int:
        """Bytes of the data phase."""

    @property
    def direction(self) -> Direction:
        """Direction of the data phase."""

    def cdb(self) -> bytes:
        """Return the command block."""


@dataclass(frozen=True)
class Raw:
    """A command block given as bytes."""

    name: str
    block: bytes
    length: int = 0
    direction: Direction = Direction.IN

    def cdb(self) -> bytes:
        """See `Request.cdb`."""
        return self.block

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ExchangeResult:
    """How an exchange ended. The fields of the phases that were not reached have their defaults."""

    asked: str  # the request and what the CBW announced
    tag: int
    length: int  # dCBWDataTransferLength
    cbw: Code  # result of the CBW transfer
    data: bytes = b""  # data-in
    moved: int = 0  # bytes of the data phase
    data_code: Code = Code.OK
    csw: bytes = b""
    csw_code: Code = Code.OK
    csw_in_data: bool = False
    stalls: int = 0  # in the status phase
    empties: int = 0  # empty packets in the status phase
    seconds: float = 0.0

    @property
    def has_csw(self) -> bool:
        """Whether a CSW of the right length came in the status phase; its fields may be wrong."""
        return self.csw_code is Code.OK and len(self.csw) == CSW_CODEC.length and not self.csw_in_data

    @property
    def is_answered(self) -> bool:
        """Whether anything came in the status phase, valid or not."""
        return bool(self.csw)

    @property
    def fields(self) -> tuple[bytes, int, int, int]:
        """Signature, tag, residue and status of the CSW."""
        signature, tag, residue, status = CSW_CODEC.unpack_from(memoryview(self.csw))
        return signature, tag, residue, status

    @property
    def residue(self) -> int:
        """dCSWDataResidue, in bytes."""
        return self.fields[2]

    @property
    def status(self) -> int:
        """bCSWStatus."""
        return self.fields[3]

    @property
    def description(self) -> str:
        """What came, as text."""
        if self.cbw is not Code.OK:
            return f"the CBW failed with {describe(self.cbw)}"
        data = f"{self.moved} bytes of data"
        if self.data_code is not Code.OK:
            data += f", then {describe(self.data_code)}"
        return f"{data}, {self._csw_description}"

    @property
    def _csw_description(self) -> str:
        if self.csw_in_data:
            return "the CSW came in the data phase"
        if self.csw_code is not Code.OK:
            return f"no CSW: {describe(self.csw_code)}"
        if len(self.csw) != CSW_CODEC.length:
            return f"a CSW of {len(self.csw)} bytes"
        stalled = "STALL, then " if self.stalls else ""
        return f"{stalled}status {self.status}, residue {self.residue}"

    def wrong(self, expected: str) -> Violation:
        """Return a Violation that says what came and what was expected."""
        return Violation(self.asked, self.description, expected)

    def require(self, condition: bool, expected: str) -> None:
        """Raise Violation with what was `expected`, unless the condition is true."""
        if not condition:
            raise self.wrong(expected)

    def require_csw(self) -> ExchangeResult:
        """Raise Violation unless the exchange ended with a CSW and status 0, 1 or 2; return the result itself."""
        self.require(self.cbw is Code.OK, "the device to accept the CBW (BOT 5.3.1)")
        self.require(not self.csw_in_data, "data or a STALL before the CSW (BOT 5.3.2)")
        self.require(self.data_code is not Code.OVERFLOW, f"at most {self.length} bytes of data (BOT 6.7)")
        self.require(self.data_code in (Code.OK, Code.PIPE), "data or a STALL (BOT 5.3.2)")
        self.require(self.has_csw, "a CSW of 13 bytes (BOT 5.3.3)")
        self.require(self.status <= STATUS_PHASE_ERROR, "status 0, 1 or 2 (BOT 5.2)")
        return self

    @property
    def is_good(self) -> bool:
        """Whether the command succeeded (status 0)."""
        return self.has_csw and self.status == GOOD

    @property
    def is_failed(self) -> bool:
        """Whether the command failed (status 1)."""
        return self.has_csw and self.status == FAILED


def describe(code: Code) -> str:
    """Return the result of a transfer as text; empty for OK."""
    return CODES.get(code) or f"error {code.name}"


class Exchange:
    """Sends commands and requests to a port, step by step.

    Bulk transfers raise DeviceGone; any other outcome is a result. Control requests raise TransportError.
    """

    def __init__(self, port: Port, lun: int, timeout: float) -> None:
        self.port = port
        self.lun = lun
        self.timeout = timeout
        self.latencies: dict[str, list[float]] = {}
        self.last: ExchangeResult | None = None  # result of `command`; None after a CBW sent by `send`
        self._tag = FIRST_TAG
        self.clear_evidence()

    def clear_evidence(self) -> None:
        """Start a new list of evidence, for the next check."""
        self.evidence: list[dict[str, Any]] = []

    def _note(self, **step: Any) -> None:
        if len(self.evidence) < MAX_STEPS:
            self.evidence.append(step)

    # --- bulk -----------------------------------------------------------------------------------

    def send(self, data: bytes, phase: str = "data-out") -> tuple[Code, int]:
        """Write to the bulk-out endpoint; return the result and the number of bytes sent."""
        if phase == "cbw":  # sense data from now on does not belong to the last command
            self.last = None
        with self._buffer(len(data)) as buffer:
            buffer[:] = data
            code, count = self._checked(self.port.write(buffer, self.timeout))
        self._note(phase=phase, sent=count, hex=data[:MAX_SHOWN].hex(), result=code.name)
        return code, count

    def receive(self, size: int, phase: str = "data-in") -> tuple[Code, bytes]:
        """Read at most `size` bytes from the bulk-in endpoint; return the result and the data."""
        with self._buffer(size) as buffer:
            code, count = self._checked(self.port.read(buffer, self.timeout))
            data = bytes(buffer[:count])
        self._note(phase=phase, asked=size, came=count, hex=data[:MAX_SHOWN].hex(), result=code.name)
        return code, data

    @contextmanager
    def _buffer(self, size: int) -> Iterator[memoryview]:
        with self.port.memory.lend(max(size, 1)) as whole, whole[:size] as buffer:
            yield buffer

    def _checked(self, result: tuple[Code, int]) -> tuple[Code, int]:
        """Raise the error of a failure that is not a property of the device: unplugged, interrupted, out of memory."""
        if result[0] in (Code.NO_DEVICE, Code.INTERRUPTED, Code.NO_MEM):
            self.port.check(result[0], "an exchange")
        return result

    # --- control --------------------------------------------------------------------------------

    def request_in(self, request_type: int, request: int, value: int, index: int, length: int) -> bytes:
        """Send a control request with data-in; return the data, at most `length` bytes. Raises TransportError."""
        setup = f"{request_type:02x} {request:02x} {value:04x} {index:04x} {length:04x}"
        data = self._control(
            setup, lambda: self.port.control_in(request_type, request, value, index, length, CONTROL_TIMEOUT)
        )
        self._note(control=setup, hex=data[:MAX_SHOWN].hex(), came=len(data))
        return data

    def request_out(self, request_type: int, request: int, value: int, index: int, data: bytes = b"") -> None:
        """Send a control request with data-out or without data. Raises TransportError."""
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
        """Send a Bulk-Only Mass Storage Reset (BOT 3.1)."""
        self.request_out(CLASS_INTERFACE_OUT, MASS_STORAGE_RESET, 0, self.port.info.interface)

    def clear_halt_in(self) -> None:
        """Clear the halt of the bulk-in endpoint."""
        self._control("clear halt in", self.port.clear_halt_in)
        self._note(control="clear halt in", result="OK")

    def clear_halt_out(self) -> None:
        """Clear the halt of the bulk-out endpoint."""
        self._control("clear halt out", self.port.clear_halt_out)
        self._note(control="clear halt out", result="OK")

    def set_halt(self, endpoint: int) -> None:
        """Halt an endpoint by SET_FEATURE (USB 2.0 9.4.9)."""
        self.request_out(STANDARD_ENDPOINT, SET_FEATURE, ENDPOINT_HALT, endpoint)

    def is_halted(self, endpoint: int) -> bool:
        """Return whether an endpoint is halted, by GET_STATUS (USB 2.0 9.4.5)."""
        status = self.request_in(STANDARD_ENDPOINT | FLAG_DATA_IN, 0, 0, endpoint, 2)
        return bool(status and status[0] & 1)

    def reset_recovery(self) -> None:
        """Recover the device: class reset, then clear both halts (BOT 5.3.4)."""
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
        """Return the bytes of a CBW.

        Fields that are None get their correct values: the next tag, and the rest from `request`, `direction` and the
        device.
        """
        if tag is None:
            tag = self._tag = (self._tag + 1) & 0xFFFFFFFF
        cdb = request.cdb()
        if flags is None:
            flags = FLAG_DATA_IN if direction is Direction.IN else 0
        packet = bytearray(CBW_CODEC.length)
        size = max(len(cdb), least_cdb(self.port.info.setting.subclass))
        row = (tag, length, flags, self.lun if lun is None else lun, cdb_length or size, cdb[:MAX_CDB])
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
        """Run a command whose CBW announces `length` bytes in `direction`, or the `payload`, as data-out.

        By default the CBW announces the data of the command. `fields` are those of `cbw`.
        """
        direction = request.direction if direction is None else direction
        if payload is not None:
            length, direction = len(payload), Direction.OUT
        length = request.length if length is None else length
        packet = self.cbw(request, length, direction, **fields)
        began = time.monotonic()
        code, _ = self.send(packet, "cbw")
        result = ExchangeResult(_asked(request, length, direction), int.from_bytes(packet[4:8], "little"), length, code)
        if code is Code.OK:
            result = self._data(result, direction, bytes(length) if payload is None else payload)
        seconds = time.monotonic() - began
        if result.has_csw:
            # One entry for each command name: "READ(10) of 1 block at LBA 0" counts as READ(10).
            self.latencies.setdefault(str(request).partition(" of ")[0], []).append(seconds)
        self.last = replace(result, seconds=seconds)
        return self.last

    def _data(self, result: ExchangeResult, direction: Direction, payload: bytes) -> ExchangeResult:
        code, data, moved = Code.OK, b"", 0
        if result.length and direction is Direction.IN:
            code, data = self.receive(result.length)
            moved = len(data)
            if code is Code.PIPE:  # the CSW can be read only after clear-halt (BOT 6.7.2)
                self.clear_halt_in()
        elif result.length:
            code, moved = self.send(payload)
            if code is Code.PIPE:
                self.clear_halt_out()
        result = replace(result, data=data, moved=moved, data_code=code)
        # The CSW was read with the data; another read would only time out.
        if _ends_with_csw(data, result.tag):
            return replace(result, csw=data[-CSW_CODEC.length :], csw_in_data=True)
        # After a timeout or an I/O error no CSW comes either, and waiting for it would take another timeout.
        if code not in (Code.OK, Code.PIPE, Code.OVERFLOW):
            return replace(result, csw_code=code)
        return self.status(result)

    def status(self, result: ExchangeResult) -> ExchangeResult:
        """Read the CSW; retry once after a STALL (BOT 5.3.3) and once after an empty packet."""
        packet = self.port.bulk_in.max_packet_size
        # A read of full packets: extra bytes after the CSW are then data to report, not an overflow.
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
        return replace(result, csw=csw, csw_code=code, stalls=stalls, empties=empties)


def _asked(request: Request, length: int, direction: Direction) -> str:
    if direction is Direction.NONE or not length:
        return f"{request} (no data announced)"
    return f"{request} ({length} bytes of data-{direction.value} announced)"


def _ends_with_csw(data: bytes, tag: int) -> bool:
    """Return whether the data ends with a CSW: the device did not end the data phase before it."""
    csw = data[-CSW_CODEC.length :]
    return len(csw) == CSW_CODEC.length and csw[:8] == CSW_SIGNATURE + tag.to_bytes(4, "little")
