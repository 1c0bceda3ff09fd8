"""Vital product data pages (SPC-4 7.8, SBC-3 6.5)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from construct import Int8ub, Int16ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.pages.fields import values_of
from scsiusb.scsi.pages.vpd_designators import Designator, parse_designators
from scsiusb.scsi.pages.vpd_fields import find_layout
from scsiusb.scsi.reply import parse, text

HEADER: Final = Struct(Padding(1), "page" / Int8ub, "length" / Int16ub)  # SPC-4 table 589
HEADER_LENGTH: Final = 4  # bytes
PROVISIONING_GROUP_AT: Final = 4  # in the bytes after the header of page B2h
READS_ZEROS: Final = 1  # of LBPRZ, whose other bits SBC-4 has added


@dataclass(frozen=True)
class VpdPage:
    """A page that this module does not decode; `body` is the bytes after its header."""

    page: int
    body: bytes


@dataclass(frozen=True)
class FieldsPage:
    """A page whose fields have fixed places; those that the page ends before are left out."""

    page: int
    name: str
    fields: dict[str, int | str]
    """By name, in the order of the page."""
    body: bytes
    """The bytes after the page's header."""
    entries: tuple[dict[str, int | str], ...] = ()
    """Of the list at the end of the page, where there is one: the fields of each."""
    problems: tuple[str, ...] = ()
    """An entry that the page ends in."""

    @classmethod
    def parse(cls, page: int, body: bytes) -> FieldsPage | None:
        """Parse the bytes after the page's header; None for a page whose fields are not known."""
        layout = find_layout(page)
        if layout is None:
            return None
        whole = bytes(HEADER_LENGTH) + body
        found: dict[str, int | str] = {}
        for name, at, length in layout.texts:
            if len(whole) >= at + length:
                found[name.lower()] = text(whole[at : at + length])
        found |= values_of(layout.fields, whole)
        entries, problems = ((), ()) if layout.entries is None else layout.entries.parse(whole)
        return cls(page, layout.name, found, body, entries, problems)


@dataclass(frozen=True)
class SupportedPages:
    """Page 00h, Supported VPD Pages: the page codes in the order sent (SPC-4 7.8.16)."""

    PAGE: ClassVar[int] = 0x00
    pages: tuple[int, ...]

    @classmethod
    def parse(cls, body: bytes) -> SupportedPages:
        """Parse the bytes after the page's header."""
        return cls(tuple(body))


@dataclass(frozen=True)
class UnitSerialNumber:
    """Page 80h, Unit Serial Number, without padding (SPC-4 7.8.18)."""

    PAGE: ClassVar[int] = 0x80
    serial: str

    @classmethod
    def parse(cls, body: bytes) -> UnitSerialNumber:
        """Parse the bytes after the page's header."""
        return cls(text(body))


@dataclass(frozen=True)
class DeviceIdentification:
    """Page 83h, Device Identification: the designators in the order sent (SPC-4 7.8.6)."""

    PAGE: ClassVar[int] = 0x83
    designators: tuple[Designator, ...]
    problems: tuple[str, ...] = ()
    """A designator that the page ends in, which is left out."""
    body: bytes = field(default=b"", compare=False)
    """The bytes after the page's header."""

    @classmethod
    def parse(cls, body: bytes) -> DeviceIdentification:
        """Parse the bytes after the page's header."""
        return cls(*parse_designators(body), body)


@dataclass(frozen=True)
class BlockLimits:
    """Page B0h, Block Limits (SBC-3 6.5.3). Lengths are in blocks; 0: the device does not report one."""

    PAGE: ClassVar[int] = 0xB0
    optimal_granularity: int
    """Transfers of a multiple of so many blocks are fast."""
    max_transfer: int
    """Largest transfer that a command may ask for."""
    optimal_transfer: int
    """Larger transfers may be slower."""
    max_unmap_blocks: int = 0
    """Most blocks that an UNMAP may name; FFFFFFFFh: no limit."""
    max_unmap_ranges: int = 0
    """Most ranges that an UNMAP may have."""
    fields: dict[str, int] = field(default_factory=dict, compare=False)
    """All fields by the standard's names; those that the page ends before are left out."""
    body: bytes = field(default=b"", compare=False)
    """The bytes after the page's header."""

    @classmethod
    def parse(cls, data: bytes) -> BlockLimits:
        """Parse the bytes after the page's header, which end after the third length before SBC-3."""
        found = _known_fields(cls.PAGE, data, "optimal_transfer_length")
        return cls(
            found["optimal_transfer_length_granularity"],
            found["maximum_transfer_length"],
            found["optimal_transfer_length"],
            found.get("maximum_unmap_lba_count", 0),
            found.get("maximum_unmap_block_descriptor_count", 0),
            found,
            data,
        )


