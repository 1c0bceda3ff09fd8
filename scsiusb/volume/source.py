"""The bytes in which tables and signatures are looked for: of a disk, or of a part of it."""

from __future__ import annotations

import io

from scsiusb.disk.file import DiskFile
from scsiusb.errors import MediumError


class Source:
    """The blocks of a disk from `lba` on, and what was found wrong with them.

    No address is trusted: bytes outside are not read, and not returned.
    """

    def __init__(self, file: DiskFile | io.BytesIO, block_size: int, blocks: int, lba: int = 0) -> None:
        """Use `file`, which has the whole disk; `blocks` are in the source, from `lba` on."""
        self._file = file
        self.block_size = block_size
        self.blocks = blocks
        self._lba = lba
        self.problems: list[str] = []

    def part(self, lba: int, blocks: int) -> Source:
        """Return a part of this source, with the same list of problems; empty for addresses outside."""
        lba = min(lba, self.blocks)
        part = Source(self._file, self.block_size, max(0, min(blocks, self.blocks - lba)), self._lba + lba)
        part.problems = self.problems
        return part

    def read(self, offset: int, count: int) -> bytes:
        """Return the bytes from `offset` on: `count`, or fewer where the source ends. Raises as `Disk.readinto`."""
        count = min(count, self.blocks * self.block_size - offset)
        if offset < 0 or count <= 0:
            return b""
        self._file.seek(self._lba * self.block_size + offset)
        return self._file.read(count) or b""

    def block(self, lba: int, count: int) -> bytes:
        """Return the first `count` bytes of a block, or b"" if it cannot be read or does not exist."""
        return self.readable(lba * self.block_size, count)

    def readable(self, offset: int, count: int) -> bytes:
        """Return as `read`, but b"" if the medium cannot be read there, which is noted as a problem."""
        try:
            return self.read(offset, count)
        except MediumError as error:
            self.problems.append(f"LBA {self._lba + offset // self.block_size}: {error.what}")
            return b""
