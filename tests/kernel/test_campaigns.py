"""Short runs of the campaigns: kills, unplugs, many sticks, faults and a soak; nothing may be left after each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .kernel_log import KernelLog

PATIENCE = 60  # seconds, because the machine may be busy; run by hand, the campaigns require 2 s or 1 s
NATIVE = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")
TOOL = Path(__file__).parents[2] / "tools" / "campaign"


def campaign(*words: object) -> dict[str, Any]:
    """Run a campaign in a new process, because its forks must not inherit a used libusb; return its summary."""
    command = [sys.executable, str(TOOL), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [line for line in lines if not line.get("ok", line.get("held"))]
    assert done.returncode == 0, f"{done.stderr}{bad}"
    summary: dict[str, Any] = lines[-1]
    return summary


@NATIVE
def test_nothing_is_left_after_a_killed_process(kernel_log: KernelLog) -> None:
    kills = 8
    summary = campaign("crash", "--kills", kills, "--inside", 0, "--within", PATIENCE)
    assert summary["stale"] == 0
    assert summary["kills"] == kills
    assert set(summary["ways"].values()) == {kills // len(summary["ways"])}
    kernel_log.new()  # the campaign has checked these messages; it knows which memory failures it caused


@NATIVE
def test_every_client_of_an_unplugged_device_is_notified() -> None:
    assert campaign("plug", "--cycles", 4, "--within", PATIENCE)["cycles"] == 4


@pytest.mark.qemu("sixteen sticks of QEMU's that are made and plugged as it runs")
def test_every_event_of_sixteen_sticks_at_once_is_right() -> None:
    assert campaign("many", "--sticks", 16, "--rounds", 1)["events"] == 32


@NATIVE
def test_a_fault_ends_in_the_right_result_or_an_error_in_time() -> None:
    assert campaign("faults", "--stage", "usbip", "--every", 9, "--timeout", 2)["scenarios"] >= 10


@NATIVE
def test_every_write_reported_good_is_on_the_medium_after_a_flush() -> None:
    assert campaign("writes", "--stage", "usbip", "--writes", 40, "--timeout", 2)["faults_met"] > 10


@NATIVE
def test_a_soak_does_not_leak() -> None:
    assert campaign("soak", "--commands", 1000, "--opens", 10)["openings"]["number"] == 10


@NATIVE
@pytest.mark.timeout(900)
def test_a_job_that_was_interrupted_goes_on() -> None:
    done = campaign("jobs", "--interruptions", 3, "--size", 24)
    assert done["ways"] == {"SIGKILL": 4, "Ctrl-C": 4, "unplug": 4}
