"""The campaigns in short: kills, unplugs, many sticks, faults and a soak, after each of which nothing may be left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .conftest import KernelLog

PATIENCE = 60  # seconds, on a machine that may be busy; run by hand, the campaigns demand two, and one
TOOL = Path(__file__).parents[2] / "tools" / "campaign"


def campaign(*words: object) -> dict[str, Any]:
    """Runs a campaign in a process of its own, whose forks must never have touched libusb; returns its summary."""
    command = [sys.executable, str(TOOL), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [line for line in lines if not line.get("ok", line.get("held"))]
    assert done.returncode == 0, f"{done.stderr}{bad}"
    summary: dict[str, Any] = lines[-1]
    return summary


def test_after_any_death_nothing_is_left(kernel_log: KernelLog) -> None:
    kills = 8
    summary = campaign("crash", "--kills", kills, "--inside", 0, "--within", PATIENCE)
    assert summary["stale"] == 0
    assert summary["kills"] == kills
    assert set(summary["ways"].values()) == {kills // len(summary["ways"])}
    kernel_log.new()  # the campaign looked at it, and knows which lack of memory was wanted


def test_every_client_of_a_pulled_device_is_told() -> None:
    assert campaign("plug", "--cycles", 4, "--within", PATIENCE)["cycles"] == 4


def test_every_event_of_sixteen_sticks_at_once_is_right() -> None:
    assert campaign("many", "--sticks", 16, "--rounds", 1)["events"] == 32


def test_whatever_a_device_does_wrong_is_right_or_an_error_in_time() -> None:
    assert campaign("faults", "--stage", "usbip", "--every", 9, "--timeout", 2)["scenarios"] >= 10


def test_every_write_reported_good_is_on_the_medium_after_a_flush() -> None:
    assert campaign("writes", "--stage", "usbip", "--writes", 40, "--timeout", 2)["faults_met"] > 10


def test_use_without_end_leaves_all_flat() -> None:
    assert campaign("soak", "--commands", 1000, "--opens", 10)["openings"]["number"] == 10
