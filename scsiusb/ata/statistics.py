"""Device statistics of an ATA disk (general purpose log 04h; ACS-3 Device Statistics log)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from scsiusb.ata.extended import read_log
from scsiusb.ata.log_directory import check_log, sizes_of_logs
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import CheckCondition, MalformedReply
from scsiusb.scsi.unit import LogicalUnit

ADDRESS: Final = 0x04
LENGTH: Final = 512
PAGES_AT: Final = 8  # in page 00h: how many pages there are, then their numbers
SUPPORTED, VALID, NORMALIZED, NOTIFIES, MET = 0x80, 0x40, 0x20, 0x10, 0x08  # flags, in byte 7 of a statistic


class Place(NamedTuple):
    """A statistic in its page."""

    name: str
    size: int = 4
    """Bytes of the number."""
    signed: bool = False


PERCENT_USED: Final = "percent_used"
GENERAL, FREE_FALL, ROTATING, ERRORS, TEMPERATURE, TRANSPORT, SOLID_STATE = range(1, 8)
NAMES: Final = {
    GENERAL: "general",
    FREE_FALL: "free fall",
    ROTATING: "rotating media",
    ERRORS: "errors",
    TEMPERATURE: "temperature",
    TRANSPORT: "transport",
    SOLID_STATE: "solid state",
}
STATISTICS: Final[dict[int, dict[int, Place]]] = {  # by page and offset
    GENERAL: {
        8: Place("lifetime_power_on_resets"),
        16: Place("power_on_hours"),
        24: Place("logical_sectors_written", 6),
        32: Place("write_commands", 6),
        40: Place("logical_sectors_read", 6),
        48: Place("read_commands", 6),
        56: Place("date_and_time", 6),
        64: Place("pending_errors"),
        72: Place("workload_utilization", 2),
    },
    FREE_FALL: {8: Place("free_fall_events"), 16: Place("shock_events")},
    ROTATING: {
        8: Place("spindle_motor_hours"),
        16: Place("head_flying_hours"),
        24: Place("head_load_events"),
        32: Place("reallocated_sectors"),
        40: Place("read_recovery_attempts"),
        48: Place("mechanical_start_failures"),
        56: Place("reallocation_candidates"),
        64: Place("high_priority_unloads"),
    },
    ERRORS: {8: Place("reported_uncorrectable"), 16: Place("resets_during_commands"), 24: Place("element_changes")},
    TEMPERATURE: {
        8: Place("current", 1, True),
        16: Place("short_term_average", 1, True),
        24: Place("long_term_average", 1, True),
        32: Place("highest", 1, True),
        40: Place("lowest", 1, True),
        48: Place("highest_short_term_average", 1, True),
        56: Place("lowest_short_term_average", 1, True),
        64: Place("highest_long_term_average", 1, True),
        72: Place("lowest_long_term_average", 1, True),
        80: Place("minutes_too_hot"),
        88: Place("specified_maximum", 1, True),
        96: Place("minutes_too_cold"),
        104: Place("specified_minimum", 1, True),
    },
    TRANSPORT: {8: Place("hardware_resets"), 16: Place("asr_events"), 24: Place("interface_crc_errors")},
    SOLID_STATE: {8: Place(PERCENT_USED, 1)},
}


@dataclass(frozen=True)
class Statistic:
    """A number that the disk keeps."""

    page: int
    """Page of the log, a key of `NAMES`."""
    name: str
    value: int | None
    """None: the disk does not have it now."""
    normalized: bool
    """It is in the units that the standard gives it."""
    met: bool
    """It has reached the limit that was set for it (device statistics notifications)."""


def read_statistics(unit: LogicalUnit) -> tuple[Statistic, ...]:
    """Return the statistics of the disk behind a bridge that translates ATA commands of 48 bits.

    Raises DeviceUnsupported where the disk keeps none, UnsupportedOpcode or IllegalRequest where the bridge does not
    translate, MalformedReply for pages that are none, and as `LogicalUnit.execute`.
    """
    check_log(sizes_of_logs(unit), ADDRESS, "device statistics")
    numbers = [each for each in parse_page_list(read_log(unit, ADDRESS)) if each in STATISTICS]
    return tuple(found for number in numbers for found in _read_page(unit, number))


def read_percent_used(unit: LogicalUnit) -> int | None:
    """Return the Percentage Used Endurance Indicator; None where there is none. Raises as `read_statistics`."""
    check_log(sizes_of_logs(unit), ADDRESS, "device statistics")
    if SOLID_STATE not in parse_page_list(read_log(unit, ADDRESS)):
        return None
    return next((each.value for each in _read_page(unit, SOLID_STATE) if each.name == PERCENT_USED), None)


def _read_page(unit: LogicalUnit, number: int) -> tuple[Statistic, ...]:
    try:
        return parse_statistics(read_log(unit, ADDRESS, number))
    except CheckCondition as error:
        raise MalformedReply(
            f"device statistics: page {number} is listed, and cannot be read: {error.sense}"
        ) from error


def parse_page_list(data: bytes) -> tuple[int, ...]:
    """Return the numbers of the pages that page 00h lists. Raises MalformedReply."""
    _check(data, 0)
    return tuple(dict.fromkeys(data[PAGES_AT + 1 : PAGES_AT + 1 + data[PAGES_AT]]))


def parse_statistics(data: bytes) -> tuple[Statistic, ...]:
    """Return the statistics of a page; those that the disk does not support are left out. Raises MalformedReply."""
    if len(data) != LENGTH or data[2] not in STATISTICS:
        raise MalformedReply(f"device statistics: the {len(data)} bytes are no page that is known")
    _check(data, data[2])
    return tuple(_statistics(data))


def _statistics(data: bytes) -> Iterator[Statistic]:
    for at, place in STATISTICS[data[2]].items():
        flags = data[at + 7]
        if flags & SUPPORTED:
            value = int.from_bytes(data[at : at + place.size], "little", signed=place.signed)
            known = value if flags & VALID else None
            yield Statistic(data[2], place.name, known, bool(flags & NORMALIZED), bool(flags & MET))


def _check(data: bytes, number: int) -> None:
    """Raise MalformedReply unless the data are the page of that number, in a revision that is known to be."""
    if len(data) != LENGTH or data[2] != number or not data[0] | data[1]:
        raise MalformedReply(f"device statistics: the {len(data)} bytes are not page {number}")
