"""Makes the table of docs/faults.md from runs of the fault campaign."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from campaigns.faults import RIGHT
from campaigns.report import Report

Row = dict[str, Any]
TITLES: Final = {
    "virtual": "scsiusb, in process",
    "usbip": "scsiusb, libusb and kernel",
    "linux": "Linux's usb-storage",
    "uas-high": "by UAS at high speed",
    "uas-super": "by UAS at SuperSpeed",
}
SHORT: Final = {
    "class reset": "class",
    "port reset": "port",
    "clear halt": "halt",
    "abort task": "abort",
    "logical unit reset": "unit",
}


def run(options: argparse.Namespace, report: Report) -> None:
    """Read the runs of the stages, and replace what follows the mark in the document."""
    runs = [row for path in options.runs for row in _rows(path) if "campaign" in row]
    found = {_key(row): row for path in options.runs for row in _rows(path) if "scenario" in row}
    text = "\n".join([_facts(runs), "", *_table(found), "", *_compared(found), ""])
    document = _read(options.document)
    head, mark, _ = document.partition(MARK)
    options.document.write_text(f"{head}{mark}\n\n{text}", encoding="utf-8")
    report.words = [f"{len(found)} rows"]


MARK: Final = "<!-- what follows is made by `tools/campaign table` -->"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; run this in the project's folder, or name the files") from None


def _rows(path: Path) -> Iterator[Row]:
    for line in _read(path).splitlines():
        yield json.loads(line)


def _key(row: Row) -> tuple[str, str, str]:
    return row["scenario"], row["operation"], row["stage"]


def _facts(runs: Sequence[Row]) -> str:
    seconds: Counter[str] = Counter()
    for row in runs:
        seconds[row["stage"]] += row["seconds"]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()} on the host"
    stages = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in seconds.items())
    return f"Run on {date.today().isoformat()}, seed {runs[0]['seed']}, {machine}; {stages}."


def _table(found: dict[tuple[str, str, str], Row]) -> Iterator[str]:
    stages = [stage for stage in TITLES if any(key[2] == stage for key in found)]
    yield "| fault | operation | " + " | ".join(TITLES[stage] for stage in stages) + " |"
    yield "| --- | --- |" + " --- |" * len(stages)
    last = ""
    for scenario, operation in dict.fromkeys(key[:2] for key in found):
        cells = [_cell(found.get((scenario, operation, stage))) for stage in stages]
        name = scenario if scenario != last else ""
        last = scenario
        yield f"| {name} | {operation} | {' | '.join(cells)} |"


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    steps = ", ".join(f"{count} {SHORT[step]}" for step, count in row["recovery"].items())
    then = "" if row["after"] in (RIGHT, "") else f"; then {row['after']}"
    return f"{row['outcome']}, {row['seconds']:.2f} s{f' ({steps})' if steps else ''}{then}"


def _compared(found: dict[tuple[str, str, str], Row]) -> Sequence[str]:
    """Return the lines on where only one of the kernel's driver and scsiusb succeeds."""
    if not {"usbip", "linux"} <= {key[2] for key in found}:
        return []
    theirs: list[str] = []
    ours: list[str] = []
    for scenario, operation in dict.fromkeys(key[:2] for key in found):
        rows = [found.get((scenario, operation, stage)) for stage in ("usbip", "linux")]
        if None in rows:
            continue
        own, linux = (row["outcome"] == RIGHT for row in rows if row)
        if own != linux:
            (theirs if linux else ours).append(f"{scenario} ({operation})")
    return [
        f"Linux gets through and scsiusb does not: {'; '.join(theirs) or 'nowhere'}.",
        "",
        f"scsiusb gets through and Linux does not: {'; '.join(ours) or 'nowhere'}.",
    ]
