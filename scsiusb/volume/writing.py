"""Write a partition table, after a check of all of it, and read it back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final
from uuid import UUID, uuid4

from scsiusb.base.arguments import integer, wrong_type
from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.disk.file import READ_WRITE, DiskFile
from scsiusb.errors import Miscompare, OutOfRange
from scsiusb.scsi.sense import MISCOMPARE
from scsiusb.volume import content, gpt, mbr
from scsiusb.volume.entry import EXTENDED_TYPES, Entry
from scsiusb.volume.source import Source
from scsiusb.volume.table import PartitionTable, partitions_of

ALIGNMENT: Final = 1 << 20  # bytes; suits the erase blocks of nearly all flash memory
EXTENDED: Final = 0x0F
LINK: Final = 0x05
LARGEST_MBR: Final = 0xFFFF_FFFF  # both an address and a number of blocks have 32 bits


@dataclass(frozen=True)
class NewPartition:
    """A partition for `write_mbr` or `write_gpt`."""

    type: int | UUID
    """An int from 1 to 255 for an MBR, a UUID for a GPT; such as `EFI_SYSTEM`."""
    lba: int | None = None
    """The first block; None: the next multiple of 1 MiB after the partition before."""
    blocks: int | None = None
    """None: all up to the next partition, which needs an `lba` then, or up to the end, rounded down to 1 MiB."""
    name: str = ""
    """For a GPT: up to 36 characters."""
    is_bootable: bool = False
    is_logical: bool = False
    """For an MBR: a logical drive, in an extended partition that is made for all of them."""
    attributes: int = 0
    """For a GPT: the attribute bits (UEFI 5.3.3); `is_bootable` adds one."""
    uuid: UUID | None = None
    """For a GPT: the partition's unique identifier; None: a random one."""


def write_mbr(disk: Disk, entries: Sequence[NewPartition], *, signature: int | None = None) -> PartitionTable:
    """Write a master boot record with these partitions, flush, and return the table as read back.

    Boot code stays, and the headers of a GPT are erased; the content of partitions is not changed. `signature`: the
    disk's identifier; None: that of the table before, or a random one.

    Raises ValueError, before anything is written, for partitions that overlap, that are not within the medium
    (OutOfRange) or within 2^32 blocks, that are too many, or whose type does not suit (TypeError for a UUID). Raises
    Miscompare if something else is read back than was written; else as `Disk.write`.
    """
    if signature is not None and not 0 <= integer("signature", signature) < 1 << 32:
        raise ValueError(f"the signature {signature:#x} does not fit in 32 bits")
    file = DiskFile(disk, READ_WRITE)
    source = Source(file, file.block_size, file.blocks)
    plan = _plan_mbr(entries, file.block_size, file.blocks)
    old = _old_record(source)
    code = b"" if old is None else old.code
    if signature is None:
        signature = (old.signature if old else 0) or secrets.randbits(32) | 1
    for lba, record in _drive_records(plan):
        _write_block(file, lba, record)
    primaries = [_packed(entry) for entry in plan if entry.number <= mbr.PRIMARIES]
    _write_block(file, 0, mbr.record(code, signature, primaries))
    _erase_gpt(source, file)  # from now on it is ignored
    file.flush()
    return _read_back(file, plan)


def write_gpt(disk: Disk, entries: Sequence[NewPartition], *, disk_uuid: UUID | None = None) -> PartitionTable:
    """Write a GUID partition table with these partitions, flush, and return the table as read back.

    Both copies and the protective MBR are written, the backup first. Boot code stays; the content of partitions is not
    changed. `disk_uuid`: the disk's identifier; None: a random one. Raises as `write_mbr`.
    """
    if disk_uuid is not None and not isinstance(disk_uuid, UUID):
        raise wrong_type("disk_uuid", "a UUID or None", disk_uuid)
    file = DiskFile(disk, READ_WRITE)
    layout = gpt.Layout(file.block_size, file.blocks)
    plan = _plan_gpt(entries, layout)
    array = gpt.array_of(plan)
    own = disk_uuid or uuid4()
    old = _old_record(Source(file, file.block_size, file.blocks))
    covering = mbr.packed(mbr.PROTECTIVE, 1, min(file.blocks - 1, LARGEST_MBR))
    _write_at(file, layout.end_usable, array)
    _write_at(file, file.blocks - 1, gpt.header_of(layout, own, array, is_backup=True))
    file.flush()  # before the first copy, so that one of the two is always whole
    _write_at(file, gpt.FIRST_ARRAY_LBA, array)
    _write_at(file, gpt.PRIMARY_LBA, gpt.header_of(layout, own, array, is_backup=False))
    _write_block(file, 0, mbr.record(b"" if old is None else old.code, 0, [covering]))
    file.flush()
    return _read_back(file, plan)


