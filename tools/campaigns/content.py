"""What the blocks of the disk may hold after a crash, computed from the journal of the program that wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from campaigns.progress import BLOCK, Entry


class Content:
    """The first blocks of the disk, as they were before the worker began."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = bytearray(data)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.data) // BLOCK

    def read(self, lba: int, blocks: int) -> bytes:
        """Return the content of blocks."""
        return bytes(self.data[lba * BLOCK : (lba + blocks) * BLOCK])

    def write(self, lba: int, data: bytes) -> None:
        """Set the content of blocks."""
        self.data[lba * BLOCK : lba * BLOCK + len(data)] = data

    def settle(self, journal: Sequence[Entry], found: bytes) -> list[str]:
        """Compare what was found with what may be there; return the faults.

        What was found becomes the expected content.
        """
        allowed = self.allowed(journal)
        wrong = [lba for lba, blocks in allowed.items() if _block(found, lba) not in blocks]
        expected = Content(self.data)
        for lba in allowed:
            expected.write(lba, _block(found, lba))
        if expected.data != found:
            wrong += [lba for lba in range(self.blocks) if expected.read(lba, 1) != _block(found, lba)]
        self.data[:] = found
        if not wrong:
            return []
        kind = "written" if wrong[0] in allowed else "untouched"
        return [f"{len(wrong)} blocks hold what they may not, the first at LBA {wrong[0]}, which was {kind}"]

    def allowed(self, journal: Sequence[Entry]) -> dict[int, list[bytes]]:
        """Return the contents that each written block may have, by LBA.

        After a flush: the last acknowledged content. Otherwise: the content before, and any later one, even of a write
        that was only begun.
        """
        allowed: dict[int, list[bytes]] = {}
        acknowledged: dict[int, bytes] = {}
        for entry in journal:
            if not entry.blocks:
                if entry.is_acknowledged:
                    allowed.update({lba: [block] for lba, block in acknowledged.items()})
                continue
            data = entry.data()
            for number in range(entry.blocks):
                lba, block = entry.lba + number, _block(data, number)
                allowed.setdefault(lba, [self.read(lba, 1)]).append(block)
                if entry.is_acknowledged:
                    acknowledged[lba] = block
        return allowed


def _block(data: bytes, lba: int) -> bytes:
    return data[lba * BLOCK : (lba + 1) * BLOCK]


def written_and_flushed(journal: Sequence[Entry]) -> int:
    """Return the number of written blocks that must be on the medium: a later flush succeeded."""
    last = max(
        (number for number, entry in enumerate(journal) if not entry.blocks and entry.is_acknowledged), default=0
    )
    return sum(entry.blocks for entry in journal[:last] if entry.is_acknowledged)
