"""The corpus: seeds and inputs that once failed. Every target takes all of its files, and the runner works."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.sticks import PATIENCE

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
CORPUS = TOOLS / "fuzz" / "corpus"
TARGETS = ("replies", "exchange", "model", "descriptors", "usbip")
MOST_FILES = 200


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_file_of_the_corpus_passes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    caplog.set_level("CRITICAL")
    targets: Any = import_module("fuzz.targets")
    files = sorted((CORPUS / target).iterdir())
    assert files
    with targets.TARGETS[target]() as run:
        for file in files:
            run(file.read_bytes())


def test_the_corpus_stays_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) < MOST_FILES
    assert {path.parent.name for path in files} == set(TARGETS)


@pytest.mark.slow
def test_the_runner_prints_its_figures_and_a_verdict() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "fuzz", "descriptors", "--engine", "random", "--runs", "50"],
        env={**os.environ, "PYTHONPATH": f"{TOOLS}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "descriptors by random: 50 runs" in found.stdout
    assert found.stdout.endswith("descriptors: passed\n")
