"""Mode pages of a unit: current, default, changeable and saved values, and what MODE SELECT changes (SPC-4 7.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scsiusb.virtual.target.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    PARAMETER_LIST_LENGTH_ERROR,
    CommandFailed,
    Sense,
)
from scsiusb.virtual.target.task import Direction, Task

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
RECOVERY, CACHING, CONTROL = 0x01, 0x08, 0x0A
CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)

_SAVEABLE = 0x80  # PS
_WCE_BYTE, _WCE = 2, 0x04
_SWP_BYTE, _SWP = 4, 0x08
_MOST = 4096  # bytes of a parameter list

Pages = Mapping[int, bytes]
"""The default values of pages, by page code."""
OPTICAL_PAGES: Pages = {RECOVERY: bytes((0x01, 0x0A, 0xC0, 3, 0, 0, 0, 0, 3, 0, 0, 0))}  # AWRE, ARRE, 3 retries
DISK_PAGES: Pages = {
    **OPTICAL_PAGES,
    CACHING: bytes((0x08, 0x12, _WCE)) + bytes(17),
    CONTROL: bytes((0x0A, 0x0A)) + bytes(10),
}
MASKS: Mapping[int, Mapping[int, int]] = {  # the bits that can be changed, by byte
    CACHING: {_WCE_BYTE: _WCE},
    CONTROL: {_SWP_BYTE: _SWP},
}


class ModePages:
    """The pages of one unit. `medium_type`: MEDIUM TYPE of the header."""

    def __init__(self, defaults: Pages, medium_type: int = 0) -> None:
        self._defaults = defaults
        self.medium_type = medium_type
        self._saved = dict(defaults)
        self._current = dict(defaults)

    @property
    def has_write_cache(self) -> bool:
        """Whether written blocks may stay in the cache (WCE)."""
        return CACHING not in self._current or bool(self._current[CACHING][_WCE_BYTE] & _WCE)

    @property
    def is_write_protected(self) -> bool:
        """Whether the host has write protected the unit (SWP)."""
        return CONTROL in self._current and bool(self._current[CONTROL][_SWP_BYTE] & _SWP)

    def power_on(self) -> None:
        """Give each page its saved values."""
        self._current = dict(self._saved)

    def sense(self, code: int, subpage: int, control: int) -> bytes:
        """Return a page, or all, for MODE SENSE; `control` says which values. Raises `CommandFailed`."""
        everything = code == ALL_PAGES and subpage in (0, ALL_SUBPAGES)
        chosen = list(self._current) if everything else [code] if code in self._current and not subpage else []
        if not chosen:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return b"".join(self._page(each, control) for each in chosen)

    def select(self, data: bytes, save: bool) -> None:
        """Set pages from a parameter list without its header. Raises `CommandFailed`, and then changes nothing."""
        changed = dict(self._current)
        while data:
            code, length = data[0] & 0x3F, (data[1] if len(data) > 1 else 0) + 2
            old = changed.get(code)
            if data[0] & 0xC0 or old is None:
                raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
            if len(data) < length or length != len(old):
                raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR if len(data) < length else INVALID_FIELD_IN_PARAMETERS)
            new, data = data[:length], data[length:]
            if any((a ^ b) & ~mask for a, b, mask in zip(old, new, self._mask(code), strict=True)):
                raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
            changed[code] = new
        self._current = changed
        if save:
            self._saved = dict(changed)

    def _page(self, code: int, control: int) -> bytes:
        page = {CURRENT: self._current, DEFAULT: self._defaults, SAVED: self._saved}.get(control, {}).get(code)
        body = self._mask(code) if page is None else page
        saveable = _SAVEABLE if code in MASKS else 0
        return bytes((saveable | code, len(body) - 2)) + body[2:]

    def _mask(self, code: int) -> bytes:
        mask = bytearray(len(self._defaults[code]))
        for byte, bits in MASKS.get(code, {}).items():
            mask[byte] = bits
        return bytes(mask)


class Select(Task):
    """A task that takes a mode parameter list of `length` bytes; `header` bytes come before the block descriptors."""

    direction = Direction.OUT

    def __init__(self, pages: ModePages, length: int, header: int, save: bool, keep: Callable[[Sense], None]) -> None:
        super().__init__()
        self.length = length
        self._pages, self._header, self._save, self._keep = pages, header, save, keep
        self._list = bytearray()

    def write(self, view: memoryview) -> None:
        """See `Task.write`."""
        if len(self._list) + len(view) <= _MOST:
            self._list += view

    def end(self) -> bool:
        """See `Task.end`."""
        data = bytes(self._list)
        try:
            if len(data) < self._header:
                raise CommandFailed(PARAMETER_LIST_LENGTH_ERROR)
            size = self._header // 4  # bytes of the lengths in the header
            descriptors = int.from_bytes(data[self._header - size : self._header], "big")
            if any(data[:size]):
                raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
            self._pages.select(data[self._header + descriptors :], self._save)
        except CommandFailed as failure:
            self._keep(failure.sense)
            return False
        return True
