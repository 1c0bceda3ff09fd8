"""Reservations: PERSISTENT RESERVE IN and OUT (SPC-4), RESERVE and RELEASE (SPC-2)."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import BitStruct, Flag, Int8ub, Int16ub, Int32ub, Int64ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import U3, U4, U5, U16, U32, Command, opcode, service
from scsiusb.scsi.reply import Reply, listed, parse
from scsiusb.transport.base import Direction

TYPES: Final = {  # SPC-4 table 189
    1: "write exclusive",
    3: "exclusive access",
    5: "write exclusive, registrants only",
    6: "exclusive access, registrants only",
    7: "write exclusive, all registrants",
    8: "exclusive access, all registrants",
}
IN_LENGTH: Final = 8192  # bytes; 1023 keys
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = range(7)
KEY_LENGTH: Final = 8

HEADER: Final = Struct("generation" / Int32ub, "length" / Int32ub)
RESERVATION: Final = Struct("key" / Int64ub, Padding(5), "how" / BitStruct("scope" / U4, "kind" / U4))
FULL: Final = Struct(  # SPC-4 table 196
    "key" / Int64ub,
    Padding(4),
    "flags" / BitStruct(Padding(6), "all_ports" / Flag, "is_holder" / Flag),
    "how" / BitStruct("scope" / U4, "kind" / U4),
    Padding(4),
    "port" / Int16ub,
    "length" / Int32ub,
)
PR_IN: Final = (Padding(40), "length" / U16, Padding(8))


def type_text(kind: int) -> str:
    """Return the type of a persistent reservation as text."""
    return TYPES.get(kind, f"reserved type {kind:X}h")


@dataclass(frozen=True)
class ReservationKeys:
    """The keys that are registered (SPC-4 6.15.2)."""

    generation: int
    """Counts the changes (PRGENERATION)."""
    keys: tuple[int, ...]
    """One for each registered host and port."""
    missing: int
    """Bytes of the list that were announced and did not come."""


@dataclass(frozen=True)
class Reservation:
    """The persistent reservation (SPC-4 6.15.3)."""

    generation: int
    """Counts the changes (PRGENERATION)."""
    key: int | None
    """Of the holder; None: there is no reservation."""
    scope: int
    """0: the logical unit."""
    kind: int
    """TYPE, a key of `TYPES`."""


@dataclass(frozen=True)
class ReservationCapabilities(Reply):
    """What a unit supports of persistent reservations (SPC-4 6.15.4)."""

    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "first"
        / BitStruct(
            Padding(3),
            "compatible" / Flag,
            "specify_ports" / Flag,
            "all_ports" / Flag,
            Padding(1),
            "persists" / Flag,
        ),
        "second" / BitStruct("types_valid" / Flag, "allow_commands" / U3, Padding(3), "persisting" / Flag),
        "types" / Int16ub,
        Padding(2),
    )
    compatible: bool
    """RESERVE and RELEASE work beside it (CRH)."""
    specify_ports: bool
    """SPEC_I_PT is supported (SIP_C)."""
    all_ports: bool
    """ALL_TG_PT is supported (ATP_C)."""
    persists: bool
    """Can survive a loss of power (PTPL_C)."""
    persisting: bool
    """Does survive a loss of power (PTPL_A)."""
    kinds: tuple[int, ...]
    """Types that are supported, keys of `TYPES`; empty: not reported."""

    @classmethod
    def parse(cls, data: bytes) -> ReservationCapabilities:
        """Return the capabilities. Raises MalformedReply."""
        fields = cls.fields_of(data)
        first, second = fields.first, fields.second
        bits = {1: 9, 3: 11, 5: 13, 6: 14, 7: 15, 8: 0}  # SPC-4 table 193
        kinds = tuple(kind for kind, bit in bits.items() if second.types_valid and fields.types >> bit & 1)
        return cls(first.compatible, first.specify_ports, first.all_ports, first.persists, second.persisting, kinds)


@dataclass(frozen=True)
class Registration:
    """A registered host (SPC-4 6.15.5)."""

    key: int
    """Reservation key."""
    is_holder: bool
    """It holds the reservation (R_HOLDER)."""
    all_ports: bool
    """Registered at all ports (ALL_TG_PT)."""
    scope: int
    kind: int
    """TYPE, if it is the holder."""
    port: int
    """RELATIVE TARGET PORT IDENTIFIER."""
    transport_id: bytes
    """Name of the host."""


@dataclass(frozen=True)
class PersistentReserveReadKeys(Command[ReservationKeys]):
    """PERSISTENT RESERVE IN, READ KEYS (SPC-4 6.15.2)."""

    NAME = "PERSISTENT RESERVE IN, READ KEYS"
    repeatable = True
    CDB = BitStruct(opcode(0x5E), Padding(3), service(0), *PR_IN)
    direction = Direction.IN
    length: int = IN_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> ReservationKeys:
        """Return the keys. Raises MalformedReply."""
        head = parse(HEADER, data, self.NAME)
        body, missing = listed(data, 8, head.length)
        starts = range(0, len(body) - KEY_LENGTH + 1, KEY_LENGTH)
        keys = tuple(int.from_bytes(body[at : at + KEY_LENGTH], "big") for at in starts)
        return ReservationKeys(head.generation, keys, missing)


@dataclass(frozen=True)
class PersistentReserveReadReservation(Command[Reservation]):
    """PERSISTENT RESERVE IN, READ RESERVATION (SPC-4 6.15.3)."""

    NAME = "PERSISTENT RESERVE IN, READ RESERVATION"
    repeatable = True
    CDB = BitStruct(opcode(0x5E), Padding(3), service(1), *PR_IN)
    direction = Direction.IN
    length: int = 24
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> Reservation:
        """Return the reservation. Raises MalformedReply."""
        head = parse(HEADER, data, self.NAME)
        if not head.length:
            return Reservation(head.generation, None, 0, 0)
        fields = parse(RESERVATION, data[8:], self.NAME)
        return Reservation(head.generation, fields.key, fields.how.scope, fields.how.kind)


@dataclass(frozen=True)
class PersistentReserveCapabilities(Command[ReservationCapabilities]):
    """PERSISTENT RESERVE IN, REPORT CAPABILITIES (SPC-4 6.15.4)."""

    NAME = "PERSISTENT RESERVE IN, REPORT CAPABILITIES"
    repeatable = True
    CDB = BitStruct(opcode(0x5E), Padding(3), service(2), *PR_IN)
    direction = Direction.IN
    length: int = 8
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> ReservationCapabilities:
        """Return the capabilities. Raises MalformedReply."""
        return ReservationCapabilities.parse(data)


@dataclass(frozen=True)
class PersistentReserveFullStatus(Command[tuple[Registration, ...]]):
    """PERSISTENT RESERVE IN, READ FULL STATUS (SPC-4 6.15.5)."""

    NAME = "PERSISTENT RESERVE IN, READ FULL STATUS"
    repeatable = True
    CDB = BitStruct(opcode(0x5E), Padding(3), service(3), *PR_IN)
    direction = Direction.IN
    length: int = IN_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[Registration, ...]:
        """Return the registered hosts. Raises MalformedReply."""
        body, _ = listed(data, 8, parse(HEADER, data, self.NAME).length)
        found = []
        while len(body) >= FULL.sizeof():
            fields = parsed(FULL, body)
            end = FULL.sizeof() + fields.length
            flags, how = fields.flags, fields.how
            name = body[FULL.sizeof() : end]
            found.append(
                Registration(fields.key, flags.is_holder, flags.all_ports, how.scope, how.kind, fields.port, name)
            )
            body = body[end:]
        return tuple(found)


@dataclass(frozen=True)
class PersistentReserveOut(Command[None]):
    """PERSISTENT RESERVE OUT: register, reserve, release, clear, preempt (SPC-4 6.16)."""

    NAME = "PERSISTENT RESERVE OUT"
    CDB = BitStruct(
        opcode(0x5F), Padding(3), "action" / U5, "scope" / U4, "kind" / U4, Padding(16), "length" / U32, Padding(8)
    )
    direction = Direction.OUT
    length = 24
    action: int
    """SERVICE ACTION: a constant of this module, such as `REGISTER`."""
    key: int = 0
    """RESERVATION KEY: the one with which this host is registered."""
    new_key: int = 0
    """SERVICE ACTION RESERVATION KEY: the key to register, or that of the host to preempt."""
    kind: int = 0
    """TYPE, a key of `TYPES`."""
    scope: int = 0
    persist: bool = False
    """Keep it over a loss of power (APTPL)."""
    all_ports: bool = False
    """For all ports of the device (ALL_TG_PT)."""

    @property
    def payload(self) -> bytes:
        """The parameter list."""
        layout = Struct("key" / Int64ub, "new_key" / Int64ub, Padding(4), "flags" / Int8ub, Padding(3))
        flags = (0x04 if self.all_ports else 0) | (0x01 if self.persist else 0)
        return bytes(layout.build({"key": self.key, "new_key": self.new_key, "flags": flags}))


@dataclass(frozen=True)
class Reserve6(Command[None]):
    """RESERVE(6): keep other hosts from the unit; obsolete (SPC-2 7.22)."""

    NAME = "RESERVE(6)"
    CDB = BitStruct(opcode(0x16), Padding(40))


@dataclass(frozen=True)
class Release6(Command[None]):
    """RELEASE(6): end RESERVE(6); obsolete (SPC-2 7.17)."""

    NAME = "RELEASE(6)"
    CDB = BitStruct(opcode(0x17), Padding(40))


@dataclass(frozen=True)
class Reserve10(Command[None]):
    """RESERVE(10): keep other hosts from the unit; obsolete (SPC-2 7.21)."""

    NAME = "RESERVE(10)"
    CDB = BitStruct(opcode(0x56), Padding(72))


@dataclass(frozen=True)
class Release10(Command[None]):
    """RELEASE(10): end RESERVE(10); obsolete (SPC-2 7.16)."""

    NAME = "RELEASE(10)"
    CDB = BitStruct(opcode(0x57), Padding(72))
