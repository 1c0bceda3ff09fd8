"""INQUIRY data and vital product data pages as text: names for the codes of the standards."""

from __future__ import annotations

from typing import Any, Final

from scsiusb.cli.output import counted
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.pages.vpd import (
    AnyPage,
    BlockLimits,
    FieldsPage,
    LogicalBlockProvisioning,
    SupportedPages,
    UnitSerialNumber,
)
from scsiusb.scsi.pages.vpd_designators import EUI_64, NAA, Designator
from scsiusb.scsi.pages.vpd_fields import find_layout

VERSIONS: Final = {0: "none", 2: "SCSI-2", 3: "SPC", 4: "SPC-2", 5: "SPC-3", 6: "SPC-4", 7: "SPC-5"}  # SPC-4 6.6.2
PAGES: Final = {  # SPC-4 7.8, SBC-3 6.5, and what came later
    0x00: "supported pages",
    0x80: "unit serial number",
    0x83: "device identification",
    0x84: "software interface identification",
    0x85: "management network addresses",
    0x86: "extended INQUIRY data",
    0x87: "mode page policy",
    0x88: "SCSI ports",
    0x89: "ATA information",
    0x8A: "power condition",
    0x8B: "device constituents",
    0x8D: "power consumption",
    0x8F: "third-party copy",
    0xB0: "block limits",
    0xB1: "block device characteristics",
    0xB2: "logical block provisioning",
    0xB3: "referrals",
    0xB6: "zoned block device characteristics",
    0xB7: "block limits extension",
}
FIRST_VENDOR_PAGE: Final = 0xC0
ASSOCIATIONS: Final = {0: "logical unit", 1: "target port", 2: "target device"}  # SPC-4 7.8.6.1


FEATURES: Final = {  # flags of INQUIRY data, by attribute
    "lu_cong": "LU_CONG",
    "normaca": "NORMACA",
    "hisup": "HISUP",
    "sccs": "SCCS",
    "acc": "ACC",
    "third_party_copy": "3PC",
    "protect": "PROTECT",
    "encserv": "ENCSERV",
    "multip": "MULTIP",
    "addr16": "ADDR16",
    "cmdque": "CMDQUE",
}


def page_name(page: int) -> str:
    """Return the code and the name of a VPD page."""
    other = "vendor specific" if page >= FIRST_VENDOR_PAGE else "unknown to scsiusb"
    return f"{page:02X}h {PAGES.get(page, other)}"


def inquiry_words(data: InquiryData) -> dict[str, Any]:
    """Return INQUIRY data as names and values to show."""
    version = VERSIONS.get(data.version)
    words = {
        "vendor": data.vendor,
        "product": data.product,
        "revision": data.revision,
        "type": f"{data.type_text} ({data.peripheral_device_type:02X}h)",
        "removable": data.removable,
        "standard": f"{data.version:02X}h" if version is None else f"{version} ({data.version:02X}h)",
        "qualifier": data.peripheral_qualifier,
        "data format": data.response_data_format,
    }
    features = [text for name, text in FEATURES.items() if getattr(data, name)]
    if data.tpgs:
        features.append(f"TPGS {data.tpgs}")
    if features:
        words["features"] = ", ".join(features)
    if data.version_descriptors:
        words["claims"] = ", ".join(f"{code:04X}h" for code in data.version_descriptors)
    return words


PROVISIONING_KINDS: Final = {0: "not reported", 1: "resource", 2: "thin"}
NO_LIMIT: Final = 0xFFFFFFFF  # of the blocks that an UNMAP may name


def page_words(page: AnyPage) -> dict[str, Any]:
    """Return a VPD page that is a record as names and values to show; other pages are tables or bytes."""
    if isinstance(page, UnitSerialNumber):
        return {"serial": page.serial}
    if isinstance(page, LogicalBlockProvisioning):
        return {
            "UNMAP": page.unmap,
            "WRITE SAME(16)": page.write_same_16,
            "WRITE SAME(10)": page.write_same_10,
            "reads zeros": page.zeros,
            "kind": PROVISIONING_KINDS.get(page.kind, f"type {page.kind}"),
        }
    assert isinstance(page, BlockLimits)
    return {
        "optimal granularity": _blocks(page.optimal_granularity),
        "max transfer": _blocks(page.max_transfer),
        "optimal transfer": _blocks(page.optimal_transfer),
        "max unmap": "no limit" if page.max_unmap_blocks == NO_LIMIT else _blocks(page.max_unmap_blocks),
    }


def _blocks(count: int) -> str:
    return counted(count, "block") if count else "not reported"


DESIGNATOR_COLUMNS: Final = ("of", "kind", "value")


def designator_row(entry: Designator) -> tuple[str, str, str]:
    """Return a row of the table of designators."""
    return ASSOCIATIONS.get(entry.association, f"{entry.association}h"), entry.kind_text, entry.text


def designator_words(entry: Designator) -> dict[str, Any]:
    """Return the parts of an identifier as names and values to show; the numbers of IEEE's names in hex."""
    parts: dict[str, Any] = {name.replace("_", " "): value for name, value in entry.fields.items()}
    if entry.kind in (EUI_64, NAA):
        parts = {name: f"{value:06X}h" if name != "naa" else value for name, value in parts.items()}
    return parts if entry.protocol_text is None else {"protocol": entry.protocol_text, **parts}


FIELD_COLUMNS: Final = ("field", "value", "meaning")


FieldRow = tuple[str, int | str, str | None]


def field_rows(page: FieldsPage | BlockLimits | LogicalBlockProvisioning) -> list[FieldRow]:
    """Return the table of a page's fields."""
    layout = find_layout(page.page if isinstance(page, FieldsPage) else page.PAGE)
    fields = (*layout.fields, *(layout.entries.fields if layout.entries else ())) if layout else ()
    texts = {field.name.lower(): field.text for field in fields}
    rows: list[FieldRow] = [(name, value, texts.get(name)) for name, value in page.fields.items()]
    for number, entry in enumerate(page.entries if isinstance(page, FieldsPage) else ()):
        rows += [(f"{number}: {name}", value, texts.get(name)) for name, value in entry.items()]
    return rows


SUPPORTED_COLUMNS: Final = ("page", "name")


def supported_rows(page: SupportedPages) -> list[list[str]]:
    """Return the table of supported pages."""
    return [page_name(number).split(" ", 1) for number in page.pages]
