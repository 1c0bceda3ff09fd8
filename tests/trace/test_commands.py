"""Commands in text: as they go over a backend, and from a file of packets."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from random import Random

import pytest

import scsiusb
from scsiusb import DeviceTimeout, MalformedReply
from scsiusb.base.logs import COMMANDS
from scsiusb.scsi.telling import Teller
from scsiusb.trace.conversation import CBW, CSW, Conversation
from scsiusb.trace.reading import read_commands
from scsiusb.virtual import Bus, Memory, Stick, Unit

READ = bytes.fromhex("28000000000000000800")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == COMMANDS]


def test_each_command_is_told_with_its_status_and_sense(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, COMMANDS)
    with scsiusb.open("virtual:") as disk:
        disk.read(0, 8)
    found = messages(caplog)
    assert "LUN 0: INQUIRY [12 00 00 00 24 00], 36 bytes in: good" in found[0]
    assert any("READ(10) [28 00 00 00 00 00 00 00 08 00], 4096 bytes in: good, " in each for each in found)
    assert any("REQUEST SENSE" in each and "unit attention: Power on" in each for each in found)


def test_without_the_level_nothing_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, COMMANDS)
    with scsiusb.open("virtual:") as disk:
        disk.read(0, 1)
    assert messages(caplog) == []


@pytest.mark.slow
def test_a_command_without_an_answer_is_told_when_the_device_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, COMMANDS)
    stick = Stick([Unit(Memory(512 * 64))])
    with scsiusb.open_on(Bus(stick), timeout=0.3) as disk:
        disk.read(0, 1)
        stick.faults.add("hang@data,opcode=28,times=always")
        with pytest.raises(DeviceTimeout):
            disk.read(0, 1)
    assert any("READ(10)" in each and ": no status (timeout)" in each for each in messages(caplog))


def test_a_name_depends_on_the_type_of_the_unit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, COMMANDS)
    with scsiusb.open_on(Bus(Stick([Unit.cd_rom(Memory(2048 * 4, 2048))]))) as disk:
        disk.inquiry()
        with pytest.raises(scsiusb.IllegalRequest):
            disk.execute(scsiusb.RawCommand(bytes.fromhex("a10000000000000000000000")))
    assert any("BLANK [a1 " in each for each in messages(caplog))


@pytest.mark.slow
def test_a_file_cut_or_changed_anywhere_gives_commands_or_the_documented_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with scsiusb.open("virtual:", trace=str(path)) as disk:
        disk.read(0, 1)
    data, random, ends = path.read_bytes(), Random(1), 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(random.randrange(4)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        cut = bytes(changed[: random.randrange(len(changed) + 1)])
        teller = Teller()
        try:
            for told in read_commands(io.BytesIO(cut)):
                assert teller.line(told.exchange)
        except MalformedReply:
            ends += 1
    assert ends > 100


def cbw(cdb: bytes, expected: int, is_in: bool = True) -> bytes:
    return CBW.pack(b"USBC", 1, expected, 0x80 if is_in else 0, 0, len(cdb), cdb)


def test_a_command_that_never_ended_comes_when_the_next_begins() -> None:
    talk = Conversation()
    assert talk.received(b"before any command", 18, 0.0) is None
    assert talk.sent(cbw(READ, 4096), 31, 0.0) is None
    assert talk.received(bytes(512), 512, 0.1) is None
    cut = talk.sent(cbw(READ, 4096), 31, 1.0)
    assert cut is not None
    assert (cut.moved, cut.status) == (512, None)
    assert "no status" in Teller().line(cut)
    ended = talk.received(CSW.pack(b"USBS", 1, 4096, 1), 13, 1.5)
    assert ended is not None
    assert (ended.status, ended.residue, ended.seconds) == (1, 4096, 0.5)
    assert talk.cut_off() is None


def test_data_of_the_length_of_a_command_are_data() -> None:
    talk = Conversation()
    talk.sent(cbw(bytes.fromhex("2a000000000000000100"), 512, is_in=False), 31, 0.0)
    talk.sent(b"x" * 31, 31, 0.0)
    ended = talk.received(CSW.pack(b"USBS", 1, 481, 0), 13, 0.0)
    assert ended is not None
    assert (ended.moved, ended.data) == (31, b"x" * 31)
    assert "31 bytes out: good, residue 481" in Teller().line(ended)
