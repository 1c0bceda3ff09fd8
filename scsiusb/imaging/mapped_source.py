"""The parts of an image that its block map lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from scsiusb.errors import ImageError
from scsiusb.imaging.bmap import BlockMap, Mapped
from scsiusb.imaging.sources import GET_AGAIN, Extent, Source


class MappedSource:
    """The parts of another `Source` that a block map says have data; each is checked by its digest.

    With the map of a dump these are all parts: what the map does not list must be zeros.
    """

    def __init__(self, source: Source, block_map: BlockMap) -> None:
        self._source = source
        self._map = block_map
        self.name = source.name
        self.path = source.path
        self.length: int | None = block_map.size
        self.least = block_map.size
        self.is_repeatable = source.is_repeatable
        if source.length not in (None, block_map.size):
            what = f"the block map is of an image of {block_map.size} bytes, {source.name} has {source.length}"
            raise ImageError(what, "give the block map of this image")

    @property
    def mapped(self) -> int:
        """Bytes that are to be written."""
        if self._map.is_of_dump:
            return self._map.size
        return sum(each.end - each.start for each in self._map.ranges)

    def record(self) -> dict[str, Any]:
        """See `Source.record`."""
        return {**self._source.record(), "mapped": self.mapped}

    def extents(self, start: int = 0) -> Iterator[Extent]:
        """See `Source.extents`. Raise ImageError where a digest is another than the map says."""
        ranges = iter(each for each in self._map.ranges if each.end > start)
        now = next(ranges, None)
        digest = self._begin(now, start)
        for offset, data in self._source.extents(start):
            at = offset  # up to here, this part was looked at
            if self._map.is_of_dump:
                yield Extent(offset, data)
            while now is not None and now.start < offset + len(data):
                self._check_zeros(data[at - offset : max(now.start - offset, 0)], at)
                at = now.end
                part = data[max(now.start - offset, 0) : now.end - offset]
                if part and not self._map.is_of_dump:
                    yield Extent(max(now.start, offset), part)
                if digest is not None:
                    digest.update(part)
                if now.end > offset + len(data):
                    break
                self._check(now, digest)
                now = next(ranges, None)
                digest = self._begin(now, start)
            self._check_zeros(data[at - offset :], at)
        if now is not None:
            raise ImageError(f"{self.name} ends before byte {now.end}, which its block map has", GET_AGAIN)

    def _begin(self, mapped: Mapped | None, start: int) -> Any:
        """Return the digest to fill for a range, if it is read from its start on."""
        if mapped is None or mapped.digest is None or mapped.start < start:
            return None
        return hashlib.new(self._map.algorithm, usedforsecurity=False)

    def _check_zeros(self, data: bytes, at: int) -> None:
        """Raise ImageError if the map of a dump does not list these bytes, and they are not zeros."""
        if self._map.is_of_dump and data.count(0) != len(data):
            what = f"{self.name} has data after byte {at}, which its block map does not list: it is another image's"
            raise ImageError(what, "remove the block map, or give the right one")

    def _check(self, mapped: Mapped, digest: Any) -> None:
        if digest is not None and digest.hexdigest() != (mapped.digest or "").lower():
            what = f"{self.name}: bytes {mapped.start} to {mapped.end - 1} are not those of the block map"
            raise ImageError(what, GET_AGAIN)
