"""restore and clone with --replug: who is to be unplugged is said, and another device is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scsiusb.cli.commands import imaging
from scsiusb.cli.replug import Asking
from scsiusb.imaging import Progress, TargetsProgress, replugging
from scsiusb.virtual import Stick
from tests.cli.conftest import Attached, Cli
from tests.imaging.sticks import contents, stick

SIZE = 64 * 1024
IMAGE = bytes(contents(size=SIZE))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(IMAGE)
    return path


def blank() -> bytearray:
    return bytearray(SIZE)


def person(monkeypatch: pytest.MonkeyPatch, attached: Attached, plugs: dict[Stick, Stick | None]) -> None:
    """Have sticks unplugged when that is asked for, and what `plugs` has for them plugged in in their place."""
    order = list(plugs)
    monkeypatch.setattr(replugging, "POLL", 0.001)

    class Obeying(Asking):
        def __call__(self, progress: Progress) -> None:
            super().__call__(progress)
            if not isinstance(progress, TargetsProgress) or progress.phase != "re-plug":
                return
            for each, target in zip(order, progress.targets, strict=True):
                if target.phase == "unplug":
                    attached.bus.unplug(each)
                elif target.phase == "plug in" and (new := plugs.pop(each, None)) is not None:
                    attached.bus.plug(new)

    monkeypatch.setattr(imaging, "Asking", Obeying)


def test_it_says_whom_to_unplug(attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = blank()
    one = stick(data, "S1")
    attach(one)
    person(monkeypatch, attach, {one: one})
    result = cli("restore", image, "1-1", "--yes", "--replug", "--wait", "30")
    assert result.status == 0, result.err
    assert result.err.splitlines()[:3] == [
        "unplug 1-1, serial S1, and plug it in again, within 30 seconds",
        "1-1, serial S1 is unplugged; plug it in again",
        "1-1, serial S1 is back",
    ]
    assert "read back from the medium" in result.err
    assert bytes(data) == IMAGE


def test_scripts_get_an_object_a_line(attach: Attached, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stick(blank(), "COPY")
    attach(stick(bytearray(IMAGE), "MASTER"), one)
    person(monkeypatch, attach, {one: one})
    result = cli("clone", "serial=MASTER", "serial=COPY", "--yes", "--replug", "--json")
    assert result.json[0]["verified"] == "medium"
    said = [json.loads(line) for line in result.err.splitlines()]
    assert [each["event"] for each in said] == ["unplug", "plug in", "waiting"]
    assert said[0] == {"event": "unplug", "address": "1-2", "serial": "COPY", "seconds": 60.0}


def test_another_device_at_its_place_is_refused_at_once(
    attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = blank()
    one = stick(blank(), "S1")
    attach(one)
    person(monkeypatch, attach, {one: stick(other, "S2")})
    result = cli("restore", image, "1-1", "--yes", "--replug", "--json")
    assert result.status == 15
    assert result.json[0]["error"].startswith("another device, with serial number S2, was plugged in at 1-1; plug in ")
    assert not any(other)


def test_a_device_that_was_there_is_not_taken_for_another(
    attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sticks that are put into each other's ports."""
    one, two = stick(blank(), "S1"), stick(blank(), "S2")
    attach(one, two)
    person(monkeypatch, attach, {one: two, two: one})
    result = cli("restore", image, "1-1", "1-2", "--yes", "--replug", "--json")
    assert [(each["serial"], each["verified"]) for each in result.json] == [("S1", "medium"), ("S2", "medium")]


def test_one_that_does_not_come_back_can_go_on(
    attach: Attached, cli: Cli, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stick(blank(), "S1")
    attach(one)
    with monkeypatch.context() as patch:
        person(patch, attach, {one: None})
        result = cli("restore", image, "serial=S1", "--yes", "--replug", "--wait", "0.2")
    assert result.status == 15 or result.status == 35
    assert "was not plugged in again within 0.2 seconds" in result.err.splitlines()[-1]
    assert f"go on with `scsiusb restore {image} serial=S1 --replug --wait 0.2 --resume`" in result.err
    attach(one)
    person(monkeypatch, attach, {one: one})
    result = cli("restore", image, "serial=S1", "--yes", "--replug", "--resume", "--json")
    assert (result.json[0]["verified"], result.json[0]["resumed"]) == ("medium", SIZE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--replug", "--verify", "read"), "--replug with --verify read"),
        (("--replug", "--wait", "-1"), "is not a time in seconds"),
        (("--replug", "--wait", "nan"), "is not a time in seconds"),
    ],
)
def test_what_cannot_be(words: tuple[str, ...], said: str, attach: Attached, cli: Cli, image: Path) -> None:
    data = blank()
    attach(stick(data))
    assert cli("restore", image, "1-1", "--yes", *words).failed(1, said)
    assert not any(data)


def test_a_virtual_stick_has_no_plug(cli: Cli, image: Path) -> None:
    assert cli("restore", image, "virtual:", "--yes", "--replug").failed(1, "virtual: has no plug")
