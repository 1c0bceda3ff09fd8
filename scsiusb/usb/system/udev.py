"""The udev rule that lets the person at the seat open mass-storage devices: its text, and whether it is installed."""

from __future__ import annotations

from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Final

NAME: Final = "70-scsiusb.rules"
FOLDERS: Final = tuple(  # in udev(7)'s order: a file hides those of its name further down
    Path(top) / "udev/rules.d" for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)


class State(Enum):
    """Of the rule on this system."""

    MISSING = "not installed"
    OTHER = "not the one of this version"
    CURRENT = "installed"


def rule() -> str:
    """The rule's text: in a wheel it lies in the package, in a checkout beside it."""
    packed = files("scsiusb").joinpath("data", NAME)
    if packed.is_file():
        return packed.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "udev" / NAME).read_text(encoding="utf-8")


def installed() -> Path | None:
    """The file that udev reads; OSError where we may not look."""
    return next((path for folder in FOLDERS if (path := folder / NAME).exists()), None)


def state() -> State:
    """Only what udev acts on counts: comments may differ."""
    path = installed()
    if path is None:
        return State.MISSING
    text = path.read_text(encoding="utf-8", errors="replace")
    return State.CURRENT if _rules(text) == _rules(rule()) else State.OTHER


def _rules(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
