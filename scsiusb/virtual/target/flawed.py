"""Media that are not what they seem, each made of another one: fake capacity, a cache, regions that fail."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from scsiusb.virtual.target.media import BadBlock, Medium

Extent = tuple[int, int]  # first and last LBA


class Wrapper(Medium):
    """A medium that stores its blocks in another one, `inner`, which is closed with it."""

    def __init__(self, inner: Medium, blocks: int | None = None) -> None:
        count = inner.blocks if blocks is None else blocks
        super().__init__(count * inner.block_size, inner.block_size, inner.read_only)
        self.inner = inner

    def flush(self) -> None:
        """See `Medium.flush`."""
        super().flush()
        self.inner.flush()

    def power_on(self) -> None:
        """See `Medium.power_on`."""
        super().power_on()
        self.inner.power_on()

    def close(self) -> None:
        """See `Medium.close`."""
        super().close()
        self.inner.close()

    def fill(self, pattern: bytes) -> None:
        """See `Medium.fill`; the inner medium is filled, past what is wrong with this one."""
        self.inner.fill(pattern)

    def _readinto(self, offset: int, view: memoryview) -> None:
        self.inner.readinto(offset, view)

    def _write(self, offset: int, view: memoryview) -> None:
        self.inner.write(offset, view)


LIMBO, WRAPAROUND, CHAIN = "limbo", "wraparound", "chain"
FAKES: Final[Mapping[str, Callable[[int, int], int]]] = {  # the modulus of addresses, from usable and announced blocks
    LIMBO: lambda usable, announced: announced,
    WRAPAROUND: lambda usable, announced: usable,
    CHAIN: lambda usable, announced: 1 << usable.bit_length(),
}


class Fake(Wrapper):
    """A medium that announces more blocks than it has, as fake sticks do; `kind` is one of `FAKES`.

    "limbo" drops writes from block `usable` on, and reads zeros there; "wraparound" addresses its `usable` blocks again
    and again; "chain" is both: it drops from `usable` on, and begins again at `wrap`, a power of two by default.
    `announced` is in blocks; None: as many as `inner` has. Raises ValueError for numbers that do not fit.
    """

    def __init__(
        self, inner: Medium, kind: str, usable: int, announced: int | None = None, wrap: int | None = None
    ) -> None:
        if kind not in FAKES:
            raise ValueError(f"unknown kind of fake {kind!r}; use {', '.join(FAKES)}")
        super().__init__(inner, announced)
        if not 0 < usable <= min(inner.blocks, self.blocks):
            raise ValueError(f"{usable} usable blocks are not possible; use 1 to {min(inner.blocks, self.blocks)}")
        self.wrap = FAKES[kind](usable, self.blocks) if wrap is None else wrap
        if self.wrap < usable or (wrap is not None and kind != CHAIN):
            what = f"{kind} of {usable} blocks cannot wrap at block {self.wrap}"
            raise ValueError(f"{what}; only a chain can wrap elsewhere, at a later block")
        self.kind, self.usable = kind, usable

    def _readinto(self, offset: int, view: memoryview) -> None:
        for piece, place in self._pieces(offset, view):
            if place is None:
                piece[:] = bytes(len(piece))
            else:
                self.inner.readinto(place, piece)

    def _write(self, offset: int, view: memoryview) -> None:
        for piece, place in self._pieces(offset, view):
            if place is not None:
                self.inner.write(place, piece)

    def _pieces(self, offset: int, view: memoryview) -> Iterator[tuple[memoryview, int | None]]:
        """Yield the parts of a transfer, each with its offset in `inner`; None where there is no memory."""
        wrap, usable = self.wrap * self.block_size, self.usable * self.block_size
        while view:
            place = offset % wrap
            count = min(len(view), (usable if place < usable else wrap) - place)
            yield view[:count], place if place < usable else None
            offset, view = offset + count, view[count:]


class Cached(Wrapper):
    """A medium with a cache of `size` bytes: the blocks written last are read from it, whatever `inner` has of them.

    A port reset empties it, unless `is_lasting`.
    """

    def __init__(self, inner: Medium, size: int, is_lasting: bool = False) -> None:
        super().__init__(inner)
        self._most = size // self.block_size
        self._is_lasting = is_lasting
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def power_on(self) -> None:
        """See `Medium.power_on`."""
        super().power_on()
        if not self._is_lasting:
            self._cache.clear()

    def _readinto(self, offset: int, view: memoryview) -> None:
        self.inner.readinto(offset, view)
        for lba, place in _blocks(offset, view, self.block_size):
            known = self._cache.get(lba)
            if known is not None:
                view[place : place + self.block_size] = known

    def _write(self, offset: int, view: memoryview) -> None:
        self.inner.write(offset, view)
        for lba, place in _blocks(offset, view, self.block_size):
            self._cache[lba] = bytes(view[place : place + self.block_size])
            self._cache.move_to_end(lba)
        while len(self._cache) > self._most:
            self._cache.popitem(last=False)


class Flawed(Wrapper):
    """A medium with wrong regions, each given as extents of LBAs.

    Blocks in `bad` cannot be read or written; writes to blocks in `dropped` have no effect; of blocks in `flipped` that
    were written, the lowest bit of the first byte changes after the next flush.
    """

    def __init__(
        self, inner: Medium, bad: Iterable[Extent] = (), dropped: Iterable[Extent] = (), flipped: Iterable[Extent] = ()
    ) -> None:
        super().__init__(inner)
        self._bad, self._dropped, self._flipped = tuple(bad), tuple(dropped), tuple(flipped)
        self._unsettled: set[int] = set()

    def flush(self) -> None:
        """See `Medium.flush`."""
        super().flush()
        unsettled, self._unsettled = self._unsettled, set()
        for lba in unsettled:
            view = memoryview(bytearray(self.block_size))
            self.inner.readinto(lba * self.block_size, view)
            view[0] ^= 1
            self.inner.write(lba * self.block_size, view)

    def _readinto(self, offset: int, view: memoryview) -> None:
        good = self._before_bad(offset, view)
        if good:
            self.inner.readinto(offset, view[:good])
        if good < len(view):
            raise BadBlock(good)

    def _write(self, offset: int, view: memoryview) -> None:
        good = self._before_bad(offset, view)
        kept = 0
        for lba, blocks in self._common(self._dropped, offset, good):
            place = lba * self.block_size - offset
            if place > kept:
                self.inner.write(offset + kept, view[kept:place])
            kept = max(kept, place + blocks * self.block_size)
        if kept < good:
            self.inner.write(offset + kept, view[kept:good])
        for lba, blocks in self._common(self._flipped, offset, good):
            self._unsettled.update(range(lba, lba + blocks))
        if good < len(view):
            raise BadBlock(good)

    def reassign(self, lba: int) -> None:
        """See `Medium.reassign`; the block is no longer a bad one."""
        parts = [((first, min(last, lba - 1)), (max(first, lba + 1), last)) for first, last in self._bad]
        self._bad = tuple(extent for pair in parts for extent in pair if extent[0] <= extent[1])
        super().reassign(lba)

    def _before_bad(self, offset: int, view: memoryview) -> int:
        """Return how many bytes of a transfer come before the first bad block."""
        found = self._common(self._bad, offset, len(view))
        return found[0][0] * self.block_size - offset if found else len(view)

    def _common(self, extents: tuple[Extent, ...], offset: int, size: int) -> list[tuple[int, int]]:
        """Return LBA and number of the blocks of a transfer that are in `extents`, in order."""
        begin, end = offset // self.block_size, (offset + size) // self.block_size
        common = [(max(first, begin), min(last + 1, end)) for first, last in extents]
        return sorted((first, last - first) for first, last in common if first < last)


def _blocks(offset: int, view: memoryview, block_size: int) -> Iterator[tuple[int, int]]:
    """Yield the LBA of each block of a transfer, and its place in `view`."""
    for place in range(0, len(view), block_size):
        yield (offset + place) // block_size, place
