"""What is known of a mode page: its name and its fields."""

from __future__ import annotations

from typing import NamedTuple

from scsiusb.scsi.pages.fields import Field

DISK, OPTICAL = 0x00, 0x05
"""Peripheral device types."""


class PageLayout(NamedTuple):
    """A mode page whose fields are known."""

    name: str
    """The word for the page."""
    acronym: str
    """sdparm's."""
    code: int
    subpage: int
    fields: tuple[Field, ...]
    device_type: int | None = None
    """The type of device that has it, where other types have another page of that code."""
