"""Symptoms of devices that a quirk would cure, and the remedy of each in words, with the option ready to paste."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from scsiusb.quirks.model import Quirk, letters


class Symptom(Enum):
    """What a device did that one of its quirks would explain."""

    FLUSH_UNANSWERED = auto()
    FLUSH_REFUSED = auto()
    WRITE_PROTECTED = auto()
    PROTECTION_UNANSWERED = auto()


class Cure(NamedTuple):
    """A quirk, and when to use it, as the first words of a remedy."""

    quirk: Quirk
    when: str


CURES: Final[Mapping[Symptom, Cure]] = {
    Symptom.FLUSH_UNANSWERED: Cure(Quirk.NO_SYNCHRONIZE_CACHE, "if the device never answers this command"),
    Symptom.FLUSH_REFUSED: Cure(Quirk.NO_SYNCHRONIZE_CACHE, "to never send it"),
    Symptom.WRITE_PROTECTED: Cure(Quirk.NO_WRITE_PROTECT_DETECTION, "if it can be written elsewhere"),
    Symptom.PROTECTION_UNANSWERED: Cure(Quirk.NO_WRITE_PROTECT_DETECTION, "to never send it"),
}


def remedy(symptom: Symptom, vid: int, pid: int, applied: Quirk) -> str:
    """Return what to do about a symptom of the device; "" if the quirk applies already, so that it is no cure.

    The option has the quirks that apply, too: it replaces those of the table.
    """
    cure = CURES[symptom]
    if cure.quirk in applied:
        return ""
    return f"{cure.when}, use --quirks {vid:04x}:{pid:04x}:{letters(applied | cure.quirk)}"
