"""The virtual ATA disk behind a bridge, as smartctl and hdparm see it through the kernel; and as we do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.target.ata import HEALTHS, KINDS, AtaDisk

from .command import scsiusb as cli
from .served import serving

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