@dataclass(frozen=True)
class LogicalBlockProvisioning:
    """Page B2h, Logical Block Provisioning (SBC-3 6.5.4, SBC-4)."""

    PAGE: ClassVar[int] = 0xB2
    unmap: bool
    """Whether the unit supports UNMAP (LBPU)."""
    write_same_16: bool
    """Whether WRITE SAME(16) can unmap (LBPWS)."""
    write_same_10: bool
    """Whether WRITE SAME(10) can unmap (LBPWS10)."""
    zeros: bool
    """Whether blocks that are not mapped read as zeros (LBPRZ)."""
    kind: int
    """Provisioning type: 1 resource, 2 thin, 0 not reported."""
    fields: dict[str, int] = field(default_factory=dict, compare=False)
    """All fields by the standard's names; those that the page ends before are left out."""
    provisioning_group: tuple[Designator, ...] = ()
    """Whose blocks the unit shares, if it says so (DP)."""
    problems: tuple[str, ...] = ()
    """What is wrong with the descriptor of the provisioning group."""
    body: bytes = field(default=b"", compare=False)
    """The bytes after the page's header."""

    @classmethod
    def parse(cls, data: bytes) -> LogicalBlockProvisioning:
        """Parse the bytes after the page's header."""
        found = _known_fields(cls.PAGE, data, "provisioning_type")
        group, problems = parse_designators(data[PROVISIONING_GROUP_AT:]) if found["dp"] else ((), ())
        return cls(
            bool(found["lbpu"]),
            bool(found["lbpws"]),
            bool(found["lbpws10"]),
            bool(found["lbprz"] & READS_ZEROS),
            found["provisioning_type"],
            found,
            group,
            problems,
            data,
        )


def _known_fields(page: int, body: bytes, least: str) -> dict[str, int]:
    """Return the fields of a page. Raise MalformedReply if it ends before the one of that name."""
    layout = find_layout(page)
    found = {} if layout is None else values_of(layout.fields, bytes(HEADER_LENGTH) + body)
    if least not in found:
        raise MalformedReply(f"VPD page {page:02X}h: {len(body)} bytes after the header are too few")
    return found


KnownPage = SupportedPages | UnitSerialNumber | DeviceIdentification | BlockLimits | LogicalBlockProvisioning
AnyPage = KnownPage | FieldsPage | VpdPage

PAGES: Final[tuple[type[KnownPage], ...]] = (
    SupportedPages,
    UnitSerialNumber,
    DeviceIdentification,
    BlockLimits,
    LogicalBlockProvisioning,
)


def page_length(data: bytes, asked: int) -> int:
    """Return the length of the whole page in bytes, header included. Raises MalformedReply."""
    length: int = parse(HEADER, data, f"VPD page {asked:02X}h").length
    return length + HEADER_LENGTH


def parse_page(data: bytes, asked: int) -> AnyPage:
    """Return the typed page.

    Raises MalformedReply if the device sent another page than `asked`, or fewer bytes than the page's header says.
    """
    header = parse(HEADER, data, f"VPD page {asked:02X}h")
    if header.page != asked:
        raise MalformedReply(f"VPD page {asked:02X}h: the device sent page {header.page:02X}h")
    if len(data) < HEADER_LENGTH + header.length:
        raise MalformedReply(f"VPD page {asked:02X}h: received {len(data)} bytes of {HEADER_LENGTH + header.length}")
    body = data[HEADER_LENGTH:][: header.length]
    for kind in PAGES:
        if asked == kind.PAGE:
            return kind.parse(body)
    return FieldsPage.parse(asked, body) or VpdPage(asked, body)
