"""scan: figures for scripts, a picture for people, and that nothing is overwritten without a confirmation."""

from __future__ import annotations

import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.commands import scan
from scsiusb.disk.speed import Latency
from scsiusb.imaging import heat_map, latencies, scan_report, scanning
from scsiusb.imaging.readback import BlockRange
from scsiusb.virtual import Stick
from tests.cli.conftest import Attached, Cli
from tests.imaging.sticks import contents, stick

SIZE = 256 * 1024
BLOCKS = SIZE // 512
SVG = "{http://www.w3.org/2000/svg}"


class Person(io.StringIO):
    """A terminal at which the user types a line."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _small_commands(monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> None:
    monkeypatch.setattr(scanning, "COMMAND", 1024)


def failing() -> Stick:
    """Return a stick with bad blocks."""
    each = stick(contents(), "S1")
    each.faults.add("sense=3/11/00,opcode=28,lba=100-103,times=always")
    each.faults.add(f"sense=3/11/00,opcode=28,lba={BLOCKS - 1},times=always")
    return each


def seeded(slow: int, bad: int, regions: int = 300) -> scanning.Scan:
    """Return the result of a scan with a slow and a bad region."""
    findings = latencies.Findings(0, regions * 8, 8)
    for number in range(regions):
        seconds = {slow: 0.5, 7: 0.01, 9: 0.05}.get(number, 0.001)
        findings.note(number * 8, 8, seconds)
    findings.note_bad(bad * 8 + 3)
    findings.take(0)
    found = (findings.bad, findings.slow, findings.latency, findings.limit, findings.regions())
    return scanning.Scan(0, regions * 8, 512, *found, False, 1.0, 0)


def test_scan_prints_figures_as_json(attach: Attached, cli: Cli) -> None:
    attach(stick(contents(), "S1"))
    result = cli("scan", "serial=S1", "--json")
    assert result.status == 0
    record = result.record
    assert record.pop("seconds") >= 0
    latency = record.pop("latency")
    assert list(latency) == ["p50", "p99", "max"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert record.pop("slow_above") >= 0.1
    record.pop("slow")
    assert record == {
        "bytes": SIZE,
        "lba": 0,
        "blocks": BLOCKS,
        "block_size": 512,
        "destructive": False,
        "bad": [],
        "resumed": 0,
    }


def test_bad_blocks_are_named_by_status_3(attach: Attached, cli: Cli) -> None:
    attach(failing())
    result = cli("scan", "1-1", "--json")
    assert result.status == 3
    assert result.json["bad"] == [{"lba": 100, "blocks": 4}, {"lba": BLOCKS - 1, "blocks": 1}]
    assert "5 blocks are bad, the first is LBA 100" in result.line
    text = cli("scan", "1-1")
    assert text.status == 3
    assert f"bad: LBA 100 to 103\nbad: LBA {BLOCKS - 1}\n" in text.text
    rows = [line for line in text.text.splitlines() if re.match(r" *[0-9]+ [KMG]?i?B [.:+SX]+$", line)]
    assert [row.split()[-1].count("X") for row in rows] == [2, 0, 0, 1]
    assert all(len(line) <= 80 for line in text.text.splitlines())


def test_a_range_with_an_even_number_of_blocks(attach: Attached, cli: Cli) -> None:
    attach(failing())
    result = cli("scan", "1-1", "--lba", 104, "--blocks", 16)
    assert result.status == 0
    assert "of 16 blocks" in result.err
    assert cli("scan", "1-1", "--lba", BLOCKS, "--blocks", 1).failed(22)


def test_the_picture_shows_what_is_seeded() -> None:
    found = seeded(slow=20, bad=40)
    marks = "".join(cell.level.mark for cell in heat_map.cells(found, 1024))
    assert marks == "." * 7 + ":.+" + "." * 10 + "S" + "." * 19 + "X" + "." * 259
    coarse = heat_map.cells(found, 32)
    assert "".join(cell.level.mark for cell in coarse) == "+.S.X" + "." * 25
    assert sum(cell.blocks for cell in coarse) == found.blocks
    assert found.slow == (BlockRange(160, 8),)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_picture_fits_the_terminal(
    screen: Cli, attach: Attached, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    attach(stick(contents()))
    rows = [line for line in screen("scan", "1-1").text.splitlines() if re.search(r" [.:+SX]{8,}\s*$", line)]
    assert len(rows) == -(-BLOCKS // 2 // {40: 24}.get(columns, 64))
    assert all(len(line.rstrip()) <= min(columns, 80) for line in rows)


def test_colours_on_a_terminal_have_their_own_background(
    attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    attach(failing())
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        text = cli("scan", "1-1").text
    assert re.search(r"\x1b\[[0-9;]*38;2;255;255;255;48;2;90;12;26m", text)


def ratio(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.1)."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted((light(one), light(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("level", heat_map.LEVELS, ids=lambda level: level.text)
def test_each_character_can_be_read_on_its_colour(level: heat_map.Level) -> None:
    assert ratio(level.colour, level.ink) >= 4.5
    assert len({each.mark for each in heat_map.LEVELS}) == len(heat_map.LEVELS)


# --- reports ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.png", "a.json"])
def test_a_report_of_each_format(name: str, attach: Attached, cli: Cli, tmp_path: Path) -> None:
    attach(failing())
    assert cli("scan", "1-1", "--report", tmp_path / name).status == 3
    data = (tmp_path / name).read_bytes()
    if name == "a.png":
        assert data.startswith(b"\x89PNG")
        return
    text = data.decode()
    assert "Scan of 1-1, scsiusb Virtual Stick, serial S1 (256 KiB)" in text
    if name == "a.json":
        record = json.loads(text)
        assert record["bad"][0] == {"lba": 100, "blocks": 4}
        assert sum(region["blocks"] for region in record["regions"]) == BLOCKS
        assert sum(region["bad"] for region in record["regions"]) == 5
    else:
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "it needs no network"
        assert "prefers-color-scheme: dark" in text


def test_the_picture_as_svg_has_a_cell_for_each_part() -> None:
    found = seeded(slow=20, bad=40)
    root = ET.fromstring(scan_report.svg(found, 'Disk <1> & "2"'))
    groups = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    assert len(groups) == len(found.regions)
    worst = [group for group in groups if group.get("class") in ("l3", "l4")]
    said = {group.get("class"): group.findtext(f"{SVG}title") for group in worst}
    assert said == {
        "l3": "LBA 160 to 167: slowest 500 ms, 0 bad",
        "l4": "LBA 320 to 327: slowest 1 ms, 1 bad",
    }
    assert [mark.text for mark in root.iter(f"{SVG}text") if mark.get("class") == "mark"][:4] == [":", "+", "S", "X"]


def test_the_page_lists_the_ranges() -> None:
    text = scan_report.page(seeded(slow=20, bad=40), "<script>alert(1)</script>")
    assert "<script>" not in text
    assert "<tr><td>323</td><td>323</td><td>1</td></tr>" in text
    assert "<tr><td>160</td><td>167</td><td>8</td></tr>" in text


def test_a_report_of_a_large_disk_is_bounded() -> None:
    regions = latencies.Findings(0, 10_000_000_000, 2048).regions()
    found = scanning.Scan(0, 10_000_000_000, 512, (), (), Latency(0, 0, 0), 0.1, regions, False, 1.0, 0)
    assert len(heat_map.cells(found, scan_report.MOST_CELLS)) <= scan_report.MOST_CELLS
    assert len(scan_report.page(found, "large")) < 1_000_000


def test_a_report_of_another_format_is_refused_before_the_scan(attach: Attached, cli: Cli, tmp_path: Path) -> None:
    attach(stick(contents()))
    assert cli("scan", "1-1", "--report", tmp_path / "a.pdf").failed(1, ".html, .svg, .png, .json")
    assert cli("scan", "1-1", "--report", tmp_path / "none" / "a.svg").failed(15, "a.svg")


def test_a_png_without_matplotlib_is_refused_before_the_scan(
    attach: Attached, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick(contents()))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli("scan", "1-1", "--report", tmp_path / "a.png").failed(1, "needs matplotlib", "scsiusb[plot]")
    assert not (tmp_path / "a.png").exists()


# --- destructive, interrupted ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_destructive_scan_asks(attach: Attached, screen: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents()
    attach(stick(data, "S1"))
    monkeypatch.setattr(sys, "stdin", Person("n\n"))
    result = screen("scan", "1-1", "--destructive")
    assert result.status == 1
    assert "Overwrite all of 1-1, scsiusb Virtual Stick, serial S1 (256 KiB), without partitions" in result.err
    assert data == contents()
    monkeypatch.setattr(sys, "stdin", Person("y\n"))
    assert screen("scan", "1-1", "--destructive", "--pattern", "badblocks").status == 0
    assert data == bytes(SIZE)


def test_without_a_terminal_nothing_is_overwritten(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents()
    attach(stick(data))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli("scan", "1-1", "--destructive").failed(1, "cannot ask", "--yes")
    assert data == contents()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--pattern", "55"], "--pattern needs --destructive"),
        (["--destructive", "--yes", "--pattern", "zz"], "'zz' is not"),
    ],
)
def test_options_that_do_not_go_together(attach: Attached, cli: Cli, words: list[str], text: str) -> None:
    data = contents()
    attach(stick(data))
    assert cli("scan", "1-1", *words).failed(1, text)
    assert data == contents()


def test_ctrl_c_says_how_far_and_how_to_go_on(
    attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Interrupting:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None: ...

        def __call__(self, progress: object) -> None:
            raise KeyboardInterrupt

    attach(stick(contents(), "S1"), stick(contents(), "S2"))
    monkeypatch.setattr(scanning, "CHECKPOINT", 1024)
    with monkeypatch.context() as patch:
        patch.setattr(scan, "job_progress", Interrupting)
        result = cli("scan", "1-1", "--lba", 2, "--report", tmp_path / "a.svg")
    command = f"`scsiusb scan 1-1 --lba 2 --report {tmp_path / 'a.svg'} --resume`"
    assert result.failed(130, "reading: 1 KiB of 255 KiB", command)
    assert not (tmp_path / "a.svg").exists()
    assert cli("scan", "1-1", "--resume").failed(15, "reading one of 510 blocks from LBA 2 on")
    assert cli("scan", "1-2", "--lba", 2, "--resume").failed(15, "no interrupted scan of this device", "S1")
    record = cli("scan", "1-1", "--lba", 2, "--resume", "--json").record
    assert record["resumed"] == 1024
    with monkeypatch.context() as patch:
        patch.setattr(scan, "job_progress", Interrupting)
        result = cli("scan", "1-1", "--destructive", "--yes", "--pattern", "55aa", "--pattern", "random")
    assert result.failed(130, "`scsiusb scan 1-1 --destructive --pattern 55aa --pattern random --resume`")
