"""modes, ready, start, stop, load, lock, unlock, sync: what scripts rely on."""

from __future__ import annotations

import io
import sys

import pytest

from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.target.modes import DISK_PAGES, ModePages
from tests.cli.conftest import Attached, Cli


class Person(io.StringIO):
    """A person who answers at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def unit(attach: Attached) -> Unit:
    unit = Unit(Memory(512 * 64))
    attach(Stick([unit]))
    return unit


def test_all_pages_by_name_with_all_their_values(cli: Cli, unit: Unit) -> None:
    found = cli("modes", "1-1", "--json").record
    assert list(found) == ["recovery", "caching", "control"]
    assert found["caching"]["WCE"] == {"current": 1, "changeable": True, "default": 1, "saved": 1}
    assert found["caching"]["RCD"] == {"current": 0, "changeable": False, "default": 0, "saved": 0}
    assert found["recovery"]["RRC"]["current"] == 3


def test_other_values_than_the_current_ones_may_need_a_medium(cli: Cli, attach: Attached) -> None:
    """As of QEMU's empty CD drive, which says NO MEDIUM where it does not save pages."""
    attach(Stick([Unit(Memory(512 * 64))], faults=["sense=2/3A/00,cdb=1A08FF,times=always"]))
    found = cli("modes", "1-1", "--json").record
    assert found["caching"]["WCE"] == {"current": 1, "changeable": True, "default": 1, "saved": None}


@pytest.mark.parametrize("page", ["caching", "CA", "8", "0x08", "08"])
def test_a_page_has_several_names(cli: Cli, unit: Unit, page: str) -> None:
    assert list(cli("modes", "1-1", "--page", page, "--json").record) == ["caching"]


def test_a_field_is_changed_and_read_back(cli: Cli, unit: Unit) -> None:
    before = cli("modes", "1-1", "--json").record
    found = cli("modes", "1-1", "--set", "WCE=0", "--json").record
    assert found["caching"]["WCE"] == {"current": 0, "changeable": True, "default": 1, "saved": 1}
    assert not unit.modes.has_write_cache
    after = cli("modes", "1-1", "--json").record
    before["caching"]["WCE"]["current"] = 0
    assert after == before, "nothing else"
    assert cli("modes", "1-1", "--page", "ca", "--set", "wce=1", "--save", "--yes").status == 0
    assert unit.modes.has_write_cache


