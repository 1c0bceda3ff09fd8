"""What sense data say besides their codes: each descriptor, the sense-key specific field, flags (SPC-5 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.pages.fields import Field, flags, number
from scsiusb.scsi.sense import (
    DESCRIPTOR_CODES,
    DESCRIPTOR_HEADER,
    FIXED_HEADER,
    KEY_SPECIFIC_DESCRIPTOR,
    RESPONSE_CODE,
    Sense,
    bit_pointer,
    field_pointer,
    percent,
)

FORWARDED_SENSE: Final = 0x0C
VENDOR: Final = 0x80  # and above, of descriptor types


class Kind(NamedTuple):
    """A type of descriptor. Fields count from its first byte."""

    name: str
    fields: tuple[Field, ...]


KINDS: Final[dict[int, Kind]] = {
    0x00: Kind("information", (Field("valid", 2, 7, 1, ""), number("information", 4, 8, ""))),
    0x01: Kind("command specific information", (number("value", 4, 8, ""),)),
    0x03: Kind("field replaceable unit", (number("code", 3, 1, ""),)),
    0x04: Kind("stream commands", tuple(flags(3, "filemark eom ili", "", "", ""))),
    0x05: Kind("block commands", (Field("ili", 3, 5, 1, ""),)),
    0x06: Kind("object-based storage: objects", (number("not_initiated", 8, 4, ""), number("completed", 12, 4, ""))),
    0x07: Kind("object-based storage: integrity check", ()),
    0x08: Kind("object-based storage: attributes", ()),
    0x09: Kind(
        "ATA status return",
        (
            Field("extend", 2, 0, 1, ""),
            number("error", 3, 1, ""),
            number("count", 4, 2, ""),
            number("device", 12, 1, ""),
            number("status", 13, 1, ""),
        ),
    ),
    0x0A: Kind(
        "another progress indication",
        (number("key", 2, 1, ""), number("asc", 3, 1, ""), number("ascq", 4, 1, ""), number("progress", 6, 2, "")),
    ),
    0x0B: Kind("user data segment referral", (Field("not_all", 2, 0, 1, ""),)),
    FORWARDED_SENSE: Kind(
        "forwarded sense", (Field("truncated", 2, 7, 1, ""), Field("source", 2, 3, 4, ""), number("status", 3, 1, ""))
    ),
    0x0D: Kind(
        "direct access block device",
        (
            Field("valid", 2, 7, 1, ""),
            Field("ili", 2, 5, 1, ""),
            number("key_specific", 4, 3, ""),
            number("field_replaceable_unit", 7, 1, ""),
            number("information", 8, 8, ""),
            number("command_specific", 16, 8, ""),
        ),
    ),
    0x0E: Kind("device designation", (number("usage", 3, 1, ""),)),
    0x0F: Kind("microcode activation", (number("seconds", 6, 2, ""),)),
}


@dataclass(frozen=True)
class Detail:
    """A thing that sense data say."""

    name: str
    values: dict[str, int | str | float]
    raw: bytes
    """The bytes of the descriptor or field."""
    missing: int = 0
    """Bytes that its length claims and that are not there."""

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value}" for name, value in self.values.items())
        missing = f"; {self.missing} bytes are missing" if self.missing else ""
        return f"{values or self.raw.hex(' ')}{missing}"


def details(sense: Sense) -> tuple[Detail, ...]:
    """Return what the bytes of sense data say besides key, ASC and ASCQ, in their order. Never raises."""
    if not sense.raw:
        return ()
    is_descriptor = sense.raw[0] & RESPONSE_CODE in DESCRIPTOR_CODES
    return tuple(_descriptors(sense) if is_descriptor else _fixed(sense))


def _fixed(sense: Sense) -> Iterator[Detail]:
    """Yield what fixed format has (4.4.3), as far as it goes and its ADDITIONAL SENSE LENGTH says."""
    raw = sense.raw
    if len(raw) >= FIXED_HEADER:
        raw = raw[: FIXED_HEADER + raw[7]]
    if len(raw) > 2 and raw[2] & 0xE0:
        values = {"filemark": raw[2] >> 7, "eom": raw[2] >> 6 & 1, "ili": raw[2] >> 5 & 1}
        yield Detail("flags", {name: value for name, value in values.items() if value}, raw[2:3])
    if len(raw) >= 7 and raw[0] & 0x80:
        yield Detail("information", {"information": int.from_bytes(raw[3:7], "big")}, raw[3:7])
    if any(raw[8:12]):
        value = int.from_bytes(raw[8:12].ljust(4, b"\0"), "big")
        yield Detail("command specific information", {"value": value}, raw[8:12])
    if any(raw[14:15]):
        yield Detail("field replaceable unit", {"code": raw[14]}, raw[14:15])
    if any(raw[15:18]):
        yield from _key_specific(sense.key, raw[15:18])


def _descriptors(sense: Sense) -> Iterator[Detail]:
    """Yield each descriptor (4.4.2), also of a type that is not known, and one that ends too early."""
    raw = sense.raw[: DESCRIPTOR_HEADER + (sense.raw[7] if len(sense.raw) > 7 else 0)]
    at = DESCRIPTOR_HEADER
    while at < len(raw):
        claimed = raw[at + 1] + 2 if at + 1 < len(raw) else 2
        descriptor = raw[at : at + claimed]
        yield from _descriptor(sense.key, descriptor, claimed - len(descriptor))
        at += claimed


def _descriptor(key: int, data: bytes, missing: int) -> Iterator[Detail]:
    if data[0] == KEY_SPECIFIC_DESCRIPTOR and len(data) >= 7:
        yield from _key_specific(key, data[4:7])
        return
    kind = KINDS.get(data[0])
    if kind is None:
        origin = "vendor specific descriptor" if data[0] >= VENDOR else "descriptor"
        yield Detail(f"{origin} {data[0]:02X}h", {}, data, missing)
        return
    values: dict[str, int | str | float] = {}
    for field in kind.fields:
        value = field.value(data)
        if value is not None:
            values[field.name] = value
    if data[0] == 0x09 and len(data) >= 12:
        values["lba"] = sum(data[at] << shift for at, shift in zip((7, 9, 11, 6, 8, 10), range(0, 48, 8), strict=True))
    if data[0] == FORWARDED_SENSE and len(data) > 4:
        values["sense"] = str(Sense.parse(data[4:]))
    if data[0] == 0x0A and "progress" in values:
        values["progress"] = percent(data[5:8])
    yield Detail(kind.name, values, data, missing)


def _key_specific(key: int, data: bytes) -> Iterator[Detail]:
    """Yield the SENSE KEY SPECIFIC field (4.4.2.4), whose meaning depends on the key; nothing if it is not valid."""
    if len(data) < 3 or not data[0] & 0x80:
        return
    value = int.from_bytes(data[1:3], "big")
    if key in (0x0, 0x2):
        yield Detail("progress", {"percent": percent(data)}, data)
    elif key in (0x1, 0x3, 0x4):
        yield Detail("retries", {"count": value}, data)
    elif key == 0x5:
        yield Detail("field pointer", field_pointer(data), data)
    elif key == 0x6:
        yield Detail("unit attention queue", {"overflow": data[0] & 1}, data)
    elif key == 0xA:
        base = "segment descriptor" if data[0] & 0x20 else "parameters"
        yield Detail("segment pointer", {"in": base, "byte": value, **bit_pointer(data)}, data)
    else:
        yield Detail("sense-key specific", {}, data)
