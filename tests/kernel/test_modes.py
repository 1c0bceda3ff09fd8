"""Mode and log pages as sdparm and sg_logs read them, on the kernel's devices and on the virtual stick."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb.scsi.modes import change_page, read_pages
from scsiusb.virtual import Memory, Stick, Unit

from . import oracles
from .command import scsiusb as cli
from .machine import Device
from .served import serving

ROW = re.compile(r"^\s+([A-Z][A-Z0-9_]*)\s+(-?\d+)\s+\[cha: ([yn])", re.MULTILINE)
ONES = (0xFFFF, 0xFFFFFFFF)  # which sdparm shows as -1
PAGES = {0x08: "ca", 0x0A: "co", 0x01: "rw"}


def sdparm(node: Path, *words: str) -> str:
    done = subprocess.run(["sdparm", *words, str(node)], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


def theirs(node: Path, page: str) -> dict[str, tuple[int, bool]]:
    """Return sdparm's fields of a page: the current value, and whether it can be changed."""
    rows = ROW.findall(sdparm(node, "--long", f"--page={page}", "--quiet"))
    return {name: (int(value), can_change == "y") for name, value, can_change in rows}


def agree(address: str, lun: int, node: Path, wait: Any) -> int:
    """Compare every field that both name; return how many."""
    wanted = {code: theirs(node, page) for code, page in PAGES.items()}
    with scsiusb.open(address, lun=lun) as disk:
        found = read_pages(disk.unit)
    wait()
    count = 0
    for page in found:
        for name, values in page.fields.items():
            if name in wanted.get(page.code, {}):
                value, can_change = wanted[page.code][name]
                assert values.changeable == can_change, f"{page.name}: {name}"
                assert values.current == value or (value == -1 and values.current in ONES), f"{page.name}: {name}"
                count += 1
    return count


@pytest.mark.parametrize("name", ["stick", "gadget-high"])
def test_mode_pages_agree_with_sdparm(zoo: dict[str, Device], name: str) -> None:
    device = zoo[name].wait()
    for unit in device.units:
        assert agree(device.address, unit.lun, unit.sg, device.wait) > 0


def test_the_virtual_sticks_pages_agree_and_changes_are_seen() -> None:
    with serving(Stick([Unit(Memory(1 << 20))])) as there:
        assert agree(there.address, 0, there.sg, there.wait) > 30
        cli("modes", there.address, "--set", "WCE=0", "--save", "--yes").ok()
        there.wait()
        assert theirs(there.sg, "ca")["WCE"] == (0, True)
        sdparm(there.sg, "--set=WCE=1", "--save")
        assert cli("modes", there.address, "--json").json()["caching"]["WCE"]["current"] == 1
        there.wait()
        text = oracles.tool("sg_logs", "--page=0xd", there.sg).decode()
        (current, _) = cli("logs", there.address, "--page", "d", "--json").json()["parameters"]
        assert f"Current temperature = {current['celsius']} C" in text
        there.wait()


@pytest.mark.qemu("the kernel's gadget has no caching page that can be changed")
def test_qemus_write_cache_is_switched_off_and_on_again(stick: Device) -> None:
    unit = stick.units[0]
    with scsiusb.open(stick.address) as disk:
        before = read_pages(disk.unit)
        change_page(disk.unit, 0x08, 0, {"WCE": 0})
        after = read_pages(disk.unit)
        (off,) = [page for page in after if page.code == 0x08]
        assert off.fields["WCE"].current == 0
        assert [page for page in after if page.code != 0x08] == [page for page in before if page.code != 0x08]
    stick.wait()
    assert theirs(unit.sg, "ca")["WCE"][0] == 0
    with scsiusb.open(stick.address) as disk:
        change_page(disk.unit, 0x08, 0, {"WCE": 1})
        assert read_pages(disk.unit) == before
        with pytest.raises(ValueError, match="does not let RCD"):
            change_page(disk.unit, 0x08, 0, {"RCD": 1})
    stick.wait()
    assert theirs(unit.sg, "ca")["WCE"][0] == 1


def test_the_virtual_sticks_reports_agree_with_sg3_utils() -> None:
    with serving(Stick([Unit(Memory(1 << 20))])) as there:
        text = oracles.tool("sg_opcodes", "--no-inquiry", there.sg).decode()
        wanted = {int(code, 16) for code in re.findall(r"^ ([0-9a-f]{2})\s", text, re.MULTILINE)}
        status = oracles.tool("sg_get_lba_status", "--lba=5", "--brief", there.sg).decode().split()[-4:-1]
        rows = cli("opcodes", there.address, "--json").json()["commands"]
        assert {row["opcode"] for row in rows} == wanted
        there.wait()
        (row,) = cli("lba-status", there.address, "--lba", "5", "--json").json()["ranges"]
        assert [row["lba"], row["blocks"], row["status"]] == [int(status[0], 16), int(status[1], 16), int(status[2])]
        there.wait()


def test_the_virtual_drives_features_agree_with_sg_get_config() -> None:
    with serving(Stick([Unit.cd_rom(Memory(2048 * 1000, 2048))])) as there:
        text = oracles.tool("sg_get_config", there.sg).decode()
        found = cli("features", there.address, "--json").json()
        there.wait()
        codes = [int(code, 16) for code in re.findall(r"current=\d \[0x([0-9a-f]+)\]", text)]
        assert [row["code"] for row in found["features"]] == codes, text
