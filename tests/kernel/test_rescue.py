"""Rescue beside GNU ddrescue: on the same failing stick, ours through libusb, ddrescue's on the kernel's node."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import scsiusb
from scsiusb.imaging import Progress, Rescue, rescue
from scsiusb.imaging.mapfile import RESCUED, load
from scsiusb.virtual import Identity, Stick
from tests.imaging.failing import FailingUnit

from .command import scsiusb as cli
from .served import Served, serving

assert sys.platform == "linux"

pytestmark = pytest.mark.native("under emulation they take minutes")

BLOCKS = 8192
SIZE = BLOCKS * 512
DATA = random.Random(20261126).randbytes(SIZE)
BAD = {*range(1000, 1010), 2500, *range(4000, 4100, 9), 6001}
SLOW = range(5000, 5128)
SILENT = range(7000, 7002)
KERNELS_TIMEOUT = 2  # seconds; by default 30, of which the kernel waits several before it gives up one read
_serials = itertools.count(0x5C51_0BAD_0000)
DDRESCUE_MAY_TAKE = 40.0  # seconds, where the device stops answering


@pytest.fixture(scope="module", autouse=True)
def _ddrescue() -> None:
    assert shutil.which("ddrescue"), "the lab installs gddrescue"


@pytest.fixture
def failing() -> Iterator[Served]:
    """A stick with bad blocks and a slow region, which the kernel drives already."""
    unit = FailingUnit(bytearray(DATA), BAD)
    with Stick([unit], Identity(serial=f"{next(_serials):012X}")) as stick, serving(stick) as device:
        stick.faults.add(f"delay=0.2@data,opcode=28,lba={SLOW[0]}-{SLOW[-1]},times=always")
        timeout = Path("/sys/block") / device.node.name / "device" / "timeout"
        timeout.write_text(str(KERNELS_TIMEOUT))
        yield device


def ddrescue(device: Served, image: Path, map_path: Path, *words: str, limit: float = 300.0) -> float | None:
    """Run ddrescue on the kernel's node, without its cache; return the seconds, None if it was ended at the limit."""
    command = ["ddrescue", "-q", "-d", *words, str(device.node), str(image), str(map_path)]
    began = time.monotonic()
    process = subprocess.Popen(command)
    try:
        assert process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it saves its map when the kernel has finished the read
        device.stick.faults.clear()
        process.wait(limit + 120.0)
        return None
    return time.monotonic() - began


def ours(device: Served, image: Path, map_path: Path, **options: float) -> Rescue:
    device.wait()
    with scsiusb.open(device.address) as disk:
        return rescue(disk, image, map_path, **options)  # type: ignore[arg-type]


def check(image: Path, map_path: Path, bad: set[int]) -> None:
    """Compare the image and the map, as each of the two programs reads it, with what the stick has."""
    wanted = bytearray(DATA)
    for lba in bad:
        wanted[lba * 512 : lba * 512 + 512] = bytes(512)
    assert image.read_bytes() == wanted
    listed = subprocess.run(["ddrescuelog", "-l", "-", map_path], check=True, capture_output=True, text=True).stdout
    assert {int(word) for word in listed.split()} == bad
    areas = list(load(map_path, SIZE, 512).areas())
    assert {area.status for area in areas} == {"+", "-"}
    assert sum(area.size for area in areas if area.status == RESCUED) == SIZE - 512 * len(bad)


def test_both_rescue_the_same(failing: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = ddrescue(failing, tmp_path / "their.img", tmp_path / "their.map")
    check(tmp_path / "their.img", tmp_path / "their.map", BAD)
    result = ours(failing, tmp_path / "our.img", tmp_path / "our.map")
    check(tmp_path / "our.img", tmp_path / "our.map", BAD)
    assert (result.rescued, result.bad) == (SIZE - 512 * len(BAD), 512 * len(BAD))
    with capsys.disabled():
        sys.stdout.write(f"\nbad and slow: ddrescue {theirs:.1f} s, scsiusb rescue {result.seconds:.1f} s\n")


def test_ours_goes_on_with_what_ddrescue_began(failing: Served, tmp_path: Path) -> None:
    ddrescue(failing, tmp_path / "a.img", tmp_path / "a.map", "--no-trim", "--no-scrape", f"--size={SIZE * 3 // 4}")
    result = ours(failing, tmp_path / "a.img", tmp_path / "a.map")
    check(tmp_path / "a.img", tmp_path / "a.map", BAD)
    assert result.resumed > SIZE // 4


def test_ddrescue_goes_on_with_what_ours_began(failing: Served, tmp_path: Path) -> None:
    class Stop(Exception):
        """Ends the rescue."""

    def stop(progress: Progress) -> None:
        if progress.done > SIZE // 2:
            raise Stop

    with scsiusb.open(failing.address) as disk, pytest.raises(Stop):
        rescue(disk, tmp_path / "a.img", tmp_path / "a.map", progress=stop)
    failing.wait()
    ddrescue(failing, tmp_path / "a.img", tmp_path / "a.map")
    check(tmp_path / "a.img", tmp_path / "a.map", BAD)


def test_where_the_device_stops_answering_ours_goes_on(
    failing: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The device is silent in a region until it is reset. What ddrescue does there is printed, and not judged."""
    failing.stick.faults.add(f"nak@data,opcode=28,lba={SILENT[0]}-{SILENT[-1]},times=always")
    result = ours(failing, tmp_path / "our.img", tmp_path / "our.map", timeout=1.0)
    bad = BAD | set(SILENT)
    check(tmp_path / "our.img", tmp_path / "our.map", bad)
    failing.wait()
    theirs = ddrescue(failing, tmp_path / "their.img", tmp_path / "their.map", limit=DDRESCUE_MAY_TAKE)
    failing.stick.faults.clear()
    rescued = load(tmp_path / "their.map", SIZE, 512).total(RESCUED) if (tmp_path / "their.map").exists() else 0
    ended = f"not ended after {DDRESCUE_MAY_TAKE:.0f} s" if theirs is None else f"{theirs:.1f} s"
    text = f"ddrescue {ended}, {rescued} of {SIZE} bytes in its map"
    with capsys.disabled():
        sys.stdout.write(f"\nsilent until it is reset: {text}; scsiusb rescue {result.seconds:.1f} s\n")


def test_a_stick_that_leaves_and_comes_back(failing: Served, tmp_path: Path) -> None:
    has_left = False

    def leave(progress: Progress) -> None:
        nonlocal has_left
        if progress.done > SIZE // 3 and not has_left:
            has_left = True
            failing.detach()

    def reopen() -> scsiusb.Disk:
        if failing.port < 0 or not failing.server.is_attached:
            failing.attach()
        failing.wait()
        return scsiusb.open(f"serial={failing.serial}")

    with scsiusb.open(failing.address) as disk:
        result = rescue(disk, tmp_path / "a.img", tmp_path / "a.map", reopen=reopen, progress=leave)
    check(tmp_path / "a.img", tmp_path / "a.map", BAD)
    assert result.returns == 1


def test_the_command(failing: Served, tmp_path: Path) -> None:
    ended = cli("rescue", f"serial={failing.serial}", tmp_path / "a.img", tmp_path / "a.map")
    assert ended.status == 3, ended.err
    check(tmp_path / "a.img", tmp_path / "a.map", BAD)
    assert "LBA 1000 to 1009\nLBA 2500\n" in ended.text
