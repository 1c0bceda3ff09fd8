"""A file or a directory, as a file system lists it."""

from __future__ import annotations

from datetime import datetime

from scsiusb.base.dataclass import dataclass


@dataclass(frozen=True)
class FileEntry:
    """A file or a directory of a file system."""

    name: str
    size: int
    """Bytes; of a directory, what the file system says, or 0."""
    is_directory: bool
    modified: datetime | None
    """When it was last changed, with a time zone; None if that is not known. FAT has it in two seconds."""
    number: int
    """The file's number within the file system."""
