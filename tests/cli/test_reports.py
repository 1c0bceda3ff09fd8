"""The commands that report: opcodes, defects, reservations, toc, …: what scripts rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.app import COMMANDS, GROUPS
from scsiusb.cli.commands.optical import track_rows
from scsiusb.scsi.commands.mmc_disc import ReadToc
from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.scsi.command_rows import LEVEL_0
from tests.scsi.test_more_commands import AUDIO
from tests.sticks import stick


@pytest.fixture
def cd(attach: Attached) -> None:
    attach(Stick([Unit.cd_rom(Memory(2048 * 100, 2048))]))


def test_opcodes_are_named(attach: Attached, cli: Cli) -> None:
    attach(stick())
    rows = {(row["opcode"], row["service_action"]): row for row in cli("opcodes", "1-1", "--json").record["commands"]}
    assert rows[0x28, None]["name"] == "READ(10)"
    assert (rows[0x9E, 0x10]["name"], rows[0x9E, 0x10]["cdb_length"]) == ("READ CAPACITY(16)", 16)
    assert rows[0x12, None]["recommended"] == 30
    assert "UNKNOWN" not in cli("opcodes", "1-1").text.upper(), "all that the virtual stick supports is declared"


def test_opcodes_of_a_device_that_does_not_list_them(attach: Attached, cli: Cli) -> None:
    unit = Unit(Memory(512 * 64))
    del unit._commands[0xA3]
    attach(Stick([unit]))
    assert cli("opcodes", "1-1").failed(9, "REPORT SUPPORTED OPERATION CODES")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["opcodes"], "a3"),
        (["timestamp"], "a3"),
        (["timestamp", "--set", "now"], "a4"),
        (["security"], "a2"),
        (["unmap", "--lba", "0", "--blocks", "8", "--yes"], "42"),
        (["sanitize", "--method", "block", "--yes"], "48"),
    ],
    ids=lambda words: "-".join(words) if isinstance(words, list) else words,
)
def test_a_drive_is_not_sent_what_means_another_command_to_it(
    attach: Attached, cli: Cli, words: list[str], code: str
) -> None:
    bus = attach(Stick([Unit.cd_rom(Memory(2048 * 100, 2048))]))
    assert cli(words[0], "1-1", *words[1:]).failed(15, "CD/DVD", "--lun")
    assert f"cbw {code}" not in bus.wire.log


def test_defects_are_listed(attach: Attached, cli: Cli) -> None:
    attach(stick())
    assert cli("defects", "1-1", "--json").record["defects"] == []
    assert cli("reassign", "1-1", "--lba", "5", "--yes", "--json").record == {"done": True, "lba": 5}
    assert [row["lba"] for row in cli("defects", "1-1", "--json").record["defects"]] == [5]
    assert cli("defects", "1-1").err == "1 defects, as blocks\n"


def test_the_status_of_blocks(attach: Attached, cli: Cli) -> None:
    attach(Stick([Unit(Memory(b"\1" * 1024 + bytes(1024)), thin=True)]))
    record = cli("lba-status", "1-1", "--json").record
    assert [(row["lba"], row["blocks"], row["status"]) for row in record["ranges"]] == [(0, 2, 0), (2, 2, 1)]
    assert cli("lba-status", "1-1", "--lba", "4").failed(22)


def test_reservations_of_a_unit_that_has_none(attach: Attached, cli: Cli) -> None:
    attach(stick())
    record = cli("reservations", "1-1", "--json").record
    assert (record["keys"], record["reservation"]) == ([], None)
    assert record["capabilities"]["kinds"] == [1, 3, 5, 6, 7, 8]
    assert "reservation  none" in cli("reservations", "1-1").text


def test_the_clock_is_shown_and_set(attach: Attached, cli: Cli) -> None:
    attach(stick())
    assert cli("timestamp", "1-1", "--json").record["timestamp_origin"] == 0
    record = cli("timestamp", "1-1", "--set", "2021-01-01T00:00:00", "--json").record
    assert record["timestamp"] - 1609459200000 < 3600_000
    assert "timestamp  2021-01-01T00:" in cli("timestamp", "1-1").text
    assert cli("timestamp", "1-1", "--set", "soon").failed(1, "soon")


def test_security_of_a_device_that_is_locked(attach: Attached, cli: Cli) -> None:
    unit = Unit(Memory(4096))
    replies = {0: bytes.fromhex("000000000000 0003 0001ee"), 1: bytes.fromhex(LEVEL_0)}
    unit.add_data_in(0xA2, lambda cdb: replies[cdb[1]])
    attach(Stick([unit]))
    record = cli("security", "1-1", "--json").record
    assert [row["name"] for row in record["protocols"]] == ["security protocol information", "TCG", "IEEE 1667"]
    assert (record["ieee_1667"], record["tcg"]["locked"]) == (True, True)
    assert "locked           yes" in cli("security", "1-1").text


def test_the_echo_buffer_is_compared(attach: Attached, cli: Cli) -> None:
    attach(stick())
    assert cli("buffer", "1-1", "--json").record == {"done": True, "echo_buffer": 4096, "compared": 4096}


def test_an_echo_buffer_that_returns_other_bytes_is_a_miscompare(attach: Attached, cli: Cli) -> None:
    unit = Unit(Memory(4096))
    unit.add_data_in(0x3C, lambda cdb: bytes.fromhex("00000040") if cdb[1] == 0x0B else bytes(64))
    attach(Stick([unit]))
    assert cli("buffer", "1-1").failed(14, "other bytes")


def test_an_empty_firmware_is_refused_with_what_to_do(attach: Attached, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    attach(stick())
    assert cli("buffer", "1-1", "--download", tmp_path / "empty", "--yes").failed(1, "empty; give the file")


@pytest.mark.parametrize("pieces", [[], ["--pieces", "512"]], ids=["whole", "pieces"])
def test_firmware_is_sent_only_with_yes(attach: Attached, cli: Cli, tmp_path: Path, pieces: list[str]) -> None:
    unit, image = Unit(Memory(4096)), tmp_path / "firmware.bin"
    image.write_bytes(bytes(range(256)) * 5)
    attach(Stick([unit]))
    assert cli("buffer", "1-1", "--download", image, *pieces).failed(1, "--yes")
    assert not unit.kept.firmware
    assert cli("buffer", "1-1", "--download", image, *pieces, "--yes", "--json").record["downloaded"] == 1280
    assert bytes(unit.kept.firmware) == image.read_bytes()


def test_the_table_of_contents(cd: None, cli: Cli) -> None:
    record = cli("toc", "1-1", "--json").record
    rows: list[Any] = [(row["track"], row["kind"], row["lba"], row["time"], row["blocks"]) for row in record["tracks"]]
    assert rows == [(1, "data", 0, "00:02:00", 100), ("lead-out", "lead-out", 100, "00:03:25", None)]
    assert [row["session"] for row in record["tracks"]] == [1, None]
    full = cli("toc", "1-1", "--full", "--json").record
    assert [(row["point"], row["lba"]) for row in full["entries"]][-2:] == [(0xA2, 100), (1, 0)]
    text = cli("toc", "1-1", "--full").text
    assert "00:03:25" in text
    assert "first track: 1" in text
    assert "data track" in text
    assert "lead-out" in cli("toc", "1-1").text


def test_the_tracks_of_an_audio_disc_have_their_lengths() -> None:
    rows = track_rows(ReadToc().reply(bytes.fromhex(AUDIO)))
    assert [row["kind"] for row in rows] == ["audio"] * 5 + ["lead-out"]
    assert (rows[0]["blocks"], rows[1]["time"]) == (14980, "03:21:55")


def test_features_and_disc(cd: None, cli: Cli) -> None:
    record = cli("features", "1-1", "--json").record
    assert (record["current_profile"], record["profiles"]) == (8, [{"profile": 8, "name": "CD-ROM"}])
    assert "CD read" in cli("features", "1-1").text
    assert cli("disc", "1-1", "--json").record["text"] == "complete"
    assert "disc          complete" in cli("disc", "1-1").text


def test_every_command_is_in_a_group_of_the_help(cli: Cli) -> None:
    names = list(COMMANDS)
    assert [names.index(first) for first in GROUPS.values()] == sorted(names.index(first) for first in GROUPS.values())
    assert next(iter(GROUPS.values())) == names[0]
    for title in GROUPS:
        assert f"\n{title}:\n" in cli("--help").text
