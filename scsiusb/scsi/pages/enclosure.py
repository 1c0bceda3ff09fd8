"""Diagnostic pages of an enclosure: what it has, and how each part is (SES-2 6.1)."""

from __future__ import annotations

from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.reply import text

SUPPORTED, CONFIGURATION, STATUS = 0x00, 0x01, 0x02
HEADER_LENGTH: Final = 4
GENERATION_END: Final = 8
ENCLOSURE_LENGTH: Final = 40  # bytes of a descriptor without the vendor's own
TYPE_HEADER: Final = 4
ELEMENT: Final = 4
STATUSES: Final = (
    "unsupported",
    "OK",
    "critical",
    "not critical",
    "unrecoverable",
    "not installed",
    "unknown",
    "not available",
    "no access allowed",
)
TYPES: Final = {  # SES-2 table 71
    0x00: "unspecified",
    0x01: "device slot",
    0x02: "power supply",
    0x03: "cooling",
    0x04: "temperature sensor",
    0x05: "door",
    0x06: "audible alarm",
    0x07: "enclosure services controller electronics",
    0x08: "SCC controller electronics",
    0x09: "nonvolatile cache",
    0x0A: "invalid operation reason",
    0x0B: "uninterruptible power supply",
    0x0C: "display",
    0x0D: "key pad entry",
    0x0E: "enclosure",
    0x0F: "SCSI port/transceiver",
    0x10: "language",
    0x11: "communication port",
    0x12: "voltage sensor",
    0x13: "current sensor",
    0x14: "SCSI target port",
    0x15: "SCSI initiator port",
    0x16: "simple subenclosure",
    0x17: "array device slot",
    0x18: "SAS expander",
    0x19: "SAS connector",
}


@dataclass(frozen=True)
class Enclosure:
    """An enclosure, or a part of one that has its own services."""

    number: int
    identifier: bytes
    vendor: str
    product: str
    revision: str
    types: int
    """How many types of elements it has."""


@dataclass(frozen=True)
class ElementType:
    """Elements of one type."""

    kind: int
    """A key of `TYPES`."""
    elements: int
    """At most."""
    enclosure: int
    text: str

    @property
    def name(self) -> str:
        """The type in words."""
        origin = "vendor specific" if self.kind >= 0x80 else "type"
        return TYPES.get(self.kind, f"{origin} {self.kind:02X}h")


@dataclass(frozen=True)
class Configuration:
    """Page 01h: the enclosures and their types of elements."""

    generation: int
    """Changes whenever the configuration does; those of two pages must be equal to belong together."""
    enclosures: tuple[Enclosure, ...]
    types: tuple[ElementType, ...]

    @classmethod
    def parse(cls, data: bytes) -> Configuration:
        """Parse the page with its header. Raises MalformedReply where it ends before what it claims to have."""
        body = _page(data, CONFIGURATION, GENERATION_END)
        at, enclosures = GENERATION_END, list[Enclosure]()
        for _ in range(data[1] + 1):
            part = body[at : at + 4 + (body[at + 3] if at + 3 < len(body) else 0)]
            if len(part) < ENCLOSURE_LENGTH:
                raise MalformedReply(f"diagnostic page 01h: enclosure {len(enclosures)} ends too early")
            names = text(part[12:20]), text(part[20:36]), text(part[36:40])
            enclosures.append(Enclosure(part[1], part[4:12], *names, part[2]))
            at += len(part)
        count = sum(each.types for each in enclosures)
        headers = [body[at + TYPE_HEADER * number :][:TYPE_HEADER] for number in range(count)]
        if any(len(each) < TYPE_HEADER for each in headers):
            raise MalformedReply(f"diagnostic page 01h: it has not the {count} types that it claims")
        at += TYPE_HEADER * count
        types = []
        for kind, elements, enclosure, length in headers:
            types.append(ElementType(kind, elements, enclosure, text(body[at : at + length])))
            at += length
        return cls(int.from_bytes(body[4:8], "big"), tuple(enclosures), tuple(types))


@dataclass(frozen=True)
class Element:
    """One element, or, of `number` None, what all of its type are together."""

    kind: ElementType
    number: int | None
    status: int
    """An index of `STATUSES`."""
    raw: bytes
    """The four bytes; those after the first depend on the type."""

    @property
    def status_text(self) -> str:
        """The status in words."""
        return STATUSES[self.status] if self.status < len(STATUSES) else f"status {self.status:X}h"


@dataclass(frozen=True)
class EnclosureStatus:
    """Page 02h: how the enclosure is."""

    generation: int
    unrecoverable: bool
    critical: bool
    not_critical: bool
    information: bool
    """Something else has changed."""
    elements: tuple[Element, ...]

    @classmethod
    def parse(cls, data: bytes, configuration: Configuration) -> EnclosureStatus:
        """Parse the page with its header, by the configuration. Raises MalformedReply.

        Elements that the page ends before are left out; of another generation, there are none.
        """
        body = _page(data, STATUS, GENERATION_END)
        generation = int.from_bytes(body[4:8], "big")
        flags, elements, at = data[1], list[Element](), GENERATION_END
        for kind in configuration.types if generation == configuration.generation else ():
            for number in (None, *range(kind.elements)):
                raw = body[at : at + ELEMENT]
                if len(raw) == ELEMENT:
                    elements.append(Element(kind, number, raw[0] & 0xF, raw))
                at += ELEMENT
        return cls(generation, bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8), tuple(elements))


def supported_pages(data: bytes) -> tuple[int, ...]:
    """Return the page codes of page 00h. Raises MalformedReply."""
    return tuple(_page(data, SUPPORTED, HEADER_LENGTH)[HEADER_LENGTH:])


def _page(data: bytes, asked: int, least: int) -> bytes:
    """Return the bytes that the page's header says it has, its header too, as far as they came."""
    if len(data) < least:
        raise MalformedReply(f"diagnostic page {asked:02X}h: received {len(data)} bytes")
    if data[0] != asked:
        raise MalformedReply(f"diagnostic page {asked:02X}h: the device sent page {data[0]:02X}h")
    return data[: HEADER_LENGTH + int.from_bytes(data[2:4], "big")]