def test_a_change_is_saved_only_after_a_confirmation(
    cli: Cli, screen: Cli, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("modes", "1-1", "--set", "WCE=0", "--save")
    assert cli(*words).failed(1, "cannot ask to confirm --save", "give --yes")
    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    ended = screen(*words)
    assert ended.err.startswith("Set WCE=0 in scsiusb Virtual Stick, 1-1, also without power? [y/N] ")
    assert ended.status == 1
    assert unit.modes.has_write_cache
    monkeypatch.setattr(sys, "stdin", Person("y\n"))
    assert screen(*words).status == 0
    assert not unit.modes.has_write_cache


def test_saved_values_stay_without_power(cli: Cli, unit: Unit) -> None:
    assert cli("modes", "1-1", "--set", "WCE=0", "--save", "--yes", "--json").record["caching"]["WCE"]["saved"] == 0
    unit.power_on()
    assert not unit.modes.has_write_cache


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--set", "RCD=1"], 1, "does not let RCD be changed to 1; it stays 0; `scsiusb modes --page 8` shows"),
        (["--set", "WCE=2"], 1, "0 to 1; `scsiusb modes --page 8` shows"),
        (["--set", "XYZ=1"], 1, "no page that is known"),
        (["--set", "WCE"], 1, "NAME=NUMBER"),
        (["--set", "WCE=0,WCE=1"], 1, "twice"),
        (["--set", "WCE=0", "--set", "SWP=1"], 1, "several pages"),
        (["--page", "control", "--set", "WCE=0"], 1, "has no field"),
        (["--page", "nonsense"], 1, "no mode page"),
        (["--page", "2"], 5, "Invalid field in CDB"),
        (["--save"], 1, "--set"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    cli: Cli, unit: Unit, words: list[str], status: int, said: str
) -> None:
    before = unit.modes.sense(0x3F, 0, 0)
    ended = cli("modes", "1-1", *words)
    assert ended.failed(status, said)
    assert "run `scsiusb --help`" not in ended.err
    assert unit.modes.sense(0x3F, 0, 0) == before


def test_software_write_protection(cli: Cli, unit: Unit) -> None:
    assert cli("modes", "1-1", "--set", "SWP=1").status == 0
    assert cli("erase", "1-1", "--yes").failed(7, "protected")


def test_modes_as_text(cli: Cli, unit: Unit) -> None:
    text = cli("modes", "1-1", "--page", "caching").text
    assert text.startswith("caching (08h)\n")
    row = next(line for line in text.splitlines() if line.startswith("WCE"))
    assert row.split() == ["WCE", "1", "yes", "1", "1", "write", "cache"]


def test_a_unit_that_lies_about_a_change_is_found(cli: Cli, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit.modes, "select", lambda data, save: None)
    assert cli("modes", "1-1", "--set", "WCE=0").failed(14, "accepted", "did not make it")


def test_a_unit_with_the_longer_commands_only(cli: Cli, unit: Unit) -> None:
    for opcode in (0x1A, 0x15):
        del unit._commands[opcode]
    assert cli("modes", "1-1", "--set", "WCE=0", "--json").record["caching"]["WCE"]["current"] == 0


LONG_PAGES = {code: bytes((code, 34)) + bytes([code]) * 34 for code in range(0x20, 0x26)}
"""With the three pages of a disk, 44 bytes, 9 pages of 260 bytes: more than MODE SENSE(6) can report."""
ONLY_LONGER_COMMANDS = (0x1A, 0x15)
ONLY_SHORTER_COMMANDS = (0x5A, 0x55)


@pytest.fixture
def large(unit: Unit) -> Unit:
    unit.modes = ModePages({**DISK_PAGES, **LONG_PAGES})
    return unit


@pytest.mark.parametrize("missing", [(), ONLY_LONGER_COMMANDS])
def test_pages_longer_than_one_answer_are_asked_for_again(cli: Cli, large: Unit, missing: tuple[int, ...]) -> None:
    for opcode in missing:
        del large._commands[opcode]
    found = cli("modes", "1-1", "--json").record
    names = ["recovery", "caching", "control", *(f"vendor specific {code:02x}" for code in LONG_PAGES)]
    assert list(found) == names, "all pages, and no problems"
    assert found["vendor specific 25"]["bytes"]["saved"] == LONG_PAGES[0x25].hex()


def test_pages_that_did_not_arrive_are_a_problem(cli: Cli, large: Unit) -> None:
    for opcode in ONLY_SHORTER_COMMANDS:
        del large._commands[opcode]
    found = cli("modes", "1-1", "--json").record
    problems = found.pop("problems")
    assert list(found)[-1] == "vendor specific 24"
    assert [each.partition(":")[0] for each in problems[::2]] == [
        f"{values} values" for values in ("current", "changeable", "default", "saved")
    ]
    assert "the unit has at least 4 bytes more than it sends" in problems[0]
    assert problems[1].startswith("current values: the last 24 bytes are no whole page: 25 22 25")
    assert "scsiusb: warning: current values: " in cli("modes", "1-1").err


def test_ready_start_and_stop(cli: Cli, unit: Unit) -> None:
    assert cli("ready", "1-1", "--json").record == {"done": True}
    assert cli("stop", "1-1").status == 0
    assert unit.stopped
    assert cli("ready", "1-1").failed(2, "nitializing command required")
    assert cli("start", "1-1").status == 0
    assert not unit.stopped
    unit.remove()
    assert cli("ready", "1-1").failed(2, "not present")


def test_lock_eject_and_load(cli: Cli, unit: Unit) -> None:
    assert cli("lock", "1-1").status == 0
    assert unit.prevented
    assert cli("unlock", "1-1").status == 0
    assert not unit.prevented
    assert cli("eject", "1-1").status == 0
    assert unit.medium is None
    assert cli("load", "1-1", "--json").record == {"done": True}
    assert unit.medium is not None


def test_sync(cli: Cli, unit: Unit) -> None:
    assert cli("sync", "1-1").status == 0
    del unit._commands[0x35]
    assert cli("sync", "1-1").failed(9, "Invalid command operation code")
