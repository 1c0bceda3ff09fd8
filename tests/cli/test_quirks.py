"""The quirks command and the option --quirks."""

from __future__ import annotations

from pathlib import Path

import pytest

from scsiusb.quirks.model import MEANINGS
from scsiusb.virtual import Identity, Stick
from tests.cli.conftest import Attached, Cli
from tests.sticks import stick

pytestmark = pytest.mark.usefixtures("users_file")


def nokia() -> Stick:
    """Return a stick with an odd number of blocks, of a vendor whose devices often report one block too many."""
    return Stick(list(stick(2049).units), Identity(vid=0x0421, pid=0x0001, serial="NOKIA0000001"))


def test_the_quirks_of_attached_devices(cli: Cli, attach: Attached) -> None:
    attach(nokia(), stick())
    (row,) = cli("quirks", "--json").json
    assert set(row) == {"address", "vid", "pid", "quirk", "letter", "effect", "source", "why"}
    assert (row["address"], row["vid"], row["pid"]) == ("1-1", "0421", "0001")
    assert (row["quirk"], row["letter"], row["source"]) == ("capacity-heuristics", "h", "table")
    assert "any of Nokia" in row["why"]
    text = cli("quirks").text
    assert text.splitlines()[0].split() == ["device", "letter", "quirk", "effect", "source", "why"]
    assert "1-1     h " in text


@pytest.mark.parametrize("words", ["1-1", "0421:0001", "serial=NOKIA0000001"])
def test_the_quirks_of_one_device(cli: Cli, attach: Attached, words: str) -> None:
    attach(nokia(), stick())
    assert [row["letter"] for row in cli("quirks", words, "--json").json] == ["h"]


def test_the_quirks_of_a_device_that_is_not_attached(cli: Cli) -> None:
    rows = cli("quirks", "04ce:0002", "--json").json
    assert [(row["address"], row["vid"], row["pid"], row["letter"]) for row in rows] == [
        (None, "04ce", "0002", "c"),
        (None, "04ce", "0002", "T"),
    ]
    assert "04ce:0002  T       ignore-tag" in cli("quirks", "04ce:0002").text


