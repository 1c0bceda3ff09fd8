"""What makes a medium a flawed one, as text: `fake=limbo:8M`, `cache=1M`, `bad=100-200`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.target.flawed import FAKES, Cached, Extent, Fake, Flawed
from scsiusb.virtual.target.media import Medium

_SIZE: Final = re.compile(r"([0-9]{1,19})([kKmMgGtT]?)")
_POWERS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_EXTENT: Final = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")
_LASTING: Final = ",lasting"


def read_size(text: str) -> int:
    """Parse a number of bytes, such as 512, 64K or 3T. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is not a size; write one such as 512, 64K or 3T")
    return int(match[1]) << _POWERS[match[2].lower()]


def read_extents(text: str) -> tuple[Extent, ...]:
    """Parse LBAs and ranges of them, such as "7,100-200". Raises ValueError."""
    return tuple(map(_read_extent, text.split(",")))


def _read_extent(text: str) -> Extent:
    match = _EXTENT.fullmatch(text)
    extent = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if extent[0] > extent[1]:
        raise ValueError(f"{text!r} is neither a block nor a range of blocks; write one such as 7 or 100-200")
    return extent


@dataclass(frozen=True)
class FakeOptions:
    """The numbers of a `Fake`, in bytes; None: the default."""

    kind: str
    usable: int | None = None
    announced: int | None = None
    wrap: int | None = None

    @classmethod
    def parse(cls, text: str) -> FakeOptions:
        """Parse KIND[:SIZE][,announced=SIZE][,wrap=SIZE], where the first size is what can be used."""
        head, *tail = text.split(",")
        kind, colon, usable = head.partition(":")
        if kind not in FAKES:
            raise ValueError(f"unknown kind {kind!r}; use {', '.join(FAKES)}")
        sizes = {"usable": read_size(usable)} if colon else {}
        for part in tail:
            name, _, size = part.partition("=")
            if name not in ("usable", "announced", "wrap") or name in sizes:
                raise ValueError(f"{part!r} is not expected here; write usable=SIZE, announced=SIZE or wrap=SIZE, once")
            sizes[name] = read_size(size)
        return cls(kind, **sizes)

    def apply(self, medium: Medium) -> Fake:
        """Return the fake; by default it announces twice what can be used, or what `medium` has. Raises ValueError."""
        size = medium.block_size
        announced = None if self.announced is None else _blocks("announced", self.announced, size)
        usable = medium.blocks if announced is not None and announced > medium.blocks else medium.blocks // 2
        if self.usable is not None:
            usable = _blocks("usable", self.usable, size)
        wrap = None if self.wrap is None else _blocks("wrap", self.wrap, size)
        return Fake(medium, self.kind, usable, announced, wrap)


class CacheOptions(NamedTuple):
    """The size of a cache in bytes, and whether it survives a port reset."""

    size: int
    is_lasting: bool

    @classmethod
    def parse(cls, text: str) -> CacheOptions:
        """Parse SIZE[,lasting]. Raises ValueError."""
        return cls(read_size(text.removesuffix(_LASTING)), text.endswith(_LASTING))


def _blocks(name: str, count: int, block_size: int) -> int:
    if count % block_size:
        raise ValueError(f"{name}: {count} bytes are not a multiple of the block size, {block_size}")
    return count // block_size


class MediumOption(NamedTuple):
    """An option of a virtual stick that changes its medium: how its text is read, and what is made of the medium."""

    read: Callable[[str], Any]
    apply: Callable[[Medium, Any], Medium]


MEDIUM_OPTIONS: Final[Mapping[str, MediumOption]] = {  # in the order in which they are applied
    "fake": MediumOption(FakeOptions.parse, lambda medium, value: value.apply(medium)),
    "bad": MediumOption(read_extents, lambda medium, value: Flawed(medium, bad=value)),
    "dropped": MediumOption(read_extents, lambda medium, value: Flawed(medium, dropped=value)),
    "flipped": MediumOption(read_extents, lambda medium, value: Flawed(medium, flipped=value)),
    "cache": MediumOption(CacheOptions.parse, lambda medium, value: Cached(medium, *value)),
}


def apply_options(medium: Medium, values: Mapping[str, Any]) -> Medium:
    """Return the medium with the options of `MEDIUM_OPTIONS` that are in `values`. Raises ValueError."""
    for name, option in MEDIUM_OPTIONS.items():
        if name in values:
            medium = option.apply(medium, values[name])
    return medium
