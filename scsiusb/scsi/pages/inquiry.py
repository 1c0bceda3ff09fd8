"""The reply to INQUIRY: who the logical unit is (SPC-4 6.4.2)."""

from __future__ import annotations

from typing import Final

from construct import BitsInteger, BitStruct, Bytes, Flag, Int8ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import MalformedReply
from scsiusb.scsi.reply import parse, text

STANDARD_LENGTH: Final = 36
ADDITIONAL_LENGTH: Final = 4  # where the field is that says how many bytes follow it
LEAST_LENGTH: Final = 5  # up to the additional length; some devices stop there
DISK: Final = 0x00
CD_ROM: Final = 0x05
NO_UNIT: Final = 0x03  # peripheral qualifier: no logical unit can be here

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

LAYOUT: Final = Struct(
    "peripheral" / BitStruct("qualifier" / BitsInteger(3), "device_type" / BitsInteger(5)),
    "medium" / BitStruct("removable" / Flag, Padding(7)),
    "version" / Int8ub,
    "format" / BitStruct(Padding(4), "response_data_format" / BitsInteger(4)),
    "additional_length" / Int8ub,
    Padding(3),
    "vendor" / Bytes(8),
    "product" / Bytes(16),
    "revision" / Bytes(4),
)


@dataclass(frozen=True)
class InquiryData:
    """Standard INQUIRY data; the texts are without padding, and empty where the device stops before them."""

    peripheral_qualifier: int
    peripheral_device_type: int
    removable: bool
    version: int
    response_data_format: int
    vendor: str
    product: str
    revision: str

    @classmethod
    def parse(cls, data: bytes) -> InquiryData:
        """Raises MalformedReply below 5 bytes."""
        if len(data) < LEAST_LENGTH:
            raise MalformedReply(f"INQUIRY: only {len(data)} bytes came")
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
        )

    @property
    def type_text(self) -> str:
        return device_type_text(self.peripheral_device_type)

    @property
    def is_present(self) -> bool:
        """Is there a logical unit at this LUN at all?"""
        return self.peripheral_qualifier != NO_UNIT


def device_type_text(kind: int) -> str:
    """A peripheral device type in words, its number where the standard has none."""
    return PERIPHERAL_DEVICE_TYPES.get(kind, f"type {kind:02X}h")
