"""A vital product data page on the terminal."""

from __future__ import annotations

from scsiusb.cli import labels
from scsiusb.cli.output import hex_dump, show, show_record, show_table
from scsiusb.scsi.pages.vpd import AnyPage, DeviceIdentification, FieldsPage, SupportedPages, VpdPage


def show_page(number: int, page: AnyPage) -> None:
    """Print a page: a table or a record of what is known of it, or its bytes."""
    if isinstance(page, SupportedPages):
        show_table(labels.SUPPORTED_COLUMNS, labels.supported_rows(page))
    elif isinstance(page, DeviceIdentification):
        show_table(labels.DESIGNATOR_COLUMNS, [labels.designator_row(entry) for entry in page.designators])
    elif isinstance(page, FieldsPage):
        show_table(labels.FIELD_COLUMNS, labels.field_rows(page), wrapped=("meaning",))
    elif isinstance(page, VpdPage):
        show(f"page {labels.page_name(number)}")
        if page.body:
            show(hex_dump(page.body))
    else:
        show_record(labels.page_words(page))
