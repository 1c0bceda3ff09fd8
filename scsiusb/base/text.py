"""Text that came from a device, or from somewhere that we do not rule either."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without what a hostile device could send to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
