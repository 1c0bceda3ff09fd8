"""raw and eject."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scsiusb import errors
from scsiusb.cli.commands import control
from scsiusb.usb.backend import BlockDisk
from scsiusb.virtual import Fault, Memory, Stick, Unit
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.task import Task
from tests.cli.conftest import Attached, Cli
from tests.cli.test_blocks import Person, held
from tests.sticks import stick

READ_0 = ["28", "00", "00", "00", "00", "00", "00", "00", "01", "00"]
WRITE_0 = ["2a", "00", "00", "00", "00", "00", "00", "00", "01", "00"]
INQUIRY = ["12", "00", "00", "00", "24", "00"]


class Scripted(Unit):
    """A unit that fails one opcode with the same sense data, and counts how often it is sent."""

    def __init__(self, opcode: int, sense: Sense) -> None:
        super().__init__(Memory(64 * 512))
        self.opcode, self.sense, self.count = opcode, sense, 0

    def execute(self, cdb: bytes) -> Task:
        if cdb[0] != self.opcode:
            return super().execute(cdb)
        self.count += 1
        self.keep_sense(self.sense)
        return Task(failed=True)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch, screen: Cli) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr(sys, "stdin", Person(text))


def test_raw_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(stick())
    ended = cli("raw", "1-1", *INQUIRY, "--in", "36", "--json")
    assert (ended.status, ended.err) == (0, "")
    data = "008006021f000000" + b"scsiusb Virtual Stick   1.00".hex()
    assert ended.record == {"status": 0, "residue": 0, "sense": None, "data": data}


def test_a_pending_unit_attention_is_cleared_first(cli: Cli, attach: Attached) -> None:
    target = stick()
    held(target)[:4] = b"BOOT"
    attach(target)
    ended = cli("raw", *READ_0, "--in", "512")
    assert ended.status == 0
    assert ended.out == held(target)[:512]
    assert ended.err == "good, status 0, residue 0\n"


def test_the_command_is_sent_once(cli: Cli, attach: Attached) -> None:
    unit = Scripted(0x28, Sense(0x6, 0x28, 0))
    attach(Stick([unit]))
    assert cli("raw", *READ_0, "--in", "512").status == 6
    assert unit.count == 1


def test_raw_does_not_wait_for_a_unit_that_is_not_ready(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512), becoming_ready=100000)]))
    assert cli("raw", *INQUIRY, "--in", "36").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ["120000002400"],
        ["0x120000002400"],
        ["12,00,00,00,24,00"],
        ["12 00 00 00 24 00"],
        ["0x12", "0x0", "0", "0", "0X24", "00"],
        ["1200", "0000", "2400"],
        ["12 00", "", "00 00 24 00"],
    ],
    ids=" ".join,
)
def test_ways_to_write_hex(cli: Cli, attach: Attached, words: list[str]) -> None:
    attach(stick())
    for device in ([], ["1-1"], ["1209:0001"], ["serial=0123456789AB"]):
        assert cli("raw", *device, *words, "--in", "0x24").out[8:15] == b"scsiusb"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1-1"], "0 bytes of HEX"),
        (["1-1", "zz"], "'zz'"),
        (["1-1", "123"], "'123'"),
        (["1-1", "12:00:00:00:24:00"], "in hex"),
        (["12h", "0", "0", "0", "24", "0"], "'12h'"),
        (["12 0"], "2 bytes of HEX; command 12h needs 6 to 16"),
        (["28", *["0"] * 8], "9 bytes of HEX; command 28h needs 10 to 16"),
        (["0"] * 17, "17 bytes"),
        (["\u0660" * 12], "in hex"),
        (["f" * 5001], "in hex"),
    ],
)
def test_a_malformed_command_block(cli: Cli, attach: Attached, words: list[str], said: str) -> None:
    bus = attach(stick())
    ended = cli("raw", *words)
    assert ended.failed(1, said)
    assert len(ended.err) < 200
    assert bus.wire.log == []


def test_an_empty_word_is_an_invalid_device(cli: Cli, attach: Attached) -> None:
    """An unset variable in a script must not mean the only device."""
    bus = attach(stick())
    assert cli("raw", "", *INQUIRY).failed(15, "no attached device matches")
    assert bus.wire.log == []


def test_no_words_at_all(cli: Cli) -> None:
    assert cli("raw").failed(1, "HEX")


@pytest.mark.parametrize(
    ("key", "asc", "status"),
    [
        (0x2, 0x04, 2),
        (0x2, 0x3A, 2),
        (0x3, 0x11, 3),
        (0x4, 0x44, 3),
        (0x5, 0x24, 5),
        (0x5, 0x20, 9),
        (0x5, 0x21, 22),
        (0x6, 0x29, 6),
        (0x7, 0x27, 7),
        (0x8, 0x00, 99),
        (0x9, 0x80, 99),
        (0xB, 0x00, 11),
        (0xE, 0x1D, 14),
        (0x0, 0x00, 99),
    ],
)
def test_the_exit_status_depends_on_the_sense_and_the_result_is_printed(
    cli: Cli, attach: Attached, key: int, asc: int, status: int
) -> None:
    attach(Stick([Scripted(0x28, Sense(key, asc, 0))]))
    ended = cli("raw", *READ_0, "--in", "512", "--json")
    assert ended.status == status
    assert ended.json["status"] == 1
    assert ended.json["residue"] == 512
    assert ended.json["data"] == ""
    keys = {"key", "key_text", "asc", "ascq", "text", "information", "deferred", "raw", "details"}
    assert ended.json["sense"].keys() == keys
    assert (ended.json["sense"]["key"], ended.json["sense"]["asc"]) == (key, asc)
    assert ended.line.startswith("scsiusb: error: command 28h failed")
    error = json.loads(ended.err)["error"]
    assert error["sense"] == ended.json["sense"]
    assert error["type"] in vars(errors)


def test_a_recovered_error_is_a_success(cli: Cli, attach: Attached) -> None:
    attach(Stick([Scripted(0x00, Sense(0x1, 0x17, 1))]))
    ended = cli("raw", "000000000000")
    assert ended.status == 0
    assert ended.text.startswith("recovered error: ")


def test_an_unsupported_opcode_is_status_9(cli: Cli, attach: Attached) -> None:
    attach(stick())
    ended = cli("raw", "1-1", "ff 0 0 0 0 0")
    assert ended.status == 9
    assert ended.text == "illegal request: Invalid command operation code (5/20/00), status 1, residue 0\n"
    assert ended.err.startswith("scsiusb: error: command FFh failed")


def test_data_out_comes_from_a_file(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    target, path = stick(), tmp_path / "block"
    path.write_bytes(b"w" * 512)
    attach(target)
    assert cli("raw", *WRITE_0, "--out", path, "--yes").text == "good, status 0, residue 0\n"
    assert held(target)[:513] == b"w" * 512 + b"\0"


def test_invalid_files_and_lengths(cli: Cli, attach: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LARGEST_DATA", 1024)
    path = tmp_path / "large"
    path.write_bytes(bytes(2000))
    bus = attach(stick())
    assert cli("raw", *WRITE_0, "--out", path, "--yes").failed(1, "limited to 1 KiB")
    assert cli("raw", *READ_0, "--in", "1025").failed(1, "limited to 1 KiB")
    assert cli("raw", *READ_0, "--in", "-1").failed(1, "negative")
    assert cli("raw", *READ_0, "--in", "5", "--out", path, "--yes").failed(1, "cannot be used together")
    assert cli("raw", *WRITE_0, "--out", tmp_path / "none", "--yes").failed(15, "none")
    assert cli("raw", *WRITE_0, "--out", tmp_path, "--yes").failed(15, str(tmp_path))
    assert bus.wire.log == []


def test_a_wrong_data_length_is_explained(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("raw", *READ_0, "--in", "100").failed(35, "give --in or --out with the length of the command's data")
    assert cli("raw", *READ_0, "--in", "512").status == 0, "the device was recovered"


def test_on_a_terminal_the_result_and_a_dump(screen: Cli, attach: Attached) -> None:
    attach(stick())
    assert screen("raw", *INQUIRY, "--in", "36").text.splitlines() == [
        "good, status 0, residue 0",
        "00000000  00 80 06 02 1f 00 00 00  73 63 73 69 75 73 62 20  |........scsiusb |",
        "00000010  56 69 72 74 75 61 6c 20  53 74 69 63 6b 20 20 20  |Virtual Stick   |",
        "00000020  31 2e 30 30                                       |1.00|",
    ]


def test_a_short_reply_has_a_residue(cli: Cli, attach: Attached) -> None:
    attach(stick())
    record = cli("raw", *INQUIRY, "--in", "100", "--json").json
    assert record["residue"] == 64
    assert len(record["data"]) == 72


def test_at_a_terminal_it_asks_before_data_out(
    screen: Cli, attach: Attached, tmp_path: Path, person: Callable[[str], None]
) -> None:
    path = tmp_path / "block"
    path.write_bytes(b"w" * 512)
    bus, target = attach(stick()), attach.bus
    person("n\n")
    ended = screen("raw", *WRITE_0, "--out", path)
    assert ended.status == 1
    assert "Send 2a 00 00 00 00 00 00 00 01 00 with 512 bytes of data-out to 1-1? [y/N]" in ended.err
    assert bus.wire.log == []
    person("y\n")
    assert screen("raw", *WRITE_0, "--out", path).status == 0
    person("n\n")
    assert screen("raw", *WRITE_0, "--out", path, "--yes").status == 0
    assert target.wire.log.count("cbw 2a") == 2


def test_at_a_terminal_it_asks_before_it_erases(screen: Cli, attach: Attached, person: Callable[[str], None]) -> None:
    bus = attach(stick())
    person("\n")
    assert screen("raw", "04 00 00 00 00 00").status == 1
    assert bus.wire.log == []


CHANGING = ["04", "15", "2a", "3b", "41", "42", "48", "55", "5f", "85", "8a", "93", "9f", "a1", "ac", "b5"]
LENGTHS = {"0": 6, "1": 6, "2": 10, "3": 10, "4": 10, "5": 10, "8": 16, "9": 16, "a": 12, "b": 12}


@pytest.mark.parametrize("opcode", CHANGING)
def test_without_a_terminal_a_command_that_may_change_something_needs_yes(
    cli: Cli, attach: Attached, opcode: str
) -> None:
    bus = attach(stick())
    cdb = opcode + "00" * (LENGTHS[opcode[0]] - 1)
    for device in ([], ["1-1"], ["virtual:"]):
        assert cli("raw", *device, cdb).failed(1, "cannot ask to confirm the command", "give --yes")
    assert bus.wire.log == []
    assert "cannot ask" not in cli("raw", cdb, "--yes").err


def test_data_out_needs_yes_whatever_the_command_and_before_the_file_is_read(
    cli: Cli, attach: Attached, tmp_path: Path
) -> None:
    bus = attach(stick())
    assert cli("raw", "ff0000000000", "--out", tmp_path / "none").failed(1, "give --yes")
    assert bus.wire.log == []


@pytest.mark.parametrize("cdb", ["85" + "00" * 15, "a1" + "00" * 11])
def test_a_pass_through_command_that_receives_needs_no_confirmation(cli: Cli, attach: Attached, cdb: str) -> None:
    attach(stick())
    assert "cannot ask" not in cli("raw", cdb, "--in", "512").err


def test_eject(cli: Cli, attach: Attached) -> None:
    attach(stick(), stick())
    assert cli("eject", "1-1", "--json").record == {"done": True, "ejected": True}
    assert cli("capacity", "1-1").failed(2, "no medium")
    ended = cli("eject", "1-2")
    assert (ended.status, ended.out, ended.err) == (0, b"", "ejected\n")


def test_eject_works_without_prevent_allow(cli: Cli, attach: Attached) -> None:
    unit = Scripted(0x1E, Sense(0x5, 0x20, 0))
    attach(Stick([unit]))
    assert cli("eject").status == 0
    assert unit.count == 1
    assert unit.medium is None


def test_a_unit_that_cannot_eject(cli: Cli, attach: Attached) -> None:
    attach(stick(removable=False))
    assert cli("eject").failed(5, "START STOP UNIT")


def test_eject_sends_no_flush(cli: Cli, attach: Attached) -> None:
    """Nothing was written, and a device that hangs on SYNCHRONIZE CACHE must not cost its timeout."""
    bus = attach(stick())
    assert cli("eject").status == 0
    assert "cbw 35" not in bus.wire.log


@pytest.mark.parametrize("sense", [Sense(0x5, 0x20, 0), Sense(0x5, 0x24, 0), Sense(0x4, 0x44, 0), Sense(0, 0, 0)])
def test_eject_unlocks_as_best_it_can(cli: Cli, attach: Attached, sense: Sense) -> None:
    unit = Scripted(0x1E, sense)
    attach(Stick([unit]))
    assert cli("eject").err == "ejected\n"
    assert unit.medium is None


def test_eject_of_a_device_that_does_not_answer_the_unlocking(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512))], faults=[Fault.parse("nak@csw,opcode=1e,times=always")]))
    assert cli("eject", "--timeout", "0.2").err == "ejected\n"


def test_eject_opens_an_empty_tray(cli: Cli, attach: Attached) -> None:
    bus = attach(Stick([Unit.cd_rom()]), Stick([Scripted(0x1B, Sense(0x2, 0x3A, 0))]))
    ended = cli("eject", "1-1")
    assert (ended.status, ended.err) == (0, "ejected\n")
    assert "cbw 1b" in bus.wire.log
    assert cli("eject", "1-2").err == "there is no medium to eject\n"
    assert cli("eject", "1-2", "--json").record == {"done": True, "ejected": False}


@pytest.mark.parametrize("phase", ["cbw", "csw"])
def test_a_device_that_leaves_because_of_the_command_was_ejected(cli: Cli, attach: Attached, phase: str) -> None:
    attach(Stick([Unit(Memory(512))], faults=[Fault.parse(f"disconnect@{phase},opcode=1b")]))
    ended = cli("eject")
    assert (ended.status, ended.err) == (0, "ejected; the device has left the bus\n")


def test_a_device_that_leaves_before_the_command_was_not_ejected(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512))], faults=[Fault.parse("disconnect@csw,opcode=1e")]))
    assert cli("eject").failed(35, "gone")


def test_raw_takes_a_disk_node_and_explains_a_file(
    cli: Cli, attach: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Stick([Unit(Memory(512)), Unit(Memory(512), product="Second")])
    target.disks = (BlockDisk("/dev/sdz", 1),)
    attach(target)
    assert b"Second" in cli("raw", "/dev/sdz", *INQUIRY, "--in", "36").out
    (tmp_path / "s.img").touch()
    monkeypatch.chdir(tmp_path)
    assert cli("raw", "s.img", *INQUIRY, "--in", "36").failed(15, "did you mean virtual:s.img?")
