"""Base of SCSI commands: a command is a frozen dataclass with its CDB layout, data direction and reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from construct import BitsInteger, Const, Construct, Renamed

from scsiusb.base.packing import BitPacker
from scsiusb.transport.base import Direction

R = TypeVar("R")

SECOND = 1.0  # the unit of every timeout
DEFAULT_TIMEOUT = 30 * SECOND

U2 = BitsInteger(2)
U4 = BitsInteger(4)
U5 = BitsInteger(5)
U6 = BitsInteger(6)
U8 = BitsInteger(8)
U16 = BitsInteger(16)
U32 = BitsInteger(32)
U64 = BitsInteger(64)


def opcode(value: int) -> Renamed:
    """Return the OPERATION CODE field, the first byte of every CDB (SPC-4 4.2.5.1)."""
    return "opcode" / Const(value, U8)


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
    """

    NAME: ClassVar[str]
    """The name in the standard, for error and log messages."""
    CDB: ClassVar[Construct]
    """A BitStruct; each named field that is not a constant is an attribute of the command."""
    direction: ClassVar[Direction] = Direction.NONE
    """Of the data phase."""
    timeout: ClassVar[float] = DEFAULT_TIMEOUT
    """Seconds that the device may take to complete the command."""
    accesses_medium: ClassVar[bool] = False
    """The command must not be retried after a change of medium."""
    repeatable: ClassVar[bool] = False
    """The command is retried after a transport error, because executing it twice has the same result as once."""
    exact: ClassVar[bool] = False
    """GOOD status with fewer than `length` bytes is a malformed reply."""
    _packer: ClassVar[BitPacker]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "CDB" in cls.__dict__:
            cls._packer = BitPacker(cls.CDB)

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
