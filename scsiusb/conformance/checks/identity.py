"""INQUIRY, vital product data and REPORT LUNS: well-formed, and of one mind about who the unit is."""

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
SPC: Final = 3  # INQUIRY version: from here on pages 00h and 83h are mandatory
SPC_3: Final = 5
SUPPORTED, SERIAL, IDENTIFICATION = 0x00, 0x80, 0x83
UNLISTED: Final = (0x6F, 0xAF, 0xBF, 0x7F)  # reserved in all standards so far
LUN_ASSOCIATION: Final = 0
NAMING: Final = (1, 2, 3, 8)  # designator types of which a unit has at least one (SPC-4 7.8.6.2.1)
DESIGNATOR_HEADER: Final = 4
PRINTABLE: Final = range(0x20, 0x7F)


def standard(device: DeviceUnderTest) -> str:
    ended = device.good(Inquiry())
    data = ended.data
    ended.require(len(data) == STANDARD_LENGTH, f"{STANDARD_LENGTH} bytes: no device has fewer")
    if data[ADDITIONAL_LENGTH] < STANDARD_LENGTH - 5:
        raise Violation(ended.asked, f"ADDITIONAL LENGTH {data[ADDITIONAL_LENGTH]}", "31 or more")
    if data[3] & 0xF not in (1, 2):
        raise Violation(ended.asked, f"RESPONSE DATA FORMAT {data[3] & 0xF}", "2")
    if data[0] >> 5:
        raise Violation(ended.asked, f"PERIPHERAL QUALIFIER {data[0] >> 5}", "0: the unit is there")
    return f"{device.standard.vendor} {device.standard.product} {device.standard.revision}, version {data[2]:02X}h"


def names(device: DeviceUnderTest) -> str:
    data = device.good(Inquiry()).data
    for name, start, end in (("vendor", 8, 16), ("product", 16, 32), ("revision", 32, 36)):
        field = data[start:end]
        if any(byte not in PRINTABLE for byte in field):
            raise Violation(f"INQUIRY, the {name}", field.hex(" "), "ASCII from 20h to 7Eh, filled with spaces")
        if field.strip() and field[:1] == b" ":
            raise Violation(f"INQUIRY, the {name}", ascii(field.decode()), "aligned left")
    return ascii(data[8:36].decode())


def lengths(device: DeviceUnderTest) -> str:
    whole = device.good(Inquiry(length=LENGTHS[-1])).data
    for length in LENGTHS:
        ended = device.good(Inquiry(length=length))
        right = whole[:length]
        if ended.data[: len(right)] != right or len(ended.data) > length:
            raise Violation(
                ended.asked, ended.data.hex(" ") or "nothing", f"{right.hex(' ')}, as of {LENGTHS[-1]} bytes"
            )
    return "the same bytes, cut at " + ", ".join(map(str, LENGTHS))


def steady(device: DeviceUnderTest) -> str:
    found = {device.good(Inquiry()).data for _ in range(8)}
    if len(found) > 1:
        raise Violation("INQUIRY, 8 times", f"{len(found)} different replies", "the same each time")
    return "8 times the same"


def report_luns(device: DeviceUnderTest) -> str:
    ended = device.optional(ReportLuns())
    try:
        luns = sorted(ReportLuns().reply(ended.data))
    except MalformedReply as error:
        raise Violation(ended.asked, error.what, "a list of LUNs") from error
    if luns != list(range(device.max_lun + 1)):
        raise Violation(ended.asked, f"LUNs {luns}", f"0 to {device.max_lun}, as GET MAX LUN says")
    return f"LUNs {luns}"


def _page(device: DeviceUnderTest, page: int) -> ExchangeResult:
    return device.good(InquiryVpdBytes(page, length=255))


def _supported(device: DeviceUnderTest) -> tuple[int, ...]:
    """NotApplicable for a unit that need not have vital product data and has none."""
    request = InquiryVpdBytes(SUPPORTED, length=255)
    ended = device.optional(request) if device.standard.version < SPC else device.good(request)
    _check_header(ended, SUPPORTED)
    return tuple(ended.data[HEADER_LENGTH:][: ended.data[3]])


def _check_header(ended: ExchangeResult, page: int) -> int:
    """The page's length, its header included."""
    data = ended.data
    ended.require(len(data) >= HEADER_LENGTH, "a page with its header of 4 bytes")
    length = int.from_bytes(data[2:4], "big") + HEADER_LENGTH
    if data[1] != page:
        raise Violation(ended.asked, f"PAGE CODE {data[1]:02X}h", f"{page:02X}h")
    if len(data) < min(length, ended.length):
        raise Violation(ended.asked, f"{len(data)} bytes, PAGE LENGTH {length - HEADER_LENGTH}", f"{length} bytes")
    return length


