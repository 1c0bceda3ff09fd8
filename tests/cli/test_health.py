"""smart and health: what scripts rely on, and that a person understands it."""

from __future__ import annotations

import re

import pytest

from scsiusb.cli.commands import health
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import _SPEEDS
from scsiusb.virtual.target.ata import AtaDisk
from tests.cli.conftest import Attached, Cli


def test_smart_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 100), ata=AtaDisk())]))
    found = cli("smart", "1-1", "--json").record
    assert {"via", "kind", "model", "serial", "passed", "temperature", "attributes"} <= found.keys()
    assert (found["via"], found["kind"], found["passed"], found["temperature"]) == ("sat", "ata", True, 33)
    assert found["attributes"]["9"]["raw"] == 1234
    text = cli("smart", "1-1").text
    assert "SMART        passed" in text
    assert "power_on_hours" in text


@pytest.mark.parametrize(
    ("options", "verdict", "reason"),
    [
        ("profile=sat-ssd", "good", ""),
        ("profile=sat-ssd&health=worn", "worn", "12 sectors were reallocated"),
        ("profile=sat-hdd&health=failing", "failing", "SMART predicts"),
        ("profile=sat-ssd&read-only", "good", "write protected"),
        ("profile=flash", "unknown", "no SMART"),
        ("profile=counterfeit", "failing", "a counterfeit: it says 32 MiB, and repeats itself after 8 MiB"),
        ("bad=0-9999", "failing", "be read"),  # "3 of N blocks cannot", or "none of 3 blocks can"
        ("profile=smr&health=worn", "worn", "reallocated"),
        ("profile=floppy", "unknown", "no SMART"),
        pytest.param(
            "fault=hang@data,opcode=85,times=always&profile=sat-ssd",
            "unknown",
            "no SMART that can be read: ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_health_has_a_verdict_and_reasons(cli: Cli, options: str, verdict: str, reason: str) -> None:
    found = cli("health", f"virtual:?{options}", "--json", "--timeout", "0.2").record
    assert found["verdict"] == verdict
    assert reason in " ".join(found["reasons"])
    shown = cli("health", f"virtual:?{options}", "--timeout", "0.2")
    assert shown.text.startswith(f"{verdict.upper()}: ")
    assert all(len(line) <= 80 for line in shown.text.splitlines())


def test_health_says_also_what_is_well(cli: Cli) -> None:
    rows = cli("health", "virtual:?profile=sat-ssd").text.splitlines()
    assert dict(re.split(r"  +", row.strip(), maxsplit=1) for row in rows[1:]) == {
        "SMART": "passed",
        "temperature": "33 °C",
        "wear": "97 % of its life left",
        "reallocated": "0 sectors",
        "pending": "0 sectors",
        "write protection": "off",
        "write cache": "on",
        "USB link": "high speed (480 Mb/s)",
        "SATA link": "6.0 Gb/s",
        "quirks": "none",
    }
    found = cli("health", "virtual:?profile=sat-ssd", "--json").record
    assert (found["life_left"], found["spare_left"], found["reallocated"], found["pending"]) == (97, None, 0, 0)
    assert (found["write_protected"], found["write_cache"], found["quirks"]) == (False, True, [])
    assert (found["speed"], found["could_do_superspeed"]) == ("high", False)
    assert (found["sata_speed"], found["sata_possible"]) == ("6.0 Gb/s", "6.0 Gb/s")
    found = cli("health", "virtual:?profile=nvme-bridge", "--json").record
    assert (found["life_left"], found["spare_left"], found["reallocated"], found["sata_speed"]) == (97, 100, None, None)
    assert "  NVMe health       passed\n" in cli("health", "virtual:?profile=nvme-bridge").text


def test_health_of_a_stick_has_its_quirks_cache_and_a_link_that_is_too_slow(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_SPEEDS, "high", _SPEEDS["high"]._replace(usb=0x0210))
    unit = Unit(Memory(512 * 100))
    attach(Stick([unit]))
    assert cli("modes", "1-1", "--set", "WCE=0").status == 0
    many = "1209:0001:bcghlnorstuwy"
    text = cli("health", "1-1", "--quirks", many).text
    assert "  USB link  high speed (480 Mb/s); it could do SuperSpeed: try another port or" in text
    assert "write-cache" not in text
    assert "ignore-residue (r)" in text
    assert "write protection" not in text, "it is not asked for with the quirk w"
    assert all(len(line) <= 80 for line in text.splitlines())
    found = cli("health", "1-1", "--quirks", "1209:0001:r", "--json").record
    assert (found["could_do_superspeed"], found["write_cache"]) == (True, False)
    assert found["quirks"] == [{"quirk": "ignore-residue", "letter": "r"}]


def test_a_disk_whose_sata_link_is_slower_than_it_could_be(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify = AtaDisk.identify

    def slow(disk: AtaDisk, unit: Unit) -> bytes:
        data = bytearray(identify(disk, unit))
        data[154] = 1 << 1  # word 77: the first generation
        data[511] = -sum(data[:511]) & 0xFF
        return bytes(data)

    monkeypatch.setattr(AtaDisk, "identify", slow)
    attach(Stick([Unit(Memory(512 * 100), ata=AtaDisk())]))
    assert "SATA link         1.5 Gb/s; the disk could do 6.0 Gb/s\n" in cli("health", "1-1").text


@pytest.mark.parametrize("bridge", ["sntasmedia", "sntjmicron", "sntrealtek"])
def test_smart_of_an_nvme_disk_has_the_contracts_keys(cli: Cli, bridge: str) -> None:
    name = f"virtual:?profile=nvme-bridge&bridge={bridge}"
    found = cli("smart", name, "--json").record
    assert {"via", "kind", "model", "serial", "passed", "temperature", "health"} <= found.keys()
    assert (found["via"], found["kind"], found["passed"], found["temperature"]) == (bridge, "nvme", True, 38)
    assert (found["health"]["percentage_used"], found["health"]["sensors"]) == (3, [38, 47])
    text = cli("smart", name).text
    assert f"through      {bridge}" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert cli("health", name, "--json").record["smart"]["health"]["power_on_hours"] == 1234
    assert cli("smart", name, "--via", "sat").status in (5, 9)
    assert cli("smart", name, "--via", "nothing").failed(1, "sntasmedia")


def test_a_self_test_is_begun_and_followed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "POLL", 0.0)
    for name in ("profile=sat-ssd", "profile=sat-hdd&bridge=usbsunplus", "profile=nvme-bridge&bridge=sntjmicron"):
        found = cli("smart", f"virtual:?{name}", "--test", "short", "--wait", "--json").record["self_test"]
        assert (found["running"], found["result"], found["passed"]) == (False, "passed", True)
    assert "self-test    running, " in cli("smart", "virtual:?profile=sat-ssd", "--test", "long").text
    assert cli("smart", "virtual:?profile=sat-ssd", "--test", "nothing").failed(1, "short")
    assert cli("smart", "virtual:?profile=nvme-bridge", "--test", "short").failed(15, "self-test")


def test_a_self_test_goes_on_after_ctrl_c(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scsiusb.cli.commands.health.time.sleep", interrupted)
    ended = cli("smart", "virtual:?profile=sat-ssd", "--test", "long", "--wait")
    assert ended.failed(130, "the self-test goes on in the disk", "`scsiusb smart --wait` shows when it is done")
    assert "again" not in ended.err


def test_wait_says_if_no_self_test_runs(cli: Cli) -> None:
    ended = cli("smart", "virtual:?profile=sat-ssd", "--wait")
    assert (ended.status, ended.err) == (0, "no self-test is in progress\n")


def test_a_stick_without_smart_says_so(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 100))]))
    assert cli("smart", "1-1").failed(9, "has no SMART (asked by sat)", "--via", "`scsiusb health`", "5/20/00")
    assert cli("smart", "1-1", "--log", "errors").failed(9, "has no SMART (asked by sat)")
    assert cli("smart", "1-1", "--power").failed(9, "has no power mode (asked by sat)", "--via")


