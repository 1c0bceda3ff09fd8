"""The marks between which the guest's command speaks, and the gate that lets only that through."""

from __future__ import annotations

from typing import BinaryIO

BEGIN = b"\x1elab:begin\x1e"
END = b"\x1elab:end\x1e"


class Log:
    """Logs all data that it gets."""

    def __init__(self, log: BinaryIO) -> None:
        self._log = log

    def feed(self, data: bytes) -> None:
        """Log the data."""
        self._log.write(data)


class Gate:
    """Passes on what stands between the marks, at once, and logs all of the rest."""

    def __init__(self, out: BinaryIO, log: BinaryIO) -> None:
        self._out = out
        self._log = log
        self._held = b""
        self.begun = False
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take the next output of the guest; the marks may be split between calls."""
        self._held += data
        if not self.begun:
            self.begun = self._until(BEGIN, self._log)
        if self.begun and not self.ended:
            self.ended = self._until(END, self._out)
        if self.ended:
            self._log.write(self._held)
            self._held = b""
        self._out.flush()

    def _until(self, mark: bytes, out: BinaryIO) -> bool:
        """Write what comes before the mark; hold back what may be the mark's beginning."""
        before, found, after = self._held.partition(mark)
        if found:
            out.write(before)
            self._held = after
            return True
        keep = next((n for n in range(len(mark) - 1, 0, -1) if self._held.endswith(mark[:n])), 0)
        cut = len(self._held) - keep
        out.write(self._held[:cut])
        self._held = self._held[cut:]
        return False
