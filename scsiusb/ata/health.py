"""Whether a device is well, and why: one verdict from all that it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scsiusb.ata.nvme import NvmeHealth, NvmeSmart
from scsiusb.ata.smart import LIFE_LEFT, Smart
from scsiusb.base.dataclass import dataclass

GOOD, WORN, FAILING, UNKNOWN = "good", "worn", "failing", "unknown"
NO_SMART: Final = "the device has no SMART that can be read"
HOT: Final = 60  # degrees Celsius
WARNINGS: Final = {  # attributes that count what should never happen
    "reallocated_sectors": "sectors were reallocated",
    "pending_sectors": "sectors cannot be read and wait to be reallocated",
    "offline_uncorrectable": "sectors could not be corrected in a test",
    "reported_uncorrectable": "errors could not be corrected",
}
ALARMING: Final = ("pending_sectors", "offline_uncorrectable")
MANY: Final = 100  # reallocated sectors
LITTLE_LIFE: Final = 10  # of the normalized value, or percent
TEMPERATURE_BIT: Final = 1  # of the critical warning


@dataclass(frozen=True)
class Health:
    """The state of a device."""

    verdict: str
    """One of `GOOD`, `WORN`, `FAILING` and `UNKNOWN`: the words good, worn, failing, unknown."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Figures:
    """What a disk counts of its own wear; None where it does not say."""

    life_left: int | None = None
    """Percent of the writes that it was made for."""
    spare_left: int | None = None
    """Percent of the spare blocks (NVMe)."""
    reallocated: int | None = None
    """Sectors that were replaced by spare ones (ATA)."""
    pending: int | None = None
    """Sectors that cannot be read and wait to be replaced (ATA)."""


def figures(smart: Smart | NvmeSmart | None) -> Figures:
    """Return what a disk counts of its own wear; `smart` None: it has no SMART."""
    if isinstance(smart, NvmeSmart):
        health = smart.health
        return Figures() if health is None else Figures(max(0, 100 - health.percentage_used), health.available_spare)
    if smart is None:
        return Figures()
    left = [each.value for each in smart.attributes if each.name in LIFE_LEFT and 0 < each.value <= 100]
    if not left and smart.percent_used is not None:
        left = [max(0, 100 - smart.percent_used)]
    counts = (_count(smart, name) for name in ("reallocated_sectors", "pending_sectors"))
    return Figures(left[0] if left else None, None, *counts)


def judge(
    smart: Smart | NvmeSmart | None,
    *,
    write_protected: bool | None = None,
    without: str = NO_SMART,
    wrong: Sequence[str] = (),
    seen: Sequence[str] = (),
) -> Health:
    """Return the verdict on a device; `smart` None: it has none that can be read, and `without` says why.

    `wrong`: what reading its blocks has shown that no sound device has; `seen`: what it has shown else.
    """
    notes = ["the medium is write protected"] if write_protected else []
    if smart is None:
        return Health(FAILING if wrong else UNKNOWN, (*wrong, *notes, without, *seen))
    failing, worn = _of_nvme(smart.health) if isinstance(smart, NvmeSmart) else _of_ata(smart)
    if smart.temperature is not None and smart.temperature >= HOT:
        notes.append(f"it is hot: {smart.temperature} degrees Celsius")
    if isinstance(smart, Smart) and smart.identity.security_locked:
        notes.append("it is locked by an ATA password")
    known = smart.passed is not None or (isinstance(smart, Smart) and bool(smart.attributes))
    verdict = FAILING if failing else WORN if worn else GOOD if known else UNKNOWN
    return Health(verdict, (*failing, *worn, *notes, *smart.problems))


def _of_ata(smart: Smart) -> tuple[list[str], list[str]]:
    """Return what shows that the disk fails, and what shows wear."""
    failing: list[str] = []
    worn: list[str] = []
    if smart.passed is False:
        failing.append("SMART predicts that the disk fails soon: copy what is on it now")
    for each in smart.attributes:
        if each.has_failed:
            target = failing if each.pre_failure else worn
            target.append(f"{each.name} is {each.value}, at or below its threshold of {each.threshold}")
        elif each.name in LIFE_LEFT and 0 < each.value <= LITTLE_LIFE:
            worn.append(f"{each.name} is {each.value} of 100")
    if smart.percent_used is not None and smart.percent_used >= 100 - LITTLE_LIFE:
        worn.append(f"{smart.percent_used} percent of the writes that it was made for are used")
    for name, what in WARNINGS.items():
        count = _count(smart, name)
        if count:
            (failing if name in ALARMING or count >= MANY else worn).append(f"{count} {what}")
    return failing, worn


def _count(smart: Smart, name: str) -> int | None:
    """Return a raw number; None if it is more than a count, which some makers put into the upper bytes."""
    count = smart.raw(name)
    return count if count is not None and count < 1 << 32 else None


def _of_nvme(health: NvmeHealth | None) -> tuple[list[str], list[str]]:
    """Return what shows that the disk fails, and what shows wear. Heat alone, which passes, is counted as wear."""
    failing: list[str] = []
    worn: list[str] = []
    if health is None:
        return failing, worn
    for bit, what in health.warnings:
        (worn if bit == TEMPERATURE_BIT else failing).append(f"the disk warns: {what}")
    if health.percentage_used >= 100 - LITTLE_LIFE:
        worn.append(f"{health.percentage_used} percent of the writes that it was made for are used")
    if health.available_spare <= health.spare_threshold and not health.critical_warning & 1:
        worn.append(f"{health.available_spare} percent of the spare blocks are left")
    if health.media_errors:
        worn.append(f"{health.media_errors} errors could not be corrected")
    return failing, worn
