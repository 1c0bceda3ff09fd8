"""Checks of MODE SENSE(6) and (10): well-formed, and consistent with each other and with READ CAPACITY."""

from __future__ import annotations

from typing import Final, NamedTuple

from scsiusb.conformance.device_under_test import INVALID_FIELD, DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.scsi.commands.spc import ALL_PAGES, ModeSense6, ModeSense10

MOST: Final = 255  # bytes of mode data to ask for
NO_SUCH_PAGE: Final = (0x17, 0x1F, 0x13, 0x11)  # candidates; the first one that the unit does not have is used
CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
SAVING_NOT_SUPPORTED: Final = (0x5, 0x39, 0x00)
SPF: Final = 0x40  # set: the page has a subpage code and a length of two bytes
WRITE_PROTECTED: Final = 0x80
DESCRIPTOR: Final = 8  # bytes of a short block descriptor
LARGEST_SHORT_BLOCKS: Final = 0xFFFFFF
TIMES: Final = 4


class Modes(NamedTuple):
    """The parts of a MODE SENSE reply whose lengths have been checked."""

    specific: int  # DEVICE-SPECIFIC PARAMETER
    descriptors: bytes
    pages: tuple[tuple[int, int, bytes], ...]  # code, subpage, what follows the length

    @property
    def shape(self) -> list[tuple[int, int, int]]:
        """Code, subpage and length in bytes of each page."""
        return [(code, subpage, len(body)) for code, subpage, body in self.pages]


def _sense_6(device: DeviceUnderTest, control: int = CURRENT, page: int = ALL_PAGES) -> Modes:
    """Return the reply to MODE SENSE(6). NotApplicable if it is not supported, which only the plain one may be."""
    request = ModeSense6(page=page, page_control=control, length=MOST)
    is_plain = control == CURRENT and page == ALL_PAGES
    result = device.optional(request) if is_plain else device.good(request)
    head = result.data.ljust(4, b"\0")
    return _parse(result, head[0] + 1, 4, head[2], head[3])


def _sense_10(device: DeviceUnderTest) -> Modes:
    result = device.optional(ModeSense10(page=ALL_PAGES, length=MOST))
    head = result.data.ljust(8, b"\0")
    return _parse(result, int.from_bytes(head[:2], "big") + 2, 8, head[3], int.from_bytes(head[6:8], "big"))


def _parse(result: ExchangeResult, length: int, header: int, specific: int, descriptors: int) -> Modes:
    """Check the lengths in the header. Raises Violation; NotApplicable if there is more data than was asked for."""
    data = result.data
    if length > result.length:
        raise NotApplicable(f"more than {result.length} bytes of mode data")
    if len(data) < length or length < header:
        raise Violation(
            result.asked, f"{len(data)} bytes, MODE DATA LENGTH for {length}", "as many bytes as MODE DATA LENGTH"
        )
    if descriptors % DESCRIPTOR or header + descriptors > length:
        raise Violation(result.asked, f"BLOCK DESCRIPTOR LENGTH {descriptors}", "a multiple of 8 within the mode data")
    body = data[header + descriptors : length]
    return Modes(specific, data[header : header + descriptors], tuple(_pages(result, body)))


