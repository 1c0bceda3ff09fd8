"""Names of virtual sticks: a file, and options after a question mark."""

from __future__ import annotations

from pathlib import Path

import pytest

import scsiusb
from scsiusb.virtual.address import open_stick, parse, split


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "stick.img"
    path.write_bytes(bytes(8192))
    return path


def test_each_option_has_its_effect(image: Path) -> None:
    options = "block-size=4096&luns=3&vid=1234&pid=0xABCD&serial=A%26B&speed=super&removable=no&read-only=yes"
    with open_stick(f"virtual:{image}?{options}") as stick:
        assert (stick.identity.vid, stick.identity.pid) == (0x1234, 0xABCD)
        assert (stick.identity.serial, stick.identity.speed) == ("A&B", "super")
        assert [unit.removable for unit in stick.units] == [False] * 3
        first, *others = [unit.medium for unit in stick.units]
        assert first is not None
        assert (first.blocks, first.block_size, first.read_only) == (2, 4096, True)
        assert [other is not None and other.block_size for other in others] == [4096, 4096]


def test_open_takes_options_also_without_a_file() -> None:
    with scsiusb.open("virtual:?luns=2&block-size=2048", lun=1) as disk:
        assert (disk.block_size, disk.unit.transport.max_lun) == (2048, 1)
    with scsiusb.open("virtual:?") as disk:
        assert disk.block_size == 512


def test_faults_may_be_repeated_and_keep_their_syntax() -> None:
    address = parse("virtual:?fault=capacity=+8&fault=sense=3/11/00,opcode=28,times=always")
    assert [str(fault) for fault in address.faults] == ["capacity=+8", "sense=3/11/00,opcode=28,times=always"]
    name = "virtual:?fault=sense=3/11/00,opcode=28,times=always"
    with scsiusb.open(name) as disk, pytest.raises(scsiusb.MediumError):
        disk.read(0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("lun=2", "unknown option 'lun'; did you mean luns?"),
        ("xyzzy", "unknown option 'xyzzy'; use fault, block-size, luns"),
        ("luns=0", "luns: 0 logical units are not possible; write 1 to 16"),
        ("luns=17", "luns: 17 logical units"),
        ("luns", "luns: '' is not a whole number"),
        ("block-size=-1", "block-size: '-1' is not a whole number"),
        ("block-size=700", "FAT has no block size of 700 bytes"),
        ("fault=stal", "fault: unknown fault 'stal'; did you mean stall?"),
        ("vid=12345", "vid: '12345' is not a number of four hex digits"),
        ("read-only=maybe", "read-only: 'maybe' is neither yes nor no"),
        ("speed=warp", "speed 'warp' is not supported"),
        ("luns=1&luns=2", "the option 'luns' is given twice"),
    ],
)
def test_a_wrong_option_is_named(options: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        scsiusb.open(f"virtual:?{options}")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"virtual:?{options}: ")


def test_a_file_whose_name_has_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "what?luns=2"
    path.write_bytes(bytes(512))
    assert split(f"virtual:{path}") == (str(path), "")
    assert split(f"{path}?luns=3") == (str(path), "luns=3")
