"""What a probe says of a disk."""

from __future__ import annotations

import time
from typing import Literal

from scsiusb.base.dataclass import dataclass
from scsiusb.imaging.surface import Surface

Kind = Literal["real", "limbo", "wraparound", "chain", "damaged", "unknown"]


@dataclass(frozen=True)
class Probe:
    """What a disk is, as far as a probe can say."""

    kind: Kind
    """"real"; "limbo": it drops what is written after its end; "wraparound": it begins again there; "chain": it drops,
    and begins again later; "damaged": some blocks do not keep what is written; "unknown": it was only read."""
    announced_blocks: int
    usable_blocks: int | None
    """Of a damaged one an estimate; None if it is not known."""
    block_size: int
    written_bytes: int
    """With those of the blocks that were written back."""
    lost_blocks: int
    """Blocks that could not be written back, as writing them failed; 0 unless it is damaged, or a fake."""
    findings: tuple[str, ...]
    """What was seen, in words."""
    seconds: float
    repeats_after: int | None = None
    """Blocks after which its beginning is seen again, where that was found by reading alone: it is hardly honest."""


def result_of(
    surface: Surface,
    began: float,
    kind: Kind,
    usable: int | None,
    findings: tuple[str, ...],
    repeats_after: int | None = None,
) -> Probe:
    """Return the result of a probe that began at `time.monotonic() == began`."""
    return Probe(
        kind=kind,
        announced_blocks=surface.blocks,
        usable_blocks=usable,
        block_size=surface.block_size,
        written_bytes=surface.written,
        lost_blocks=surface.lost,
        findings=findings,
        seconds=time.monotonic() - began,
        repeats_after=repeats_after,
    )
