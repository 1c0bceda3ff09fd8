"""Changes bytes as broken and hostile devices do: flipped, cut, extended, with false lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

MOST_CHANGES: Final = 4
EXTREMES: Final = (b"\x00", b"\x01", b"\x7f", b"\x80", b"\xfe", b"\xff")
LONGEST: Final = 4096


def mutate(seed: bytes, random: Random) -> bytes:
    """Return the seed with one to four changes."""
    data = bytearray(seed)
    for _ in range(random.randint(1, MOST_CHANGES)):
        random.choice(CHANGES)(data, random)
    return bytes(data[:LONGEST])


def any_of(seeds: Sequence[bytes], random: Random) -> bytes:
    """Return a changed seed in most cases, random bytes otherwise."""
    if not seeds or random.random() < 0.1:
        return random.randbytes(random.choice((0, 1, 4, 8, 13, 18, 36, 64, random.randint(0, 300))))
    return mutate(random.choice(seeds), random)


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randint(0, len(data)) :]


def _drop(data: bytearray, random: Random) -> None:
    start = random.randint(0, len(data))
    del data[start : start + random.randint(1, 8)]


def _extend(data: bytearray, random: Random) -> None:
    data += random.choice((bytes, random.randbytes))(random.choice((1, 2, 8, 64, 500)))


def _insert(data: bytearray, random: Random) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.randbytes(random.randint(1, 8))


def _repeat(data: bytearray, random: Random) -> None:
    start = random.randint(0, len(data))
    data += data[start : start + random.randint(1, 64)] * random.randint(1, 16)


def _extreme(data: bytearray, random: Random) -> None:
    """Set one to eight bytes, as length fields have, to an extreme value or to about the length of the data."""
    if not data:
        return
    width = random.choice((1, 1, 2, 2, 4, 8))
    at = random.randrange(len(data))
    if random.random() < 0.3:
        value = max(len(data) + random.randint(-4, 4), 0).to_bytes(8, "big")[-width:]
    else:
        value = random.choice(EXTREMES) * width
    data[at : at + width] = value


CHANGES: Final[tuple[Callable[[bytearray, Random], None], ...]] = (
    _flip,
    _set,
    _cut,
    _drop,
    _extend,
    _insert,
    _repeat,
    _extreme,
    _extreme,
)
