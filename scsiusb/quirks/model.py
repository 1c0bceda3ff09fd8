"""Quirks: the faults of devices that scsiusb works around, their letters, and the set that applies to one device."""

from __future__ import annotations

from dataclasses import field, replace
from enum import Flag, auto
from functools import reduce
from operator import or_
from typing import Final, NamedTuple

from scsiusb.base.dataclass import dataclass


class Quirk(Flag):
    """What scsiusb does differently for a faulty device; `MEANINGS` has the letter and the effect of each."""

    NONE = 0
    SANE_SENSE = auto()
    BAD_SENSE = auto()
    FIX_CAPACITY = auto()
    NO_READ_DISC_INFO = auto()
    NO_READ_CAPACITY_16 = auto()
    NO_REPORT_OPCODES = auto()
    MAX_SECTORS_240 = auto()
    CAPACITY_HEURISTICS = auto()
    IGNORE_DEVICE = auto()
    NO_REPORT_LUNS = auto()
    NO_WRITE_SAME = auto()
    NOT_LOCKABLE = auto()
    MAX_SECTORS_64 = auto()
    INITIAL_READ_10 = auto()
    CAPACITY_OK = auto()
    WRITE_CACHE = auto()
    IGNORE_RESIDUE = auto()
    SINGLE_LUN = auto()
    NO_ATA_PASS_THROUGH = auto()
    IGNORE_UAS = auto()
    NO_WRITE_PROTECT_DETECTION = auto()
    ALWAYS_SYNC = auto()
    NO_SYNCHRONIZE_CACHE = auto()
    ONLY_READ_CAPACITY_16 = auto()
    GO_SLOW = auto()
    NO_INQUIRY = auto()
    SENSE_AFTER_SYNC = auto()
    LAST_SECTOR_ALONE = auto()
    NO_CLASS_RESET = auto()
    ANY_SIGNATURE = auto()
    IGNORE_TAG = auto()
    NO_TEST_UNIT_READY = auto()
    NO_VPD = auto()

    @property
    def title(self) -> str:
        """Return the name as it is shown to users: "ignore-residue"."""
        return (self.name or "none").lower().replace("_", "-")


class Meaning(NamedTuple):
    """A letter of `--quirks` and what it does: small letters are those of Linux, capital ones scsiusb's."""

    letter: str
    quirk: Quirk
    effect: str
    """What scsiusb does; if the letter is unused, what Linux does."""
    unused: str = ""
    """Why the letter changes nothing in scsiusb; empty if it has an effect."""

    @property
    def is_linux(self) -> bool:
        """Return whether the letter is one of Linux's `usb-storage.quirks`."""
        return self.letter.islower()


MEANINGS: Final = (
    Meaning("a", Quirk.SANE_SENSE, "requests all of the sense data, not only 18 bytes"),
    Meaning("b", Quirk.BAD_SENSE, "never requests more than 18 bytes of sense data: overrides a"),
    Meaning("c", Quirk.FIX_CAPACITY, "subtracts one block from the capacity"),
    Meaning("d", Quirk.NO_READ_DISC_INFO, "no READ DISC INFORMATION", "scsiusb does not send it"),
    Meaning("e", Quirk.NO_READ_CAPACITY_16, "no READ CAPACITY(16): blocks from 2^32 on cannot be reached"),
    Meaning("f", Quirk.NO_REPORT_OPCODES, "no REPORT SUPPORTED OPERATION CODES", "scsiusb does not send it"),
    Meaning("g", Quirk.MAX_SECTORS_240, "moves at most 240 sectors (120 KiB) per command"),
    Meaning("h", Quirk.CAPACITY_HEURISTICS, "subtracts one block from an odd capacity"),
    Meaning("i", Quirk.IGNORE_DEVICE, "does not open the device"),
    Meaning("j", Quirk.NO_REPORT_LUNS, "no REPORT LUNS, which is sent by UAS: uses one logical unit"),
    Meaning("k", Quirk.NO_WRITE_SAME, "no WRITE SAME", "scsiusb does not send it"),
    Meaning("l", Quirk.NOT_LOCKABLE, "no PREVENT ALLOW MEDIUM REMOVAL"),
    Meaning("m", Quirk.MAX_SECTORS_64, "moves at most 64 sectors (32 KiB) per command"),
    Meaning("n", Quirk.INITIAL_READ_10, "reads one block of a new medium first, and ignores the result"),
    Meaning("o", Quirk.CAPACITY_OK, "uses the capacity as reported: overrides h"),
    Meaning("p", Quirk.WRITE_CACHE, "assumes a write cache", "scsiusb always flushes, cache or not"),
    Meaning("r", Quirk.IGNORE_RESIDUE, "ignores the residue of the CSW"),
    Meaning("s", Quirk.SINGLE_LUN, "uses one logical unit: no GET MAX LUN"),
    Meaning("t", Quirk.NO_ATA_PASS_THROUGH, "no ATA PASS-THROUGH", "scsiusb does not send it by itself"),
    Meaning("u", Quirk.IGNORE_UAS, "must not be used by UAS, only by BOT"),
    Meaning("w", Quirk.NO_WRITE_PROTECT_DETECTION, "does not ask whether the medium is write protected"),
    Meaning("y", Quirk.ALWAYS_SYNC, "always sends SYNCHRONIZE CACHE", "scsiusb does so for every device"),
    Meaning("C", Quirk.NO_SYNCHRONIZE_CACHE, "no SYNCHRONIZE CACHE: a flush does nothing"),
    Meaning("E", Quirk.ONLY_READ_CAPACITY_16, "sends READ CAPACITY(16) instead of READ CAPACITY(10)"),
    Meaning("G", Quirk.GO_SLOW, "waits 125 microseconds after the CBW"),
    Meaning("I", Quirk.NO_INQUIRY, "no INQUIRY: assumes a removable disk without a name"),
    Meaning("K", Quirk.SENSE_AFTER_SYNC, "sends REQUEST SENSE after SYNCHRONIZE CACHE"),
    Meaning("L", Quirk.LAST_SECTOR_ALONE, "reads and writes each of the last eight blocks in a separate command"),
    Meaning("R", Quirk.NO_CLASS_RESET, "recovers by a port reset, without the class reset"),
    Meaning("S", Quirk.ANY_SIGNATURE, "accepts the first CSW's signature, whatever it is"),
    Meaning("T", Quirk.IGNORE_TAG, "ignores the tag of the CSW"),
    Meaning("U", Quirk.NO_TEST_UNIT_READY, "no TEST UNIT READY"),
    Meaning("V", Quirk.NO_VPD, "no vital product data, except pages that you ask for"),
)
BY_LETTER: Final = {meaning.letter: meaning for meaning in MEANINGS}
BY_QUIRK: Final = {meaning.quirk: meaning for meaning in MEANINGS}

