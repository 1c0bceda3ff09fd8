"""The GUID partition table: a header and its entries, twice, each with a CRC (UEFI 2.10, 5.3)."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from construct import Bytes, Int32ul, Int64ul, Struct

from scsiusb.base.packing import parsed
from scsiusb.base.text import printable
from scsiusb.errors import MediumError
from scsiusb.volume.entry import Entry
from scsiusb.volume.source import Source

SIGNATURE: Final = b"EFI PART"
REVISION: Final = 0x0001_0000
PRIMARY_LBA: Final = 1
FIRST_ARRAY_LBA: Final = 2  # of the primary's entries
ENTRY_LENGTH: Final = 128
ENTRY_COUNT: Final = 128  # that we write: 16 KiB, the least that the specification permits
MOST_ENTRIES: Final = 1024  # that we read
LONGEST_ENTRY: Final = 4096
NAME_LENGTH: Final = 72  # bytes of UTF-16
BOOTABLE: Final = 1 << 2  # attribute: legacy BIOS bootable
OTHER_SIZES: Final = (512, 4096)

HEADER: Final = Struct(
    "signature" / Bytes(8),
    "revision" / Int32ul,
    "length" / Int32ul,  # HeaderSize
    "crc" / Int32ul,  # HeaderCRC32: of the header, with zeros here
    "reserved" / Int32ul,
    "lba" / Int64ul,  # MyLBA
    "other_lba" / Int64ul,  # AlternateLBA
    "first_usable" / Int64ul,
    "last_usable" / Int64ul,
    "disk" / Bytes(16),  # DiskGUID
    "array_lba" / Int64ul,  # PartitionEntryLBA
    "count" / Int32ul,  # NumberOfPartitionEntries
    "entry_length" / Int32ul,  # SizeOfPartitionEntry
    "array_crc" / Int32ul,  # PartitionEntryArrayCRC32
)
HEADER_LENGTH: Final = HEADER.sizeof()
CRC_AT: Final = 16  # offset in the header
ENTRY: Final = Struct(
    "type" / Bytes(16),
    "uuid" / Bytes(16),
    "first" / Int64ul,
    "last" / Int64ul,
    "attributes" / Int64ul,
    "name" / Bytes(NAME_LENGTH),
)


class Invalid(Exception):
    """A header or its entries cannot be used; raised and caught in this module."""


class Table(NamedTuple):
    """A header, and the bytes of its entries, whose CRCs are right."""

    header: Any
    array: bytes

    @property
    def disk(self) -> UUID:
        """The disk's identifier."""
        return UUID(bytes_le=self.header.disk)


def read(source: Source) -> Table | None:
    """Return the primary table, or the backup if the primary cannot be used, or None if neither can.

    What is wrong, and that the backup is used, goes to the source's problems.
    """
    last = source.blocks - 1
    primary = _attempt(source, PRIMARY_LBA, "primary")
    backup = _attempt(source, last if primary is None else primary.header.other_lba, "backup")
    if primary is None:
        if backup is not None:
            source.problems.append("the backup table is used, as the primary one is damaged")
        return backup
    if primary.header.other_lba != last:
        source.problems.append(f"the backup table is at LBA {primary.header.other_lba}, not at the last LBA, {last}")
    if backup is not None and (backup.header.disk, backup.array) != (primary.header.disk, primary.array):
        source.problems.append("the backup table differs from the primary one, which is used")
    return primary


def _attempt(source: Source, lba: int, which: str) -> Table | None:
    try:
        return _table_at(source, lba)
    except (Invalid, MediumError) as error:
        source.problems.append(f"the {which} table cannot be used: {error}")
        return None


