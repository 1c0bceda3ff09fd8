"""The virtual ATA disk behind a bridge, as smartctl and hdparm see it through the kernel; and as we do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.address import open_stick
from scsiusb.virtual.target import bridges
from scsiusb.virtual.target.ata import HEALTHS, KINDS, AtaDisk

from .command import scsiusb as cli
from .served import serving

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

FAILING = 8  # a bit of smartctl's exit status: the disk is failing


def smartctl(node: Path, kind: str) -> tuple[int, Any]:
    words = ["smartctl", "--json", "-d", kind, "-i", "-H", "-A", str(node)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("health", HEALTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_smartctl_agrees(kind: str, health: str) -> None:
    with serving(Stick([Unit(Memory(1 << 20), ata=AtaDisk(kind, health), removable=False)])) as there:
        status, theirs = smartctl(there.sg, "sat")
        ours = cli("smart", there.address, "--json").json()
        there.wait()
        assert bool(status & FAILING) == (health == "failing")
        assert ours["passed"] == theirs["smart_status"]["passed"]
        assert (ours["model"], ours["serial"]) == (theirs["model_name"], theirs["serial_number"])
        assert ours["firmware"] == theirs["firmware_version"]
        assert ours["bytes"] == theirs["user_capacity"]["bytes"]
        assert ours["temperature"] == theirs["temperature"]["current"]
        rows = theirs["ata_smart_attributes"]["table"]
        assert {
            row["id"]: (row["value"], row["worst"], row["thresh"], row["raw"]["value"], row["flags"]["prefailure"])
            for row in rows
        } == {
            int(number): (row["value"], row["worst"], row["threshold"], row["raw"], row["pre_failure"])
            for number, row in ours["attributes"].items()
        }
        assert cli("health", there.address, "--json").json()["verdict"] == health
        there.wait()


def test_smartctl_agrees_by_the_short_form_and_hdparm_reads_the_identification() -> None:
    with serving(Stick([Unit(Memory(1 << 20), ata=AtaDisk(), removable=False)])) as there:
        _, theirs = smartctl(there.sg, "sat,12")
        assert theirs["model_name"] == "Virtual SSD 870"
        text = subprocess.run(["hdparm", "-I", str(there.node)], capture_output=True, text=True, check=True).stdout
        ours = cli("smart", there.address, "--json").json()
        there.wait()
        assert f"Model Number:       {ours['model']}" in text
        assert f"Serial Number:      {ours['serial']}" in text
        assert "Checksum: correct" in text
        assert "Nominal Media Rotation Rate: Solid State Device" in text


def asked(bridge: str) -> tuple[str, list[str]]:
    """Return the options of a stick with that bridge, and what our command line needs to ask it.

    Linux has a driver of its own for the IDs of Cypress's bridge, ums-cypress, which would translate.
    """
    if bridge == "usbcypress":
        return f"bridge={bridge}&vid=1209&pid=0001", ["--via", bridge]
    return f"bridge={bridge}", []


@pytest.mark.parametrize("bridge", [name for name in bridges.ATA if name != "sat"])
def test_smartctl_agrees_through_a_bridge_with_commands_of_its_own(bridge: str) -> None:
    options, via = asked(bridge)
    with serving(open_stick(f"virtual:?profile=sat-hdd&health=failing&{options}")) as there:
        status, theirs = smartctl(there.sg, bridge)
        ours = cli("smart", there.address, *via, "--json").json()
        there.wait()
        assert status & FAILING
        assert ours["passed"] is theirs["smart_status"]["passed"] is False
        assert (ours["via"], ours["model"]) == (bridge, theirs["model_name"])
        rows = theirs["ata_smart_attributes"]["table"]
        assert {row["id"]: (row["value"], row["thresh"], row["raw"]["value"]) for row in rows} == {
            int(number): (row["value"], row["threshold"], row["raw"]) for number, row in ours["attributes"].items()
        }


@pytest.mark.parametrize("health", HEALTHS)
@pytest.mark.parametrize("bridge", bridges.NVME)
def test_smartctl_agrees_about_an_nvme_disk(bridge: str, health: str) -> None:
    with serving(open_stick(f"virtual:?profile=nvme-bridge&health={health}&bridge={bridge}")) as there:
        status, theirs = smartctl(there.sg, bridge)
        ours = cli("smart", there.address, "--json").json()
        there.wait()
        assert bool(status & FAILING) == (health == "failing")
        assert (ours["via"], ours["kind"]) == (bridge, "nvme")
        assert ours["passed"] == theirs["smart_status"]["passed"]
        assert (ours["model"], ours["serial"]) == (theirs["model_name"], theirs["serial_number"])
        assert (ours["firmware"], ours["bytes"]) == (theirs["firmware_version"], theirs["nvme_total_capacity"])
        their_log, our_log = theirs["nvme_smart_health_information_log"], ours["health"]
        same = {"critical_warning", "temperature", "available_spare", "percentage_used", "host_reads", "host_writes"}
        same |= {"power_cycles", "power_on_hours", "unsafe_shutdowns", "media_errors"}
        assert {name: their_log[name] for name in same} == {name: our_log[name] for name in same}
        assert their_log["available_spare_threshold"] == our_log["spare_threshold"]
        assert their_log["num_err_log_entries"] == our_log["error_log_entries"]
        assert their_log["data_units_written"] * 512_000 == our_log["bytes_written"]
        assert their_log["data_units_read"] * 512_000 == our_log["bytes_read"]
        assert their_log["controller_busy_time"] == our_log["busy_minutes"]
        assert their_log["temperature_sensors"] == our_log["sensors"]


@pytest.mark.parametrize("bridge", bridges.ATA)
def test_smartctl_sees_the_self_test_that_we_began(bridge: str) -> None:
    options, via = asked(bridge)
    with serving(open_stick(f"virtual:?profile=sat-ssd&{options}")) as there:
        found = cli("smart", there.address, *via, "--test", "long", "--json").json()["self_test"]
        there.wait()
        assert found["running"]
        words = ["smartctl", "--json", "-d", bridge, "-c", str(there.sg)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        theirs = json.loads(done.stdout)["ata_smart_data"]["self_test"]
        assert theirs["status"]["value"] >> 4 == 0xF
        assert 100 - theirs["status"]["remaining_percent"] >= found["percent"]
        assert theirs["polling_minutes"] == {"short": found["short_minutes"], "extended": found["long_minutes"]}


def hdparm(node: Path, *words: str) -> str:
    command = ["hdparm", *words, str(node)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_hdparm_and_we_see_the_same_security_and_each_erases() -> None:
    data = bytes(range(256)) * 8192
    disk = AtaDisk()
    with serving(Stick([Unit(Memory(bytearray(data)), ata=disk, removable=False)])) as there:
        assert "2min for SECURITY ERASE UNIT" in hdparm(there.node, "-I")
        hdparm(there.node, "--user-master", "u", "--security-set-pass", "theirs")
        assert cli("ata-security", there.address, "--json").json()["enabled"]
        there.wait()
        assert cli("ata-security", there.address, "--erase", "normal", "--yes").status == 15
        there.wait()
        assert there.node.read_bytes() == data
        hdparm(there.node, "--user-master", "u", "--security-erase", "theirs")
        assert not cli("ata-security", there.address, "--json").json()["enabled"]
        there.wait()
        assert there.node.read_bytes() == bytes(len(data))
        there.node.write_bytes(data)
        cli("ata-security", there.address, "--erase", "enhanced", "--yes").ok()
        there.wait()
        assert there.node.read_bytes() == bytes(len(data))
        assert "not\tenabled" in hdparm(there.node, "-I")


@pytest.mark.parametrize("health", ["good", "failing"])
@pytest.mark.parametrize("options", ["profile=sat-hdd", "profile=nvme-bridge&bridge=sntasmedia"])
def test_smartctl_agrees_on_what_the_disk_remembers(options: str, health: str) -> None:
    with serving(open_stick(f"virtual:?{options}&health={health}")) as there:
        kind = "sntasmedia" if "nvme" in options else "sat"
        words = ["smartctl", "--json", "-d", kind, "-l", "error", "-l", "selftest", str(there.sg)]
        theirs = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout)
        errors = cli("smart", there.address, "--via", kind, "--log", "errors", "--json").json()
        there.wait()
        tests = cli("smart", there.address, "--via", kind, "--log", "self-tests", "--json").json()["self_tests"]
        there.wait()
    if kind == "sntasmedia":
        assert [each["number"] for each in errors["errors"]] == ([7] if health == "failing" else [])
        return
    log = theirs["ata_smart_error_log"]["summary"]
    assert errors["count"] == log["count"]
    table = log.get("table", [])
    assert [(each["number"], each["hours"]) for each in errors["errors"]] == [
        (row["error_number"], row["lifetime_hours"]) for row in table
    ]
    assert [each["lba"] for each in errors["errors"]] == [row["completion_registers"]["lba"] for row in table]
    (test,) = theirs["ata_smart_self_test_log"]["standard"]["table"]
    assert [(each["hours"], each["passed"]) for each in tests] == [
        (test["lifetime_hours"], test["status"].get("passed", False))
    ]
    assert tests[0]["lba"] == test.get("lba")
