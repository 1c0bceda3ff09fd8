"""The campaigns that need no kernel: every fault with every operation, and writes with faults in every phase."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "campaign"
PARTS = 4
TIMEOUT = 250  # seconds


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(TOOL), *map(str, words), "--timeout", "0.05"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def summary(campaign: subprocess.Popen[str]) -> dict[str, Any]:
    """The summary of a campaign, which must have found no fault."""
    with campaign:
        out, errors = campaign.communicate(timeout=TIMEOUT)
    lines = [json.loads(line) for line in out.splitlines()]
    bad = [line for line in lines if not line.get("ok", line.get("held"))]
    assert campaign.returncode == 0, f"{errors}{bad}"
    last: dict[str, Any] = lines[-1]
    return last


@pytest.mark.slow
def test_a_few_faults_and_writes() -> None:
    faults, writes = start("faults", "--every", 12), start("writes", "--writes", 15)
    assert summary(faults)["scenarios"] > 5
    assert summary(writes)["faults_met"] > 5


@pytest.mark.slow
def test_every_fault_ends_in_right_data_or_an_error_and_no_reported_write_is_lost() -> None:
    """Runs several processes at once, because most of the time is spent waiting for a device that does not answer."""
    parts = [start("faults", "--every", PARTS, "--seed", seed) for seed in range(PARTS)]
    writes = start("writes", "--writes", 150)
    assert sum(summary(part)["scenarios"] for part in parts) > 100
    assert summary(writes)["faults_met"] > 80


def test_a_table_made_in_another_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    run.write_text('{"campaign": "faults", "stage": "virtual", "seed": 1, "seconds": 1}\n')
    command = [sys.executable, str(TOOL), "table", str(run)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "run this in the project's folder" in ended.stderr
