"""Commands of all device types (SPC-4) that report what a unit supports, its clock and its names."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from construct import BitStruct, Bytes, Flag, Int8ub, Int16ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import U3, U8, U16, U32, Command, opcode, service
from scsiusb.scsi.reply import Reply, listed, parse, text
from scsiusb.transport.base import Direction

CODES_LENGTH: Final = 0x4000  # bytes; 256 commands with their timeouts are 5 KiB
TIMEOUTS_LENGTH: Final = 12  # bytes of a command timeouts descriptor
CODE_LENGTH: Final = 8  # bytes of a command descriptor without timeouts

CODES: Final = Struct("length" / Int32ub)
CODE: Final = Struct(  # SPC-4 table 297
    "opcode" / Int8ub,
    Padding(1),
    "service" / Int16ub,
    Padding(1),
    "flags" / BitStruct(Padding(6), "timeouts" / Flag, "has_service" / Flag),
    "cdb_length" / Int16ub,
)
TIMEOUTS: Final = Struct(Padding(3), Padding(1), "nominal" / Int32ub, "recommended" / Int32ub)  # SPC-4 table 300
ONE_CODE: Final = Struct(  # SPC-4 table 298
    Padding(1), "head" / BitStruct("timeouts" / Flag, Padding(4), "support" / U3), "cdb_length" / Int16ub
)
SUPPORT: Final = {
    0: "not known now",
    1: "not supported",
    3: "supported",
    4: "vendor specific",
    5: "supported, vendor specific",
}


@dataclass(frozen=True)
class SupportedCommand:
    """A command that a unit supports."""

    opcode: int
    """Operation code."""
    service: int | None
    """Service action; None for a command without one."""
    cdb_length: int
    """Bytes of the CDB."""
    nominal: int | None = None
    """Seconds that the command takes usually; None: not reported."""
    recommended: int | None = None
    """Seconds to wait for it at least; None: not reported."""


@dataclass(frozen=True)
class SupportedCommands:
    """All commands that a unit supports (SPC-4 6.35.2)."""

    commands: tuple[SupportedCommand, ...]
    """In the unit's order."""
    missing: int
    """Bytes of the list that were announced and did not come."""


@dataclass(frozen=True)
class ReportSupportedOperationCodes(Command[SupportedCommands]):
    """REPORT SUPPORTED OPERATION CODES of all commands (SPC-4 6.35)."""

    NAME = "REPORT SUPPORTED OPERATION CODES"
    repeatable = True
    CDB = BitStruct(
        opcode(0xA3), Padding(3), service(0x0C), "timeouts" / Flag, Padding(31), "length" / U32, Padding(16)
    )
    direction = Direction.IN
    timeouts: bool = False
    """Ask for the timeouts of each (RCTD); some devices refuse that."""
    length: int = CODES_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> SupportedCommands:
        """Return the commands. Raises MalformedReply."""
        body, missing = listed(data, 4, parse(CODES, data, self.NAME).length)
        found = []
        while len(body) >= CODE_LENGTH:
            size = CODE_LENGTH + (TIMEOUTS_LENGTH if body[5] & 2 else 0)
            found.append(_supported(body[:size]))
            body = body[size:]
        return SupportedCommands(tuple(found), missing)


def _supported(entry: bytes) -> SupportedCommand:
    fields = parsed(CODE, entry)
    known = SupportedCommand(fields.opcode, fields.service if fields.flags.has_service else None, fields.cdb_length)
    if len(entry) < CODE_LENGTH + TIMEOUTS_LENGTH:
        return known
    times = parsed(TIMEOUTS, entry[CODE_LENGTH:])
    return SupportedCommand(
        known.opcode, known.service, known.cdb_length, times.nominal or None, times.recommended or None
    )


