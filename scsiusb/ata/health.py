"""Whether a device is well, and why: one verdict from all that it says of itself."""

from __future__ import annotations

from typing import Final

from scsiusb.ata.smart import Smart
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
LIFE_LEFT: Final = ("ssd_life_left", "percent_lifetime_left", "media_wearout", "wear_leveling_count")
LITTLE_LIFE: Final = 10  # of the normalized value


@dataclass(frozen=True)
class Health:
    """The state of a device."""

    verdict: str
    """One of `GOOD`, `WORN`, `FAILING` and `UNKNOWN`: the words good, worn, failing, unknown."""
    reasons: tuple[str, ...]


def judge(smart: Smart | None, *, write_protected: bool | None = None, without: str = NO_SMART) -> Health:
    """Return the verdict on a device; `smart` None: it has none that can be read, and `without` says why."""
    failing: list[str] = []
    worn: list[str] = []
    notes: list[str] = ["the medium is write protected"] if write_protected else []
    if smart is None:
        return Health(UNKNOWN, (*notes, without))
    if smart.passed is False:
        failing.append("SMART predicts that the disk fails soon: copy what is on it now")
    for each in smart.attributes:
        if each.has_failed:
            target = failing if each.pre_failure else worn
            target.append(f"{each.name} is {each.value}, at or below its threshold of {each.threshold}")
        elif each.name in LIFE_LEFT and 0 < each.value <= LITTLE_LIFE:
            worn.append(f"{each.name} is {each.value} of 100")
    for name, what in WARNINGS.items():
        count = smart.raw(name)
        if count and count < 1 << 32:  # some makers put more than a count into the upper bytes
            (failing if name in ALARMING or count >= MANY else worn).append(f"{count} {what}")
    if smart.temperature is not None and smart.temperature >= HOT:
        notes.append(f"it is hot: {smart.temperature} degrees Celsius")
    if smart.identity.security_locked:
        notes.append("it is locked by an ATA password")
    known = smart.passed is not None or smart.attributes
    verdict = FAILING if failing else WORN if worn else GOOD if known else UNKNOWN
    return Health(verdict, (*failing, *worn, *notes, *smart.problems))