def test_no_quirks(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("quirks", "--json").json == []
    ended = cli("quirks")
    assert (ended.status, ended.out, ended.err) == (0, b"", "no quirks apply\n")


def test_no_such_device(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("quirks", "9-9").failed(15, "9-9", "no attached device matches")


def test_a_virtual_stick(cli: Cli) -> None:
    (row,) = cli("quirks", "virtual:", "--quirks", "1209:0001:r", "--json").json
    assert (row["letter"], row["source"], row["why"]) == ("r", "--quirks", None)


def test_the_letters(cli: Cli) -> None:
    rows = cli("quirks", "--list", "--json").json
    assert [row["letter"] for row in rows] == [meaning.letter for meaning in MEANINGS]
    assert {row["letter"]: row["linux"] for row in rows}["r"]
    assert not {row["letter"]: row["linux"] for row in rows}["G"]
    text = cli("quirks", "--list").text
    assert len(text.splitlines()) == len(MEANINGS) + 1
    assert "k       no-write-same               Linux    none here (no WRITE SAME): scsiusb does not send it" in text


def test_the_option_the_variable_and_the_file(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, users_file: Path
) -> None:
    """The option overrides the variable, the variable the file, and the file the table."""
    attach(nokia())
    seen = [cli("capacity", "--json").json["blocks"]]
    users_file.write_text("0421:0001:o  # a real odd one\n")
    seen.append(cli("capacity", "--json").json["blocks"])
    assert cli("quirks", "--json").json[0]["why"] == "a real odd one"
    monkeypatch.setenv("SCSIUSB_QUIRKS", "421:1:c")
    seen.append(cli("capacity", "--json").json["blocks"])
    assert cli("quirks", "--json").json[0]["source"] == "SCSIUSB_QUIRKS"
    seen.append(cli("capacity", "--json", "--quirks", "0421:0001:").json["blocks"])
    assert seen == [2048, 2049, 2048, 2049]


def test_the_option_before_and_after_the_command_and_more_than_once(cli: Cli, attach: Attached) -> None:
    attach(stick())
    words = ["--quirks", "1:2:c", "capacity", "--json", "--quirks", "3:4:c,5:6:c", "--quirks", "1209:0001:c"]
    assert cli(*words).json["blocks"] == 2047
    assert cli("--quirks", "1209:0001:c", "capacity", "--json").json["blocks"] == 2047


@pytest.mark.parametrize(
    "words",
    [
        ["--quirks", "1209:0001:", "capacity", "--quirks", "1209:0001:c"],
        ["capacity", "--quirks", "1209:0001:", "--quirks", "1209:0001:c"],
        ["capacity", "--quirks", "1209:0001:,1209:0001:c"],
    ],
)
def test_the_last_row_for_a_device_takes_effect(cli: Cli, attach: Attached, words: list[str]) -> None:
    attach(stick())
    assert cli(*words, "--json").json["blocks"] == 2047


def test_a_row_for_a_device_that_was_not_opened_gives_a_warning(cli: Cli, attach: Attached) -> None:
    attach(stick())
    ended = cli("capacity", "--quirks", "1209:0001:c,9999:9999:m")
    assert (ended.status, ended.err) == (
        0,
        "scsiusb: warning: --quirks 9999:9999:m does not match the opened device\n",
    )


def test_a_virtual_stick_with_the_quirk_ignore(cli: Cli) -> None:
    (row,) = cli("quirks", "virtual:", "--quirks", "1209:0001:i", "--json").json
    assert (row["letter"], row["source"]) == ("i", "--quirks")


def test_fewer_than_four_digits_are_an_error(cli: Cli) -> None:
    assert cli("quirks", "152d:232").failed(1, "'152d:232' is not VID:PID with four hex digits each")


def test_invalid_quirks_are_an_error_if_nothing_is_attached(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, users_file: Path
) -> None:
    remedy = "correct it; `scsiusb quirks --list` shows the letters"
    users_file.write_text("nonsense\n")
    assert cli("quirks").failed(1, f"{users_file}, line 1", remedy)
    monkeypatch.setenv("SCSIUSB_QUIRKS", "bad")
    assert cli("quirks").failed(1, "SCSIUSB_QUIRKS: 'bad'", remedy)


@pytest.mark.parametrize("rows", ["x", "1:2", "1:2:q", "1:2:r,x", "", ",", "c"])
@pytest.mark.parametrize("command", ["list", "capacity", "quirks"])
def test_an_option_that_cannot_be_read(cli: Cli, attach: Attached, command: str, rows: str) -> None:
    attach(stick())
    assert cli(command, "--quirks", rows).failed(1, "--quirks: ")


@pytest.mark.parametrize("command", ["capacity", "quirks"])
def test_a_variable_that_cannot_be_read(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    attach(stick())
    monkeypatch.setenv("SCSIUSB_QUIRKS", "1:2:q")
    assert cli(command).failed(1, "SCSIUSB_QUIRKS: '1:2:q'")


@pytest.mark.parametrize("command", ["capacity", "quirks"])
def test_a_file_that_cannot_be_read(cli: Cli, attach: Attached, users_file: Path, command: str) -> None:
    attach(stick())
    users_file.write_text("\nnonsense\n")
    assert cli(command).failed(1, f"{users_file}, line 2: 'nonsense'")


def test_a_device_with_the_quirk_ignore_is_listed_and_not_opened(cli: Cli, attach: Attached) -> None:
    attach(Stick(list(stick().units), Identity(vid=0x0BDA, pid=0x1A2B)))
    assert [row["address"] for row in cli("list", "--json").json] == ["1-1"]
    assert cli("capacity").failed(15, "must not be opened", "WLAN adapter", "--quirks 0bda:1a2b: opens it")
    assert cli("capacity", "--quirks", "0bda:1a2b:").status == 0
