"""A vital product data page on the terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from scsiusb.cli import labels
from scsiusb.cli.output import hex_dump, show, show_record, show_table
from scsiusb.errors import MalformedReply
from scsiusb.scsi.pages.vpd import (
    AnyPage,
    BlockLimits,
    DeviceIdentification,
    FieldsPage,
    LogicalBlockProvisioning,
    SupportedPages,
    VpdPage,
)
from scsiusb.scsi.pages.vpd_designators import Designator

if TYPE_CHECKING:
    from scsiusb.ata.identify import IdentifyData
    from scsiusb.ata.packet import PacketIdentity

ATA_INFORMATION: Final = 0x89
IDENTIFICATION_AT: Final = 56  # in the bytes after the page's header


def identification_in(page: AnyPage) -> IdentifyData | PacketIdentity | None:
    """Return the device's own identification, which the page ATA information has (SAT-3 12.4.2); None without one."""
    if not isinstance(page, FieldsPage) or page.page != ATA_INFORMATION:
        return None
    from scsiusb.ata.identify import IDENTIFY_DEVICE, LENGTH, IdentifyData
    from scsiusb.ata.packet import IDENTIFY_PACKET_DEVICE, PacketIdentity

    data, code = page.body[IDENTIFICATION_AT:][:LENGTH], page.fields.get("command_code")
    try:
        if code == IDENTIFY_PACKET_DEVICE:
            return PacketIdentity.parse(data)
        return IdentifyData.parse(data) if code == IDENTIFY_DEVICE else None
    except MalformedReply:
        return None


def page_record(number: int, page: AnyPage) -> dict[str, Any]:
    """Return a page as names and values."""
    disk = identification_in(page)
    return {"page": number, **asdict(page), **({} if disk is None else {"identification": asdict(disk)})}


def problems_in(page: AnyPage) -> tuple[str, ...]:
    """Return what is wrong with a page's list of designators or entries."""
    return page.problems if isinstance(page, (DeviceIdentification, FieldsPage, LogicalBlockProvisioning)) else ()


def show_page(number: int, page: AnyPage) -> None:
    """Print a page: a table or a record of what is known of it, or its bytes."""
    if isinstance(page, SupportedPages):
        show_table(labels.SUPPORTED_COLUMNS, labels.supported_rows(page))
    elif isinstance(page, DeviceIdentification):
        show_table(labels.DESIGNATOR_COLUMNS, [labels.designator_row(entry) for entry in page.designators])
        _show_designators(page.designators)
    elif isinstance(page, FieldsPage):
        show_table(labels.FIELD_COLUMNS, labels.field_rows(page), wrapped=("meaning",))
        disk = identification_in(page)
        if disk is not None:
            show("")
            show_record({name.replace("_", " "): value for name, value in asdict(disk).items()})
    elif isinstance(page, VpdPage):
        show(f"page {labels.page_name(number)}")
        if page.body:
            show(hex_dump(page.body))
    else:
        show_record(labels.page_words(page))
        if isinstance(page, (BlockLimits, LogicalBlockProvisioning)):
            show("")
            show_table(labels.FIELD_COLUMNS, labels.field_rows(page), wrapped=("meaning",))
        if isinstance(page, LogicalBlockProvisioning):
            _show_designators(page.provisioning_group)


def _show_designators(found: tuple[Designator, ...]) -> None:
    """Print the parts of the identifiers that have any."""
    for entry in found:
        if entry.fields or entry.protocol_text:
            show(f"\n{entry.kind_text} {entry.text}")
            show_record(labels.designator_words(entry))
