"""Sense data in fixed and descriptor format (SPC-4 4.5): parser, text, and the exception for each."""

from __future__ import annotations

from typing import Any, Final

from construct import (
    BitsInteger,
    BitStruct,
    Flag,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int32ub,
    Int64ub,
    Padding,
    Prefixed,
    Struct,
)

from scsiusb import errors
from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.errors import CheckCondition

KEYS: Final = (  # SPC-4 table 53
    "No sense",
    "Recovered error",
    "Not ready",
    "Medium error",
    "Hardware error",
    "Illegal request",
    "Unit attention",
    "Data protect",
    "Blank check",
    "Vendor specific",
    "Copy aborted",
    "Aborted command",
    "Reserved",
    "Volume overflow",
    "Miscompare",
    "Completed",
)
NO_SENSE: Final = 0x0
RECOVERED_ERROR: Final = 0x1
NOT_READY: Final = 0x2
ILLEGAL_REQUEST: Final = 0x5
UNIT_ATTENTION: Final = 0x6

VENDOR_SPECIFIC: Final = 0x80  # and above, of ASC and of ASCQ (SPC-4 4.5.6)

IN_PROGRESS: Final = frozenset(  # additional sense of a unit that will be ready by itself
    (
        *((0x04, ascq) for ascq in (0x01, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0E)),
        *((0x04, ascq) for ascq in (0x13, 0x14, 0x1A, 0x1B, 0x1D, 0x24, 0x25)),
        (0x3E, 0x00),  # not self-configured yet
    )
)

# Unit attentions that leave the medium and its addresses as they are: by ASC, or by ASC and ASCQ.
# 2Ah: log parameters, reservations, …; not the encryption of what is read and written (11h to 13h).
HARMLESS_PARAMETERS: Final = (0x00, *range(0x02, 0x09), *range(0x0A, 0x11), 0x14, 0x15)
# 3Fh: microcode, redundancy groups, iSCSI, …; not volume sets (0Ah to 0Dh), nor a medium that has come (10h, 11h).
HARMLESS_CHANGES: Final = (0x01, 0x02, *range(0x06, 0x0A), 0x0F, *range(0x12, 0x15))
HARMLESS_EVENTS: Final = (0x02, 0x06, 0x07)  # 38h: power, busy, a threshold of thin provisioning; not media (04h)
HARMLESS: Final = frozenset(
    {
        0x0B,  # warnings: temperature, failed self-test, …
        0x29,  # power on or reset, which is counted by itself
        0x2C,  # command sequence
        0x2F,  # commands cleared by another initiator
        0x55,  # system resources
        0x5D,  # failure prediction thresholds
        0x5E,  # power conditions
        *((0x2A, ascq) for ascq in HARMLESS_PARAMETERS),
        *((0x38, ascq) for ascq in HARMLESS_EVENTS),
        *((0x3F, ascq) for ascq in HARMLESS_CHANGES),
        (0x5A, 0x02),  # the operator selected write protect
        (0x5A, 0x03),  # the operator selected write permit
    }
)

FIXED_CODES: Final = (0x70, 0x71)
DESCRIPTOR_CODES: Final = (0x72, 0x73)
DEFERRED_CODES: Final = (0x71, 0x73)
RESPONSE_CODE: Final = 0x7F
INFORMATION_DESCRIPTOR: Final = 0x00
KEY_SPECIFIC_DESCRIPTOR: Final = 0x02
BLOCK_DESCRIPTOR: Final = 0x05

FIXED: Final = Struct(  # SPC-4 table 51
    "head" / BitStruct("valid" / Flag, "response_code" / BitsInteger(7)),
    Padding(1),
    "flags" / BitStruct("filemark" / Flag, "eom" / Flag, "ili" / Flag, Padding(1), "key" / BitsInteger(4)),
    "information" / Int32ub,
    "additional_length" / Int8ub,
    Padding(4),
    "asc" / Int8ub,
    "ascq" / Int8ub,
)
KEY_SPECIFIC: Final = slice(15, 18)  # bytes of the fixed format
DESCRIPTOR: Final = Struct(  # SPC-4 table 36
    "response_code" / Int8ub,
    "key" / BitStruct(Padding(4), "key" / BitsInteger(4)),
    "asc" / Int8ub,
    "ascq" / Int8ub,
    Padding(4),
    "descriptors" / GreedyRange(Struct("kind" / Int8ub, "body" / Prefixed(Int8ub, GreedyBytes))),
)
FIXED_HEADER: Final = 8  # bytes up to ADDITIONAL SENSE LENGTH, which counts those after it
LEAST_FIXED: Final = 3  # bytes up to the sense key; later bytes that a device does not send count as 0
LEAST_DESCRIPTOR: Final = 2
DESCRIPTOR_HEADER: Final = 8  # bytes before the descriptors
INFORMATION: Final = Struct("flags" / BitStruct("valid" / Flag, Padding(7)), Padding(1), "value" / Int64ub)
KEY_SPECIFIC_BODY: Final = slice(2, 5)  # bytes of the descriptor after its length
SKSV: Final = 0x80  # in the first of them
WHOLE: Final = 65536  # of a progress indication
BLOCK: Final = Struct(Padding(1), "flags" / BitStruct(Padding(2), "ili" / Flag, Padding(5)))