def test_the_page_of_a_bridge_has_the_disks_identification(cli: Cli) -> None:
    record = cli("inquiry", "virtual:?profile=sat-ssd", "--page", "89", "--json").record
    assert (record["fields"]["sat_product"], record["fields"]["command_code"]) == ("Virtual SAT", 0xEC)
    assert record["identification"]["model"] == "Virtual SSD 870"
    text = cli("inquiry", "virtual:?profile=sat-ssd", "--page", "89").text
    assert "Virtual SSD 870" in text
    data = cli("inquiry", "virtual:?profile=sat-ssd", "--page", "89", "--hex", "--json").record["hex"]
    assert cli("decode", "vpd", data, "--json").json["identification"]["model"] == "Virtual SSD 870"
    assert "identification" not in cli("decode", "vpd", f"{data[:112]}00{data[114:]}", "--json").json
    assert cli("decode", "vpd", data[:400], "--json").status == 0
    assert (
        cli("inquiry", "virtual:?profile=sat-hdd", "--page", "b1", "--json").record["fields"]["rotation_rate"] == 5400
    )


def test_an_identification_is_decoded(cli: Cli) -> None:
    data = AtaDisk().identify(Unit(Memory(512 * 100)))
    found = cli("decode", "identify", data.hex(), "--json").json
    assert (found["model"], found["blocks"], found["problems"]) == ("Virtual SSD 870", 100, [])
    broken = data[:100] + b"\x01" + data[101:]
    assert cli("decode", "identify", broken.hex(), "--json").json["problems"] == ["the checksum is wrong"]
    assert cli("decode", "identify", "00" * 512).failed(97, "no identification")


