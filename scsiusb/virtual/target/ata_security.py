"""The security of an ATA disk: its password, whether it is locked or frozen, and the erase (ACS-3 4.18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

SET_PASSWORD, UNLOCK, ERASE_PREPARE, ERASE_UNIT, FREEZE_LOCK, DISABLE_PASSWORD = range(0xF1, 0xF7)
SECURITY: Final = range(SET_PASSWORD, DISABLE_PASSWORD + 1)
_SUPPORTED, _ENABLED, _LOCKED, _FROZEN, _EXPIRED, _ENHANCED = (1 << bit for bit in range(6))
_TRIES: Final = 5
_PASSWORD: Final = slice(2, 34)


class Security:
    """The state of the feature set. Only the user password is there, at the level "high"."""

    def __init__(self) -> None:
        self.password: bytes | None = None
        self.is_locked = self.is_frozen = self.is_prepared = False
        self.is_stubborn = False
        """Whether an erase fails, for tests."""
        self._tries = _TRIES

    @property
    def word(self) -> int:
        """Word 128 of IDENTIFY DEVICE."""
        states = {
            _ENABLED: self.password is not None,
            _LOCKED: self.is_locked,
            _FROZEN: self.is_frozen,
            _EXPIRED: not self._tries,
        }
        return _SUPPORTED | _ENHANCED | sum(bit for bit, is_set in states.items() if is_set)

    def power_on(self) -> None:
        """Lock the disk if it has a password."""
        self.is_locked, self.is_frozen, self.is_prepared = self.password is not None, False, False
        self._tries = _TRIES

    def take(self, command: int, data: bytes, unit: Unit) -> bool:
        """Carry out a command; return whether it succeeds."""
        was_prepared, self.is_prepared = self.is_prepared, False
        if self.is_frozen:
            return command == FREEZE_LOCK
        if command == ERASE_UNIT and not was_prepared:
            return False
        return _ACTIONS[command](self, data[_PASSWORD], unit)

    def _fits(self, password: bytes) -> bool:
        if not self._tries:
            return False
        fits = password == self.password
        if self.is_locked and not fits:
            self._tries -= 1
        return fits

    def _set(self, password: bytes, unit: Unit) -> bool:
        if self.is_locked:
            return False
        self.password = password
        return True

    def _unlock(self, password: bytes, unit: Unit) -> bool:
        fits = self._fits(password)
        self.is_locked &= not fits
        return fits

    def _disable(self, password: bytes, unit: Unit) -> bool:
        if self.is_locked or not self._fits(password):
            return False
        self.password = None
        return True

    def _prepare(self, password: bytes, unit: Unit) -> bool:
        self.is_prepared = True
        return True

    def _erase(self, password: bytes, unit: Unit) -> bool:
        if not self._fits(password) or self.is_stubborn:
            return False
        if unit.medium is not None:
            unit.medium.fill(b"\0")
        self.password, self.is_locked = None, False
        return True

    def _freeze(self, password: bytes, unit: Unit) -> bool:
        self.is_frozen = True
        return True


_ACTIONS: Final[Mapping[int, Callable[[Security, bytes, Unit], bool]]] = {
    SET_PASSWORD: Security._set,
    UNLOCK: Security._unlock,
    ERASE_PREPARE: Security._prepare,
    ERASE_UNIT: Security._erase,
    FREEZE_LOCK: Security._freeze,
    DISABLE_PASSWORD: Security._disable,
}