LEARNED: Final = "learned"


@dataclass(frozen=True)
class Applied:
    """One quirk of one device, with its source."""

    quirk: Quirk
    source: str
    """Where it is known from: "learned", "table", "--quirks", "SCSIUSB_QUIRKS", a file and line, …"""
    why: str = ""
    """The reason, as far as the source gives one."""


@dataclass(frozen=True)
class Quirks:
    """All quirks that apply to a device. `Quirk.GO_SLOW in quirks` tests for one."""

    applied: tuple[Applied, ...] = ()
    signature: bytes | None = None
    """The CSW signature that was learned, if ANY_SIGNATURE permits that."""
    flags: Quirk = field(init=False)
    """All quirks of `applied`, in one value."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", reduce(or_, (each.quirk for each in self.applied), Quirk.NONE))

    def __contains__(self, quirk: Quirk) -> bool:
        return quirk in self.flags

    def why(self, quirk: Quirk) -> str:
        """Return the quirk's source and reason in words; "" if the quirk does not apply."""
        found = next((each for each in self.applied if each.quirk is quirk), None)
        return "" if found is None else f"{found.source}: {found.why}" if found.why else found.source

    def learning(self, quirk: Quirk, why: str, signature: bytes | None = None) -> Quirks:
        """Return these quirks with one more, which the device has just shown."""
        known = self.applied if quirk in self else (*self.applied, Applied(quirk, LEARNED, why))
        return replace(self, applied=known, signature=signature or self.signature)

    def learned(self) -> tuple[Applied, ...]:
        """Return the quirks that were learned from the device's behaviour."""
        return tuple(each for each in self.applied if each.source == LEARNED)

    def unlearned(self) -> Quirk:
        """Return the flags without those that were learned."""
        return reduce(or_, (each.quirk for each in self.applied if each.source != LEARNED), Quirk.NONE)

    def remembering(self, others: Quirks) -> Quirks:
        """Return these quirks with those that `others` have learned."""
        added = tuple(each for each in others.learned() if each.quirk not in self)
        signature = others.signature if Quirk.ANY_SIGNATURE in self else None
        return replace(self, applied=self.applied + added, signature=signature)


def split(quirks: Quirk) -> list[Quirk]:
    """Return the single quirks in `quirks`, in the order of their letters."""
    return [meaning.quirk for meaning in MEANINGS if meaning.quirk in quirks]


def letters(quirks: Quirk) -> str:
    """Return the letters of the quirks: IGNORE_RESIDUE | GO_SLOW → "rG"."""
    return "".join(BY_QUIRK[quirk].letter for quirk in split(quirks))


def parse_letters(text: str) -> Quirk:
    """Return the quirks of the letters: "rG" → IGNORE_RESIDUE | GO_SLOW. Raises ValueError for an unknown letter."""
    found = Quirk.NONE
    for letter in text.strip():
        if letter not in BY_LETTER:
            other = BY_LETTER.get(letter.swapcase())
            near = f"{other.letter!r} means: {other.effect}" if other else "`scsiusb quirks --list` shows all letters"
            raise ValueError(f"{letter!r} is not the letter of a quirk; {near}")
        found |= BY_LETTER[letter].quirk
    return found
