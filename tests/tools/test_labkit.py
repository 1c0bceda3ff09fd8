"""The pure parts of tools/lab: options, zoos, the kernel's command line and its options, and what ends a guest."""

from __future__ import annotations

import io
import json
import signal
import sys
from argparse import Namespace
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

if sys.platform != "linux":
    pytest.skip("the lab runs on Linux", allow_module_level=True)

from campaigns import natively  # noqa: E402
from campaigns.natively import command  # noqa: E402
from labkit import native, uml, zoo  # noqa: E402
from labkit.guest import is_over  # noqa: E402
from labkit.host import LabError  # noqa: E402
from labkit.main import parse  # noqa: E402
from labkit.marks import BEGIN, END, Gate, Log  # noqa: E402


@pytest.mark.parametrize(
    ("words", "is_native", "silence", "rest"),
    [
        ([], False, 900, []),
        (["--native"], True, 900, []),
        (["--native", "run", "--", "ls", "--native"], True, 900, ["run", "--", "ls", "--native"]),
        (["--silence", "7", "--native", "-k", "warden"], True, 7, ["-k", "warden"]),
        (["--silence=7", "tests/kernel/test_udev.py"], False, 7, ["tests/kernel/test_udev.py"]),
        (["-x", "--native"], False, 900, ["-x", "--native"]),
    ],
)
def test_the_labs_options_come_first_and_the_rest_is_for_what_it_runs(
    words: list[str], is_native: bool, silence: float, rest: list[str]
) -> None:
    options, left = parse(words)
    assert (options.native, options.silence, left) == (is_native, silence, rest)


def test_a_native_zoo_is_the_tests_zoo_of_gadgets_without_what_speaks_uas(tmp_path: Path) -> None:
    devices = zoo.NATIVE_ZOOS["tests"]
    assert {device.name for device in zoo.ZOO} - {device.name for device in devices} == {"uas", "uas-high"}
    assert {device.kind for device in devices} == {"gadget"}
    assert [device.serial for device in devices] == [each.serial for each in zoo.ZOO if each.driver != "uas"]
    zoo.describe(tmp_path, devices)
    rows = json.loads((tmp_path / "zoo.json").read_text())
    assert [row["udc"] for row in rows] == [f"dummy_udc.{number}" for number in range(len(devices))]
    assert all(row["qemu"] == [] for row in rows)
    lines = (tmp_path / "gadgets").read_text().splitlines()
    assert "gadget_lun stick-4k 0 stick-4k-0.img 0 0 0 4096" in lines
    assert "gadget_lun multi 2 - 1 0 1 2048" in lines
    assert [line for line in lines if line.startswith("gadget_plug")] == [
        f"gadget_plug {row['name']} {row['udc']}" for row in rows
    ]


def test_in_qemus_zoo_the_gadgets_alone_have_a_controller_of_the_guests(tmp_path: Path) -> None:
    zoo.describe(tmp_path, zoo.ZOO)
    found = {row["name"]: row["udc"] for row in json.loads((tmp_path / "zoo.json").read_text()) if row["udc"]}
    assert found == {"gadget-high": "dummy_udc.0", "gadget-super": "dummy_udc.1"}


def test_the_native_bench_zoo_has_a_gadget_for_each_way_and_many_of_one_kind() -> None:
    devices = zoo.NATIVE_ZOOS["bench"]
    assert {device.kind for device in devices} == {zoo.GADGET}
    expected = [*(f"gadget-{way}" for way in zoo.WAYS), *(f"many-{number}" for number in range(16))]
    assert [device.name for device in devices] == expected
    assert len(devices) <= 32, "dummy_hcd makes no more (MAX_NUM_UDC)"


def test_the_native_zoo_with_the_kernels_target_makes_a_disk_of_it(tmp_path: Path) -> None:
    zoo.describe(tmp_path, zoo.NATIVE_ZOOS["target"])
    assert (tmp_path / "gadgets").read_text().splitlines() == [
        "gadget target super-speed LABTARGET01 tcm.0",
        f"target_lun target target-0.img {65536 * 512}",
        "gadget_plug target dummy_udc.0",
    ]


def test_files_are_filled_where_the_description_says(tmp_path: Path) -> None:
    devices = [zoo.Device("small", "gadget", (zoo.Unit(blocks=300), zoo.Unit(), zoo.Unit(blocks=9, block_size=2048)))]
    zoo.fill(tmp_path, devices)
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: len(content) for name, content in contents.items()} == {"small-0.img": 153600, "small-2.img": 18432}
    assert all(content.count(0) < len(content) / 100 for content in contents.values())


