"""The partitions of a disk: which table it has, what the entries say, and what is on each partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields
from typing import Literal, NamedTuple, overload
from uuid import UUID

from scsiusb.base.dataclass import dataclass
from scsiusb.disk.disk import Disk
from scsiusb.disk.file import DiskFile
from scsiusb.disk.medium import Medium
from scsiusb.volume import content, gpt, mbr
from scsiusb.volume.entry import Entry, entry_problems
from scsiusb.volume.source import Source
from scsiusb.volume.types import type_text

Kind = Literal["mbr", "gpt", "none"]


@dataclass(frozen=True)
class Partition(Entry):
    """A partition of a disk."""

    content: str | None = None
    """What is on it, by its signature: "fat32", "ext4", "luks2", …; None if nothing that is known."""
    disk: Disk = field(repr=False, compare=False, kw_only=True)
    medium: Medium = field(repr=False, compare=False, kw_only=True)

    @property
    def type_text(self) -> str:
        """The type in words."""
        return type_text(self.type)

    @property
    def is_bootable(self) -> bool:
        """Whether a BIOS shall boot from it."""
        bit = mbr.ACTIVE if isinstance(self.type, int) else gpt.BOOTABLE
        return bool(self.attributes & bit)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.blocks * self.medium.block_size

    def open(self, mode: str = "rb") -> DiskFile:
        """Return the partition as an unbuffered binary file; `mode` is "rb" or "r+b", see `Disk.open`.

        Raises MediumChanged if the medium was changed since the table was read, OutOfRange if the partition is not
        within the medium, ValueError for another mode.
        """
        return DiskFile(self.disk, mode, self.lba, self.blocks, medium=self.medium)


@dataclass(frozen=True)
class PartitionTable(Sequence[Partition]):
    """A partition table: a sequence of its partitions, in the order of their numbers."""

    kind: Kind
    """The kind: "mbr", "gpt", or "none" if the disk has no table."""
    partitions: tuple[Partition, ...]
    """The extended partition of an MBR is one of them, beside its logical drives."""
    problems: tuple[str, ...] = ()
    """What is wrong with the table, in words; empty if it is right."""
    hybrid: tuple[Partition, ...] = ()
    """Beside a GPT: the partitions that its MBR lists for older systems."""
    content: str | None = None
    """Without a table: what is on the disk itself, as `Partition.content`."""
    id: UUID | int | None = None
    """The disk's identifier: a UUID in a GPT, 32 bits in an MBR."""

    def __len__(self) -> int:
        return len(self.partitions)

    @overload
    def __getitem__(self, index: int) -> Partition: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Partition]: ...
    def __getitem__(self, index: int | slice) -> Partition | Sequence[Partition]:
        return self.partitions[index]

    def find(self, number: int) -> Partition:
        """Return the partition with that number. Raises ValueError if there is none."""
        for partition in self.partitions:
            if partition.number == number:
                return partition
        there = ", ".join(str(partition.number) for partition in self.partitions)
        raise ValueError(f"there is no partition {number}; the table has {there or 'none'}")


class Found(NamedTuple):
    """What was found on a medium, without the disk that it is on."""

    kind: Kind
    entries: tuple[Entry, ...] = ()
    hybrid: tuple[Entry, ...] = ()
    id: UUID | int | None = None


def partitions(disk: Disk) -> PartitionTable:
    """Read the partition table of the medium in `disk`, and what is on each partition.

    A damaged table is no error: the partitions that are known are returned, and what is wrong is in `problems`. Of a
    GPT, the backup is used if the primary table is damaged; if both are, there are no partitions. A partition may
    be larger than the medium, if the table says so; `open` refuses it.

    Raises as `Disk.read`, but for unreadable blocks only if LBA 0 is among them.
    """
    return partitions_of(DiskFile(disk))


def partitions_of(file: DiskFile) -> PartitionTable:
    """Return as `partitions`, for a file that has the whole disk, and of the medium that it is bound to."""
    disk, medium = file.disk, file.medium
    source = Source(file, medium.block_size, medium.blocks)
    found = read(source)

    def partition(entry: Entry) -> Partition:
        values = {each.name: getattr(entry, each.name) for each in fields(entry)}
        return Partition(**values, content=content_of(source, entry), disk=disk, medium=medium)

    return PartitionTable(
        found.kind,
        partitions=tuple(map(partition, found.entries)),
        hybrid=tuple(map(partition, found.hybrid)),
        content=content.find(source) if found.kind == "none" else None,
        id=found.id,
        problems=tuple(source.problems),  # last, as all of the above may add to them
    )


def content_of(source: Source, entry: Entry) -> str | None:
    """Return what is on the partition of an entry; None for an extended partition, which has only logical drives."""
    return None if entry.is_container else content.find(source.part(entry.lba, entry.blocks))


def read(source: Source) -> Found:
    """Read the table of a source; what is wrong goes to its problems. Raises as `Disk.read` for LBA 0."""
    head = source.read(0, mbr.LENGTH)
    if content.boot_sector(head):
        return Found("none")
    record = mbr.parse(head)
    if record is not None and not record.is_protective:
        return _read_mbr(source, record)
    if record is None and not gpt.has_header(source, gpt.PRIMARY_LBA):
        if gpt.has_header(source, source.blocks - 1):
            source.problems.append("there is no table, but the backup of a GPT at the last LBA")
        return Found("none")
    return _read_gpt(source, record)


def _read_mbr(source: Source, record: mbr.Record) -> Found:
    entries = tuple(mbr.read(source, record))
    source.problems.extend(entry_problems(entries, source.blocks))
    if gpt.has_header(source, gpt.PRIMARY_LBA):
        source.problems.append("a GPT at LBA 1 is ignored, as the MBR has no protective entry")
    return Found("mbr", entries, id=record.signature)


def _read_gpt(source: Source, record: mbr.Record | None) -> Found:
    if record is None:
        source.problems.append("there is no protective MBR")
    table = gpt.read(source)
    if table is None:
        if size := gpt.other_block_size(source):
            source.problems.append(f"the table was written for blocks of {size} bytes, as through another adapter")
        return Found("gpt")
    entries = tuple(gpt.entries(table, source))
    source.problems.extend(entry_problems(entries, source.blocks))
    hybrid = () if record is None else tuple(_hybrid(source, record))
    return Found("gpt", entries, hybrid, table.disk)


def _hybrid(source: Source, record: mbr.Record) -> list[Entry]:
    return [entry for entry in mbr.read(source, record) if entry.type != mbr.PROTECTIVE]
