"""Symptoms of devices that a quirk would cure, and the remedy of each in words, with the option ready to paste."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from scsiusb.quirks.model import Quirk, letters


class Symptom(Enum):
    """What a device did that one of its quirks would explain."""

    FALSE_RESIDUE = auto()
    WRONG_SIGNATURE = auto()
    WRONG_TAG = auto()
    LAST_BLOCK_MISSING = auto()
    LAST_BLOCKS_UNANSWERED = auto()
    LARGE_TRANSFER_UNANSWERED = auto()
    LARGE_TRANSFER_AT_END_UNANSWERED = auto()
    CAPACITY_10_FAILED = auto()
    CAPACITY_16_UNANSWERED = auto()
    INQUIRY_UNANSWERED = auto()
    UNIT_UNANSWERED = auto()
    MAX_LUN_UNANSWERED = auto()
    READY_UNANSWERED = auto()
    VPD_UNANSWERED = auto()
    LEFT_AT_VPD = auto()
    FLUSH_UNANSWERED = auto()
    FLUSH_REFUSED = auto()
    LOCK_UNANSWERED = auto()
    WRITE_PROTECTED = auto()
    PROTECTION_UNANSWERED = auto()
    LEFT_AT_MODE_SENSE = auto()


class Cure(NamedTuple):
    """A quirk or several, and when to use them, as the first words of a remedy."""

    quirk: Quirk
    when: str


NEVER_ANSWERED: Final = "if the device never answers this command"
NEVER_SEND: Final = "to never send it"
CURES: Final[Mapping[Symptom, Cure]] = {
    Symptom.FALSE_RESIDUE: Cure(Quirk.IGNORE_RESIDUE, "if the device reports a residue for all data"),
    Symptom.WRONG_SIGNATURE: Cure(Quirk.ANY_SIGNATURE, "if each CSW of the device has this signature"),
    Symptom.WRONG_TAG: Cure(Quirk.IGNORE_TAG, "if the device reports wrong tags again and again"),
    Symptom.LAST_BLOCK_MISSING: Cure(Quirk.FIX_CAPACITY, "if the device reports one block too many"),
    Symptom.LAST_BLOCKS_UNANSWERED: Cure(Quirk.LAST_SECTOR_ALONE, "if the last blocks can be read one by one"),
    Symptom.LARGE_TRANSFER_UNANSWERED: Cure(Quirk.MAX_SECTORS_64, "if commands of at most 64 sectors work"),
    Symptom.LARGE_TRANSFER_AT_END_UNANSWERED: Cure(
        Quirk.MAX_SECTORS_64 | Quirk.LAST_SECTOR_ALONE, "if smaller commands work"
    ),
    Symptom.CAPACITY_10_FAILED: Cure(Quirk.ONLY_READ_CAPACITY_16, "if the device has READ CAPACITY(16) only"),
    Symptom.CAPACITY_16_UNANSWERED: Cure(Quirk.NO_READ_CAPACITY_16, NEVER_ANSWERED),
    Symptom.INQUIRY_UNANSWERED: Cure(Quirk.NO_INQUIRY, NEVER_ANSWERED),
    Symptom.UNIT_UNANSWERED: Cure(Quirk.SINGLE_LUN, "if LUN 0 is the device's only unit"),
    Symptom.MAX_LUN_UNANSWERED: Cure(Quirk.SINGLE_LUN, NEVER_SEND),
    Symptom.READY_UNANSWERED: Cure(Quirk.NO_TEST_UNIT_READY, NEVER_ANSWERED),
    Symptom.VPD_UNANSWERED: Cure(Quirk.NO_VPD, NEVER_SEND),
    Symptom.LEFT_AT_VPD: Cure(Quirk.NO_VPD, "if it leaves each time at INQUIRY of VPD page 00h"),
    Symptom.FLUSH_UNANSWERED: Cure(Quirk.NO_SYNCHRONIZE_CACHE, NEVER_ANSWERED),
    Symptom.FLUSH_REFUSED: Cure(Quirk.NO_SYNCHRONIZE_CACHE, NEVER_SEND),
    Symptom.LOCK_UNANSWERED: Cure(Quirk.NOT_LOCKABLE, NEVER_ANSWERED),
    Symptom.WRITE_PROTECTED: Cure(Quirk.NO_WRITE_PROTECT_DETECTION, "if it can be written elsewhere"),
    Symptom.PROTECTION_UNANSWERED: Cure(Quirk.NO_WRITE_PROTECT_DETECTION, NEVER_SEND),
    Symptom.LEFT_AT_MODE_SENSE: Cure(Quirk.NO_WRITE_PROTECT_DETECTION, "if it leaves at MODE SENSE each time"),
}


def remedy(symptom: Symptom, vid: int, pid: int, applied: Quirk) -> str:
    """Return what to do about a symptom of the device; "" if the quirk applies already, so that it is no cure.

    The option has the quirks that apply, too: it replaces those of the table.
    """
    cure = CURES[symptom]
    if cure.quirk in applied:
        return ""
    return f"{cure.when}, use --quirks {vid:04x}:{pid:04x}:{letters(applied | cure.quirk)}"
