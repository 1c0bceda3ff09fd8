"""Commands that report what a unit supports, who has reserved it, and its clock (SPC-4), as declarations."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import ClassVar, Final

from construct import BitsInteger, BitStruct, Const, Flag, GreedyRange, Int8ub, Int16ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.command import U5, U8, U16, U32, Command, opcode
from scsiusb.scsi.opcodes import command_name
from scsiusb.scsi.reply import Reply, parse
from scsiusb.transport.base import Direction

LONGEST: Final = 8192  # bytes of a report that are asked for
OPCODES: Final = Struct(  # SPC-4 table 237, without timeouts descriptors
    "length" / Int32ub,
    "rows"
    / GreedyRange(
        Struct(
            "opcode" / Int8ub,
            Padding(1),
            "service_action" / Int16ub,
            Padding(1),
            "flags" / BitStruct(Padding(6), "has_timeouts" / Flag, "has_service_action" / Flag),
            "cdb_length" / Int16ub,
        )
    ),
)


@dataclass(frozen=True)
class SupportedCommand:
    """A command that a unit supports."""

    opcode: int
    service_action: int | None
    name: str
    cdb_length: int
    """Bytes."""


@dataclass(frozen=True)
class ReportSupportedOpcodes(Command[tuple[SupportedCommand, ...]]):
    """REPORT SUPPORTED OPERATION CODES: list all commands of a unit (SPC-4 6.35)."""

    NAME = "REPORT SUPPORTED OPERATION CODES"
    repeatable = True
    CDB = BitStruct(
        opcode(0xA3),
        Padding(3),
        "service" / Const(0x0C, U5),
        Padding(5),
        "options" / Const(0, BitsInteger(3)),
        Padding(24),
        "length" / U32,
        Padding(16),
    )
    direction = Direction.IN
    length: int = LONGEST
    """Allocation length in bytes."""
    device_type: int = 0
    """The unit's peripheral device type, by which some operation codes have another name."""

    def reply(self, data: bytes) -> tuple[SupportedCommand, ...]:
        """Return the commands. Raises MalformedReply."""
        fields = parse(OPCODES, data, self.NAME)
        rows = fields.rows[: fields.length // 8]
        if any(row.flags.has_timeouts for row in rows):
            raise MalformedReply(f"{self.NAME}: timeouts came that were not asked for")
        return tuple(
            SupportedCommand(row.opcode, action, command_name(row.opcode, action, self.device_type), row.cdb_length)
            for row in rows
            for action in [row.service_action if row.flags.has_service_action else None]
        )


@dataclass(frozen=True)
class Timestamp(Reply):
    """REPORT TIMESTAMP parameter data (SPC-4 6.38)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "flags" / BitStruct(Padding(5), "origin" / BitsInteger(3)),
        Padding(1),
        "milliseconds" / BitStruct("value" / BitsInteger(48)),
    )
    origin: int
    """0: since power on or reset, 2: it was set by SET TIMESTAMP, 3: by other means."""
    milliseconds: int
    """Since 1970, or since power on or reset if it was never set."""

    @classmethod
    def parse(cls, data: bytes) -> Timestamp:
        """Parse the reply. Raises MalformedReply."""
        fields = cls.fields_of(data)
        return cls(fields.flags.origin, fields.milliseconds.value)

    @property
    def time(self) -> datetime | None:
        """The time in UTC; None if it was never set."""
        if self.origin not in (2, 3):
            return None
        try:
            return datetime.fromtimestamp(self.milliseconds / 1000, timezone.utc)
        except (OverflowError, ValueError, OSError):
            return None


@dataclass(frozen=True)
class ReportTimestamp(Command[Timestamp]):
    """REPORT TIMESTAMP: report the clock of the unit (SPC-4 6.38)."""

    NAME = "REPORT TIMESTAMP"
    repeatable = True
    CDB = BitStruct(opcode(0xA3), Padding(3), "service" / Const(0x0F, U5), Padding(32), "length" / U32, Padding(16))
    direction = Direction.IN
    length: int = 12
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Timestamp:
        """Return the clock. Raises MalformedReply."""
        return Timestamp.parse(data)


KEYS: Final = Struct(
    "generation" / Int32ub, "length" / Int32ub, "rows" / GreedyRange(BitStruct("key" / BitsInteger(64)))
)


@dataclass(frozen=True)
class ReservationKeys:
    """The registered keys, and how often they were changed."""

    generation: int
    keys: tuple[int, ...]


@dataclass(frozen=True)
class ReadKeys(Command[ReservationKeys]):
    """PERSISTENT RESERVE IN, READ KEYS: list the registered keys (SPC-4 6.15.2)."""

    NAME = "PERSISTENT RESERVE IN, READ KEYS"
    repeatable = True
    CDB = BitStruct(opcode(0x5E), Padding(3), "service" / Const(0, U5), Padding(40), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = 2048
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> ReservationKeys:
        """Return the keys. Raises MalformedReply."""
        fields = parse(KEYS, data, self.NAME)
        return ReservationKeys(fields.generation, tuple(each.key for each in fields.rows[: fields.length // 8]))


RESERVATION: Final = Struct(
    "generation" / Int32ub,
    "length" / Int32ub,
    "rows"
    / GreedyRange(
        Struct(
            "key" / BitStruct("value" / BitsInteger(64)),
            Padding(5),
            "how" / BitStruct("scope" / BitsInteger(4), "kind" / BitsInteger(4)),
            Padding(2),
        )
    ),
)
RESERVATION_KINDS: Final = {
    1: "write exclusive",
    3: "exclusive access",
    5: "write exclusive, registrants only",
    6: "exclusive access, registrants only",
    7: "write exclusive, all registrants",
    8: "exclusive access, all registrants",
}


@dataclass(frozen=True)
class Reservation:
    """The reservation of a unit."""

    generation: int
    key: int | None
    """The holder's key; None if the unit is not reserved."""
    scope: int
    kind: int
    """A key of `RESERVATION_KINDS`; 0 if the unit is not reserved."""


@dataclass(frozen=True)
class ReadReservation(Command[Reservation]):
    """PERSISTENT RESERVE IN, READ RESERVATION: report who has reserved the unit (SPC-4 6.15.3)."""

    NAME = "PERSISTENT RESERVE IN, READ RESERVATION"
    repeatable = True
    CDB = BitStruct(opcode(0x5E), Padding(3), "service" / Const(1, U5), Padding(40), "length" / U16, Padding(8))
    direction = Direction.IN
    length: int = 24
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Reservation:
        """Return the reservation. Raises MalformedReply."""
        fields = parse(RESERVATION, data, self.NAME)
        if not fields.length or not fields.rows:
            return Reservation(fields.generation, None, 0, 0)
        row = fields.rows[0]
        return Reservation(fields.generation, row.key.value, row.how.scope, row.how.kind)


SECURITY_PROTOCOLS: Final = {  # SPC-4 table 245
    0x00: "security protocol information",
    0x01: "TCG 1",
    0x02: "TCG 2",
    0x03: "TCG 3",
    0x04: "TCG 4",
    0x05: "TCG 5",
    0x06: "TCG 6",
    0x07: "CbCS",
    0x20: "tape data encryption",
    0x21: "data encryption configuration",
    0x40: "SA creation capabilities",
    0x41: "IKEv2-SCSI",
    0xE9: "NVMe",
    0xEA: "NVMe RPMB",
    0xEC: "JEDEC UFS",
    0xED: "SD card",
    0xEE: "IEEE 1667",
    0xEF: "ATA device server password",
}
PROTOCOL_LIST: Final = Struct(Padding(6), "length" / Int16ub, "protocols" / GreedyRange(Int8ub))


@dataclass(frozen=True)
class SecurityProtocolIn(Command[bytes]):
    """SECURITY PROTOCOL IN: receive data of a security protocol (SPC-4 6.40)."""

    NAME = "SECURITY PROTOCOL IN"
    CDB = BitStruct(
        opcode(0xA2),
        "protocol" / U8,
        "specific" / U16,
        "in_512" / Flag,  # INC_512
        Padding(15),
        "amount" / U32,
        Padding(16),
    )
    direction = Direction.IN
    protocol: int
    """A key of `SECURITY_PROTOCOLS`."""
    specific: int = 0
    """What of the protocol."""
    amount: int = 512
    """Allocation length: in bytes, or in units of 512 bytes if `in_512`."""
    in_512: bool = False
    """The allocation length is in units of 512 bytes (INC_512)."""

    @property
    def length(self) -> int:
        """Allocation length in bytes."""
        return self.amount * (512 if self.in_512 else 1)

    def reply(self, data: bytes) -> bytes:
        """Return the bytes of the protocol."""
        return data


def security_protocols(data: bytes) -> tuple[int, ...]:
    """Return the list of protocols in the reply to protocol 00h, specific 0000h. Raises MalformedReply."""
    fields = parse(PROTOCOL_LIST, data, "SECURITY PROTOCOL IN")
    return tuple(fields.protocols[: fields.length])
