"""bench: measurements, output, plot, confirmation and exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli import ask, plot
from scsiusb.disk.disk import Disk
from scsiusb.virtual import Identity, Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.sticks import stick

QUICK = ["--seconds", "5", "--calls", "2"]
RANGE = ["--write", "--lba", "128", "--blocks", "1024"]
SIZES = ["4096", "16384", "65536", "262144", "1048576", "4194304"]
MEASURED = {
    "bytes",
    "calls",
    "commands",
    "seconds",
    "mb_per_s",
    "commands_per_s",
    "latency_us",
    "cpu_us_per_command",
    "device_memory",
}


def memory(plugged: Stick) -> Memory:
    medium = plugged.units[0].medium
    assert isinstance(medium, Memory)
    return medium


def consistent(size: str, numbers: dict[str, Any]) -> bool:
    assert numbers["bytes"] == numbers["calls"] * int(size)
    assert numbers["mb_per_s"] * numbers["seconds"] * 1e6 == pytest.approx(numbers["bytes"], rel=1e-3)
    assert numbers["commands_per_s"] * numbers["seconds"] == pytest.approx(numbers["commands"], rel=1e-3)
    latency = numbers["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"] <= numbers["seconds"] * 1e6
    assert numbers["cpu_us_per_command"] >= 0
    return True


def test_the_table_has_a_row_for_each_pattern_and_size(cli: Cli) -> None:
    ended = cli("bench", "virtual:", *QUICK)
    assert (ended.status, ended.err) == (0, "")
    name, depends, _, columns, *rows, _, note = ended.text.splitlines()
    assert name == "scsiusb Virtual Stick at 1-1"
    assert depends == "8 MiB, high speed, commands of at most 120 KiB, ordinary memory, LBA 0 to 16382"
    assert columns.split() == ["test", "size", "MB/s", "cmd/s", "p50", "µs", "p99", "µs", "max", "µs", "CPU", "µs"]
    sizes = ["4 KiB", "16 KiB", "64 KiB", "256 KiB", "1 MiB", "4 MiB"]
    wanted = [[*f"read {pattern} {size}".split()] for pattern in ("seq", "rand") for size in sizes]
    assert [row.split()[:4] for row in rows] == wanted
    assert all(len(row.split()) == 10 for row in rows)
    assert len({len(row) for row in (columns, *rows)}) == 1
    assert note == "commands per call: 256 KiB 3, 1 MiB 9, 4 MiB 35; p50, p99 and max are per call"


@pytest.mark.slow
def test_on_a_terminal_it_is_a_table_of_80_columns(screen: Cli) -> None:
    ended = screen("bench", "virtual:", *QUICK, "--write", "--lba", "0", "--blocks", "16384", "--yes")
    assert ended.status == 0
    assert max(map(len, ended.text.splitlines())) <= 80
    assert len([row for row in ended.text.splitlines() if row.startswith(("read ", "write "))]) == 24
    assert ended.text.endswith("\nMB/s of writes include one flush at the end of each measurement\n")


def test_on_a_terminal_it_shows_the_current_measurement_and_the_time_left(
    screen: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    words = ["--write", "--lba", "0", "--blocks", "256", "--yes"]
    ended = screen("bench", "virtual:", *QUICK, "--sizes", "4K,64K", *words)
    assert "read sequential 4 KiB " in ended.err
    assert "write random 64 KiB " in ended.err
    assert "7/8 about 6 s left" in ended.err
    assert "about" not in screen("bench", "virtual:", "--seconds", "0.01", "--sizes", "4K,64K", *words).err


def test_json_has_the_device_the_circumstances_and_every_figure(cli: Cli, attach: Attached) -> None:
    attach(stick(blocks=16384, product="A Disk"))
    found = cli("bench", "1-1", *QUICK, "--seed", "7", "--json").json
    assert found["device"] == {
        "address": "1-1",
        "vid": "1209",
        "pid": "0001",
        "serial": "0123456789AB",
        "manufacturer": "scsiusb",
        "product": "Virtual Stick",
        "speed": "high",
        "lun": 0,
        "unit": {"vendor": "scsiusb", "product": "A Disk", "revision": "1.00"},
        "blocks": 16384,
        "block_size": 512,
        "bytes": 8 << 20,
        "command_bytes": 120 << 10,
    }
    assert (found["range"], found["seconds"], found["calls"], found["seed"]) == ({"lba": 0, "blocks": 16383}, 5, 2, 7)
    assert found["date"][:2] == "20"
    assert set(found["host"]) == {"scsiusb", "python", "platform"}
    assert (found["write"], found["left_out"]) == (None, [])
    assert list(found["read"]) == ["sequential", "random"]
    for by_size in found["read"].values():
        assert list(by_size) == SIZES
        for size, numbers in by_size.items():
            assert set(numbers) == MEASURED
            assert (numbers["calls"], numbers["device_memory"]) == (2, False)
            assert numbers["commands"] == 2 * -(-int(size) // (120 << 10))
            assert consistent(size, numbers)


def test_sizes_and_the_pattern_can_be_chosen(cli: Cli) -> None:
    found = cli("bench", "virtual:", *QUICK, "--sizes", "1MiB, 8k,512,512", "--pattern", "random", "--json").json
    assert {pattern: list(by_size) for pattern, by_size in found["read"].items()} == {
        "random": ["512", "8192", "1048576"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("speed", ["high", "super"])
def test_reads_in_flight_are_measured_by_size_and_depth(cli: Cli, speed: str) -> None:
    device = f"virtual:?protocol=uas&speed={speed}"
    words = ["--sizes", "4K,64K", "--depth", "1,8,200", "--seconds", "0.05"]
    ended = cli("bench", device, *words, "--json")
    assert "depth 200 left out" in ended.err
    found = ended.json
    assert found["depths"] == [1, 8]
    for pattern in ("sequential", "random"):
        assert list(found["read"][pattern]) == ["4096", "65536"]
        for size, by_depth in found["read"][pattern].items():
            assert list(by_depth) == ["1", "8"]
            assert all(consistent(size, numbers) for numbers in by_depth.values())
    text = cli("bench", device, "--sizes", "4K", "--depth", "8", "--calls", "32", "--pattern", "random")
    assert "read rand at depth 8" in text.text


def test_depth_is_for_reads_by_uas(cli: Cli) -> None:
    assert cli("bench", "virtual:", "--depth", "8").failed(1, "by BOT the device takes 1 at once")
    for wrong in ("0", "x", "-1", "1,,2"):
        assert cli("bench", "virtual:", "--depth", wrong).status == 1
    assert cli("bench", "virtual:", "--depth", "2", *RANGE, "--yes").status == 1


def test_nothing_is_written_unless_asked_for(cli: Cli, attach: Attached) -> None:
    plugged = stick(blocks=16384)
    attach(plugged)
    assert cli("bench", "1-1", *QUICK, "--lba", "100", "--blocks", "2000").status == 0
    assert memory(plugged).writes == 0


def test_writes_stay_in_their_range_and_reads_too(cli: Cli, attach: Attached) -> None:
    plugged = stick(blocks=2048)
    attach(plugged)
    before = bytes(memory(plugged).data)
    found = cli("bench", "1-1", "--seconds", "5", "--calls", "200", "--sizes", "4K,64K", *RANGE, "--yes", "--json").json
    after = bytes(memory(plugged).data)
    start, end = 128 * 512, (128 + 1024) * 512
    assert (after[:start], after[end:]) == (before[:start], before[end:])
    assert all(after[at : at + 512] != before[at : at + 512] for at in range(start, end, 512))
    assert found["range"] == {"lba": 128, "blocks": 1024}
    assert list(found["write"]) == ["sequential", "random"]
    for by_size in found["write"].values():
        for size, numbers in by_size.items():
            assert set(numbers) == {*MEASURED, "flush_seconds"}
            assert 0 < numbers["flush_seconds"] < numbers["seconds"]
            assert consistent(size, numbers)


def test_it_asks_before_it_writes(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged = stick(blocks=2048)
    attach(plugged)
    words = ["bench", "1-1", *QUICK, "--sizes", "4K", *RANGE]
    assert cli(*words).failed(1, "not a terminal", "the writes", "--yes")
    monkeypatch.setattr(ask, "is_interactive", lambda: True)
    answers = tmp_path / "answers"
    answers.write_text("n\ny\n")
    with answers.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        ended = cli(*words)
        question, error, _ = ended.err.replace("[y/N] ", "[y/N] \n").split("\n")
        assert question == (
            "Overwrite LBA 128 to 1151 (1024 blocks, 512 KiB) of scsiusb Virtual Stick (1 MiB), 1-1, "
            "with random bytes? [y/N] "
        )
        assert "nothing was written" in error
        assert (ended.status, ended.out, memory(plugged).writes) == (1, b"", 0)
        assert cli(*words).status == 0
    assert memory(plugged).writes > 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--write"], 1, "--write needs --lba and --blocks"),
        (["--write", "--lba", "0", "--yes"], 1, "--write needs --lba and --blocks"),
        (["--write", "--blocks", "8", "--yes"], 1, "--write needs --lba and --blocks"),
        (["--blocks", "0"], 1, "--blocks 0"),
        (["--calls", "0"], 1, "--calls 0"),
        (["--seconds", "0"], 1, "'0' is not a time"),
        (["--seconds", "601"], 1, "'601' is not a time"),
        (["--seconds", "nan"], 1, "'nan' is not a time"),
        (["--seconds", "soon"], 1, "'soon' is not a time"),
        (["--sizes", "4X"], 1, "'4X' is not a size"),
        (["--sizes", ""], 1, "'' is not a size"),
        (["--sizes", "4K,,8K"], 1, "'' is not a size"),
        (["--sizes", "0"], 1, "'0' is not a size"),
        (["--sizes", "65M"], 1, "at most 64 MiB"),
        (["--pattern", "zigzag"], 1, "zigzag"),
        (["--lba", "16384"], 22, "16383"),
        (["--lba", "16383", "--blocks", "2"], 22, "16383"),
        (["--blocks", "7"], 1, "no size can be measured: 4 KiB is larger than the range"),
        (["--plot", "picture"], 1, "FILE.png"),
        (["--plot", "picture.jpg"], 1, "FILE.svg"),
        (["--plot", "nowhere/picture.png"], 15, "nowhere/picture.png"),
    ],
)
def test_invalid_arguments_are_refused(
    cli: Cli, words: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("bench", "virtual:", *words).failed(status, said)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_do_not_fit_a_small_medium_are_left_out_with_a_warning(cli: Cli, attach: Attached) -> None:
    attach(stick(blocks=129))  # the last one is not measured: it is read by a separate command
    ended = cli("bench", "1-1", *QUICK, "--json")
    assert ended.status == 0
    assert ended.err.splitlines() == [
        f"scsiusb: warning: {size} left out: larger than the range" for size in ("256 KiB", "1 MiB", "4 MiB")
    ]
    assert list(ended.json["read"]["random"]) == SIZES[:3]
    assert ended.json["left_out"][0] == {"bytes": 262144, "reason": "larger than the range"}


@pytest.mark.parametrize("block_size", [2048, 4096])
def test_large_blocks(cli: Cli, attach: Attached, block_size: int) -> None:
    plugged = stick(blocks=256, block_size=block_size)
    attach(plugged)
    before = bytes(memory(plugged).data)
    words = ["--sizes", "512,4K,6000,64K", "--write", "--lba", "16", "--blocks", "64", "--yes", "--json"]
    ended = cli("bench", "1-1", *QUICK, *words)
    assert ended.err.splitlines() == [
        f"scsiusb: warning: 512 bytes left out: smaller than a block of {block_size} bytes",
        f"scsiusb: warning: 5.859 KiB left out: no whole number of blocks of {block_size} bytes",
    ]
    for direction in ("read", "write"):
        for by_size in ended.json[direction].values():
            assert list(by_size) == ["4096", "65536"]
            assert all(consistent(size, numbers) for size, numbers in by_size.items())
    after = bytes(memory(plugged).data)
    assert (after[: 16 * block_size], after[80 * block_size :]) == (
        before[: 16 * block_size],
        before[80 * block_size :],
    )


def test_a_write_protected_medium_fails_before_anything_is_measured(cli: Cli, attach: Attached) -> None:
    plugged = Stick([Unit(Memory(512 * 2048, read_only=True))])
    attach(plugged)
    assert cli("bench", "1-1", *QUICK, *RANGE, "--sizes", "4K", "--yes").failed(7)
    assert memory(plugged).reads < 3 + 4  # a few to know the medium by


def test_errors_end_it_like_any_command(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    attach(Stick([Unit(Memory(512 * 64))], faults=["sense=3/11/00,lba=32,times=always"]))
    picture = tmp_path / "picture.svg"
    words = ["bench", "1-1", "--sizes", "4K", "--seconds", "5", "--calls", "20"]
    assert cli(*words, "--plot", picture).failed(3, "LBA 32")
    assert not picture.exists()
    assert cli("bench", "9-9").failed(15, "9-9")


def test_a_mounted_disk_is_refused(cli: Cli, attach: Attached) -> None:
    plugged = stick()
    plugged.uses = ["/dev/sda1 is mounted on /mnt"]
    attach(plugged)
    assert cli("bench", "1-1").failed(15, "/mnt")


def test_an_unplug_and_no_medium(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 64)), Unit()], faults=["disconnect=0@cbw,opcode=28,lba=16"]))
    assert cli("bench", "1-1", "--lun", "1", *QUICK).failed(2)
    assert cli("bench", "1-1", *QUICK, "--sizes", "4K").failed(35, "gone")


def test_ctrl_c_ends_it_with_130_and_releases_the_device(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(stick())
    reads: list[int] = []
    readinto = Disk.readinto

    def interrupted(self: Disk, lba: int, buffer: bytearray | memoryview) -> int:
        reads.append(lba)
        if len(reads) == 10:
            raise KeyboardInterrupt
        return readinto(self, lba, buffer)

    monkeypatch.setattr(Disk, "readinto", interrupted)
    assert cli("bench", "1-1", "--sizes", "4K", "--calls", "50").failed(130, "interrupted")
    assert len(reads) == 10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG\r\n\x1a\n"), ("a.SVG", b"<?xml")])
def test_the_plot_replaces_an_existing_file(
    cli: Cli, attach: Attached, tmp_path: Path, name: str, magic: bytes
) -> None:
    attach(Stick([Unit(Memory(512 * 2048))], Identity(product="100 $ and $ \N{SNOWMAN} 漢")))
    picture = tmp_path / name
    picture.write_bytes(bytes(1 << 20))
    ended = cli("bench", "1-1", *QUICK, "--sizes", "4K,64K", *RANGE, "--yes", "--json", "--plot", picture)
    assert (ended.status, ended.err) == (0, "")
    assert set(ended.json["write"]) == {"sequential", "random"}
    drawn = picture.read_bytes()
    assert drawn.startswith(magic)
    assert 10_000 < len(drawn) < 1 << 20


@pytest.mark.slow
def test_a_single_point_can_be_drawn(cli: Cli, tmp_path: Path) -> None:
    words = ["--sizes", "4K", "--pattern", "random", "--plot", tmp_path / "a.svg"]
    assert cli("bench", "virtual:", *QUICK, *words).status == 0


def test_without_matplotlib_it_fails_before_anything_is_measured(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(Disk, "readinto", None)
    ended = cli("bench", "virtual:", "--plot", tmp_path / "a.png")
    assert ended.failed(1, "--plot needs matplotlib", "pip install 'scsiusb[plot]'")
    assert list(tmp_path.iterdir()) == []


def test_the_plot_cannot_be_the_device(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "stick.png"
    image.write_bytes(bytes(1 << 20))
    assert cli("bench", f"virtual:{image}", "--plot", image).failed(1, "is the device itself")


def test_every_series_has_its_own_style() -> None:
    assert len({style.colour for style in plot.STYLES.values()}) == len(plot.STYLES)
    assert len({style.marker for style in plot.STYLES.values()}) == len(plot.STYLES)
