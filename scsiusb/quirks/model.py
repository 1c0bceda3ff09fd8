"""What devices need care for: the quirks, their letters, and which of them apply to a device and why."""

from __future__ import annotations

from dataclasses import field, replace
from enum import Flag, auto
from functools import reduce
from operator import or_
from typing import Final, NamedTuple

from scsiusb.base.dataclass import dataclass


class Quirk(Flag):
    """What to do about a device; `MEANINGS` has the letter and the meaning of each."""

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
        """The name as it is shown: "ignore-residue"."""
        return (self.name or "none").lower().replace("_", "-")


class Meaning(NamedTuple):
    """A letter of `--quirks`: small ones are Linux's, capital ones ours."""

    letter: str
    quirk: Quirk
    effect: str
    unused: str = ""
    """Why the letter changes nothing in scsiusb; empty where it does."""

    @property
    def is_linux(self) -> bool:
        return self.letter.islower()


MEANINGS: Final = (
    Meaning("a", Quirk.SANE_SENSE, "asks for all of the sense data, not for 18 bytes"),
    Meaning("b", Quirk.BAD_SENSE, "never asks for more than 18 bytes of sense data, whatever else says so"),
    Meaning("c", Quirk.FIX_CAPACITY, "takes one block off the capacity"),
    Meaning("d", Quirk.NO_READ_DISC_INFO, "no READ DISC INFORMATION", "scsiusb sends none"),
    Meaning("e", Quirk.NO_READ_CAPACITY_16, "no READ CAPACITY(16); what lies beyond 2^32 blocks is out of reach"),
    Meaning("f", Quirk.NO_REPORT_OPCODES, "no REPORT SUPPORTED OPERATION CODES", "scsiusb sends none"),
    Meaning("g", Quirk.MAX_SECTORS_240, "moves at most 240 sectors (120 KiB) in a command"),
    Meaning("h", Quirk.CAPACITY_HEURISTICS, "takes one block off the capacity where the number is odd"),
    Meaning("i", Quirk.IGNORE_DEVICE, "does not open the device"),
    Meaning("j", Quirk.NO_REPORT_LUNS, "no REPORT LUNS", "scsiusb asks GET MAX LUN instead"),
    Meaning("k", Quirk.NO_WRITE_SAME, "no WRITE SAME", "scsiusb sends none"),
    Meaning("l", Quirk.NOT_LOCKABLE, "no PREVENT ALLOW MEDIUM REMOVAL"),
    Meaning("m", Quirk.MAX_SECTORS_64, "moves at most 64 sectors (32 KiB) in a command"),
    Meaning("n", Quirk.INITIAL_READ_10, "reads a block when it meets a medium, and throws away what comes"),
    Meaning("o", Quirk.CAPACITY_OK, "believes the capacity: overrides h"),
    Meaning("p", Quirk.WRITE_CACHE, "the cache is on", "scsiusb empties it whatever the device says of it"),
    Meaning("r", Quirk.IGNORE_RESIDUE, "does not believe the residue"),
    Meaning("s", Quirk.SINGLE_LUN, "has one logical unit; GET MAX LUN is not asked"),
    Meaning("t", Quirk.NO_ATA_PASS_THROUGH, "no ATA PASS-THROUGH", "scsiusb sends none but your own"),
    Meaning("u", Quirk.IGNORE_UAS, "no UAS", "scsiusb drives BOT only"),
    Meaning("w", Quirk.NO_WRITE_PROTECT_DETECTION, "no test for write protection", "scsiusb makes none"),
    Meaning("y", Quirk.ALWAYS_SYNC, "SYNCHRONIZE CACHE always", "scsiusb sends it whatever the cache is said to be"),
    Meaning("C", Quirk.NO_SYNCHRONIZE_CACHE, "no SYNCHRONIZE CACHE: a flush does nothing"),
    Meaning("E", Quirk.ONLY_READ_CAPACITY_16, "READ CAPACITY(16) in place of READ CAPACITY(10)"),
    Meaning("G", Quirk.GO_SLOW, "waits 125 microseconds after the CBW"),
    Meaning("I", Quirk.NO_INQUIRY, "no INQUIRY: takes it for a removable disk of no name"),
    Meaning("K", Quirk.SENSE_AFTER_SYNC, "sends REQUEST SENSE behind SYNCHRONIZE CACHE"),
    Meaning("L", Quirk.LAST_SECTOR_ALONE, "reads and writes the last block in a command of its own"),
    Meaning("R", Quirk.NO_CLASS_RESET, "recovers by a reset of the port, not by the class reset"),
    Meaning("S", Quirk.ANY_SIGNATURE, "takes the first CSW's signature, whatever it is, for the right one"),
    Meaning("T", Quirk.IGNORE_TAG, "does not compare the CSW's tag"),
    Meaning("U", Quirk.NO_TEST_UNIT_READY, "no TEST UNIT READY"),
    Meaning("V", Quirk.NO_VPD, "no vital product data page but those that you ask for"),
)
BY_LETTER: Final = {meaning.letter: meaning for meaning in MEANINGS}
BY_QUIRK: Final = {meaning.quirk: meaning for meaning in MEANINGS}