@dataclass(frozen=True)
class CommandSupport:
    """Whether a unit supports a command, and which bits of its CDB (SPC-4 6.35.3)."""

    support: int
    """SUPPORT field, a key of `SUPPORT`: 3 is supported as in the standard."""
    usage: bytes
    """A mask as long as the CDB: bits that the unit looks at; the first byte is the operation code."""

    @property
    def is_supported(self) -> bool:
        """The unit supports the command, as in the standard or in its own way."""
        return self.support in (3, 5)

    @property
    def text(self) -> str:
        """SUPPORT as text."""
        return SUPPORT.get(self.support, f"reserved value {self.support}")


@dataclass(frozen=True)
class ReportSupportedOperationCode(Command[CommandSupport]):
    """REPORT SUPPORTED OPERATION CODES of one command, by its operation code and service action (SPC-4 6.35)."""

    NAME = "REPORT SUPPORTED OPERATION CODES"
    repeatable = True
    CDB = BitStruct(
        opcode(0xA3),
        Padding(3),
        service(0x0C),
        Padding(5),
        "options" / U3,
        "requested" / U8,
        "requested_service" / U16,
        "length" / U32,
        Padding(16),
    )
    direction = Direction.IN
    requested: int
    """Operation code to ask for."""
    requested_service: int = 0
    """Service action to ask for, if `options` says so."""
    options: int = 1
    """REPORTING OPTIONS: 1 by operation code, 2 with the service action, 3 with the service action if it has any."""
    length: int = 64
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> CommandSupport:
        """Return the support. Raises MalformedReply."""
        fields = parse(ONE_CODE, data, self.NAME)
        return CommandSupport(fields.head.support, data[4 : 4 + fields.cdb_length])


@dataclass(frozen=True)
class TaskManagement(Reply):
    """The task management functions that a unit supports (SPC-4 6.36)."""

    LAYOUT: ClassVar[Struct] = Struct(
        "first"
        / BitStruct(
            "abort_task" / Flag,
            "abort_task_set" / Flag,
            "clear_aca" / Flag,
            "clear_task_set" / Flag,
            "logical_unit_reset" / Flag,
            "query_task" / Flag,
            Padding(2),  # TARGET RESET and WAKEUP are obsolete
        ),
        "second" / BitStruct(Padding(5), "query_async_event" / Flag, "query_task_set" / Flag, "i_t_nexus_reset" / Flag),
        Padding(2),
    )
    abort_task: bool
    abort_task_set: bool
    clear_aca: bool
    clear_task_set: bool
    logical_unit_reset: bool
    query_task: bool
    query_async_event: bool
    query_task_set: bool
    i_t_nexus_reset: bool

    @classmethod
    def parse(cls, data: bytes) -> TaskManagement:
        """Return the functions. Raises MalformedReply."""
        fields = cls.fields_of(data)
        return cls(**_flags(fields.first), **_flags(fields.second))


def _flags(fields: Any) -> dict[str, bool]:
    return {name: value for name, value in fields.items() if not name.startswith("_")}


@dataclass(frozen=True)
class ReportSupportedTaskManagement(Command[TaskManagement]):
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36)."""

    NAME = "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"
    repeatable = True
    CDB = BitStruct(opcode(0xA3), Padding(3), service(0x0D), Padding(32), "length" / U32, Padding(16))
    direction = Direction.IN
    length: int = 4
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> TaskManagement:
        """Return the functions. Raises MalformedReply."""
        return TaskManagement.parse(data)


ORIGINS: Final = {0: "zero at power-on", 2: "set by SET TIMESTAMP", 3: "set by other means"}


@dataclass(frozen=True)
class Timestamp(Reply):
    """The clock of a unit (SPC-4 6.38)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2), "head" / BitStruct(Padding(5), "origin" / U3), Padding(1), "milliseconds" / Bytes(6)
    )
    milliseconds: int
    """Since 1970-01-01 00:00 UTC, if it was set; else since the power-on."""
    origin: int
    """TIMESTAMP ORIGIN, a key of `ORIGINS`."""

    @classmethod
    def parse(cls, data: bytes) -> Timestamp:
        """Return the clock. Raises MalformedReply."""
        fields = cls.fields_of(data)
        return cls(int.from_bytes(fields.milliseconds, "big"), fields.head.origin)

    @property
    def text(self) -> str:
        """TIMESTAMP ORIGIN as text."""
        return ORIGINS.get(self.origin, f"reserved value {self.origin}")


