"""Checks of INQUIRY, vital product data (VPD) and REPORT LUNS: well-formed, and consistent with each other."""

from __future__ import annotations

from typing import Final

from scsiusb.conformance.device_under_test import INVALID_FIELD, DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult
from scsiusb.conformance.outcome import Check, NotApplicable, Severity, Violation
from scsiusb.errors import MalformedReply
from scsiusb.scsi.commands.spc import Inquiry, InquiryVpdBytes, ReportLuns
from scsiusb.scsi.pages.inquiry import ADDITIONAL_LENGTH, STANDARD_LENGTH
from scsiusb.scsi.pages.vpd import HEADER_LENGTH, parse_page

LENGTHS: Final = (0, 5, 36, 255)
SPC: Final = 3  # INQUIRY version; VPD page 00h is mandatory from here on
SPC_3: Final = 5  # INQUIRY version; VPD page 83h and REPORT LUNS are mandatory from here on
SUPPORTED, SERIAL, IDENTIFICATION = 0x00, 0x80, 0x83
UNLISTED: Final = (0x6F, 0xAF, 0xBF, 0x7F)  # reserved in all standards so far
LUN_ASSOCIATION: Final = 0
NAMING: Final = (1, 2, 3, 8)  # designator types of which a unit has at least one (SPC-4 7.8.6.2.1)
DESIGNATOR_HEADER: Final = 4
PRINTABLE: Final = range(0x20, 0x7F)


def standard(device: DeviceUnderTest) -> str:
    """Check the length, the format and the peripheral qualifier of standard INQUIRY data."""
    result = device.good(Inquiry())
    data = result.data
    result.require(len(data) == STANDARD_LENGTH, f"{STANDARD_LENGTH} bytes, the minimum")
    if data[ADDITIONAL_LENGTH] < STANDARD_LENGTH - 5:
        raise Violation(result.asked, f"ADDITIONAL LENGTH {data[ADDITIONAL_LENGTH]}", "31 or more")
    if data[3] & 0xF not in (1, 2):
        raise Violation(result.asked, f"RESPONSE DATA FORMAT {data[3] & 0xF}", "2")
    if data[0] >> 5:
        raise Violation(result.asked, f"PERIPHERAL QUALIFIER {data[0] >> 5}", "0: a unit is present")
    return f"{device.standard.vendor} {device.standard.product} {device.standard.revision}, version {data[2]:02X}h"


def names(device: DeviceUnderTest) -> str:
    """Check the characters of the text fields of standard INQUIRY data."""
    data = device.good(Inquiry()).data
    for name, start, end in (("vendor", 8, 16), ("product", 16, 32), ("revision", 32, 36)):
        field = data[start:end]
        if any(byte not in PRINTABLE for byte in field):
            raise Violation(f"INQUIRY, the {name}", field.hex(" "), "ASCII from 20h to 7Eh, padded with spaces")
        if field.strip() and field[:1] == b" ":
            raise Violation(f"INQUIRY, the {name}", ascii(field.decode()), "left-aligned text")
    return ascii(data[8:36].decode())


def lengths(device: DeviceUnderTest) -> str:
    """Send INQUIRY with several allocation lengths."""
    whole = device.good(Inquiry(length=LENGTHS[-1])).data
    for length in LENGTHS:
        result = device.good(Inquiry(length=length))
        expected = whole[:length]
        if result.data[: len(expected)] != expected or len(result.data) > length:
            raise Violation(
                result.asked, result.data.hex(" ") or "nothing", f"{expected.hex(' ')}, as with {LENGTHS[-1]} bytes"
            )
    return "the same bytes, truncated to " + ", ".join(map(str, LENGTHS))


def steady(device: DeviceUnderTest) -> str:
    """Send INQUIRY 8 times and compare the replies."""
    found = {device.good(Inquiry()).data for _ in range(8)}
    if len(found) > 1:
        raise Violation("INQUIRY, 8 times", f"{len(found)} different replies", "the same reply each time")
    return "the same reply 8 times"


