"""MODE SENSE: both lengths of it well-formed, and of one mind with each other and the medium."""

from __future__ import annotations

from typing import Final, NamedTuple

from scsiusb.conformance.device_under_test import INVALID_FIELD, DeviceUnderTest
from scsiusb.conformance.exchange import ExchangeResult
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.scsi.commands.spc import ALL_PAGES, ModeSense6, ModeSense10

MOST: Final = 255
NO_SUCH_PAGE: Final = (0x17, 0x1F, 0x13, 0x11)
CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
SAVING_NOT_SUPPORTED: Final = (0x5, 0x39, 0x00)
SPF: Final = 0x40  # the page has a subpage code and a length of two bytes
WRITE_PROTECTED: Final = 0x80
DESCRIPTOR: Final = 8
LARGEST_SHORT_BLOCKS: Final = 0xFFFFFF
TIMES: Final = 4


class Modes(NamedTuple):
    """The reply taken apart, its lengths all checked."""

    specific: int  # DEVICE-SPECIFIC PARAMETER
    descriptors: bytes
    pages: tuple[tuple[int, int, bytes], ...]  # code, subpage, what follows the length

    @property
    def shape(self) -> list[tuple[int, int, int]]:
        return [(code, subpage, len(body)) for code, subpage, body in self.pages]


def _sense_6(device: DeviceUnderTest, control: int = CURRENT, page: int = ALL_PAGES, length: int = MOST) -> Modes:
    ended = device.optional(ModeSense6(page=page, page_control=control, length=length))
    head = ended.data.ljust(4, b"\0")
    return _taken_apart(ended, head[0] + 1, 4, head[2], head[3])


def _sense_10(device: DeviceUnderTest, control: int = CURRENT, page: int = ALL_PAGES, length: int = MOST) -> Modes:
    ended = device.optional(ModeSense10(page=page, page_control=control, length=length))
    head = ended.data.ljust(8, b"\0")
    return _taken_apart(ended, int.from_bytes(head[:2], "big") + 2, 8, head[3], int.from_bytes(head[6:8], "big"))


def _taken_apart(ended: ExchangeResult, length: int, header: int, specific: int, descriptors: int) -> Modes:
    data = ended.data
    if length > ended.length:
        raise NotApplicable(f"more than {ended.length} bytes of mode data")
    if len(data) < length or length < header:
        raise Violation(ended.asked, f"{len(data)} bytes, MODE DATA LENGTH for {length}", "as many as it says")
    if descriptors % DESCRIPTOR or header + descriptors > length:
        raise Violation(ended.asked, f"BLOCK DESCRIPTOR LENGTH {descriptors}", "a multiple of 8 that fits")
    body = data[header + descriptors : length]
    return Modes(specific, data[header : header + descriptors], tuple(_pages(ended, body)))