@dataclass(frozen=True)
class Sense:
    """Sense data: result of a command, or state of the logical unit (SPC-4 4.5)."""

    key: int
    """Sense key, an index of `KEYS`."""
    asc: int
    """Additional sense code."""
    ascq: int
    """Additional sense code qualifier."""
    information: int | None = None
    """INFORMATION field, if valid; for a medium error, the LBA that failed."""
    ili: bool = False
    """Incorrect length indicator (ILI)."""
    deferred: bool = False
    """The error belongs to an earlier command (SPC-4 4.5.7)."""
    raw: bytes = b""
    """The bytes received."""
    key_specific: bytes = b""
    """SENSE KEY SPECIFIC field, 3 bytes; empty if it is not valid (SPC-4 4.5.2.4)."""

    @classmethod
    def parse(cls, data: bytes) -> Sense:
        """Parse fixed or descriptor format, cut anywhere after the sense key; bytes of no format are NO SENSE.

        `raw` has the bytes in each case. There is no error: a command that failed has failed, with or without a reason.
        """
        code = _response_code(data)
        if not _has_key(data):
            return cls(NO_SENSE, 0, 0, raw=data)
        if code in FIXED_CODES:
            fields = parsed(FIXED, data.ljust(FIXED.sizeof(), b"\0"))
            return cls._fixed(data, fields, code in DEFERRED_CODES)
        fields = parsed(DESCRIPTOR, data.ljust(DESCRIPTOR_HEADER, b"\0"))
        return cls._descriptor(data, fields, code in DEFERRED_CODES)

    @classmethod
    def _fixed(cls, data: bytes, fields: Any, deferred: bool) -> Sense:
        information = fields.information if fields.head.valid else None
        flags = fields.flags
        specific = _valid_specific(data[: FIXED_HEADER + fields.additional_length][KEY_SPECIFIC])
        return cls(flags.key, fields.asc, fields.ascq, information, flags.ili, deferred, data, specific)

    @classmethod
    def _descriptor(cls, data: bytes, fields: Any, deferred: bool) -> Sense:
        information, ili, specific = None, False, b""
        for descriptor in fields.descriptors:
            body = bytes(descriptor.body)
            if descriptor.kind == INFORMATION_DESCRIPTOR and len(body) >= INFORMATION.sizeof():
                content = parsed(INFORMATION, body)
                information = content.value if content.flags.valid else None
            elif descriptor.kind == BLOCK_DESCRIPTOR and len(body) >= BLOCK.sizeof():
                ili = parsed(BLOCK, body).flags.ili
            elif descriptor.kind == KEY_SPECIFIC_DESCRIPTOR:
                specific = _valid_specific(body[KEY_SPECIFIC_BODY])
        return cls(fields.key.key, fields.asc, fields.ascq, information, ili, deferred, data, specific)

    @property
    def key_text(self) -> str:
        """Name of the sense key."""
        return KEYS[self.key]

    @property
    def text(self) -> str:
        """Text of ASC and ASCQ in the T10 list; or the numbers, which are vendor specific from 80h on."""
        try:
            from scsiusb.scsi.additional_sense import ADDITIONAL_SENSE, ADDITIONAL_SENSE_RANGES
        except OSError:  # no descriptor is free to read the list: an error must not be replaced by that one
            return f"Additional sense {self.asc:02X}h/{self.ascq:02X}h"

        for asc, first, last, text in ADDITIONAL_SENSE_RANGES:
            if asc == self.asc and first <= self.ascq <= last:
                return text.format(self.ascq)
        origin = "Vendor specific additional" if max(self.asc, self.ascq) >= VENDOR_SPECIFIC else "Additional"
        return ADDITIONAL_SENSE.get((self.asc, self.ascq), f"{origin} sense {self.asc:02X}h/{self.ascq:02X}h")

    @property
    def is_empty(self) -> bool:
        """NO SENSE without an additional sense code: there is nothing to report."""
        return (self.key, self.asc, self.ascq) == (NO_SENSE, 0, 0)

    @property
    def is_refusal(self) -> bool:
        """The unit does not support the command, or does not say why it failed (ILLEGAL REQUEST, no sense)."""
        return (self.key == ILLEGAL_REQUEST or self.is_empty) and not self.deferred

    @property
    def is_becoming_ready(self) -> bool:
        """The unit is starting up, or busy with something that ends by itself: try again later."""
        return self.key == NOT_READY and (self.asc, self.ascq) in IN_PROGRESS and not self.deferred

    @property
    def is_medium_changed(self) -> bool:
        """The medium, or what its addresses mean, may be another: any unit attention that is not known to be harmless.

        28h (medium may have changed), 2Ah/01h (mode parameters), 2Ah/09h (capacity), 30h, 3Ah, 3Fh/03h and 0Eh (inquiry
        and LUN data), 5Ah/01h (removal requested) and all that are not in `HARMLESS`.
        """
        is_harmless = self.asc in HARMLESS or (self.asc, self.ascq) in HARMLESS
        return self.key == UNIT_ATTENTION and not is_harmless and not self.is_vague

    @property
    def is_no_medium(self) -> bool:
        """There is no medium in the unit (3Ah), a state, or an event of which some readers remind for seconds."""
        return self.key in (NOT_READY, UNIT_ATTENTION) and self.asc == 0x3A

    @property
    def is_reset(self) -> bool:
        """The unit was powered on or reset (unit attention 29h)."""
        return (self.key, self.asc) == (UNIT_ATTENTION, 0x29)

    @property
    def says_more(self) -> bool:
        """Whether the unit has more sense data than it was asked for, by their length."""
        return len(self.raw) >= 8 and not self.is_unreadable and self.raw[7] + 8 > len(self.raw)

    @property
    def is_vague(self) -> bool:
        """NO SENSE or UNIT ATTENTION without an additional sense code: the reason is lost."""
        return self.key in (NO_SENSE, UNIT_ATTENTION) and not (self.asc or self.ascq)

    @property
    def is_unreadable(self) -> bool:
        """The device sent bytes of no format of sense data (SPC-4 4.5.1), or too few to include the sense key."""
        return any(self.raw) and not _has_key(self.raw)

    @property
    def is_cut(self) -> bool:
        """The device sent no bytes that include ASC and ASCQ."""
        is_descriptor = _response_code(self.raw) in DESCRIPTOR_CODES
        return self.is_unreadable or len(self.raw) < (4 if is_descriptor else 14)

    @property
    def needs_start(self) -> bool:
        """The unit waits for START STOP UNIT (04h/02h)."""
        return (self.key, self.asc, self.ascq) == (NOT_READY, 0x04, 0x02) and not self.deferred

    @property
    def is_unit_not_supported(self) -> bool:
        """The target has no logical unit at this LUN (25h)."""
        return (self.key, self.asc, self.ascq) == (ILLEGAL_REQUEST, 0x25, 0x00)

    @property
    def codes(self) -> str:
        """Sense key, ASC and ASCQ in hex: "2/3A/00"."""
        return f"{self.key:X}/{self.asc:02X}/{self.ascq:02X}"

    def __str__(self) -> str:
        if self.is_unreadable:
            return f"sense data that cannot be read ({self.raw.hex(' ')})"
        return f"{self.key_text.lower()}: {self.text} ({self.codes}){self._specific_text}"

    @property
    def _specific_text(self) -> str:
        """What the SENSE KEY SPECIFIC field adds: which byte of a command was refused, or how far an operation is."""
        if self.key_specific and self.key == ILLEGAL_REQUEST:
            at = field_pointer(self.key_specific)
            return f", {at['in']} byte {at['byte']}" + (f", bit {at['bit']}" if "bit" in at else "")
        if self.key_specific and self.key in (NO_SENSE, NOT_READY):
            return f", progress {percent(self.key_specific)} %"
        return ""