def report_luns(device: DeviceUnderTest) -> str:
    """Compare REPORT LUNS, which is optional before SPC-3, and for all units but LUN 0, with GET MAX LUN."""
    if device.lun:
        raise NotApplicable("only LUN 0 must support REPORT LUNS (SPC-4 6.33)")
    request = ReportLuns()
    result = device.optional(request) if device.standard.version < SPC_3 else device.good(request)
    try:
        luns = sorted(ReportLuns().reply(result.data))
    except MalformedReply as error:
        raise Violation(result.asked, error.what, "a list of LUNs") from error
    if luns != list(range(device.max_lun + 1)):
        raise Violation(result.asked, f"LUNs {luns}", f"0 to {device.max_lun}, as GET MAX LUN reports")
    return f"LUNs {luns}"


def _page(device: DeviceUnderTest, page: int) -> ExchangeResult:
    return device.good(InquiryVpdBytes(page, length=255))


def _supported(device: DeviceUnderTest) -> tuple[int, ...]:
    """Return the page codes of VPD page 00h. NotApplicable for a unit that has no VPD and need not have any."""
    request = InquiryVpdBytes(SUPPORTED, length=255)
    result = device.optional(request) if device.standard.version < SPC else device.good(request)
    _check_header(result, SUPPORTED)
    return tuple(result.data[HEADER_LENGTH:][: result.data[3]])


def _check_header(result: ExchangeResult, page: int) -> int:
    """Check the header of a VPD page; return the length of the page in bytes, header included."""
    data = result.data
    result.require(len(data) >= HEADER_LENGTH, "at least the page header of 4 bytes")
    length = int.from_bytes(data[2:4], "big") + HEADER_LENGTH
    if data[1] != page:
        raise Violation(result.asked, f"PAGE CODE {data[1]:02X}h", f"{page:02X}h")
    if len(data) < min(length, result.length):
        raise Violation(result.asked, f"{len(data)} bytes, PAGE LENGTH {length - HEADER_LENGTH}", f"{length} bytes")
    return length


def supported(device: DeviceUnderTest) -> str:
    """Check the order and the content of the list of VPD pages."""
    pages = _supported(device)
    words = " ".join(f"{page:02X}" for page in pages)
    if list(pages) != sorted(set(pages)) or pages[:1] != (SUPPORTED,):
        raise Violation("VPD page 00h", words or "no pages", "page codes in ascending order, 00h first")
    if device.standard.version >= SPC_3 and IDENTIFICATION not in pages:
        raise Violation("VPD page 00h", words, "83h in the list, which is mandatory")
    return f"pages {words}"


def listed(device: DeviceUnderTest) -> str:
    """Read each VPD page in the list and check its header."""
    pages = _supported(device)
    standard = device.good(Inquiry())
    standard.require(standard.moved > 0, "INQUIRY data")
    first = standard.data[0]
    for page in pages:
        result = _page(device, page)
        _check_header(result, page)
        if result.data[0] != first:
            raise Violation(result.asked, f"byte 0 is {result.data[0]:02X}h", f"{first:02X}h, as in INQUIRY")
    return f"{len(pages)} pages, each with its code and length"


def unlisted(device: DeviceUnderTest) -> str:
    """Read a VPD page that is not in the list."""
    pages = _supported(device)
    page = next(page for page in UNLISTED if page not in pages)
    return device.refused(InquiryVpdBytes(page), INVALID_FIELD)


def cut(device: DeviceUnderTest) -> str:
    """Read each VPD page in the list with short allocation lengths."""
    pages = _supported(device)
    for page in pages:
        whole = _page(device, page).data
        for length in (HEADER_LENGTH, 8):
            result = device.good(InquiryVpdBytes(page, length=length))
            if result.data[:length] != whole[:length]:
                raise Violation(result.asked, result.data.hex(" "), f"{whole[:length].hex(' ')}, as in the whole page")
    return f"{len(pages)} pages"