def supported(device: DeviceUnderTest) -> str:
    pages = _supported(device)
    words = " ".join(f"{page:02X}" for page in pages)
    if list(pages) != sorted(set(pages)) or pages[:1] != (SUPPORTED,):
        raise Violation("VPD page 00h", words or "no pages", "page codes in ascending order, 00h first")
    if device.standard.version >= SPC_3 and IDENTIFICATION not in pages:
        raise Violation("VPD page 00h", words, "83h among them, which is mandatory")
    return words


def listed(device: DeviceUnderTest) -> str:
    pages = _supported(device)
    standard = device.good(Inquiry())
    standard.require(standard.moved > 0, "INQUIRY data")
    first = standard.data[0]
    for page in pages:
        ended = _page(device, page)
        _check_header(ended, page)
        if ended.data[0] != first:
            raise Violation(ended.asked, f"peripheral {ended.data[0]:02X}h", f"{first:02X}h, as in INQUIRY")
    return f"{len(pages)} pages, each with its code and length"


def unlisted(device: DeviceUnderTest) -> str:
    pages = _supported(device)
    page = next(page for page in UNLISTED if page not in pages)
    return device.refused(InquiryVpdBytes(page), INVALID_FIELD)


def cut(device: DeviceUnderTest) -> str:
    pages = _supported(device)
    for page in pages:
        whole = _page(device, page).data
        for length in (HEADER_LENGTH, 8):
            ended = device.good(InquiryVpdBytes(page, length=length))
            if ended.data[:length] != whole[:length]:
                raise Violation(ended.asked, ended.data.hex(" "), f"{whole[:length].hex(' ')}, as of the whole page")
    return f"{len(pages)} pages"


def designators(device: DeviceUnderTest) -> str:
    if IDENTIFICATION not in _supported(device):
        raise NotApplicable("no page 83h")
    ended = _page(device, IDENTIFICATION)
    length = _check_header(ended, IDENTIFICATION)
    body = ended.data[HEADER_LENGTH:length]
    at, kinds = 0, []
    while at < len(body):
        if at + DESIGNATOR_HEADER > len(body) or at + DESIGNATOR_HEADER + body[at + 3] > len(body):
            raise Violation(ended.asked, f"a designator at byte {at} that does not end in the page", "whole ones")
        if body[at + 1] >> 4 & 3 == LUN_ASSOCIATION:
            kinds.append(body[at + 1] & 0xF)
        at += DESIGNATOR_HEADER + body[at + 3]
    if not set(kinds) & set(NAMING):
        raise Violation(ended.asked, f"designators of the unit of types {kinds}", "one of type 1, 2, 3 or 8 at least")
    return f"designators of the unit: types {kinds}"


def serial(device: DeviceUnderTest) -> str:
    if SERIAL not in _supported(device):
        raise NotApplicable("no page 80h")
    if device.info.serial is None:
        raise NotApplicable("no USB serial number")
    ended = _page(device, SERIAL)
    try:
        page = parse_page(ended.data, SERIAL)
    except MalformedReply as error:
        raise Violation(ended.asked, error.what, "a serial number") from error
    text = getattr(page, "serial", "")
    if (text not in device.info.serial and device.info.serial not in text) or not text:
        raise Violation(ended.asked, ascii(text), f"{device.info.serial!a}, as the USB descriptor has it")
    return ascii(text)


CHECKS: Final = (
    Check("inquiry-standard", "SPC-4 6.6.2", "Standard INQUIRY data has 36 bytes at least, in format 2.", standard),
    Check("inquiry-names", "SPC-4 4.4.1", "Vendor, product and revision are ASCII, aligned left.", names),
    Check(
        "inquiry-lengths",
        "SPC-4 4.2.5.6",
        "INQUIRY cuts its data at the allocation length, and changes nothing in it.",
        lengths,
    ),
    Check("inquiry-steady", "SPC-4 6.6.1", "INQUIRY says the same each time.", steady),
    Check("report-luns", "SPC-4 6.33", "REPORT LUNS has the LUNs that GET MAX LUN means.", report_luns),
    Check(
        "vpd-supported",
        "SPC-4 7.8.16",
        "VPD page 00h lists the pages in ascending order, the mandatory ones among them.",
        supported,
    ),
    Check(
        "vpd-listed",
        "SPC-4 7.8.1",
        "Each VPD page that is listed can be read, with its own code and a true length.",
        listed,
    ),
    Check("vpd-unlisted", "SPC-4 6.6.1", "A VPD page that is not listed fails with 5/24/00.", unlisted),
    Check("vpd-cut", "SPC-4 4.2.5.6", "A VPD page is cut at the allocation length, and its PAGE LENGTH stays.", cut),
    Check(
        "vpd-designators",
        "SPC-4 7.8.6",
        "VPD page 83h holds whole designators, one that names the unit among them.",
        designators,
    ),
    Check(
        "vpd-serial",
        "SPC-4 7.8.18",
        "VPD page 80h has the serial number of the USB descriptor.",
        serial,
        Severity.SHOULD,
    ),
)
