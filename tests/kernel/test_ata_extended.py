"""The 48-bit commands of the virtual ATA disk, as smartctl and hdparm see them through the kernel; and as we do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb.ata.packet import read_packet_identity
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.address import open_stick
from scsiusb.virtual.target.ata import HEALTHS, KINDS, AtaDisk
from scsiusb.virtual.target.ata_logs import general_log

from .command import scsiusb as cli
from .served import Served, serving

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

TABLES = {  # our names, by smartctl's
    "Lifetime Power-On Resets": "lifetime_power_on_resets",
    "Power-on Hours": "power_on_hours",
    "Logical Sectors Written": "logical_sectors_written",
    "Logical Sectors Read": "logical_sectors_read",
    "Spindle Motor Power-on Hours": "spindle_motor_hours",
    "Number of Reallocated Logical Sectors": "reallocated_sectors",
    "Number of Realloc. Candidate Logical Sectors": "reallocation_candidates",
    "Number of Reported Uncorrectable Errors": "reported_uncorrectable",
    "Resets Between Cmd Acceptance and Completion": "resets_during_commands",
    "Current Temperature": "current",
    "Highest Temperature": "highest",
    "Lowest Temperature": "lowest",
    "Specified Maximum Operating Temperature": "specified_maximum",
    "Number of Hardware Resets": "hardware_resets",
    "Number of Interface CRC Errors": "interface_crc_errors",
    "Percentage Used Endurance Indicator": "percent_used",
}
PAGES = {1: "general", 3: "rotating_media", 4: "errors", 5: "temperature", 6: "transport", 7: "solid_state"}


def smartctl(node: Path, *words: str) -> Any:
    command = ["smartctl", "--json", "-d", "sat", *words, str(node)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout)


def hdparm(node: Path, *words: str) -> str:
    command = ["hdparm", *words, str(node)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


def log_of(there: Served, name: str) -> Any:
    found = cli("smart", there.address, "--log", name, "--json").json()
    there.wait()
    return found


@pytest.mark.parametrize("health", HEALTHS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "smr"])
def test_smartctl_agrees_on_the_device_statistics(kind: str, health: str) -> None:
    with serving(Stick([Unit(Memory(1 << 20), ata=AtaDisk(kind, health), removable=False)])) as there:
        pages = smartctl(there.sg, "-l", "devstat")["ata_device_statistics"]["pages"]
        ours = log_of(there, "statistics")["statistics"]
    theirs = {
        PAGES[page["number"]]: {
            TABLES[row["name"]]: (row["value"], row["flags"]["normalized"]) for row in page["table"]
        }
        for page in pages
    }
    assert theirs == {
        page: {name: (row["value"], row["normalized"]) for name, row in rows.items()} for page, rows in ours.items()
    }


@pytest.mark.parametrize("health", ["good", "failing"])
def test_smartctl_agrees_on_the_extended_logs(health: str) -> None:
    with serving(Stick([Unit(Memory(1 << 20), ata=AtaDisk("sat-hdd", health), removable=False)])) as there:
        theirs = smartctl(there.sg, "-l", "xerror", "-l", "xselftest", "-l", "directory")
        errors, tests = log_of(there, "errors-ext"), log_of(there, "self-tests-ext")["self_tests"]
        logs = log_of(there, "directory")["logs"]
    log = theirs["ata_smart_error_log"]["extended"]
    assert errors["count"] == log["count"] == (2 if health == "failing" else 0)
    assert [(row["error_number"], row["lifetime_hours"]) for row in log.get("table", [])] == [
        (each["number"], each["hours"]) for each in errors["errors"]
    ]
    assert [row["completion_registers"]["lba"] for row in log.get("table", [])] == [
        each["lba"] for each in errors["errors"]
    ]
    (test,) = theirs["ata_smart_self_test_log"]["extended"]["table"]
    assert [(each["hours"], each["passed"], each["lba"]) for each in tests] == [
        (test["lifetime_hours"], test["status"].get("passed", False), test.get("lba"))
    ]
    listed = {row["address"]: row["gp_sectors"] for row in theirs["ata_log_directory"]["table"] if "gp_sectors" in row}
    assert {each["address"]: each["pages"] for each in logs} == {at: pages for at, pages in listed.items() if at}


def test_smartctl_reads_the_pages_of_any_log() -> None:
    with serving(Stick([Unit(Memory(1 << 20), ata=AtaDisk("sat-ssd"), removable=False)])) as there:
        command = ["smartctl", "-d", "sat", "-l", "gplog,0x04,1", str(there.sg)]
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    page = "".join(re.findall(r"^0000[23][0-9a-f]0: ((?:[0-9a-f]{2} ){16})", text, re.MULTILINE))
    assert bytes.fromhex(page) == general_log(AtaDisk("sat-ssd"), 0x04)[512:1024]


def test_hdparm_names_what_the_disk_can_do() -> None:
    with serving(Stick([Unit(Memory(1 << 20), ata=AtaDisk("sat-ssd"), removable=False)])) as there:
        text = hdparm(there.node, "-I")
    for feature in ("General Purpose Logging", "SANITIZE", "BLOCK_ERASE_EXT", "OVERWRITE_EXT", "CRYPTO_SCRAMBLE_EXT"):
        assert feature in text
    assert "Data Set Management TRIM supported (limit 8 blocks)" in text


def test_hdparm_trims_as_we_do() -> None:
    data = bytes(range(1, 251)) * 5000
    with serving(Stick([Unit(Memory(bytearray(data[: 1 << 20])), ata=AtaDisk(), removable=False)])) as there:
        hdparm(there.node, "--please-destroy-my-drive", "--trim-sector-ranges", "8:4")
        assert (
            there.device.units[0].kernel_read(7, 6) == data[7 * 512 : 8 * 512] + bytes(4 * 512) + data[12 * 512 :][:512]
        )
        cli("unmap", there.address, "--ata", "--lba", "100", "--blocks", "3", "--yes").ok()
        there.wait()
        assert there.device.units[0].kernel_read(99, 5) == (
            data[99 * 512 : 100 * 512] + bytes(3 * 512) + data[103 * 512 : 104 * 512]
        )


def test_hdparm_sees_the_sanitize_that_we_do() -> None:
    with serving(Stick([Unit(Memory(bytearray(b"x" * (1 << 20))), ata=AtaDisk(), removable=False)])) as there:
        assert "SD0 Sanitize Idle" in (text := hdparm(there.node, "--sanitize-status")), text
        cli("sanitize", there.address, "--ata", "--method", "block", "--yes").ok()
        there.wait()
        assert there.node.read_bytes() == bytes(1 << 20)
        assert "Last Sanitize Operation Completed Without Error" in (text := hdparm(there.node, "--sanitize-status")), (
            text
        )


def test_hdparm_identifies_the_optical_drive_that_we_do() -> None:
    with serving(open_stick("virtual:?profile=cd-rw")) as there:
        hdparm(there.node, "-I")  # Linux asks for 18 bytes of sense data until it has seen that there are more
        text = hdparm(there.node, "-I")
        with scsiusb.open(there.address) as disk:
            found = read_packet_identity(disk.unit)
        there.wait()
    assert "ATAPI CD-ROM, with removable media" in text
    assert re.search(rf"Model Number: +{found.model}\s", text), text
    assert re.search(rf"Serial Number: +{found.serial}\s", text), text
    assert re.search(rf"Firmware Revision: +{re.escape(found.firmware)}\s", text), text
    assert found.checksum_fits