@dataclass(frozen=True)
class ReportTimestamp(Command[Timestamp]):
    """REPORT TIMESTAMP: the clock of the unit (SPC-4 6.38)."""

    NAME = "REPORT TIMESTAMP"
    repeatable = True
    CDB = BitStruct(opcode(0xA3), Padding(3), service(0x0F), Padding(32), "length" / U32, Padding(16))
    direction = Direction.IN
    length: int = 12
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Timestamp:
        """Return the clock. Raises MalformedReply."""
        return Timestamp.parse(data)


@dataclass(frozen=True)
class SetTimestamp(Command[None]):
    """SET TIMESTAMP: set the clock of the unit (SPC-4 6.46)."""

    NAME = "SET TIMESTAMP"
    CDB = BitStruct(opcode(0xA4), Padding(3), service(0x0F), Padding(32), "length" / U32, Padding(16))
    direction = Direction.OUT
    length = 12
    milliseconds: int
    """Since 1970-01-01 00:00 UTC."""

    @property
    def payload(self) -> bytes:
        """The parameter list. Raises ValueError for a time that does not fit."""
        if not 0 <= self.milliseconds < 1 << 48:
            raise ValueError(f"milliseconds={self.milliseconds} does not fit: 0 to {(1 << 48) - 1} does")
        return bytes(4) + self.milliseconds.to_bytes(6, "big") + bytes(2)


IDENTIFYING: Final = Struct(Padding(2), "length" / Int16ub)


@dataclass(frozen=True)
class ReportIdentifyingInformation(Command[bytes]):
    """REPORT IDENTIFYING INFORMATION: the name that an owner gave to the unit (SPC-4 6.32)."""

    NAME = "REPORT IDENTIFYING INFORMATION"
    repeatable = True
    CDB = BitStruct(opcode(0xA3), Padding(3), service(0x05), Padding(32), "length" / U32, "kind" / U8, Padding(8))
    direction = Direction.IN
    kind: int = 0
    """0: up to 64 bytes; 4: up to 256 bytes of UTF-8 (the field's bits 7 to 1, so that 4 is type 2)."""
    length: int = 512
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> bytes:
        """Return the name. Raises MalformedReply."""
        return listed(data, 4, parse(IDENTIFYING, data, self.NAME).length)[0]


@dataclass(frozen=True)
class SetIdentifyingInformation(Command[None]):
    """SET IDENTIFYING INFORMATION: give the unit a name, or none (SPC-4 6.43)."""

    NAME = "SET IDENTIFYING INFORMATION"
    CDB = BitStruct(opcode(0xA4), Padding(3), service(0x06), Padding(32), "length" / U32, "kind" / U8, Padding(8))
    direction = Direction.OUT
    payload: bytes = b""
    """The name."""
    kind: int = 0
    """As in `ReportIdentifyingInformation`."""

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)


@dataclass(frozen=True)
class ReadMediaSerialNumber(Command[str]):
    """READ MEDIA SERIAL NUMBER: the serial number of the medium, not of the drive (SPC-4 6.19)."""

    NAME = "READ MEDIA SERIAL NUMBER"
    repeatable = True
    accesses_medium = True
    CDB = BitStruct(opcode(0xAB), Padding(3), service(0x01), Padding(32), "length" / U32, Padding(16))
    direction = Direction.IN
    length: int = 256
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> str:
        """Return the serial number. Raises MalformedReply."""
        return text(listed(data, 4, parse(CODES, data, self.NAME).length)[0])
