"""opcodes, lba-status, defects, reservations, timestamp, security, toc, features, disc: what scripts rely on."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.target.task import Parameters
from tests.cli.conftest import Attached, Cli


@pytest.fixture
def unit(attach: Attached) -> Unit:
    unit = Unit(Memory(512 * 64))
    attach(Stick([unit]))
    return unit


@pytest.fixture
def drive(attach: Attached) -> Unit:
    drive = Unit.cd_rom(Memory(2048 * 1000, 2048))
    attach(Stick([drive]))
    return drive


def answers(unit: Unit, opcode: int, data: str, action: int | None = None) -> None:
    """Let the unit answer an operation code with these bytes."""
    before = unit._commands.get(opcode)

    def reply(unit: Unit, cdb: bytes) -> Parameters:
        if action is not None and cdb[1] & 0x1F != action and before is not None:
            return before(unit, cdb)  # type: ignore[return-value]
        return Parameters(bytes.fromhex(data), 65535)

    unit._commands[opcode] = reply


def test_opcodes(cli: Cli, unit: Unit) -> None:
    found = cli("opcodes", "1-1", "--json").record["commands"]
    named = {(row["opcode"], row["service_action"]): row for row in found}
    assert named[0x28, None] == {"opcode": 0x28, "service_action": None, "name": "READ(10)", "cdb_length": 10}
    assert named[0x9E, 0x12]["name"] == "GET LBA STATUS(16)"
    assert named[0xA3, 0x0C]["cdb_length"] == 12
    assert (0x42, None) not in named, "the unit is not thin"
    assert "9Eh/10h  READ CAPACITY(16)" in cli("opcodes", "1-1").text
    answers(unit, 0xA3, "00000014 2800 0000 0002 000a" + "000a" + "00" * 10)
    assert cli("opcodes", "1-1").failed(97, "timeouts")


def test_the_meaning_of_an_opcode_depends_on_the_type(cli: Cli, drive: Unit) -> None:
    answers(drive, 0xA3, "00000010 a100 0000 0000 000c 4200 0000 0000 000a")
    assert [row["name"] for row in cli("opcodes", "1-1", "--json").record["commands"]] == ["BLANK", "READ SUB-CHANNEL"]


def test_lba_status(cli: Cli, unit: Unit) -> None:
    row = {"lba": 3, "blocks": 61, "status": 0, "status_text": "mapped"}
    assert cli("lba-status", "1-1", "--lba", "3", "--json").record == {"ranges": [row]}
    assert cli("lba-status", "1-1", "--lba", "64").failed(22, "out of range")
    answers(
        unit, 0x9E, "00000024 00000000 0000000000000000 00000010 01 000000 0000000000000010 00000010 05 000000", 0x12
    )
    assert [row["status_text"] for row in cli("lba-status", "1-1", "--json").record["ranges"]] == [
        "deallocated",
        "status 5",
    ]


def test_defects(cli: Cli, unit: Unit) -> None:
    assert cli("defects", "1-1").failed(9, "Invalid command operation code")
    answers(unit, 0x37, "00 08 0008 00000001 00000002")
    found = cli("defects", "1-1", "--json").record
    assert found == {
        "primary": False,
        "grown": True,
        "format": 0,
        "count": 2,
        "descriptors": ["00000001", "00000002"],
    }


def test_reservations(cli: Cli, unit: Unit) -> None:
    answers(unit, 0x5E, "00000001 00000010 00000000000000aa 00000000000000ff", 0)
    answers(unit, 0x5E, "00000001 00000010 00000000000000ff 00000000 00 05 0000", 1)
    found = cli("reservations", "1-1", "--json").record
    assert found == {
        "generation": 1,
        "keys": [0xAA, 0xFF],
        "reservation": {"key": 0xFF, "scope": 0, "type": 5},
    }
    assert "write exclusive, registrants only, by 00000000000000ff" in cli("reservations", "1-1").text


def test_timestamp(cli: Cli, unit: Unit) -> None:
    assert cli("timestamp", "1-1", "--json").record["time"] is None
    assert "not set" in cli("timestamp", "1-1").text
    milliseconds = int(datetime(2026, 11, 26, tzinfo=timezone.utc).timestamp() * 1000)
    answers(unit, 0xA3, f"000a 02 00 {milliseconds:012x} 0000")
    assert cli("timestamp", "1-1", "--json").record["time"] == "2026-11-26T00:00:00+00:00"


def test_security(cli: Cli, unit: Unit) -> None:
    answers(unit, 0xA2, "000000000000 0004 00 01 ef f3")
    rows = cli("security", "1-1", "--json").record["protocols"]
    assert [(row["protocol"], row["name"]) for row in rows] == [
        (0, "security protocol information"),
        (1, "TCG 1"),
        (0xEF, "ATA device server password"),
        (0xF3, "vendor specific"),
    ]


def test_the_table_of_contents(cli: Cli, drive: Unit) -> None:
    found = cli("toc", "1-1", "--json").record
    assert (found["first_track"], found["last_track"]) == (1, 1)
    assert [(row["number"], row["lba"], row["data"]) for row in found["tracks"]] == [(1, 0, True), (0xAA, 1000, True)]
    assert cli("toc", "1-1").text.splitlines()[1].split() == ["1", "0", "1000", "data"]
    # An audio disc of three tracks, and a data track after it.
    rows = ["00 10 01 00 00000000", "00 10 02 00 00003f00", "00 10 03 00 00008f4c", "00 14 04 00 00010000"]
    answers(drive, 0x43, f"002a 01 04 {' '.join(rows)} 00 14 aa 00 00020000")
    assert [line.split()[-1] for line in cli("toc", "1-1").text.splitlines()[1:]] == ["audio", "audio", "audio", "data"]


def test_features_and_disc(cli: Cli, drive: Unit) -> None:
    found = cli("features", "1-1", "--json").record
    assert (found["profile"], found["profile_text"]) == (8, "CD-ROM")
    assert [row["name"] for row in found["features"]] == [
        "profile list",
        "core",
        "removable medium",
        "random readable",
        "CD read",
    ]
    assert cli("disc", "1-1", "--json").record == {
        "status": "complete",
        "last_session": "complete",
        "erasable": False,
        "sessions": 1,
        "first_track": 1,
        "last_session_first_track": 1,
        "last_session_last_track": 1,
    }
    drive.eject()
    assert cli("features", "1-1", "--json").record["profile_text"] is None
    assert cli("toc", "1-1").failed(2, "no medium")