def test_profiles_are_checked(cli: Cli) -> None:
    assert cli("health", "virtual:?profile=nonsense").failed(1, "sat-ssd")
    assert cli("health", "virtual:?health=nonsense").failed(1, "failing")
    rows = cli("luns", "virtual:?profile=card-reader", "--json").json
    assert [row["ready"] for row in rows] == [True, False, False, False]


def test_the_power_mode_is_told_and_the_disk_is_not_woken(cli: Cli) -> None:
    assert cli("smart", "virtual:?profile=sat-ssd", "--power").text == "active or idle\n"
    found = cli("smart", "virtual:?profile=sat-ssd", "--power", "--json").json
    assert (found["power_mode"], found["resting"]) == ("active or idle", False)
    assert cli("smart", "virtual:?profile=sat-ssd", "--power", "--test", "short").status == 1


def test_what_the_disk_remembers(cli: Cli) -> None:
    failing = "virtual:?profile=sat-hdd&health=failing"
    row = cli("smart", failing, "--log", "errors").text.splitlines()[1]
    assert row.split() == ["2", "51099", "uncorrectable", "data", "2000", "25h"]
    found = cli("smart", failing, "--log", "errors", "--json").record
    assert (found["count"], found["errors"][0]["lba"]) == (2, 2000)
    assert "failed: reading" in cli("smart", failing, "--log", "self-tests").text
    assert cli("smart", failing, "--log", "self-tests", "--json").record["self_tests"][0]["passed"] is False
    assert cli("smart", "virtual:?profile=sat-ssd", "--log", "errors").text.startswith("no error is in the log")
    assert cli("smart", failing, "--log", "errors", "--power").status == 1


@pytest.mark.parametrize(
    ("log", "key", "words"),
    [
        ("errors-ext", "errors", "305419896"),
        ("self-tests-ext", "self_tests", "305419896"),
        ("statistics", "statistics", "spindle motor hours"),
        ("ncq", "tag", "uncorrectable data"),
        ("directory", "logs", "device statistics"),
    ],
)
def test_logs_by_commands_of_48_bits(cli: Cli, attach: Attached, log: str, key: str, words: str) -> None:
    attach(Stick([Unit(Memory(512 * 100), ata=AtaDisk("sat-hdd", "failing"))]))
    assert cli("smart", "1-1", "--log", log, "--json").record[key]
    assert words in cli("smart", "1-1", "--log", log).text
    assert cli("smart", "1-1", "--log", log, "--via", "sat,12").failed(1, "48 bits")


def test_a_log_without_entries_says_so(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 100), ata=AtaDisk())]))
    assert "no queued command has failed" in cli("smart", "1-1", "--log", "ncq").text
    assert "no error is in the log; 0 in its life" in cli("smart", "1-1", "--log", "errors-ext").text