LEARNED: Final = "learned"


@dataclass(frozen=True)
class Applied:
    """One quirk of one device, and where that is known from."""

    quirk: Quirk
    source: str
    why: str = ""


@dataclass(frozen=True)
class Quirks:
    """All that applies to a device. `Quirk.GO_SLOW in quirks` asks for one."""

    applied: tuple[Applied, ...] = ()
    signature: bytes | None = None
    """The CSW signature that was learned, where ANY_SIGNATURE allows that."""
    flags: Quirk = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", reduce(or_, (each.quirk for each in self.applied), Quirk.NONE))

    def __contains__(self, quirk: Quirk) -> bool:
        return quirk in self.flags

    def why(self, quirk: Quirk) -> str:
        """Where the quirk is known from, in words."""
        found = next((each for each in self.applied if each.quirk is quirk), None)
        return "" if found is None else f"{found.source}: {found.why}" if found.why else found.source

    def learning(self, quirk: Quirk, why: str, signature: bytes | None = None) -> Quirks:
        """These, and one that the device has just shown."""
        known = self.applied if quirk in self else (*self.applied, Applied(quirk, LEARNED, why))
        return replace(self, applied=known, signature=signature or self.signature)

    def learned(self) -> tuple[Applied, ...]:
        return tuple(each for each in self.applied if each.source == LEARNED)

    def unlearned(self) -> Quirk:
        """The flags without those that were learned."""
        return reduce(or_, (each.quirk for each in self.applied if each.source != LEARNED), Quirk.NONE)

    def remembering(self, others: Quirks) -> Quirks:
        """These, and what the others have learned."""
        news = tuple(each for each in others.learned() if each.quirk not in self)
        signature = others.signature if Quirk.ANY_SIGNATURE in self else None
        return replace(self, applied=self.applied + news, signature=signature)


def split(quirks: Quirk) -> list[Quirk]:
    """One by one, in the order of their letters."""
    return [meaning.quirk for meaning in MEANINGS if meaning.quirk in quirks]


def letters(quirks: Quirk) -> str:
    """IGNORE_RESIDUE | GO_SLOW → "rG"."""
    return "".join(BY_QUIRK[quirk].letter for quirk in split(quirks))


def parse_letters(text: str) -> Quirk:
    """ "rG" → IGNORE_RESIDUE | GO_SLOW. ValueError for a letter that means nothing."""
    found = Quirk.NONE
    for letter in text.strip():
        if letter not in BY_LETTER:
            other = BY_LETTER.get(letter.swapcase())
            near = f"{other.letter!r} means: {other.effect}" if other else "`scsiusb quirks --list` has them all"
            raise ValueError(f"{letter!r} is no quirk's letter; {near}")
        found |= BY_LETTER[letter].quirk
    return found
