"""check: output, confirmation and exit status."""

from __future__ import annotations

from typing import Any

import click
import pytest

from scsiusb.cli import ask
from scsiusb.cli.commands.check import check_command
from scsiusb.conformance.table import CHECKS
from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.sticks import stick

WRITE_CHECKS = ["--destructive", "--lba", "8", "--blocks", "4"]


def faulty(*faults: str) -> Stick:
    return Stick([Unit(Memory(512 * 64))], faults=faults)


def row(ended: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in ended.json["checks"] if row["check"] == name)
    return found


def test_a_good_stick_passes_with_a_line_for_each_check(cli: Cli) -> None:
    ended = cli("check", "virtual:")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.text.splitlines()
    assert [line.split()[1] for line in lines if line.startswith(("ok  ", "--  ", "!!  ", " ?  "))] == list(CHECKS)
    assert lines[-1].endswith("skipped")
    assert " 0 failed" in lines[-1]


def test_a_failed_check_shows_request_reply_and_expected_reply(cli: Cli, attach: Attached) -> None:
    attach(faulty("max-lun=16"))
    ended = cli("check")
    assert ended.status == 99
    assert ended.err == f"scsiusb: error: 1 of {len(CHECKS)} checks failed; see the lines that begin with !!\n"
    at = next(at for at, line in enumerate(ended.text.splitlines()) if line.startswith("!!"))
    assert ended.text.splitlines()[at].split(maxsplit=2)[1:] == [
        "get-max-lun",
        "BOT 3.2: GET MAX LUN must return one byte from 0 to 15, or stall.",
    ]
    assert ended.text.splitlines()[at + 1].strip() == "GET MAX LUN: 10; expected one byte from 0 to 15, or STALL"


@pytest.mark.slow
def test_json_has_each_check_with_its_evidence(cli: Cli, attach: Attached) -> None:
    attach(faulty("tag=7@csw,times=always"))
    ended = cli("check", "1-1", "--json", "--timeout", "0.1")
    assert ended.status == 99
    assert (ended.json["address"], ended.json["lun"], ended.json["fail"]) == ("1-1", 0, 1)
    assert [row["check"] for row in ended.json["checks"]] == list(CHECKS)
    assert ended.json["latency"]["INQUIRY"]["count"] > 10
    assert 0 < ended.json["latency"]["INQUIRY"]["median"] <= ended.json["latency"]["INQUIRY"]["most"]
    found = row(ended, "csw-tag")
    assert (found["verdict"], found["severity"], found["section"], found["topic"]) == (
        "fail",
        "must",
        "BOT 5.2",
        "wrappers",
    )
    assert found["demand"] == CHECKS["csw-tag"].demand
    packets = [step["hex"] for step in found["evidence"]]
    assert packets[0].startswith("55534243" + "00000000")
    assert packets[1].startswith("55534253" + "07000000")


def test_only_and_skip_take_names_and_patterns(cli: Cli) -> None:
    names = [row["check"] for row in cli("check", "virtual:", "--json", "--only", "case-*").json["checks"]]
    assert {"case-1", "case-5-read", "case-13"} < set(names)
    assert all(name.startswith("case-") for name in names)
    words = ["--only", "case-*", "--only", "csw-tag", "--skip", "case-?*", "--skip", "nothing-*"]
    assert cli("check", "virtual:", *words[:6], "--json").json["checks"][0]["check"] == "csw-tag"
    assert cli("check", "virtual:", *words).failed(1, "nothing-*", "--list")


def test_a_run_in_which_all_checks_are_skipped_is_not_a_success(cli: Cli) -> None:
    ended = cli("check", "virtual:", "--only", "case-12")
    assert ended.status == 99
    assert ended.err == "scsiusb: error: no check could be run; see the lines that begin with --\n"
    assert "no range of blocks was given; give --destructive --lba N --blocks N\n" in ended.text
    ended = cli("check", "virtual:", "--only", "case-12", "--skip", "case-12", "--json")
    assert (ended.status, ended.json["checks"]) == (99, [])
    assert "--only and --skip leave no check" in ended.err


def test_the_json_of_a_skipped_check_says_how_to_run_it(cli: Cli) -> None:
    ended = cli("check", "virtual:", "--only", "case-12", "--json")
    assert row(ended, "case-12")["detail"].endswith("; give --destructive --lba N --blocks N")


def test_the_serial_number_of_a_stick_is_that_of_its_unit(cli: Cli) -> None:
    ended = cli("check", "virtual:", "--only", "vpd-serial", "--json")
    assert row(ended, "vpd-serial")["verdict"] == "pass"


