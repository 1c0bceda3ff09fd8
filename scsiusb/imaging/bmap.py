"""Block maps (bmap 2.0): XML beside an image that says which of its blocks have data, with a digest of each range."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree

from scsiusb.errors import ImageError

BLOCK: Final = 4096  # bytes
VERSION: Final = "2.0"
LARGEST: Final = 64 * 1024 * 1024  # bytes of XML
DIGESTS: Final = ("sha256", "sha512", "sha384", "sha224", "sha1", "md5")
SUFFIX: Final = ".bmap"
NO_DIGEST: Final = "0" * 64
# By the format, nobody cares what the other blocks hold; of a disk that was dumped, all of them matter.
ZEROS_MARK: Final = "scsiusb: the blocks that are not listed hold zeros"


class Mapped(NamedTuple):
    """A range of bytes that has data."""

    start: int
    end: int
    """The first byte after it."""
    digest: str | None
    """In hex; None if the map has none."""


class BlockMap(NamedTuple):
    """What a block map says."""

    size: int
    """Bytes of the image."""
    ranges: tuple[Mapped, ...]
    """In order, without overlaps."""
    algorithm: str
    """Of the digests, a name for `hashlib`."""
    is_of_dump: bool
    """Whether the map is one of `dump`'s: the other blocks hold zeros, which must be written, too."""


def read_bmap(path: Path) -> BlockMap:
    """Read a block map. Raise ImageError if it is damaged, or of a version above 2; OSError."""
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)  # of a pipe or a device the size is not known before
    if len(data) > LARGEST:
        raise ImageError(f"{path} is too large for a block map", "give the right file")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # entities can grow without bound
        raise ImageError(f"{path} has a document type, which no block map has", "give the right file")
    try:
        root = ElementTree.fromstring(data)
        found = _parse(root, is_of_dump=ZEROS_MARK.encode() in data)
    except (ElementTree.ParseError, ValueError, OverflowError) as error:
        raise ImageError(f"{path} is no block map: {error}", "give the right file") from error
    _check_own_digest(path, data, root, found.algorithm)
    return found


def _parse(root: ElementTree.Element, *, is_of_dump: bool) -> BlockMap:
    version = root.get("version", "")
    if root.tag != "bmap" or version.partition(".")[0] not in ("1", "2"):
        raise ValueError(f"the root is {root.tag} of version {version or 'unknown'}")
    size, block = _number(root, "ImageSize"), _number(root, "BlockSize")
    if not 0 < block <= 1 << 30 or size < 0:
        raise ValueError(f"{size} bytes in blocks of {block}")
    algorithm = (root.findtext("ChecksumType") or ("sha1" if version.startswith("1") else "sha256")).strip().lower()
    if algorithm not in DIGESTS:
        raise ValueError(f"unknown digest {algorithm}")
    ranges = []
    end = 0
    for element in root.iterfind("BlockMap/Range"):
        first, _, last = (element.text or "").strip().partition("-")
        mapped = Mapped(
            int(first) * block,
            min((int(last or first) + 1) * block, size),
            element.get("chksum") or element.get("sha1"),
        )
        if not end <= mapped.start < mapped.end:
            raise ValueError(f"range {element.text!r} is out of order, or beyond the image")
        ranges.append(mapped)
        end = mapped.end
    return BlockMap(size, tuple(ranges), algorithm, is_of_dump)


def _number(root: ElementTree.Element, name: str) -> int:
    text = root.findtext(name)
    if text is None:
        raise ValueError(f"it has no {name}")
    return int(text.strip())


def _check_own_digest(path: Path, data: bytes, root: ElementTree.Element, algorithm: str) -> None:
    """Raise ImageError if the digest of the map itself, taken with zeros in its place, is wrong."""
    known = (root.findtext("BmapFileChecksum") or root.findtext("BmapFileSHA1") or "").strip()
    if not known:
        return
    zeroed = data.replace(known.encode(), b"0" * len(known))
    if hashlib.new(algorithm, zeroed, usedforsecurity=False).hexdigest() != known.lower():
        raise ImageError(f"{path} is damaged: its own digest is another", "get the block map again")


def bmap_text(size: int, ranges: Iterable[Mapped]) -> str:
    """Return the XML of a dump's block map with SHA-256 digests; `ranges` begin at multiples of BLOCK."""
    rows = list(ranges)
    mapped = sum(-(-(row.end - row.start) // BLOCK) for row in rows)
    lines = "".join(
        f'        <Range chksum="{row.digest}">{_span(row.start // BLOCK, -(-row.end // BLOCK) - 1)}</Range>\n'
        for row in rows
    )
    text = f"""<?xml version="1.0" ?>
<bmap version="{VERSION}">
    <!-- {ZEROS_MARK} -->
    <ImageSize>{size}</ImageSize>
    <BlockSize>{BLOCK}</BlockSize>
    <BlocksCount>{-(-size // BLOCK)}</BlocksCount>
    <MappedBlocksCount>{mapped}</MappedBlocksCount>
    <ChecksumType>sha256</ChecksumType>
    <BmapFileChecksum>{NO_DIGEST}</BmapFileChecksum>
    <BlockMap>
{lines}    </BlockMap>
</bmap>
"""
    own = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(f"<BmapFileChecksum>{NO_DIGEST}<", f"<BmapFileChecksum>{own}<", 1)


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


class MapMaker:
    """Finds the ranges of an image that are not zeros, as its bytes come in order."""

    def __init__(self) -> None:
        self._ranges: list[Mapped] = []
        self._at = 0
        self._start: int | None = None
        self._digest = hashlib.sha256()
        self._rest = b""

    def add(self, data: bytes | bytearray) -> None:
        """Take the next bytes."""
        if self._rest:  # a disk's blocks of 520 bytes do not fill those of the map
            data = self._rest + data
        whole = len(data) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            self._take(data[at : at + BLOCK])
        self._rest = bytes(data[whole:])

    def _take(self, piece: bytes | bytearray) -> None:
        if piece.count(0) == len(piece):
            self._end()
        else:
            if self._start is None:
                self._start, self._digest = self._at, hashlib.sha256()
            self._digest.update(piece)
        self._at += len(piece)

    def _end(self) -> None:
        if self._start is not None:
            self._ranges.append(Mapped(self._start, self._at, self._digest.hexdigest()))
            self._start = None

    def ranges(self) -> list[Mapped]:
        """Return the ranges; no more bytes follow."""
        if self._rest:
            self._take(self._rest)
        self._end()
        return self._ranges