def _pages(result: ExchangeResult, body: bytes) -> list[tuple[int, int, bytes]]:
    """Split the mode pages. Raises Violation for a page that is incomplete."""
    at, found = 0, []
    while at < len(body):
        head = 4 if body[at] & SPF else 2
        size = int.from_bytes(body[at + head // 2 : at + head], "big")
        if at + head + size > len(body):
            raise Violation(
                result.asked, f"mode page {body[at] & 0x3F:02X}h of {size} bytes, incomplete", "complete pages"
            )
        found.append((body[at] & 0x3F, body[at + 1] if head == 4 else 0, body[at + head : at + head + size]))
        at += head + size
    return found


def _describe(modes: Modes) -> str:
    return "pages " + (" ".join(f"{code:02X}" for code, _, _ in modes.pages) or "none")


def mode_6(device: DeviceUnderTest) -> str:
    """Send MODE SENSE(6) for all pages."""
    return _describe(_sense_6(device))


def mode_10(device: DeviceUnderTest) -> str:
    """Send MODE SENSE(10) for all pages."""
    return _describe(_sense_10(device))


def agree(device: DeviceUnderTest) -> str:
    """Compare MODE SENSE(6) with MODE SENSE(10)."""
    short, long = _sense_6(device), _sense_10(device)
    if (short.specific, short.pages) != (long.specific, long.pages):
        came = f"{_describe(short)}, parameter {short.specific:02X}h; {_describe(long)}, parameter {long.specific:02X}h"
        raise Violation("MODE SENSE(6) and (10) of all pages", came, "the same device-specific parameter and pages")
    return f"{_describe(short)}, parameter {short.specific:02X}h"


def page_control(device: DeviceUnderTest) -> str:
    """Send MODE SENSE(6) for current, changeable, default and saved values of all pages."""
    current = _sense_6(device)
    for name, control in (("changeable", CHANGEABLE), ("default", DEFAULT)):
        other = _sense_6(device, control)
        if other.shape != current.shape:
            raise Violation(
                f"MODE SENSE(6), {name} values", _describe(other), f"{_describe(current)}, of the same lengths"
            )
    request = ModeSense6(page_control=SAVED, length=MOST)
    if device.run(request).is_failed:
        device.sense()
        return "current, changeable and default values have the same pages; saved values: " + device.refused(
            request, SAVING_NOT_SUPPORTED, INVALID_FIELD
        )
    return "current, changeable and default values have the same pages; saved values are supported"


def unknown_page(device: DeviceUnderTest) -> str:
    """Send MODE SENSE(6) for a page that is not among all pages."""
    there = {code for code, _, _ in _sense_6(device).pages}
    page = next(page for page in NO_SUCH_PAGE if page not in there)
    return f"page {page:02X}h: " + device.refused(ModeSense6(page=page), INVALID_FIELD)


def one_page(device: DeviceUnderTest) -> str:
    """Read each mode page alone and compare it with the reply for all pages."""
    whole = _sense_6(device)
    for code, subpage, body in whole.pages:
        if subpage or not code:
            continue
        alone = _sense_6(device, page=code)
        if alone.pages[:1] != ((code, 0, body),):
            raise Violation(
                f"MODE SENSE(6) of page {code:02X}h", _describe(alone), "the same page as in the list of all pages"
            )
    return _describe(whole)


def cut(device: DeviceUnderTest) -> str:
    """Send MODE SENSE(6) with short allocation lengths."""
    device.optional(ModeSense6(length=MOST))
    whole = device.good(ModeSense6(length=MOST)).data
    for length in (0, 4, 8):
        result = device.good(ModeSense6(length=length))
        if result.data[:length] != whole[:length]:
            raise Violation(
                result.asked, result.data.hex(" "), f"{whole[:length].hex(' ')}: the whole mode data, truncated"
            )
    return "allocation lengths 0, 4, 8"


def block_descriptor(device: DeviceUnderTest) -> str:
    """Compare the block size in the block descriptor with READ CAPACITY."""
    descriptors = _sense_6(device).descriptors
    if not descriptors:
        raise NotApplicable("no block descriptor")
    size = int.from_bytes(descriptors[5:8], "big")
    if size != device.block_size:
        expected = f"{device.block_size}, as READ CAPACITY reports"
        raise Violation("MODE SENSE(6), the block descriptor", f"blocks of {size} bytes", expected)
    return f"blocks of {size} bytes"


def write_protect_steady(device: DeviceUnderTest) -> str:
    """Read the WP bit several times."""
    found = {_sense_6(device).specific & WRITE_PROTECTED for _ in range(TIMES)}
    if len(found) > 1:
        raise Violation(f"MODE SENSE(6), {TIMES} times", "WP set and not set", "the same value each time")
    return "write protected" if found.pop() else "not write protected"


CHECKS: Final = (
    Check(
        "mode-sense-6",
        "SPC-4 7.5",
        "MODE SENSE(6) of all pages must return well-formed data with correct lengths.",
        mode_6,
    ),
    Check(
        "mode-sense-10",
        "SPC-4 7.5",
        "MODE SENSE(10) of all pages must return well-formed data with correct lengths.",
        mode_10,
    ),
    Check(
        "mode-agree",
        "SPC-4 6.14",
        "MODE SENSE(6) and MODE SENSE(10) must return the same pages and the same device-specific parameter.",
        agree,
    ),
    Check(
        "mode-one-page",
        "SPC-4 6.13.1",
        "Each mode page read alone must be the same as in the reply with all pages.",
        one_page,
    ),
    Check(
        "mode-page-control",
        "SPC-4 6.13.1",
        "Current, changeable and default values must have the same pages; saved ones may fail with 5/39/00 or 5/24/00.",
        page_control,
    ),
    Check(
        "mode-unknown-page",
        "SPC-4 6.13.1",
        "An unsupported mode page must fail with 5/24/00 (INVALID FIELD IN CDB).",
        unknown_page,
    ),
    Check(
        "mode-cut",
        "SPC-4 4.2.5.6",
        "MODE SENSE(6) must truncate its data to the allocation length, with MODE DATA LENGTH unchanged.",
        cut,
    ),
    Check(
        "mode-block-size",
        "SBC-3 6.4.2",
        "The block descriptor must have the block size that READ CAPACITY reports.",
        block_descriptor,
        needs_medium=True,
    ),
    Check(
        "mode-write-protect",
        "SBC-3 6.4.1",
        "The WP bit (write protect) must have the same value each time.",
        write_protect_steady,
    ),
)
