"""The bars of a job on several disks: a line for each, at any width, and only on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from scsiusb.cli.progress import job_progress
from scsiusb.cli.target_bars import TargetBars
from scsiusb.errors import DeviceGone
from scsiusb.imaging import TargetProgress, TargetsProgress

MIB = 1 << 20


def shown(progress: TargetsProgress, width: int, monkeypatch: pytest.MonkeyPatch, before: int = 0) -> list[str]:
    """Return the lines for a terminal, ten seconds after each disk had done `before` bytes."""
    clock = [100.0]
    monkeypatch.setattr("scsiusb.cli.target_bars.time.monotonic", lambda: clock[0])
    bars = TargetBars()
    began = tuple(each._replace(done=before) for each in progress.targets)
    bars.update(TargetsProgress(progress.phase, before, progress.total, began))
    clock[0] += 10
    bars.update(progress)
    plain = Console(file=io.StringIO(), width=width)
    with plain.capture() as captured:
        plain.print(bars)
    return captured.get().splitlines()


FOUR = TargetsProgress(
    "writing",
    50 * MIB,
    100 * MIB,
    (
        TargetProgress("2-1", "AA00000001", "writing", 50 * MIB, None),
        TargetProgress("2-2", None, "writing", 40 * MIB, None),
        TargetProgress("2-1.4.3", "A_VERY_LONG_SERIAL_NUMBER_OF_A_STICK", "flushing", 100 * MIB, None),
        TargetProgress("2-4", "AA00000004", "failed", 30 * MIB, DeviceGone("it was unplugged")),
    ),
)


def test_each_disk_has_a_line_with_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    head, one, two, three, four = shown(FOUR, 80, monkeypatch)
    assert head == "writing: 50 MiB of 100 MiB, 1 of 4 failed, 0:00:12 left"
    assert one.split()[:3] == ["2-1", "AA00000001", "writing"]
    assert one.split()[-4:] == ["50", "%", "5.2", "MB/s"]
    assert two.split()[-4:] == ["40", "%", "4.2", "MB/s"]
    assert "flushing" in three
    assert "100 %" in three
    assert "failed    it was unplugged" in four


@pytest.mark.parametrize("width", [20, 30, 43, 44, 59, 60, 79, 80, 200])
def test_they_fit_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(FOUR, width, monkeypatch)
    assert max(map(len, lines)) <= width
    assert len(lines) == 5
    rows = lines[1:]
    assert [row[:3] for row in rows] == ["2-1", "2-2", "2-1", "2-4"], "a disk has one line"
    assert ("MB/s" in rows[0]) == (width >= 60)
    assert ("━" in rows[0]) == (width >= 44)


def test_a_stream_has_no_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(TargetsProgress("writing", 50 * MIB, None, FOUR.targets), 80, monkeypatch)
    assert lines[0] == "writing: 50 MiB, 1 of 4 failed"
    assert not [line for line in lines if "%" in line]


def test_a_pipe_gets_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with job_progress(least=0) as show:
        show(FOUR)
    assert capfd.readouterr() == ("", "")
