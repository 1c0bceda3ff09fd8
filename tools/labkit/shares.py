"""Divides the test files among several guests, which run side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IGNORE = "--ignore="


@dataclass(frozen=True)
class Share:
    """The `number`-th of `count` shares, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share that "K/N" means. Raises ValueError."""
        number, count = (int(word) for word in text.split("/"))
        if not 1 <= number <= count:
            raise ValueError(text)
        return cls(number, count)

    def files(self, root: Path, words: list[str]) -> list[str]:
        """Return this share of the test files in `tests/kernel` but those that pytest's words leave out.

        The largest file comes first, each to the share that has least: a file's size is the best guess at its time.
        """
        left_out = {word.removeprefix(IGNORE) for word in words if word.startswith(IGNORE)}
        sizes = {str(path.relative_to(root)): path.stat().st_size for path in root.glob("tests/kernel/test_*.py")}
        shares: list[list[str]] = [[] for _ in range(self.count)]
        for name in sorted(sizes.keys() - left_out, key=lambda name: (-sizes[name], name)):
            min(shares, key=lambda share: sum(sizes[each] for each in share)).append(name)
        return sorted(shares[self.number - 1])
