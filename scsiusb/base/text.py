"""Makes untrusted text safe to print, and comparable."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace each character that is not printable by U+FFFD, as a hostile device could send control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def comparable(serial: str) -> str:
    """Return the ASCII letters and digits of a serial: all that every reader of a string descriptor shows alike."""
    return "".join(letter for letter in serial if letter.isascii() and letter.isalnum())
