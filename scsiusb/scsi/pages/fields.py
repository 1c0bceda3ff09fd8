"""Fields of a page as a table: where each is, and what it is called; to read them, and to change one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Field(NamedTuple):
    """A number in a page, most significant bit first."""

    name: str
    """The acronym, as sdparm has it where that has one."""
    byte: int
    """The first byte, counted from the first of the page."""
    bit: int
    """The highest bit in that byte; 7 for a field of whole bytes."""
    bits: int
    """How many bits it has."""
    text: str
    """What it means."""

    @property
    def end(self) -> int:
        """The number of bytes that a page must have for it."""
        return self.byte + (7 - self.bit + self.bits + 7) // 8

    @property
    def shift(self) -> int:
        """How far the field is from the last bit of its last byte."""
        return 8 * (self.end - self.byte) - (7 - self.bit) - self.bits

    def value(self, page: bytes) -> int | None:
        """Return the number; None if the page ends before it."""
        if len(page) < self.end:
            return None
        whole = int.from_bytes(page[self.byte : self.end], "big")
        return whole >> self.shift & ((1 << self.bits) - 1)

    def changed(self, page: bytes, value: int) -> bytes:
        """Return the page with another number in the field. Raise ValueError where it does not fit."""
        most = (1 << self.bits) - 1
        if not 0 <= value <= most:
            raise ValueError(f"{self.name}={value} is not possible: the field has values from 0 to {most}")
        if len(page) < self.end:
            raise ValueError(f"{self.name} is not in the page, which ends after {len(page)} bytes")
        whole = int.from_bytes(page[self.byte : self.end], "big")
        whole = whole & ~(most << self.shift) | value << self.shift
        return page[: self.byte] + whole.to_bytes(self.end - self.byte, "big") + page[self.end :]


def flags(byte: int, names: str, *texts: str) -> Iterator[Field]:
    """Yield a field of one bit for each name, from bit 7 on; `-` is a bit without a name."""
    meanings = iter(texts)
    for at, name in enumerate(names.split()):
        if name != "-":
            yield Field(name, byte, 7 - at, 1, next(meanings))


def number(name: str, byte: int, size: int, text: str) -> Field:
    """Return a field of `size` whole bytes."""
    return Field(name, byte, 7, 8 * size, text)


def values_of(fields: Iterable[Field], page: bytes) -> dict[str, int]:
    """Return the numbers by the fields' names in lower case; those that the page ends before are left out."""
    values = ((field.name.lower(), field.value(page)) for field in fields)
    return {name: value for name, value in values if value is not None}
