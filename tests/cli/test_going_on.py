"""How to go on after an error or Ctrl-C in a long job: what is done, and the command that is right for the job."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from scsiusb.cli import jobs
from scsiusb.imaging.image_file import ImageFile
from scsiusb.virtual import Stick
from tests.cli.conftest import Attached, Cli
from tests.imaging.sticks import contents, stick

SIZE = 4 * 1024 * 1024
GONE = "disconnect@data,lba=6000"
BAD = "sense=3/11/00,opcode=28,lba=6000,times=always"


@pytest.fixture(autouse=True)
def _states(state_folder: Path) -> None: ...


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(contents(size=SIZE))
    return path


def faulty(fault: str, serial: str = "S1") -> Stick:
    made = stick(contents(7, SIZE), serial)
    made.faults.add(fault)
    return made


@pytest.mark.parametrize(
    "line", ["dump 1-1 {folder}/b.img", "restore {folder}/a.img 1-1", "erase 1-1", "scan 1-1", "scan 1-1 --destructive"]
)
def test_a_device_that_leaves_is_to_be_plugged_in_and_the_job_goes_on(
    line: str, attach: Attached, cli: Cli, image: Path
) -> None:
    attach(faulty(GONE))
    words = line.format(folder=image.parent)
    yes = [] if line.startswith("dump") or line == "scan 1-1" else ["--yes"]
    result = cli(*words.split(), *yes)
    assert result.status == 35
    last = result.err.splitlines()[-1]
    assert f"; plug it in, and go on with `scsiusb {words} --resume`" in last
    assert "open it again" not in result.err


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("dump 1-1 {folder}/b.img", "scsiusb rescue 1-1 FILE MAP"),
        ("dump serial=S1 {folder}/b.img --lun 0", "scsiusb rescue serial=S1 FILE MAP"),
        ("clone 1-1 1-2 --yes", "scsiusb rescue 1-1 FILE MAP"),
        ("scan 1-1 --json", "scsiusb rescue 1-1 FILE MAP"),
    ],
)
def test_a_block_that_cannot_be_read_is_a_task_for_rescue(
    line: str, command: str, attach: Attached, cli: Cli, image: Path
) -> None:
    attach(faulty(BAD), stick(contents(size=SIZE), "S2"))
    result = cli(*line.format(folder=image.parent).split())
    assert result.status == 3
    assert f"copy what can be read with `{command}`" in result.err
    assert "read around" not in result.err


def test_a_full_disk_names_the_file_and_the_dump_goes_on(
    attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: ImageFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    attach(stick(contents(size=SIZE)))
    target = image.parent / "b.img"
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "_write_sparse", full)
        result = cli("dump", "1-1", target)
    go_on = f"free some space, and go on with `scsiusb dump 1-1 {target} --resume`"
    assert result.failed(15, f"{target}: {os.strerror(errno.ENOSPC)}", go_on)
    assert cli("dump", "1-1", target, "--resume").status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_dump_to_a_stream_does_not_advise_resume(attach: Attached, cli: Cli) -> None:
    attach(stick(contents(size=SIZE)))
    result = cli("dump", "1-1", "/dev/full")
    assert result.failed(15, "/dev/full: No space left", "run it again from the start, as a stream cannot be resumed")


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupting(reached: jobs.Reached, progress: object) -> None:
        reached.last = progress  # type: ignore[assignment]
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Reached, "__call__", interrupting)


def test_ctrl_c_of_a_stream_does_not_advise_resume(
    attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stdin:
        buffer = io.BytesIO(image.read_bytes())

        def isatty(self) -> bool:
            return False

    attach(stick(contents(size=SIZE)))
    monkeypatch.setattr(sys, "stdin", Stdin())
    interrupt(monkeypatch)
    result = cli("restore", "-", "1-1", "--yes")
    assert result.failed(130, "writing: 1 MiB", "run it again from the start, as a stream cannot be resumed")
    assert "--resume" not in result.err


def test_ctrl_c_of_a_clone_says_what_was_done(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(stick(contents(size=SIZE), "S1"), stick(contents(7, SIZE), "S2"))
    interrupt(monkeypatch)
    result = cli("clone", "1-1", "1-2", "--yes")
    assert result.failed(130, "writing: ", " of 4 MiB", "run it again from the start, as a copy cannot be resumed")
