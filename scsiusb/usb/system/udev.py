"""The udev rule that permits the user who is logged in at the machine to open mass-storage devices."""

from __future__ import annotations

from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Final

NAME: Final = "70-scsiusb.rules"
FOLDERS: Final = tuple(  # in udev(7)'s order: a file hides files of the same name in later folders
    Path(top) / "udev/rules.d" for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)


class State(Enum):
    """The state of the rule on this system; the values are for people."""

    MISSING = "not installed"
    OTHER = "not the one of this version"
    CURRENT = "installed"


def rule() -> str:
    """Return the rule's text: from the installed package, or from a source checkout."""
    packed = files("scsiusb") / "data" / NAME
    if packed.is_file():
        return packed.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "udev" / NAME).read_text(encoding="utf-8")


def installed() -> Path | None:
    """Return the path of the rule that udev reads; None if it is not installed. Raises OSError."""
    return next((path for folder in FOLDERS if (path := folder / NAME).exists()), None)


def state() -> State:
    """Compare the installed rule, if any, with this version's; comments may differ. Raises OSError."""
    path = installed()
    if path is None:
        return State.MISSING
    text = path.read_text(encoding="utf-8", errors="replace")
    return State.CURRENT if _rules(text) == _rules(rule()) else State.OTHER


def _rules(text: str) -> list[str]:
    """Return the lines of a rules file without comments and empty lines."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
