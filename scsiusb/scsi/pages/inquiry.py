"""Reply to INQUIRY: type, vendor, product and revision of a logical unit (SPC-4 6.6.2)."""

from __future__ import annotations

from typing import Final

from construct import BitsInteger, BitStruct, Bytes, Flag, Int8ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.reply import parse, text

STANDARD_LENGTH: Final = 36  # bytes
ADDITIONAL_LENGTH: Final = 4  # offset of the ADDITIONAL LENGTH field, which counts the bytes after it
VERSION_DESCRIPTORS: Final = slice(58, 74)  # bytes
LEAST_LENGTH: Final = 5  # bytes up to ADDITIONAL LENGTH; some devices send no more
DISK: Final = 0x00
CD_ROM: Final = 0x05
OPTICAL: Final = (0x04, CD_ROM)  # write-once, CD/DVD: blocks of 2048 bytes
NO_UNIT: Final = 0x03  # peripheral qualifier: the target has no logical unit at this LUN

PERIPHERAL_DEVICE_TYPES: Final = {  # SPC-4 table 138
    0x00: "disk",
    0x01: "tape",
    0x03: "processor",
    0x04: "write-once",
    0x05: "CD/DVD",
    0x07: "optical memory",
    0x08: "medium changer",
    0x0C: "storage array controller",
    0x0D: "enclosure services",
    0x0E: "simplified disk",
    0x11: "object storage",
    0x14: "host-managed zoned disk",
    0x1E: "well-known logical unit",
    0x1F: "none",
}

FLAGS: Final = BitStruct(  # bytes 5 to 7
    "sccs" / Flag,
    "acc" / Flag,
    "tpgs" / BitsInteger(2),
    "third_party_copy" / Flag,  # 3PC
    Padding(2),
    "protect" / Flag,
    Padding(1),
    "encserv" / Flag,
    Padding(1),
    "multip" / Flag,
    Padding(3),
    "addr16" / Flag,
    Padding(6),
    "cmdque" / Flag,
    Padding(1),
)
LAYOUT: Final = Struct(  # SPC-4 6.6.2
    "peripheral" / BitStruct("qualifier" / BitsInteger(3), "device_type" / BitsInteger(5)),
    "medium" / BitStruct("removable" / Flag, "lu_cong" / Flag, "hot_pluggable" / BitsInteger(2), Padding(4)),
    "version" / Int8ub,
    "format" / BitStruct(Padding(2), "normaca" / Flag, "hisup" / Flag, "response_data_format" / BitsInteger(4)),
    "additional_length" / Int8ub,
    "flags" / FLAGS,
    "vendor" / Bytes(8),
    "product" / Bytes(16),
    "revision" / Bytes(4),
)


@dataclass(frozen=True)
class InquiryData:
    """Standard INQUIRY data. Texts have no padding; a text that the device did not send is empty."""

    peripheral_qualifier: int
    """0: a unit is present at this LUN; 3: none can be."""
    peripheral_device_type: int
    """A key of `PERIPHERAL_DEVICE_TYPES`: 0 disk, 5 CD/DVD, ..."""
    removable: bool
    """The medium can be removed (RMB)."""
    version: int
    """Version of the SCSI standard, as the VERSION field codes it."""
    response_data_format: int
    """2 in SPC-2 and later."""
    vendor: str
    product: str
    revision: str
    additional_length: int = STANDARD_LENGTH - LEAST_LENGTH
    """Bytes after this field that the device has."""
    lu_cong: bool = False
    """The unit is a part of a conglomerate."""
    hot_pluggable: int = 0
    """1: the device is made to be plugged in while powered, 2: it is not, 0: not reported (SPC-5)."""
    normaca: bool = False
    """NACA is supported."""
    hisup: bool = False
    """LUNs are hierarchical."""
    sccs: bool = False
    """The target has an embedded storage array controller."""
    acc: bool = False
    """The unit is where access controls are managed; obsolete."""
    tpgs: int = 0
    """Asymmetric access of target port groups: 1 implicit, 2 explicit, 3 both, 0 none."""
    third_party_copy: bool = False
    """Third-party copies are supported (3PC)."""
    protect: bool = False
    """Protection information is supported."""
    encserv: bool = False
    """The device has enclosure services."""
    multip: bool = False
    """The target has several ports."""
    addr16: bool = False
    """Addresses of 16 bits, of parallel SCSI."""
    cmdque: bool = False
    """Commands can be queued."""
    version_descriptors: tuple[int, ...] = ()
    """The standards that the device claims, as T10 numbers them; only in data of more than 58 bytes."""

    @classmethod
    def parse(cls, data: bytes) -> InquiryData:
        """Parse the reply; missing bytes at the end count as 0. Raises MalformedReply below 5 bytes."""
        if len(data) < LEAST_LENGTH:
            raise MalformedReply(f"INQUIRY: received only {len(data)} bytes")
        fields = parse(LAYOUT, data.ljust(STANDARD_LENGTH, b"\0"), "INQUIRY")
        return cls(
            peripheral_qualifier=fields.peripheral.qualifier,
            peripheral_device_type=fields.peripheral.device_type,
            removable=fields.medium.removable,
            version=fields.version,
            response_data_format=fields.format.response_data_format,
            vendor=text(fields.vendor),
            product=text(fields.product),
            revision=text(fields.revision),
            additional_length=fields.additional_length,
            lu_cong=fields.medium.lu_cong,
            hot_pluggable=fields.medium.hot_pluggable,
            normaca=fields.format.normaca,
            hisup=fields.format.hisup,
            **{name: value for name, value in fields.flags.items() if not name.startswith("_")},
            version_descriptors=_version_descriptors(data[: fields.additional_length + LEAST_LENGTH]),
        )

    @property
    def type_text(self) -> str:
        """Name of the peripheral device type."""
        return device_type_text(self.peripheral_device_type)

    @property
    def is_present(self) -> bool:
        """Whether the target can have a logical unit at this LUN."""
        return self.peripheral_qualifier != NO_UNIT


def _version_descriptors(data: bytes) -> tuple[int, ...]:
    """Return those that are there and used."""
    part = data[VERSION_DESCRIPTORS]
    found = (int.from_bytes(part[at : at + 2], "big") for at in range(0, len(part) - 1, 2))
    return tuple(code for code in found if code)


def device_type_text(kind: int) -> str:
    """Return the name of a peripheral device type, or its number if the standard names none."""
    return PERIPHERAL_DEVICE_TYPES.get(kind, f"type {kind:02X}h")
