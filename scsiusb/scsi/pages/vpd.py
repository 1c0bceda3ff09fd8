"""Vital product data pages (SPC-4 7.8, SBC-3 6.5)."""

from __future__ import annotations

from typing import ClassVar, Final

from construct import (
    BitsInteger,
    BitStruct,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Int32ub,
    Padding,
    Prefixed,
    Struct,
)

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.reply import Reply, parse, text

HEADER: Final = Struct(Padding(1), "page" / Int8ub, "length" / Int16ub)  # SPC-4 table 589
HEADER_LENGTH: Final = 4

DESIGNATORS: Final = GreedyRange(  # SPC-4 table 604
    Struct(
        "a" / BitStruct("protocol" / BitsInteger(4), "code_set" / BitsInteger(4)),
        "b" / BitStruct(Padding(2), "association" / BitsInteger(2), "kind" / BitsInteger(4)),
        Padding(1),
        "value" / Prefixed(Int8ub, GreedyBytes),
    )
)
BINARY: Final = 1  # code set
DESIGNATOR_KINDS: Final = {
    0: "vendor specific",
    1: "T10 vendor ID",
    2: "EUI-64",
    3: "NAA",
    4: "relative target port",
    5: "target port group",
    6: "logical unit group",
    7: "MD5",
    8: "SCSI name",
    9: "protocol specific port",
}


@dataclass(frozen=True)
class Designator:
    """One name of the logical unit, its port or its device (SPC-4 7.8.5.1)."""

    association: int
    kind: int
    value: bytes
    text: str
    """The name in words: the text itself, or hex digits where the code set is binary."""

    @property
    def kind_text(self) -> str:
        return DESIGNATOR_KINDS.get(self.kind, f"type {self.kind:X}h")


@dataclass(frozen=True)
class VpdPage:
    """A page without a type of its own here: its bytes."""

    page: int
    body: bytes


@dataclass(frozen=True)
class SupportedPages:
    """Page 00h (SPC-4 7.8.16)."""

    PAGE: ClassVar[int] = 0x00
    pages: tuple[int, ...]

    @classmethod
    def parse(cls, body: bytes) -> SupportedPages:
        return cls(tuple(body))


@dataclass(frozen=True)
class UnitSerialNumber:
    """Page 80h (SPC-4 7.8.18)."""

    PAGE: ClassVar[int] = 0x80
    serial: str

    @classmethod
    def parse(cls, body: bytes) -> UnitSerialNumber:
        return cls(text(body))


@dataclass(frozen=True)
class DeviceIdentification:
    """Page 83h (SPC-4 7.8.5)."""

    PAGE: ClassVar[int] = 0x83
    designators: tuple[Designator, ...]

    @classmethod
    def parse(cls, body: bytes) -> DeviceIdentification:
        found = parse(DESIGNATORS, body, "VPD page 83h")
        return cls(
            tuple(
                Designator(
                    association=entry.b.association,
                    kind=entry.b.kind,
                    value=entry.value,
                    text=entry.value.hex() if entry.a.code_set == BINARY else text(entry.value),
                )
                for entry in found
            )
        )


@dataclass(frozen=True)
class BlockLimits(Reply):
    """Page B0h (SBC-3 6.5.3). Lengths in blocks; 0: the device does not say."""

    PAGE: ClassVar[int] = 0xB0
    LAYOUT: ClassVar[Struct] = Struct(
        Padding(2),
        "optimal_granularity" / Int16ub,
        "max_transfer" / Int32ub,
        "optimal_transfer" / Int32ub,
    )
    optimal_granularity: int
    max_transfer: int
    optimal_transfer: int


AnyPage = SupportedPages | UnitSerialNumber | DeviceIdentification | BlockLimits | VpdPage

PAGES: Final[tuple[type[SupportedPages | UnitSerialNumber | DeviceIdentification | BlockLimits], ...]] = (
    SupportedPages,
    UnitSerialNumber,
    DeviceIdentification,
    BlockLimits,
)


def page_length(data: bytes, asked: int) -> int:
    """Bytes of the whole page, its header included."""
    length: int = parse(HEADER, data, f"VPD page {asked:02X}h").length
    return length + HEADER_LENGTH


def parse_page(data: bytes, asked: int) -> AnyPage:
    """The typed page. Raises MalformedReply for another page than `asked` or a length that is not there."""
    header = parse(HEADER, data, f"VPD page {asked:02X}h")
    if header.page != asked:
        raise MalformedReply(f"VPD page {asked:02X}h: the device answered page {header.page:02X}h")
    if len(data) < HEADER_LENGTH + header.length:
        raise MalformedReply(f"VPD page {asked:02X}h: {len(data)} bytes came of {HEADER_LENGTH + header.length}")
    body = data[HEADER_LENGTH:][: header.length]
    for kind in PAGES:
        if asked == kind.PAGE:
            return kind.parse(body)
    return VpdPage(asked, body)