def _old_record(source: Source) -> mbr.Record | None:
    """Return the boot record at LBA 0; None if there is none, or if it is a file system's boot sector."""
    head = source.read(0, mbr.LENGTH)
    return None if content.boot_sector(head) else mbr.parse(head)


def _write_at(file: DiskFile, lba: int, data: bytes) -> None:
    file.seek(lba * file.block_size)
    file.write(data)


def _write_block(file: DiskFile, lba: int, record: bytes) -> None:
    _write_at(file, lba, record.ljust(file.block_size, b"\0"))


def _erase_gpt(source: Source, file: DiskFile) -> None:
    for lba in (gpt.PRIMARY_LBA, file.blocks - 1):
        if source.block(lba, len(gpt.SIGNATURE)) == gpt.SIGNATURE:
            _write_at(file, lba, bytes(file.block_size))


def _read_back(file: DiskFile, plan: Sequence[Entry]) -> PartitionTable:
    table = partitions_of(file)
    found = [(each.number, each.lba, each.blocks, each.type, each.name, each.attributes) for each in table]
    wanted = [(each.number, each.lba, each.blocks, each.type, each.name, each.attributes) for each in plan]
    if found != wanted:
        raise Miscompare("the partition table that is read back is not the one that was written", MISCOMPARE)
    return table


# --- Where partitions go ------------------------------------------------------------------------


