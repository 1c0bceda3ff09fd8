"""Makes untrusted text safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace each character that is not printable by U+FFFD, as a hostile device could send control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