def _response_code(data: bytes) -> int:
    return data[0] & RESPONSE_CODE if data else 0


def _valid_specific(field: bytes) -> bytes:
    return field if len(field) == KEY_SPECIFIC.stop - KEY_SPECIFIC.start and field[0] & SKSV else b""


def field_pointer(specific: bytes) -> dict[str, int | str | float]:
    """Return what a SENSE KEY SPECIFIC field of ILLEGAL REQUEST points at (SPC-4 4.5.2.4.2)."""
    where: dict[str, int | str | float] = {
        "in": "CDB" if specific[0] & 0x40 else "parameters",
        "byte": int.from_bytes(specific[1:3], "big"),
    }
    return where | bit_pointer(specific)


def bit_pointer(specific: bytes) -> dict[str, int | str | float]:
    """Return the bit that a SENSE KEY SPECIFIC field points at; nothing if it points at a whole byte."""
    return {"bit": specific[0] & 0x07} if specific[0] & 0x08 else {}


def percent(specific: bytes) -> float:
    """Return the progress in a SENSE KEY SPECIFIC field of NO SENSE or NOT READY (SPC-4 4.5.2.4.4)."""
    return round(100 * int.from_bytes(specific[1:3], "big") / WHOLE, 2)


def _has_key(data: bytes) -> bool:
    """Return whether the bytes are sense data of a known format, with the sense key at least."""
    code = _response_code(data)
    return (code in FIXED_CODES and len(data) >= LEAST_FIXED) or (
        code in DESCRIPTOR_CODES and len(data) >= LEAST_DESCRIPTOR
    )


