"""Designation descriptors: what names a logical unit, its port or its device (SPC-4 7.8.6)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import field
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.base.text import printable
from scsiusb.scsi.pages.fields import Field, number, values_of
from scsiusb.scsi.reply import text

HEADER_LENGTH: Final = 4  # bytes of a designation descriptor before its designator
BINARY, UTF_8 = 1, 3  # code sets
EUI_64, NAA, UUID = 0x2, 0x3, 0xA  # designator types
WITH_PROTOCOL: Final = (1, 2)  # associations: target port, target device
DESIGNATOR_KINDS: Final = {  # SPC-4 7.8.6.1; UUID: SPC-5
    0: "vendor specific",
    1: "T10 vendor ID",
    EUI_64: "EUI-64",
    NAA: "NAA",
    4: "relative target port",
    5: "target port group",
    6: "logical unit group",
    7: "MD5",
    8: "SCSI name",
    9: "protocol specific port",
    UUID: "UUID",
}
PROTOCOLS: Final = {  # SPC-4 7.6.1
    0x0: "Fibre Channel",
    0x1: "parallel SCSI",
    0x2: "SSA",
    0x3: "IEEE 1394",
    0x4: "RDMA",
    0x5: "iSCSI",
    0x6: "SAS",
    0x7: "ADT",
    0x8: "ATA",
    0x9: "USB Attached SCSI",
    0xA: "SCSI over PCIe",
    0xB: "PCIe",
    0xF: "none",
}
COMPANY: Final = "IEEE's number of the company"
NAA_FIELDS: Final[Mapping[int, tuple[Field, ...]]] = {  # by the NAA field (SPC-4 7.8.6.6)
    0x2: (
        Field("NAA", 0, 7, 4, "IEEE Extended"),
        Field("VENDOR_SPECIFIC_IDENTIFIER_A", 0, 3, 12, "the company's"),
        number("IEEE_COMPANY_ID", 2, 3, COMPANY),
        number("VENDOR_SPECIFIC_IDENTIFIER_B", 5, 3, "the company's"),
    ),
    0x3: (Field("NAA", 0, 7, 4, "locally assigned"), Field("LOCALLY_ADMINISTERED_VALUE", 0, 3, 60, "unique in a site")),
    0x5: (
        Field("NAA", 0, 7, 4, "IEEE Registered"),
        Field("IEEE_COMPANY_ID", 0, 3, 24, COMPANY),
        Field("VENDOR_SPECIFIC_IDENTIFIER", 3, 3, 36, "the company's"),
    ),
    0x6: (
        Field("NAA", 0, 7, 4, "IEEE Registered Extended"),
        Field("IEEE_COMPANY_ID", 0, 3, 24, COMPANY),
        Field("VENDOR_SPECIFIC_IDENTIFIER", 3, 3, 36, "the company's"),
        number("VENDOR_SPECIFIC_IDENTIFIER_EXTENSION", 8, 8, "the company's"),
    ),
}
EUI_64_FIELDS: Final[Mapping[int, tuple[Field, ...]]] = {  # by the designator's length (SPC-4 7.8.6.5)
    8: (
        number("IEEE_COMPANY_ID", 0, 3, COMPANY),
        number("VENDOR_SPECIFIC_EXTENSION_IDENTIFIER", 3, 5, "the company's"),
    ),
    12: (
        number("IEEE_COMPANY_ID", 0, 3, COMPANY),
        number("VENDOR_SPECIFIC_EXTENSION_IDENTIFIER", 3, 5, "the company's"),
        number("DIRECTORY_ID", 8, 4, "of IEEE 1212"),
    ),
    16: (
        number("IDENTIFIER_EXTENSION", 0, 8, "the company's"),
        number("IEEE_COMPANY_ID", 8, 3, COMPANY),
        number("VENDOR_SPECIFIC_EXTENSION_IDENTIFIER", 11, 5, "the company's"),
    ),
}
NUMBERS: Final[Mapping[int, tuple[Field, ...]]] = {  # by the designator type (SPC-4 7.8.6.7 to 7.8.6.9)
    4: (number("RELATIVE_TARGET_PORT_IDENTIFIER", 2, 2, "number of the port, from 1 on"),),
    5: (number("TARGET_PORT_GROUP", 2, 2, "number of the group"),),
    6: (number("LOGICAL_UNIT_GROUP", 2, 2, "number of the group"),),
}
UUID_AT, UUID_LENGTH = 2, 16  # in a designator of that type (SPC-5)
UUID_FIELDS: Final = (Field("UUID_TYPE", 0, 7, 4, "1: UUID as in RFC 4122"),)


@dataclass(frozen=True)
class Designator:
    """One identifier of the logical unit, of its port or of its device (SPC-4 7.8.6.1)."""

    association: int
    """Which object the identifier belongs to: 0 logical unit, 1 target port, 2 target device."""
    kind: int
    """Designator type, a key of `DESIGNATOR_KINDS`."""
    value: bytes
    text: str
    """`value` as text, or as hex digits if its code set is binary."""
    code_set: int = 0
    """1 binary, 2 ASCII, 3 UTF-8."""
    protocol: int | None = None
    """PROTOCOL IDENTIFIER, a key of `PROTOCOLS`; None where it is not valid (PIV)."""
    fields: dict[str, int | str] = field(default_factory=dict)
    """The parts of a binary identifier by the standard's names: of types 2 to 6 and Ah."""

    @property
    def kind_text(self) -> str:
        """Name of the designator type."""
        return DESIGNATOR_KINDS.get(self.kind, f"type {self.kind:X}h")

    @property
    def protocol_text(self) -> str | None:
        """Name of the protocol; None where there is none."""
        return None if self.protocol is None else PROTOCOLS.get(self.protocol, f"protocol {self.protocol:X}h")