def test_an_option_that_the_kernel_dropped_is_named() -> None:
    config = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_D is not set\n"
    fragment = '# comment\nCONFIG_A=y\nCONFIG_B=n\n# CONFIG_D is not set\nCONFIG_C="x"\nCONFIG_D=y\n'
    assert list(uml.missing_options(fragment, config)) == ['CONFIG_C="x"', "CONFIG_D=y"]


def test_another_fragment_is_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = uml.recipe()
    other = tmp_path / "fragment"
    other.write_bytes(uml.FRAGMENT.read_bytes())
    monkeypatch.setattr(uml, "FRAGMENT", other)
    assert uml.recipe() == before
    other.write_bytes(other.read_bytes() + b"CONFIG_X=y\n")
    assert uml.recipe() != before
    assert uml.SOURCE in before


def test_the_kernel_speaks_on_a_pipe_or_on_the_terminal() -> None:
    words = native.kernel_words(Path("/w"), 4, 9)
    assert {"SHARE=/w/share", "dummy_hcd.num=4", "con0=null,fd:9", "con1=null,fd:1", "con2=null,fd:2"} <= set(words)
    shell = native.kernel_words(Path("/w"), 4, None)
    assert "con0=fd:0,fd:1" in shell
    assert not [word for word in shell if word.startswith(("con1", "con2"))]


def test_memory_goes_where_there_is_room(tmp_path: Path) -> None:
    places = [str(tmp_path / "missing"), str(tmp_path)]
    assert native.memory_folder(places, 1) == tmp_path
    with pytest.raises(LabError, match="TMPDIR"):
        native.memory_folder(places, 1 << 62)


def test_a_guest_is_over_when_its_command_said_the_end_or_all_streams_are_closed() -> None:
    log, out = io.BytesIO(), io.BytesIO()
    gates = [Gate(out, log), Gate(out, log)]
    console = Log(log)
    assert not is_over([*gates, console])
    gates[0].feed(b"boot" + BEGIN + b"said" + END)
    assert not is_over([*gates, console])
    assert is_over([gates[0], console])
    assert not is_over([console]), "the kernel's last words may be on their way"
    assert is_over([])
    console.feed(b"panic")
    assert (out.getvalue(), log.getvalue()) == (b"said", b"bootpanic")


def test_a_campaign_goes_to_the_native_lab_as_it_was_ordered_but_for_its_output() -> None:
    words = command(["crash", "--native", "--output", "file", "--kills", "7", "--output=other"])
    assert words[2] == "--native"
    assert words[words.index("run") :][-4:] == ["crash", "--native", "--kills", "7"]


def guest(kills: int, status: int, *, is_ok: bool = True) -> list[str]:
    """Return a command that does as the lab does with so many kills."""
    line = json.dumps({"kill": 1, "ok": is_ok})
    return [sys.executable, "-c", f"import sys\nfor _ in range({kills}): print({line!r})\nsys.exit({status})"]


@pytest.mark.parametrize(
    ("guests", "status", "lefts"),
    [
        ([guest(5, 0)], 0, ["5"]),
        ([guest(2, 125), guest(3, 0)], 0, ["5", "3"]),
        ([guest(2, 125, is_ok=False), guest(1, 125), guest(2, 0)], 1, ["5", "3", "2"]),
        ([guest(2, 125), guest(0, 125)], 125, ["5", "3"]),
        ([guest(5, 1)], 1, ["5"]),
    ],
)
def test_a_campaign_goes_on_in_another_guest_where_one_has_died(
    guests: list[list[str]], status: int, lefts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered: list[tuple[str, str]] = []

    def lab(words: list[str], zoo: str) -> list[str]:
        ordered.append((words[words.index("--kills") + 1], words[words.index("--seed") + 1]))
        return guests[len(ordered) - 1]

    monkeypatch.setattr(natively, "command", lab)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    options = Namespace(campaign="crash", kills=5, seed=7, zoo="tests", output=tmp_path / "out")
    words = ["crash", "--kills", "5", "--seed", "7", "--native"]
    assert natively.in_native_lab(options, words) == status
    assert ordered == [(left, str(7 + number)) for number, left in enumerate(lefts)]
    assert len((tmp_path / "out").read_text().splitlines()) == (5 if guests[-1] != guest(0, 125) else 2)