def test_the_names_of_checks_are_completed() -> None:
    for name in ("only", "skip"):
        option = next(each for each in check_command.params if each.name == name)
        items = option.shell_complete(click.Context(check_command), "vpd-s")
        assert "vpd-serial" in [item.value for item in items]


def test_the_list_needs_no_device(cli: Cli) -> None:
    ended = cli("check", "--list")
    assert (ended.status, ended.err) == (0, "")
    assert [line.split()[0] for line in ended.text.splitlines()[1:]] == list(CHECKS)
    rows = cli("check", "--list", "--json").json
    assert [row["check"] for row in rows] == list(CHECKS)
    assert all(row["demand"] and row["section"] and row["severity"] in ("must", "should") for row in rows)


@pytest.mark.parametrize(
    "words", [["--destructive"], ["--destructive", "--lba", "0"], ["--lba", "0", "--blocks", "4"], ["--blocks", "1"]]
)
def test_the_range_belongs_to_destructive(cli: Cli, words: list[str]) -> None:
    assert cli("check", "virtual:", *words).failed(1, "--destructive", "--lba", "--blocks")


def test_an_empty_range_and_one_after_the_end_are_refused(cli: Cli) -> None:
    words = ["check", "virtual:", "--destructive", "--yes"]
    assert cli(*words, "--lba", "0", "--blocks", "0").failed(1, "at least 1")
    assert cli(*words, "--lba", "16383", "--blocks", "2").failed(22, "16383")


def test_without_a_terminal_the_writing_checks_need_yes(cli: Cli) -> None:
    assert cli("check", "virtual:", *WRITE_CHECKS).failed(1, "not a terminal", "--yes")


@pytest.mark.slow
def test_the_writing_checks_ask_first_and_restore_the_content(
    cli: Cli, screen: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged = stick(blocks=64)
    attach(plugged)
    medium = plugged.units[0].medium
    assert isinstance(medium, Memory)
    before = bytes(medium.data)
    asked: list[str] = []
    monkeypatch.setattr("scsiusb.cli.commands.check.confirm", asked.append)
    monkeypatch.setattr(ask, "is_interactive", lambda: True)
    assert cli("check", "1-1", *WRITE_CHECKS).status == 0
    assert asked == ["Overwrite LBA 8 to 11 of 1-1, and restore the content afterwards?"]
    assert medium.writes > 0
    assert bytes(medium.data) == before
    ended = cli("check", "1-1", *WRITE_CHECKS, "--yes", "--json")
    assert (ended.status, row(ended, "case-12")["verdict"], len(asked)) == (0, "pass", 1)


def test_without_destructive_nothing_is_written(cli: Cli, attach: Attached) -> None:
    plugged = stick(blocks=64)
    attach(plugged)
    ended = cli("check", "1-1", "--json")
    medium = plugged.units[0].medium
    assert medium is not None
    assert medium.writes == 0
    assert row(ended, "case-12")["verdict"] == "skip"


@pytest.mark.slow
def test_a_lun_can_be_given(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 64)), Unit()]))
    ended = cli("check", "1-1", "--lun", "1", "--json")
    assert (ended.status, ended.json["lun"], row(ended, "capacity-10")["verdict"]) == (0, 1, "skip")


def test_the_errors_of_opening_keep_their_status(cli: Cli, attach: Attached) -> None:
    assert cli("check", "9-9").failed(15, "9-9")
    plugged = stick()
    plugged.uses = ["/dev/sda1 is mounted on /mnt"]
    attach(plugged)
    assert cli("check", "1-1").failed(15, "/mnt")


def test_an_unplugged_device_ends_with_what_was_found(cli: Cli, attach: Attached) -> None:
    attach(faulty("disconnect=0@cbw,opcode=A0"))
    ended = cli("check", "1-1")
    assert ended.status == 99
    assert "gone" in ended.err
    assert "ok  case-1 " in ended.text
    assert "!!  report-luns " in ended.text
    assert "capacity-10" not in ended.text


def test_the_timeout_option_replaces_the_default(cli: Cli, attach: Attached) -> None:
    attach(faulty("nak@csw,opcode=5A"))
    ended = cli("check", "1-1", "--json", "--timeout", "0.05", "--only", "mode-sense-10")
    assert row(ended, "mode-sense-10")["seconds"] < 1.5
    assert "time limit" in row(ended, "mode-sense-10")["detail"]
