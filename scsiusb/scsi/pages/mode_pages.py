"""Mode pages by number and by name; the names are those of sdparm."""

from __future__ import annotations

from typing import Final

from scsiusb.scsi.pages.mode_layout import DISK, OPTICAL, PageLayout
from scsiusb.scsi.pages.mode_pages_control import CONTROL_PAGES
from scsiusb.scsi.pages.mode_pages_disk import DISK_PAGES
from scsiusb.scsi.pages.mode_pages_optical import OPTICAL_PAGES

VENDOR_PAGE: Final = 0x00
VENDOR_PAGES: Final = range(0x20, 0x3F)  # SPC-4 7.5.1
PAGES: Final = (*DISK_PAGES, *CONTROL_PAGES, *OPTICAL_PAGES)


def find_layout(code: int, subpage: int, device_type: int | None = None) -> PageLayout | None:
    """Return the layout of a page, None if its fields are not known.

    `device_type`: the peripheral device type; None: not known. Optical drives have other pages of some codes.
    """
    family = None if device_type is None else OPTICAL if device_type == OPTICAL else DISK
    found = [each for each in PAGES if (each.code, each.subpage) == (code, subpage)]
    return next((each for each in found if None in (family, each.device_type) or family == each.device_type), None)


def page_name(code: int, subpage: int, device_type: int | None = None) -> str:
    """Return the name of a page, or the numbers in hex; pages that vendors define say so."""
    layout = find_layout(code, subpage, device_type)
    if layout is not None:
        return layout.name
    number = f"{code:02x}" + (f",{subpage:02x}" if subpage else "")
    return f"vendor specific {number}" if code == VENDOR_PAGE or code in VENDOR_PAGES else number


def depends_on_type(code: int) -> bool:
    """Return whether a page's fields depend on the device's type."""
    return any(each.device_type is not None for each in PAGES if each.code == code)


def page_called(word: str) -> tuple[int, int]:
    """Return the code and subpage of a page by its name, sdparm's acronym, or in hex: 8, 0x0a,1. Raise ValueError."""
    for each in PAGES:
        if word.lower() in (each.name, each.acronym):
            return each.code, each.subpage
    numbers = word.lower().split(",")
    try:
        code, subpage = (int(each, 16) for each in (*numbers, "0")[:2]) if len(numbers) <= 2 else (-1, -1)
    except ValueError:
        code = subpage = -1
    if not (0 <= code <= 0x3F and 0 <= subpage <= 0xFF):
        known = ", ".join(each.name for each in PAGES)
        raise ValueError(f"there is no mode page {word!r}; use a number in hex, such as 8 or a,1, or one of: {known}")
    return code, subpage


def page_with(field: str) -> PageLayout:
    """Return the page that has a field of that name. Raise ValueError where there is none, or more than one."""
    found = [page for page in PAGES if any(each.name == field.upper() for each in page.fields)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{field} is in the pages {', '.join(each.name for each in found)}; name one by --page")
    raise ValueError(f"no page that is known has a field {field!r}; `scsiusb modes` shows those of a device")
