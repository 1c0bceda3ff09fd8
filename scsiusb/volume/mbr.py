"""The master boot record: four primary partitions, one of which may be a chain of logical drives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from construct import Array, Bytes, Const, Int8ul, Int32ul, Struct

from scsiusb.base.packing import parsed
from scsiusb.volume.entry import EXTENDED_TYPES, Entry
from scsiusb.volume.source import Source

LENGTH: Final = 512  # bytes, whatever the block size
CODE_LENGTH: Final = 440  # bytes of boot code
BOOT_SIGNATURE: Final = b"\x55\xaa"
PROTECTIVE: Final = 0xEE  # type of the entry that covers a GPT (UEFI 5.2.3)
ACTIVE: Final = 0x80  # the only status but 0
PRIMARIES: Final = 4
FIRST_LOGICAL: Final = PRIMARIES + 1
MOST_LOGICALS: Final = 256  # a chain may have any length; Linux numbers no more partitions
HEADS: Final = 255
SECTORS: Final = 63
LAST_CHS: Final = b"\xfe\xff\xff"  # for what is beyond cylinder 1023

ENTRY: Final = Struct(
    "status" / Int8ul,
    "first_chs" / Bytes(3),
    "type" / Int8ul,
    "last_chs" / Bytes(3),
    "lba" / Int32ul,
    "blocks" / Int32ul,
)
RECORD: Final = Struct(
    "code" / Bytes(CODE_LENGTH),
    "signature" / Int32ul,
    "reserved" / Bytes(2),
    "entries" / Array(PRIMARIES, ENTRY),
    Const(BOOT_SIGNATURE),
)


class Record(NamedTuple):
    """A boot record, of the disk or of a logical drive."""

    code: bytes
    signature: int
    """The disk's identifier."""
    entries: tuple[Any, ...]
    """Four of `ENTRY`."""

    @property
    def is_protective(self) -> bool:
        """Whether one of the entries covers a GPT."""
        return any(entry.type == PROTECTIVE for entry in self.entries)


def parse(data: bytes) -> Record | None:
    """Return the record; None if it is no partition table: it has no signature, or a status that is not possible."""
    if len(data) < LENGTH or data[LENGTH - 2 : LENGTH] != BOOT_SIGNATURE:
        return None
    record = parsed(RECORD, data)
    if any(entry.status not in (0, ACTIVE) for entry in record.entries):
        return None
    return Record(record.code, record.signature, tuple(record.entries))


def read(source: Source, record: Record) -> Iterator[Entry]:
    """Yield the primary partitions, then the logical drives; what is wrong goes to the source's problems."""
    extended = []
    for number, raw in enumerate(record.entries, 1):
        if raw.blocks == 0:
            if raw.type:
                source.problems.append(f"partition {number} has no blocks")
            continue
        entry = Entry(number, raw.lba, raw.blocks, raw.type, attributes=raw.status)
        if entry.is_container:
            extended.append(entry)
        if raw.lba == 0:
            source.problems.append(f"partition {number} begins at LBA 0, where the table is")
        yield entry
    number = FIRST_LOGICAL
    for container in extended:
        for raw, base in _logical_drives(source, container):
            yield Entry(number, base + raw.lba, raw.blocks, raw.type, attributes=raw.status)
            number += 1


def _logical_drives(source: Source, container: Entry) -> Iterator[tuple[Any, int]]:
    """Yield the entry of each logical drive, and the LBA that it is relative to.

    A chain is followed until it ends, leaves the extended partition, comes to a record twice, or is too long.
    """
    at, seen = container.lba, set[int]()
    while len(seen) < MOST_LOGICALS:
        data = source.block(at, LENGTH)
        record = parse(data)
        if record is None:
            if seen or any(data):  # zeros: an extended partition that nothing was put into
                source.problems.append(
                    f"partition {container.number}: there is no table of a logical drive at LBA {at}"
                )
            return
        seen.add(at)
        drive = next((raw for raw in record.entries if raw.blocks and raw.type not in EXTENDED_TYPES), None)
        link = next((raw for raw in record.entries if raw.blocks and raw.type in EXTENDED_TYPES), None)
        if drive is not None:
            _check_inside(source, container, at + drive.lba, drive.blocks)
            yield drive, at
        if link is None:
            return
        at = container.lba + link.lba  # relative to the extended partition, not to this record
        if at in seen:
            source.problems.append(f"partition {container.number}: the chain of logical drives returns to LBA {at}")
            return
        if not container.lba <= at < container.end:
            source.problems.append(f"partition {container.number}: the chain of logical drives leaves it, to LBA {at}")
            return
    source.problems.append(f"partition {container.number} has more than {MOST_LOGICALS} logical drives")


def _check_inside(source: Source, container: Entry, lba: int, blocks: int) -> None:
    if lba + blocks > container.end:
        source.problems.append(f"the logical drive at LBA {lba} does not end within partition {container.number}")


def record(code: bytes, signature: int, entries: list[bytes]) -> bytes:
    """Return the bytes of a boot record with up to four packed entries."""
    raw = [parsed(ENTRY, entry) for entry in entries]
    raw += [parsed(ENTRY, bytes(ENTRY.sizeof()))] * (PRIMARIES - len(raw))
    values = {"code": code.ljust(CODE_LENGTH, b"\0"), "signature": signature, "reserved": bytes(2), "entries": raw}
    data: bytes = RECORD.build(values)
    return data


def packed(kind: int, lba: int, blocks: int, *, base: int = 0, is_active: bool = False) -> bytes:
    """Return the bytes of an entry; its `lba` is written relative to `base`."""
    data: bytes = ENTRY.build(
        {
            "status": ACTIVE if is_active else 0,
            "first_chs": chs(lba),
            "type": kind,
            "last_chs": chs(lba + blocks - 1),
            "lba": lba - base,
            "blocks": blocks,
        }
    )
    return data


def chs(lba: int) -> bytes:
    """Return the address by head, sector and cylinder, for a geometry of 255 heads and 63 sectors."""
    cylinder, rest = divmod(lba, HEADS * SECTORS)
    if cylinder > 1023:
        return LAST_CHS
    head, sector = divmod(rest, SECTORS)
    return bytes((head, sector + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF))