def designators(device: DeviceUnderTest) -> str:
    """Walk the designators of VPD page 83h."""
    if IDENTIFICATION not in _supported(device):
        raise NotApplicable("VPD page 83h is not listed")
    result = _page(device, IDENTIFICATION)
    length = _check_header(result, IDENTIFICATION)
    body = result.data[HEADER_LENGTH:length]
    at, kinds = 0, []
    while at < len(body):
        if at + DESIGNATOR_HEADER > len(body) or at + DESIGNATOR_HEADER + body[at + 3] > len(body):
            raise Violation(result.asked, f"a designator at byte {at} that exceeds the page", "complete designators")
        if body[at + 1] >> 4 & 3 == LUN_ASSOCIATION:
            kinds.append(body[at + 1] & 0xF)
        at += DESIGNATOR_HEADER + body[at + 3]
    if not set(kinds) & set(NAMING):
        raise Violation(
            result.asked, f"designators of the logical unit: types {kinds}", "at least one of type 1, 2, 3 or 8"
        )
    return f"designators of the logical unit: types {kinds}"


def serial(device: DeviceUnderTest) -> str:
    """Compare the serial number of VPD page 80h with that of the USB descriptor; one may contain the other."""
    if SERIAL not in _supported(device):
        raise NotApplicable("VPD page 80h is not listed")
    if device.info.serial is None:
        raise NotApplicable("the device has no USB serial number")
    result = _page(device, SERIAL)
    try:
        page = parse_page(result.data, SERIAL)
    except MalformedReply as error:
        raise Violation(result.asked, error.what, "a serial number") from error
    text = getattr(page, "serial", "")
    if (text not in device.info.serial and device.info.serial not in text) or not text:
        raise Violation(result.asked, ascii(text), f"{device.info.serial!a}, as in the USB descriptor")
    return ascii(text)


CHECKS: Final = (
    Check(
        "inquiry-standard",
        "SPC-4 6.6.2",
        "Standard INQUIRY data must have at least 36 bytes, in response data format 2 (1 is accepted).",
        standard,
    ),
    Check("inquiry-names", "SPC-4 4.4.1", "Vendor, product and revision must be left-aligned ASCII.", names),
    Check(
        "inquiry-lengths",
        "SPC-4 4.2.5.6",
        "INQUIRY must truncate its data to the allocation length, and must not change it otherwise.",
        lengths,
    ),
    Check("inquiry-steady", "SPC-4 6.6.1", "INQUIRY must return the same data each time.", steady),
    Check(
        "report-luns",
        "SPC-4 6.33",
        "REPORT LUNS must return the LUNs from 0 to the one that GET MAX LUN reports.",
        report_luns,
    ),
    Check(
        "vpd-supported",
        "SPC-4 7.8.16",
        "VPD page 00h must list the supported pages in ascending order, and the mandatory ones must be in the list.",
        supported,
    ),
    Check(
        "vpd-listed",
        "SPC-4 7.8.1",
        "Each VPD page in the list must be readable, with its own PAGE CODE and a correct PAGE LENGTH.",
        listed,
    ),
    Check(
        "vpd-unlisted",
        "SPC-4 6.6.1",
        "A VPD page that is not in the list must fail with 5/24/00 (INVALID FIELD IN CDB).",
        unlisted,
    ),
    Check(
        "vpd-cut",
        "SPC-4 4.2.5.6",
        "A VPD page must be truncated to the allocation length, with PAGE LENGTH unchanged.",
        cut,
    ),
    Check(
        "vpd-designators",
        "SPC-4 7.8.6",
        "VPD page 83h must have complete designators, with at least one of type 1, 2, 3 or 8 for the logical unit.",
        designators,
    ),
    Check(
        "vpd-serial",
        "SPC-4 7.8.18",
        "The serial numbers in VPD page 80h and in the USB descriptor should be equal, or one a part of the other.",
        serial,
        Severity.SHOULD,
    ),
)
