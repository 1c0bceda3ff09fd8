"""ata-security: what scripts rely on, and that it asks."""

from __future__ import annotations

from tests.cli.conftest import Cli

SSD = "virtual:?profile=sat-ssd"


def test_the_state_is_shown(cli: Cli) -> None:
    found = cli("ata-security", SSD, "--json").record
    keys = {"supported", "enabled", "locked", "frozen", "count_expired", "enhanced_supported", "minutes"}
    assert keys < found.keys()
    assert "done" not in found
    assert (found["supported"], found["enabled"], found["minutes"]) == (True, False, 2)
    text = cli("ata-security", SSD).text
    assert "enhanced erase  2 minutes" in text
    assert "frozen          no" in text


def test_an_erase_asks_first(cli: Cli) -> None:
    assert cli("ata-security", SSD, "--erase", "normal").status == 1
    done = cli("ata-security", SSD, "--erase", "enhanced", "--yes", "--json")
    assert (done.record["done"], done.record["enabled"]) == (True, False)
    assert "erased" in cli("ata-security", SSD, "--erase", "normal", "--yes").err


def test_what_is_not_there_is_not_taken_away(cli: Cli) -> None:
    result = cli("ata-security", SSD, "--remove", "scsiusb")
    assert result.status != 0
    assert "no password" in result.err
    assert cli("ata-security", SSD, "--remove", "x", "--erase", "normal").status == 1


def test_a_stick_has_none(cli: Cli) -> None:
    assert cli("ata-security", "virtual:").status in (5, 9)