def _placed(
    entries: Sequence[NewPartition], block_size: int, first: int, end: int, most: int
) -> list[tuple[NewPartition, int, int]]:
    """Return each partition with its `lba` and `blocks`. Raises ValueError, OutOfRange."""
    step = max(1, ALIGNMENT // block_size)
    placed, free = list[tuple[NewPartition, int, int]](), first
    for number, entry in enumerate(entries, 1):
        lba = entry.lba
        if lba is None:
            lba = -(-(free + entry.is_logical) // step) * step  # a logical drive has a record before it
        lba = integer("lba", lba)
        blocks = (
            _room(entries[number:], lba, end, most, step) if entry.blocks is None else integer("blocks", entry.blocks)
        )
        if blocks < 1:
            raise OutOfRange(f"partition {number} has no room at LBA {lba}", f"use the LBAs {first} to {end - 1}")
        if lba < first or lba + blocks > end:
            what = (
                f"partition {number}, with {blocks} blocks from LBA {lba}, is not within the LBAs {first} to {end - 1}"
            )
            raise OutOfRange(what, "give another lba, or fewer blocks")
        placed.append((entry, lba, blocks))
        free = lba + blocks
    _check_apart([(lba, lba + blocks) for _, lba, blocks in placed])
    return placed


def _room(later: Sequence[NewPartition], lba: int, end: int, most: int, step: int) -> int:
    """Return the number of blocks up to the next partition that has an address, or to the end."""
    following = later[0] if later else None
    if following is not None and following.lba is None:
        raise ValueError("a partition without a number of blocks has one without an lba after it; give one of the two")
    if following is not None and following.lba is not None:
        end = min(end, following.lba - following.is_logical)
    blocks = min(end - lba, most)
    return blocks - (lba + blocks) % step if blocks >= 2 * step else blocks


def _check_apart(ranges: Sequence[tuple[int, int]]) -> None:
    ordered = sorted(ranges)
    for (first, end), (other, _) in pairwise(ordered):
        if other < end:
            raise ValueError(f"the partitions at LBA {first} and LBA {other} overlap")


def _plan_gpt(entries: Sequence[NewPartition], layout: gpt.Layout) -> list[Entry]:
    if layout.end_usable <= layout.first_usable:
        raise OutOfRange(f"a medium of {layout.blocks} blocks is too small for a GPT", "use an MBR")
    if len(entries) > gpt.ENTRY_COUNT:
        raise ValueError(f"{len(entries)} partitions are too many; a GPT has room for {gpt.ENTRY_COUNT}")
    for entry in entries:
        _check_gpt_entry(entry)
    placed = _placed(entries, layout.block_size, layout.first_usable, layout.end_usable, layout.blocks)
    return [
        Entry(
            number,
            lba,
            blocks,
            entry.type,
            entry.name,
            entry.attributes | (gpt.BOOTABLE if entry.is_bootable else 0),
            entry.uuid or uuid4(),
        )
        for number, (entry, lba, blocks) in enumerate(placed, 1)
    ]


def _check_gpt_entry(entry: NewPartition) -> None:
    if not isinstance(entry.type, UUID):
        raise wrong_type("type", "a UUID in a GPT", entry.type)
    if not entry.type.int:
        raise ValueError("the type of all zeros marks an entry as unused; give another one")
    if entry.is_logical:
        raise ValueError("a GPT has no logical drives; use is_logical with an MBR")
    if entry.uuid is not None and not isinstance(entry.uuid, UUID):
        raise wrong_type("uuid", "a UUID or None", entry.uuid)
    if not isinstance(entry.name, str):
        raise wrong_type("name", "a str", entry.name)
    if not 0 <= integer("attributes", entry.attributes) < 1 << 64:
        raise ValueError(f"the attributes {entry.attributes:#x} do not fit in 64 bits")
    if not entry.name.isprintable() or len(entry.name.encode("utf-16-le", "replace")) > gpt.NAME_LENGTH:
        raise ValueError(f"the name {entry.name!r} is not possible; give up to 36 printable characters")


def _plan_mbr(entries: Sequence[NewPartition], block_size: int, blocks: int) -> list[Entry]:
    """Return the primary partitions, the extended one among them, and then the logical drives."""
    for entry in entries:
        _check_mbr_entry(entry)
    placed = _placed(entries, block_size, 1, min(blocks, LARGEST_MBR + 1), LARGEST_MBR)
    step = max(1, ALIGNMENT // block_size)
    primaries, drives = list[Entry](), list[Entry]()
    for entry, lba, count in placed:
        made = Entry(0, lba, count, entry.type, attributes=mbr.ACTIVE if entry.is_bootable else 0)
        if entry.is_logical:
            if not drives:
                start = max([1, lba - step, *(each.end for each in primaries if each.end <= lba)])
                primaries.append(Entry(0, start, 0, EXTENDED))
            drives.append(made)
        else:
            primaries.append(made)
    if len(primaries) > mbr.PRIMARIES:
        raise ValueError(f"{len(primaries)} primary partitions are too many for an MBR; mark some as is_logical")
    primaries = [_around(each, drives) if each.is_container else each for each in primaries]
    _check_apart([(each.lba, each.end) for each in primaries])
    _check_drives(primaries, drives)
    numbered = [replace(each, number=number) for number, each in enumerate(primaries, 1)]
    return numbered + [replace(each, number=number) for number, each in enumerate(drives, mbr.FIRST_LOGICAL)]


def _around(extended: Entry, drives: Sequence[Entry]) -> Entry:
    return replace(extended, blocks=drives[-1].end - extended.lba)


def _check_drives(primaries: Sequence[Entry], drives: Sequence[Entry]) -> None:
    """Raise ValueError unless the logical drives are in order, each with a block before it for its record."""
    if len(drives) > mbr.MOST_LOGICALS:
        raise ValueError(f"{len(drives)} logical drives are too many; {mbr.MOST_LOGICALS} are possible")
    free = next((each.lba for each in primaries if each.is_container), 0)
    for drive in drives:
        if drive.lba <= free:
            raise ValueError(f"there is no block before the logical drive at LBA {drive.lba} for its record")
        free = drive.end


def _check_mbr_entry(entry: NewPartition) -> None:
    if not isinstance(entry.type, int):
        raise wrong_type("type", "an int in an MBR", entry.type)
    if not 1 <= entry.type <= 0xFF or entry.type in EXTENDED_TYPES or entry.type == mbr.PROTECTIVE:
        raise ValueError(f"type {entry.type:#04x} is not possible; extended partitions are made for is_logical")
    if entry.name or entry.uuid or entry.attributes:
        raise ValueError("an MBR has no names, identifiers and attributes of partitions; use a GPT")


def _packed(entry: Entry) -> bytes:
    assert isinstance(entry.type, int)
    return mbr.packed(entry.type, entry.lba, entry.blocks, is_active=bool(entry.attributes))


def _drive_records(plan: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
    """Yield the LBA and the bytes of the record of each logical drive: its own entry, and a link to the next one."""
    extended = next((entry for entry in plan if entry.is_container), None)
    drives = [entry for entry in plan if entry.number >= mbr.FIRST_LOGICAL]
    if extended is None:
        return
    places = [extended.lba, *(before.end for before in drives[:-1])]
    for number, drive in enumerate(drives):
        assert isinstance(drive.type, int)
        at, is_active = places[number], bool(drive.attributes)
        entries = [mbr.packed(drive.type, drive.lba, drive.blocks, base=at, is_active=is_active)]
        if drive is not drives[-1]:
            place, end = places[number + 1], drives[number + 1].end
            entries.append(mbr.packed(LINK, place, end - place, base=extended.lba))
        yield at, mbr.record(b"", 0, entries)
