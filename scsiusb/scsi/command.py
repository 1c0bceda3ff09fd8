"""Base of SCSI commands: a command is a frozen dataclass with its CDB layout, data direction and reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from construct import BitsInteger, Const, Construct, Renamed

from scsiusb.base import arguments
from scsiusb.base.packing import BitPacker
from scsiusb.transport.base import Direction

R = TypeVar("R")

SECOND = 1.0  # the unit of every timeout
DEFAULT_TIMEOUT = 30 * SECOND
LARGEST_DATA = 0xFFFF_FFFF  # bytes; a CBW has 32 bits for them (BOT 5.1)
LONGEST_CDB = 16  # bytes; longer ones (SPC-4 4.2.6) do not fit a CBW

U2 = BitsInteger(2)
U3 = BitsInteger(3)
U4 = BitsInteger(4)
U5 = BitsInteger(5)
U6 = BitsInteger(6)
U8 = BitsInteger(8)
U16 = BitsInteger(16)
U21 = BitsInteger(21)
U24 = BitsInteger(24)
U32 = BitsInteger(32)
U48 = BitsInteger(48)
U64 = BitsInteger(64)


def opcode(value: int) -> Renamed:
    """Return the OPERATION CODE field, the first byte of every CDB (SPC-4 4.2.5.1)."""
    return "opcode" / Const(value, U8)


def service(value: int) -> Renamed:
    """Return the SERVICE ACTION field, bits 4 to 0 of the second byte, which names a command with its opcode."""
    return "service" / Const(value, U5)


class Command(Generic[R]):
    """Base of all commands; `R` is the type that executing the command returns.

    To declare another command:

        @dataclass(frozen=True)
        class ReadTemperature(Command[int]):
            NAME = "READ TEMPERATURE"
            CDB = BitStruct(opcode(0xC0), Padding(8), "sensor" / U8, Padding(24))
            direction = Direction.IN
            sensor: int = 0
            length = 2                                # bytes of data-in

            def reply(self, data: bytes) -> int:
                return int.from_bytes(data, "big")


    A class that is only a base of commands says so: `class MyBase(Command[int], abstract=True)`.
    """

    NAME: ClassVar[str]
    """The name in the standard, for error and log messages."""
    CDB: ClassVar[Construct]
    """A BitStruct; each named field that is not a constant is an attribute of the command."""
    direction: Direction = Direction.NONE
    """Of the data phase."""
    timeout: ClassVar[float] = DEFAULT_TIMEOUT
    """Seconds that the device may take to complete the command."""
    accesses_medium: ClassVar[bool] = False
    """The command must not be retried after a change of medium."""
    repeatable: ClassVar[bool] = False
    """The command is retried after a transport error, because executing it twice has the same result as once."""
    device_types: ClassVar[frozenset[int] | None] = None
    """Peripheral device types for which the operation code has this meaning; None: all that no other command claims."""
    exact: ClassVar[bool] = False
    """GOOD status with fewer than `length` bytes is a malformed reply."""
    _packer: ClassVar[BitPacker]

    def __init_subclass__(cls, *, abstract: bool = False, **keywords: Any) -> None:
        """Check the declaration. Raises TypeError if a part of it is missing; `abstract`: of a base of commands."""
        super().__init_subclass__(**keywords)
        if "CDB" in cls.__dict__:
            try:
                cls._packer = BitPacker(cls.CDB)
            except TypeError as error:
                raise TypeError(f"{cls.__name__}.CDB: {error}") from error
        if not abstract:
            cls._check_declaration()

    @classmethod
    def _check_declaration(cls) -> None:
        if not hasattr(cls, "CDB") and cls.cdb is Command.cdb:
            raise _missing(cls, "CDB", 'such as BitStruct(opcode(0xC0), Padding(40)); or a method "cdb"')
        if not hasattr(cls, "NAME") and cls.__str__ is Command.__str__:
            raise _missing(cls, "NAME", "the text for error and log messages")
        if cls.direction is Direction.IN and cls.reply is Command.reply:
            raise _missing(cls, "reply", "a method that turns the bytes received into what `execute` returns")

    @property
    def length(self) -> int:
        """Bytes of the data phase. A subclass whose length is constant sets a class attribute."""
        return 0

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        """Data to send, `length` bytes, if `direction` is OUT."""
        return b""

    def cdb(self) -> bytes:
        """Return the CDB. Raises ValueError if a value does not fit its field."""
        return self._packer.pack(self)

    @classmethod
    def positional(cls, *names: str) -> Callable[..., bytes]:
        """Return a function that packs the CDB from the values of these fields; see `BitPacker.positional`."""
        return cls._packer.positional(*names)

    def reply(self, data: bytes) -> R:
        """Return the typed reply for `data`, the bytes received. Raises MalformedReply."""
        return None  # type: ignore[return-value]

    def __str__(self) -> str:
        return self.NAME


def _missing(cls: type, name: str, example: str) -> TypeError:
    return TypeError(f"the command {cls.__name__} has no {name}: {example} (a base of commands needs abstract=True)")


class RawCommand(Command[bytes]):
    """A command given as the bytes of its CDB; executing it returns the bytes received.

    `length` is the number of bytes to receive, `data` is what to send; without both, there is no data phase. It is not
    sent again after a failed exchange or a change of medium. Raises TypeError; ValueError for a CDB that is not of 1 to
    16 bytes, for more data than a command can move, and if both `length` and `data` are given.
    """

    accesses_medium = True  # not known, so assume it

    def __init__(
        self,
        cdb: bytes | bytearray | memoryview,
        *,
        length: int = 0,
        data: bytes | bytearray | memoryview | None = None,
    ) -> None:
        with arguments.buffer("cdb", cdb) as view:
            self._cdb = bytes(view)
        if not 1 <= len(self._cdb) <= LONGEST_CDB:
            raise ValueError(f"a CDB of {len(self._cdb)} bytes; it has 1 to {LONGEST_CDB}")
        self._length = arguments.integer("length", length)
        if self._length < 0 or (self._length and data is not None):
            raise ValueError(f"length={length}: give either a number of bytes to receive, or data to send")
        self._data = b""
        if data is not None:
            with arguments.buffer("data", data) as view:
                self._data = bytes(view)
        if self.length > LARGEST_DATA:
            raise ValueError(f"{self.length} bytes do not fit one command; it moves at most {LARGEST_DATA}")
        self.direction = Direction.OUT if self._data else Direction.IN if self._length else Direction.NONE

    @property
    def length(self) -> int:
        """Bytes of the data phase."""
        return self._length or len(self._data)

    @property
    def payload(self) -> bytes:
        """See `Command.payload`."""
        return self._data

    def cdb(self) -> bytes:
        """Return the CDB as it was given."""
        return self._cdb

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received, fewer than `length` if the device sent fewer."""
        return data

    def __str__(self) -> str:
        return f"command {self._cdb[0]:02X}h"

    def __repr__(self) -> str:
        sent = f", data={len(self._data)} bytes" if self._data else ""
        return f"<RawCommand {self._cdb.hex(' ')}, length={self._length}{sent}>"