def _designator(data: bytes) -> Designator:
    """Return the designator of a whole descriptor, of at least 4 bytes."""
    code_set, association, kind, value = data[0] & 0xF, data[1] >> 4 & 0x3, data[1] & 0xF, data[HEADER_LENGTH:]
    has_protocol = data[1] & 0x80 and association in WITH_PROTOCOL  # PIV
    protocol = data[0] >> 4 if has_protocol else None
    return Designator(association, kind, value, _text(code_set, value), code_set, protocol, _parts(kind, value))


def _text(code_set: int, value: bytes) -> str:
    if code_set == UTF_8:
        return printable(value.decode("utf-8", "replace").split("\0")[0].strip())
    return value.hex() if code_set == BINARY else text(value)


def _parts(kind: int, value: bytes) -> dict[str, int | str]:
    """Return the parts of an identifier; those that it ends before are left out."""
    if kind == NAA:
        layout = NAA_FIELDS.get(value[0] >> 4, ()) if value else ()
    elif kind == EUI_64:
        layout = EUI_64_FIELDS.get(len(value), ())
    else:
        layout = UUID_FIELDS if kind == UUID else NUMBERS.get(kind, ())
    found: dict[str, int | str] = {**values_of(layout, value)}
    name = value[UUID_AT : UUID_AT + UUID_LENGTH]
    if kind == UUID and len(name) == UUID_LENGTH:
        found["uuid"] = str(uuid.UUID(bytes=name))
    return found


def parse_designators(data: bytes) -> tuple[tuple[Designator, ...], tuple[str, ...]]:
    """Return the whole designators of a list, and what is wrong with it: the last one is cut."""
    found: list[Designator] = []
    at = 0
    while at < len(data):
        descriptor = data[at:]
        size = HEADER_LENGTH + (descriptor[3] if len(descriptor) >= HEADER_LENGTH else 0)
        if len(descriptor) < size:
            return tuple(found), (f"designator {len(found)} is {_cut(descriptor, size)}",)
        found.append(_designator(descriptor[:size]))
        at += size
    return tuple(found), ()


def _cut(descriptor: bytes, size: int) -> str:
    here = f"after {len(descriptor)} bytes: {descriptor.hex(' ')}"
    return f"cut in its header {here}" if len(descriptor) < HEADER_LENGTH else f"cut: it ends {here}, of {size}"