MEDIUM_CHANGED: Final = Sense(UNIT_ATTENTION, 0x28, 0x00)
RESET: Final = Sense(UNIT_ATTENTION, 0x29, 0x00)
MISCOMPARE: Final = Sense(0xE, 0x1D, 0x00)
MEDIUM_NOT_PRESENT: Final = Sense(NOT_READY, 0x3A, 0x00)

WRITE_AGAIN: Final = "write again what was written since the last flush"

ANY: Final = None
ERRORS: Final[tuple[tuple[tuple[int, int | None, int | None], type[CheckCondition]], ...]] = (
    # (sense key, ASC, ASCQ), most specific first
    ((0x2, 0x3A, ANY), errors.NoMedium),
    ((0x5, 0x20, 0x00), errors.UnsupportedOpcode),
    ((0x5, 0x21, 0x00), errors.LbaOutOfRange),
    ((0x6, 0x3A, ANY), errors.NoMedium),
    ((0x6, 0x28, ANY), errors.MediumChanged),
    ((0x2, ANY, ANY), errors.NotReady),
    ((0x3, ANY, ANY), errors.MediumError),
    ((0x4, ANY, ANY), errors.HardwareError),
    ((0x5, ANY, ANY), errors.IllegalRequest),
    ((0x6, ANY, ANY), errors.UnitAttention),
    ((0x7, ANY, ANY), errors.DataProtect),
    ((0x8, ANY, ANY), errors.BlankCheck),
    ((0xB, ANY, ANY), errors.AbortedCommand),
    ((0xE, ANY, ANY), errors.Miscompare),
)


def error_for(sense: Sense, doing: str) -> CheckCondition:
    """Return the exception for `sense`; `doing` names the command that failed: "READ(10) of 8 blocks at LBA 0".

    A deferred error belongs to an earlier command; the command that reported it was not started (SPC-4 4.5.7).
    """
    if sense.deferred:
        doing = f"{doing} was not started because an earlier command"
    if sense.is_unreadable:
        return CheckCondition(f"{doing} failed with {sense}", sense, "try again")
    if sense.is_empty:
        return CheckCondition(f"{doing} failed, but the device gave no reason", sense, "try again")
    kind = _kind(sense)
    hint = "no medium: " if kind is errors.NoMedium else ""
    return kind(f"{doing} failed: {hint}{sense}", sense)


def lost_write_error(sense: Sense) -> CheckCondition:
    """Return the exception for the flush of blocks that a deferred error, reported to any command, may be about."""
    return _kind(sense)(f"an earlier write was not carried out: {sense}", sense, WRITE_AGAIN)


def _kind(sense: Sense) -> type[CheckCondition]:
    seen = (sense.key, sense.asc, sense.ascq)
    for pattern, kind in ERRORS:
        if all(want in (ANY, have) for want, have in zip(pattern, seen, strict=True)):
            return kind
    return CheckCondition