def _table_at(source: Source, lba: int) -> Table:
    """Return the table whose header is at `lba`. Raises Invalid, MediumError."""
    header = header_at(source, lba)
    length = header.count * header.entry_length
    blocks = -(-length // source.block_size)
    if header.array_lba < FIRST_ARRAY_LBA or header.array_lba + blocks > source.blocks:
        raise Invalid(f"its entries cannot be at LBA {header.array_lba}")
    array = source.read(header.array_lba * source.block_size, length)
    if binascii.crc32(array) != header.array_crc:
        raise Invalid("the CRC of its entries is wrong")
    return Table(header, array)


def header_at(source: Source, lba: int) -> Any:
    """Return the header at `lba`, checked. Raises Invalid, MediumError."""
    block = source.read(lba * source.block_size, source.block_size)
    if len(block) < HEADER_LENGTH or not block.startswith(SIGNATURE):
        raise Invalid(f"there is no header at LBA {lba}")
    header = parsed(HEADER, block)
    if not HEADER_LENGTH <= header.length <= len(block):
        raise Invalid(f"its header has an impossible length of {header.length} bytes")
    if _header_crc(block[: header.length]) != header.crc:
        raise Invalid("the CRC of its header is wrong")
    if header.lba != lba:
        raise Invalid(f"its header is at LBA {lba}, and says that it is at LBA {header.lba}")
    size = header.entry_length
    if not ENTRY_LENGTH <= size <= LONGEST_ENTRY or size & (size - 1):
        raise Invalid(f"its entries have an impossible length of {size} bytes")
    if header.count > MOST_ENTRIES:
        raise Invalid(f"it has {header.count} entries; more than {MOST_ENTRIES} are not supported")
    return header


def has_header(source: Source, lba: int) -> bool:
    """Return whether a usable header is at `lba`."""
    try:
        header_at(source, lba)
    except (Invalid, MediumError):
        return False
    return True


def other_block_size(source: Source) -> int | None:
    """Return the block size for which a header is where it belongs, if it is not that of the device.

    Some bridges translate blocks: a table that was written through another bridge is then elsewhere.
    """
    for size in OTHER_SIZES:
        if size != source.block_size and source.readable(size, len(SIGNATURE)) == SIGNATURE:
            return size
    return None


def entries(table: Table, source: Source) -> Iterator[Entry]:
    """Yield the used entries; what is wrong goes to the source's problems."""
    header = table.header
    for number, at in enumerate(range(0, len(table.array), header.entry_length), 1):
        raw = parsed(ENTRY, table.array[at : at + ENTRY_LENGTH])
        if not any(raw.type):
            continue
        if raw.last < raw.first:
            source.problems.append(f"partition {number} ends at LBA {raw.last}, before it begins at LBA {raw.first}")
            continue
        if raw.first < header.first_usable or raw.last > header.last_usable:
            source.problems.append(f"partition {number} is not within the table's usable blocks")
        kind, own = UUID(bytes_le=raw.type), UUID(bytes_le=raw.uuid)
        yield Entry(number, raw.first, raw.last - raw.first + 1, kind, _name(raw.name), raw.attributes, own)


def _name(raw: bytes) -> str:
    return printable(raw.decode("utf-16-le", "replace").split("\0")[0])


def _header_crc(header: bytes) -> int:
    return binascii.crc32(header[:CRC_AT] + bytes(4) + header[CRC_AT + 4 :])


class Layout(NamedTuple):
    """Where the parts of a table are on a medium."""

    block_size: int
    blocks: int

    @property
    def array_blocks(self) -> int:
        """The number of blocks of the entries."""
        return -(-ENTRY_COUNT * ENTRY_LENGTH // self.block_size)

    @property
    def first_usable(self) -> int:
        """The first block for partitions."""
        return FIRST_ARRAY_LBA + self.array_blocks

    @property
    def end_usable(self) -> int:
        """The block after the last one for partitions; less than `first_usable` if the medium is too small."""
        return self.blocks - 1 - self.array_blocks


def array_of(entries: Sequence[Entry]) -> bytes:
    """Return the bytes of the entries, each at the place of its number."""
    data = bytearray(ENTRY_COUNT * ENTRY_LENGTH)
    for entry in entries:
        assert isinstance(entry.type, UUID)
        assert entry.uuid is not None
        at = (entry.number - 1) * ENTRY_LENGTH
        data[at : at + ENTRY_LENGTH] = ENTRY.build(
            {
                "type": entry.type.bytes_le,
                "uuid": entry.uuid.bytes_le,
                "first": entry.lba,
                "last": entry.end - 1,
                "attributes": entry.attributes,
                "name": entry.name.encode("utf-16-le").ljust(NAME_LENGTH, b"\0"),
            }
        )
    return bytes(data)


def header_of(layout: Layout, disk: UUID, array: bytes, *, is_backup: bool) -> bytes:
    """Return the bytes of a header's block."""
    last = layout.blocks - 1
    values = {
        "signature": SIGNATURE,
        "revision": REVISION,
        "length": HEADER_LENGTH,
        "crc": 0,
        "reserved": 0,
        "lba": last if is_backup else PRIMARY_LBA,
        "other_lba": PRIMARY_LBA if is_backup else last,
        "first_usable": layout.first_usable,
        "last_usable": layout.end_usable - 1,
        "disk": disk.bytes_le,
        "array_lba": layout.end_usable if is_backup else FIRST_ARRAY_LBA,
        "count": ENTRY_COUNT,
        "entry_length": ENTRY_LENGTH,
        "array_crc": binascii.crc32(array),
    }
    values["crc"] = _header_crc(HEADER.build(values))
    data: bytes = HEADER.build(values)
    return data.ljust(layout.block_size, b"\0")
