"""An entry of a partition table, of either kind, and the checks that both kinds need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from scsiusb.base.dataclass import dataclass

EXTENDED_TYPES = frozenset((0x05, 0x0F, 0x85))


@dataclass(frozen=True)
class Entry:
    """What a table says of a partition."""

    number: int
    """As Linux counts: the place in the table, from 1 on; logical drives of an MBR from 5 on."""
    lba: int
    """The first block."""
    blocks: int
    """The number of blocks."""
    type: int | UUID
    """An int from 0 to 255 in an MBR, a UUID in a GPT."""
    name: str = ""
    """Only a GPT has names."""
    attributes: int = 0
    """The status byte of an MBR's entry, the attribute bits of a GPT's (UEFI 5.3.3)."""
    uuid: UUID | None = None
    """The unique identifier of a GPT's entry."""

    @property
    def end(self) -> int:
        """The block after the last one."""
        return self.lba + self.blocks

    @property
    def is_container(self) -> bool:
        """Whether it is an extended partition of an MBR, which has logical drives in it."""
        return self.type in EXTENDED_TYPES


def entry_problems(entries: Iterable[Entry], blocks: int) -> Iterator[str]:
    """Yield what is wrong with the addresses of entries on a medium of so many blocks."""
    ordered = sorted(entries, key=lambda entry: (entry.lba, entry.number))
    for entry in ordered:
        if entry.end > blocks:
            yield f"partition {entry.number} ends at LBA {entry.end - 1}, beyond the medium's {blocks} blocks"
    furthest: Entry | None = None
    for entry in ordered:
        if entry.is_container:
            continue
        if furthest is not None and entry.lba < furthest.end:
            yield f"partitions {furthest.number} and {entry.number} overlap"
        if furthest is None or entry.end > furthest.end:
            furthest = entry
