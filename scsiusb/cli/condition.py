"""What the command health shows beside its verdict: wear, protection, cache, links and quirks, where they are known."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from scsiusb.ata.health import figures
from scsiusb.ata.smart import Smart
from scsiusb.cli.output import counted, show
from scsiusb.quirks.model import BY_QUIRK, split

if TYPE_CHECKING:
    from scsiusb.ata.nvme import NvmeSmart
    from scsiusb.quirks.model import Quirk
    from scsiusb.scsi.pages.mode import ModeParameters
    from scsiusb.usb.interface import InterfaceInfo

WIDTH: Final = 80
SLOW_LINK: Final = "it could do SuperSpeed: try another port or cable"
RATES: Final = {
    "low": "low speed (1.5 Mb/s)",
    "full": "full speed (12 Mb/s)",
    "high": "high speed (480 Mb/s)",
    "super": "SuperSpeed (5 Gb/s)",
    "super-plus": "SuperSpeed Plus (10 Gb/s or more)",
}
PASSED: Final = {True: "passed", False: "FAILING", None: "does not say"}


class Condition(NamedTuple):
    """What was read of a device."""

    smart: Smart | NvmeSmart | None
    modes: ModeParameters | None
    info: InterfaceInfo
    quirks: Quirk

    @property
    def write_protected(self) -> bool | None:
        """Return whether the medium is write protected."""
        return None if self.modes is None else self.modes.write_protected

    @property
    def write_cache(self) -> bool | None:
        """Return whether the write cache is on: as the disk says, or else the unit's mode page."""
        if isinstance(self.smart, Smart) and self.smart.identity.has_write_cache:
            return self.smart.identity.write_cache_enabled
        return None if self.modes is None else self.modes.write_cache


def condition_record(found: Condition) -> dict[str, Any]:
    """Return the condition as names and values for JSON."""
    numbers, now, possible = figures(found.smart), *_sata(found)
    return {
        "life_left": numbers.life_left,
        "spare_left": numbers.spare_left,
        "reallocated": numbers.reallocated,
        "pending": numbers.pending,
        "write_protected": found.write_protected,
        "write_cache": found.write_cache,
        "speed": found.info.speed,
        "could_do_superspeed": found.info.device.is_slowed,
        "sata_speed": now,
        "sata_possible": possible,
        "quirks": [{"quirk": each.title, "letter": BY_QUIRK[each].letter} for each in split(found.quirks)],
    }


def show_condition(found: Condition) -> None:
    """Print what is known, a line each, within 80 columns."""
    rows = {title: text for title, text in _rows(found).items() if text is not None}
    width = max(map(len, rows))
    for title, text in rows.items():
        show(fill(text, WIDTH, initial_indent=f"  {title:<{width}}  ", subsequent_indent=" " * (width + 4)))


def _rows(found: Condition) -> dict[str, str | None]:
    smart, numbers = found.smart, figures(found.smart)
    return {
        "SMART" if isinstance(smart, Smart) else "NVMe health": None if smart is None else PASSED[smart.passed],
        "temperature": None if smart is None or smart.temperature is None else f"{smart.temperature} °C",
        "wear": None if numbers.life_left is None else f"{numbers.life_left} % of its life left",
        "spare blocks": None if numbers.spare_left is None else f"{numbers.spare_left} % left",
        "reallocated": None if numbers.reallocated is None else counted(numbers.reallocated, "sector"),
        "pending": None if numbers.pending is None else counted(numbers.pending, "sector"),
        "write protection": _on(found.write_protected),
        "write cache": _on(found.write_cache),
        "USB link": _usb_text(found.info),
        "SATA link": _sata_text(found),
        "quirks": ", ".join(f"{each.title} ({BY_QUIRK[each].letter})" for each in split(found.quirks)) or "none",
    }


def _on(value: bool | None) -> str | None:
    return None if value is None else "on" if value else "off"


def _usb_text(info: InterfaceInfo) -> str | None:
    rate = RATES.get(info.speed)
    return f"{rate}; {SLOW_LINK}" if rate is not None and info.device.is_slowed else rate


def _sata(found: Condition) -> tuple[str | None, str | None]:
    """Return the speed of the link between bridge and disk, and the fastest one that the disk can do."""
    if not isinstance(found.smart, Smart):
        return None, None
    return found.smart.identity.link_speed, found.smart.identity.fastest_link


def _sata_text(found: Condition) -> str | None:
    now, possible = _sata(found)
    return f"{now}; the disk could do {possible}" if now and possible and now != possible else now
