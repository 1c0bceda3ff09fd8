"""The rescue command: what scripts rely on, and that it can be continued after each end."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb.cli import device as session
from scsiusb.cli.commands import rescue as command
from scsiusb.cli.status import INTERRUPTED
from scsiusb.imaging import Progress, rescue_device
from scsiusb.virtual import Stick
from tests.cli.conftest import Attached, Cli
from tests.imaging.failing import FailingUnit
from tests.imaging.sticks import stick

BLOCKS = 400
DATA = random.Random(13).randbytes(BLOCKS * 512)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue_device, "POLL", 0.001)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "disk.img", tmp_path / "disk.map"


def after_leaving(stick: Stick, action: Callable[[], object]) -> None:
    """Do something when the stick leaves the bus."""

    def act() -> None:
        action()

    stick.on_leave.append(act)


def failing(attach: Attached, *bad: int) -> FailingUnit:
    unit = FailingUnit(bytearray(DATA), bad)
    attach(Stick([unit]))
    return unit


def test_json_says_what_is_rescued_and_the_map(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    failing(attach, 40, 41)
    result = cli("rescue", "1-1", *files, "--json")
    assert result.status == 3, "something is not rescued"
    assert result.err == ""
    record = result.record
    assert record.pop("seconds") >= 0
    assert record.pop("errors") >= 3
    assert record == {
        "rescued": (BLOCKS - 2) * 512,
        "bad": 1024,
        "bytes": BLOCKS * 512,
        "map": [
            {"pos": 0, "size": 40 * 512, "status": "+"},
            {"pos": 40 * 512, "size": 1024, "status": "-"},
            {"pos": 42 * 512, "size": 358 * 512, "status": "+"},
        ],
        "returns": 0,
        "resumed": 0,
    }
    assert files[0].read_bytes()[42 * 512 :] == DATA[42 * 512 :]


def test_text_names_the_blocks_and_a_second_run_retries_them(
    attach: Attached, cli: Cli, files: tuple[Path, Path]
) -> None:
    unit = failing(attach, 40, 41, 300)
    unit.left |= {40: 3, 41: 3, 300: 9}
    first = cli("rescue", "1-1", *files)
    assert first.status == 3
    assert first.text == "LBA 40 to 41\nLBA 300\n"
    assert "1.5 KiB in 2 areas cannot be read" in first.err
    again = cli("rescue", "1-1", *files, "--retries", 1)
    assert again.status == 3
    assert again.text == "LBA 40 to 41\nLBA 300\n"
    last = cli("rescue", "1-1", *files, "--retries", 9)
    assert (last.status, last.text) == (0, "")
    assert "of them before" in last.err
    assert files[0].read_bytes() == DATA


def test_what_is_not_rescued_is_not_lost_by_rounding(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    attach(Stick([FailingUnit(bytearray(12 << 20), [40, 41, 300])]))
    assert cli("rescue", "1-1", *files).err.startswith("rescued all but 1.5 KiB of 12 MiB, in ")


def test_many_areas_are_cut_off(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    failing(attach, *range(0, 60, 2))
    result = cli("rescue", "1-1", *files)
    assert len(result.text.splitlines()) == 21
    assert result.text.splitlines()[-1].startswith("and 10 more areas")


def test_a_range(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    failing(attach, 40)
    result = cli("rescue", "1-1", *files, "--lba", 100, "--blocks", 10, "--json")
    assert (result.status, result.json["bytes"]) == (0, 5120)
    assert files[0].read_bytes()[51200:56320] == DATA[51200:56320]


def test_ctrl_c_says_how_far_it_came_and_the_command_to_go_on(
    attach: Attached, cli: Cli, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(attach)
    shown = command._Reached.__call__

    def interrupting(reached: Any, progress: Progress) -> None:
        shown(reached, progress)
        if progress.done > 65536:
            raise KeyboardInterrupt

    monkeypatch.setattr(command._Reached, "__call__", interrupting)
    result = cli("rescue", "1-1", *files, "--retries", 2)
    assert result.status == INTERRUPTED
    assert "copying: " in result.err
    assert f"go on with `scsiusb rescue 1-1 {files[0]} {files[1]} --retries 2`" in result.err
    assert "run the command again" not in result.err
    monkeypatch.undo()
    monkeypatch.setattr(session, "open_disk", attach.open)
    monkeypatch.setattr(session, "devices", attach.devices)
    result = cli("rescue", "1-1", *files, "--json")
    assert result.status == 0
    assert result.json["resumed"] > 65536
    assert files[0].read_bytes() == DATA


def test_a_stick_that_comes_back_at_another_port(
    attach: Attached, cli: Cli, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stick(bytearray(DATA), "COMESBACK")
    first.faults.add("disconnect@data,lba=200")
    bus = attach(first)
    after_leaving(first, lambda: bus.plug(first, (3,)))
    result = cli("rescue", "1-1", *files, "--json")
    assert (result.status, result.json["returns"]) == (0, 1)
    assert files[0].read_bytes() == DATA


def test_another_stick_in_its_place_is_not_taken_for_it(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    first = stick(bytearray(DATA), "LEAVES")
    first.faults.add("disconnect@data,lba=200")
    bus = attach(first)
    after_leaving(first, lambda: bus.plug(stick(bytearray(len(DATA)), "OTHER"), (1,)))
    result = cli("rescue", "1-1", *files, "--wait", 0.05)
    assert result.failed(35, "the device is gone", "plug it in, and go on with `scsiusb rescue 1-1")
    assert cli("rescue", "1-1", *files).failed(15, "its serial is 'OTHER', it was 'LEAVES'")


def test_twins_are_not_told_apart_by_guessing(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    first = stick(bytearray(DATA), "TWIN")
    first.faults.add("disconnect@data,lba=200")
    bus = attach(first)
    after_leaving(first, lambda: [bus.plug(stick(bytearray(DATA), "TWIN"), (port,)) for port in (4, 5)])
    assert cli("rescue", "1-1", *files, "--wait", 0.05).status == 35


def test_a_virtual_stick_at_whose_block_it_always_leaves(cli: Cli, files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "stick").write_bytes(DATA)
    result = cli("rescue", f"virtual:{tmp_path / 'stick'}?fault=disconnect@data,lba=77", *files, "--json")
    assert result.status == 3
    assert [area for area in result.json["map"] if area["status"] == "-"] == [
        {"pos": 77 * 512, "size": 512, "status": "-"}
    ]


def test_without_a_wait_the_end_is_an_error(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    first = stick(bytearray(DATA))
    first.faults.add("disconnect@data,lba=200")
    attach(first)
    assert cli("rescue", "1-1", *files, "--wait", 0).failed(35, "copying: ", "go on with")


@pytest.mark.parametrize("value", ["-1", "soon", "inf", "nan"])
def test_an_impossible_wait(value: str, attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    failing(attach)
    assert cli("rescue", "1-1", *files, "--wait", value).failed(1, "wait")


def test_the_device_itself_is_no_image(cli: Cli, files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "stick").write_bytes(DATA)
    for names in ((tmp_path / "stick", files[1]), (files[0], tmp_path / "stick")):
        assert cli("rescue", f"virtual:{tmp_path / 'stick'}", *names).failed(1, "is the device itself")
    assert (tmp_path / "stick").read_bytes() == DATA


def test_what_the_python_interface_began_goes_on(attach: Attached, cli: Cli, files: tuple[Path, Path]) -> None:
    bus = attach(stick(bytearray(DATA)))
    with scsiusb.open_on(bus) as disk:
        scsiusb.imaging.rescue(disk, *files, blocks=100)
    assert cli("rescue", "1-1", *files, "--json").json["resumed"] == 51200