def _pages(ended: ExchangeResult, body: bytes) -> list[tuple[int, int, bytes]]:
    at, found = 0, []
    while at < len(body):
        head = 4 if body[at] & SPF else 2
        size = int.from_bytes(body[at + head // 2 : at + head], "big")
        if at + head + size > len(body):
            raise Violation(ended.asked, f"mode page {body[at] & 0x3F:02X}h of {size} bytes, cut off", "whole pages")
        found.append((body[at] & 0x3F, body[at + 1] if head == 4 else 0, body[at + head : at + head + size]))
        at += head + size
    return found


def _words(modes: Modes) -> str:
    return "pages " + (" ".join(f"{code:02X}" for code, _, _ in modes.pages) or "none")


def mode_6(device: DeviceUnderTest) -> str:
    return _words(_sense_6(device))


def mode_10(device: DeviceUnderTest) -> str:
    return _words(_sense_10(device))


def agree(device: DeviceUnderTest) -> str:
    short, long = _sense_6(device), _sense_10(device)
    if (short.specific, short.pages) != (long.specific, long.pages):
        came = f"{_words(short)}, parameter {short.specific:02X}h; {_words(long)}, parameter {long.specific:02X}h"
        raise Violation("MODE SENSE(6) and (10) of all pages", came, "the same parameter and pages")
    return f"{_words(short)}, parameter {short.specific:02X}h"


def page_control(device: DeviceUnderTest) -> str:
    current = _sense_6(device)
    for name, control in (("changeable", CHANGEABLE), ("default", DEFAULT)):
        other = _sense_6(device, control)
        if other.shape != current.shape:
            raise Violation(f"MODE SENSE(6), {name} values", _words(other), f"{_words(current)}, of the same lengths")
    request = ModeSense6(page_control=SAVED, length=MOST)
    if device.run(request).is_failed:
        device.sense()
        return "current, changeable, default alike; " + device.refused(request, SAVING_NOT_SUPPORTED, INVALID_FIELD)
    return "current, changeable, default alike, and saved values"


def unknown_page(device: DeviceUnderTest) -> str:
    there = {code for code, _, _ in _sense_6(device).pages}
    page = next(page for page in NO_SUCH_PAGE if page not in there)
    return f"page {page:02X}h: " + device.refused(ModeSense6(page=page), INVALID_FIELD)


def one_page(device: DeviceUnderTest) -> str:
    """Each page of all can be had alone, and is the same."""
    whole = _sense_6(device)
    for code, subpage, body in whole.pages:
        if subpage or not code:
            continue
        alone = _sense_6(device, page=code)
        if alone.pages[:1] != ((code, 0, body),):
            raise Violation(f"MODE SENSE(6) of page {code:02X}h", _words(alone), "the page as among all pages")
    return _words(whole)


def cut(device: DeviceUnderTest) -> str:
    device.optional(ModeSense6(length=MOST))
    whole = device.good(ModeSense6(length=MOST)).data
    for length in (0, 4, 8):
        ended = device.good(ModeSense6(length=length))
        if ended.data[:length] != whole[:length]:
            raise Violation(ended.asked, ended.data.hex(" "), f"{whole[:length].hex(' ')}: the whole, cut")
    return "allocation lengths 0, 4, 8"


def block_descriptor(device: DeviceUnderTest) -> str:
    descriptors = _sense_6(device).descriptors
    if not descriptors:
        raise NotApplicable("no block descriptor")
    size = int.from_bytes(descriptors[5:8], "big")
    if size != device.block_size:
        right = f"{device.block_size}, as READ CAPACITY says"
        raise Violation("MODE SENSE(6), the block descriptor", f"blocks of {size} bytes", right)
    return f"blocks of {size} bytes"


def write_protect_steady(device: DeviceUnderTest) -> str:
    found = {_sense_6(device).specific & WRITE_PROTECTED for _ in range(TIMES)}
    if len(found) > 1:
        raise Violation(f"MODE SENSE(6), {TIMES} times", "WP now set, now not", "the same each time")
    return "write protected" if found.pop() else "not write protected"


CHECKS: Final = (
    Check("mode-sense-6", "SPC-4 7.5", "MODE SENSE(6) of all pages is well-formed: its lengths are true.", mode_6),
    Check("mode-sense-10", "SPC-4 7.5", "MODE SENSE(10) of all pages is well-formed: its lengths are true.", mode_10),
    Check("mode-agree", "SPC-4 6.14", "MODE SENSE(6) and MODE SENSE(10) say the same.", agree),
    Check("mode-one-page", "SPC-4 6.13.1", "Each mode page can be had alone, and is the same as among all.", one_page),
    Check(
        "mode-page-control",
        "SPC-4 6.13.1",
        "Current, changeable and default values have the same pages; saved ones too, or 5/39/00.",
        page_control,
    ),
    Check("mode-unknown-page", "SPC-4 6.13.1", "A mode page that there is not fails with 5/24/00.", unknown_page),
    Check(
        "mode-cut",
        "SPC-4 4.2.5.6",
        "MODE SENSE(6) cuts its data at the allocation length, and MODE DATA LENGTH stays.",
        cut,
    ),
    Check(
        "mode-block-size",
        "SBC-3 6.4.2",
        "The block descriptor has the block size that READ CAPACITY has.",
        block_descriptor,
        needs_medium=True,
    ),
    Check("mode-write-protect", "SBC-3 6.4.1", "The write protection says the same each time.", write_protect_steady),
)
