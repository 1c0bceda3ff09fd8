"""How a command is declared: a frozen dataclass with its CDB's layout, its direction, its data and its reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from construct import BitsInteger, Const, Construct, Renamed

from scsiusb.base.packing import BitPacker
from scsiusb.transport.base import Direction

R = TypeVar("R")

SECOND = 1.0
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
    """The OPERATION CODE field that every CDB begins with (SPC-4 4.2.5.1)."""
    return "opcode" / Const(value, U8)


class Command(Generic[R]):
    """The base of all commands; `R` is what executing one returns.

    A command of your own:

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
    CDB: ClassVar[Construct]
    """A BitStruct; each named field that is no constant is an attribute of the command."""
    direction: ClassVar[Direction] = Direction.NONE
    timeout: ClassVar[float] = DEFAULT_TIMEOUT
    """Seconds until the device must have ended the command."""
    accesses_medium: ClassVar[bool] = False
    """Must not be repeated by itself when the medium may have become another one."""
    repeatable: ClassVar[bool] = False
    """Sent again where the transport failed: carried out twice, it does and says the same as once."""
    exact: ClassVar[bool] = False
    """A good status with fewer bytes than `length` is malformed."""
    _packer: ClassVar[BitPacker]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "CDB" in cls.__dict__:
            cls._packer = BitPacker(cls.CDB)

    @property
    def length(self) -> int:
        """Bytes of the data phase; a plain class attribute where it is constant."""
        return 0

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        """The data-out, `length` bytes."""
        return b""

    def cdb(self) -> bytes:
        """Raises ValueError where a value does not fit its field."""
        return self._packer.pack(self)

    @classmethod
    def positional(cls, *names: str) -> Callable[..., bytes]:
        """Packs the CDB of a command of which only these fields are not 0; see `BitPacker.positional`."""
        return cls._packer.positional(*names)

    def reply(self, data: bytes) -> R:
        """What the bytes that came mean. Raises MalformedReply."""
        return None  # type: ignore[return-value]

    def __str__(self) -> str:
        return self.NAME
