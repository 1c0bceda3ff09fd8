"""Commands in text: as they go over a backend, and from a file of packets."""

from __future__ import annotations

import io
import logging
import re
import struct
from pathlib import Path
from random import Random

import pytest

import scsiusb
from scsiusb import DeviceTimeout, MalformedReply
from scsiusb.ata.nvme_bridges import AsmediaNvme
from scsiusb.base.logs import COMMANDS
from scsiusb.scsi.commands.spc_reserve import PersistentReserveReadReservation
from scsiusb.scsi.telling import Teller
from scsiusb.trace.conversation import CBW, CSW, Conversation
from scsiusb.trace.reading import read_commands
from scsiusb.trace.recorder import CONTROL
from scsiusb.trace.uas_conversation import PIPE_COMMAND, PIPE_STATUS, UasConversation
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


def test_commands_of_bridges_and_service_actions_have_their_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, COMMANDS)
    with scsiusb.open("virtual:?profile=nvme-bridge&bridge=sntasmedia") as disk:
        disk.execute(AsmediaNvme())
        disk.execute(PersistentReserveReadReservation())
    text = "\n".join(messages(caplog))
    assert "ASMedia NVMe [e6 06 " in text
    assert "PERSISTENT RESERVE IN, READ RESERVATION [5e 01 " in text


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["bot", "uas"])
def test_a_file_cut_or_changed_anywhere_gives_commands_or_the_documented_error(tmp_path: Path, protocol: str) -> None:
    path = tmp_path / "a.pcapng"
    with scsiusb.open(f"virtual:?protocol={protocol}", trace=str(path)) as disk:
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


UAS = [f"protocol={protocol}&speed={speed}" for protocol in ("uas", "both") for speed in ("high", "super")]


def told_in(path: Path, *, descriptors: bool = True) -> list[str]:
    """Return the commands in a trace without their times; `descriptors`: as if the trace had begun after they came."""
    data, at, kept = path.read_bytes(), 0, b""
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        is_control = kind == 6 and data[at + 28 + 9] == CONTROL
        kept += b"" if is_control and not descriptors else data[at : at + length]
        at += length
    teller = Teller()
    return [without_time(teller.line(told.exchange)) for told in read_commands(io.BytesIO(kept))]


def without_time(line: str) -> str:
    return re.sub(r", [0-9.]+ ms", "", line)


@pytest.mark.parametrize("options", UAS)
@pytest.mark.parametrize("descriptors", [True, False])
def test_a_trace_of_uas_has_the_commands_that_were_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: str, descriptors: bool
) -> None:
    caplog.set_level(logging.DEBUG, COMMANDS)
    path = tmp_path / "a.pcapng"
    with scsiusb.open(f"virtual:?{options}", trace=str(path)) as disk:
        disk.write(1, bytes(512 * 3))
        with pytest.raises(scsiusb.IllegalRequest):
            disk.unit.vpd(0x77)
        with disk.reading(0, 8192) as pieces:  # several commands in flight
            assert sum(map(len, pieces)) == 8192 * 512
    found = told_in(path, descriptors=descriptors)
    assert found == [without_time(line) for line in messages(caplog)]
    assert any(line.endswith(", 1536 bytes out: good") for line in found)
    residue = ", residue 252" if "super" in options else ""  # at high speed, no data were asked for
    refused = f": failed{residue}: illegal request: Invalid field in CDB (5/24/00)"
    assert any("INQUIRY" in line and line.endswith(refused) for line in found)


def test_commands_of_uas_in_flight_have_their_own_data_and_status() -> None:
    """Without streams, and without descriptors; the second command ends first, and the first one fails."""
    talk = UasConversation({4: PIPE_COMMAND})
    assert talk.begun(1, 4, command_iu(1, READ), 32, 0, 0.0) is None
    assert talk.begun(2, 4, command_iu(2, READ), 32, 0, 1.0) is None
    for number, tag in ((3, 2), (4, 1)):
        assert talk.begun(number, 0x83, b"", 512, 0, 2.0) is None
        assert talk.ended(number, 0x83, bytes((6, 0, 0, tag)), 4, 2.0) is None
    assert talk.begun(5, 0x81, b"", 4096, 0, 3.0) is None
    assert talk.begun(6, 0x81, b"", 4096, 0, 3.0) is None
    assert talk.ended(5, 0x81, b"second", 4096, 4.0) is None
    second = talk.ended(7, 0x83, bytes((3, 0, 0, 2, *bytes(12))), 16, 5.0)
    assert second is not None
    assert (second.data, second.residue, second.status, second.seconds) == (b"second", 0, 0, 4.0)
    assert talk.ended(8, 0x83, bytes((3, 0, 0, 1, 0, 0, 8, *bytes(9))), 16, 6.0) is None, "its data are awaited"
    first = talk.ended(6, 0x81, b"", 0, 7.0, "cancelled")
    assert first is not None
    assert Teller().line(first).endswith("failed, residue 4096 (busy), 6000.00 ms")


def test_a_command_of_uas_that_the_device_does_not_take_is_told_with_its_answer() -> None:
    talk = UasConversation({4: PIPE_COMMAND, 0x83: PIPE_STATUS})
    talk.begun(1, 4, command_iu(1, READ), 32, 0, 0.0)
    ended = talk.ended(2, 0x83, bytes((4, 0, 0, 1, 0, 0, 0, 9)), 8, 1.0)
    assert ended is not None
    assert Teller().line(ended).endswith("no status (incorrect LUN)")
    talk.begun(3, 4, command_iu(1, READ), 32, 0, 0.0)
    assert talk.begun(4, 4, command_iu(1, READ), 32, 0, 0.0) is not None, "its tag was taken over"
    assert [each.status for each in talk.cut_off()] == [None]


def command_iu(tag: int, cdb: bytes) -> bytes:
    return bytes((1, 0, 0, tag)) + bytes(12) + cdb.ljust(16, b"\0")


def test_a_transfer_that_failed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with scsiusb.open("virtual:?fault=stall@data,opcode=28,times=1", trace=str(path)) as disk:
        disk.read(0, 1)
    assert any("READ(10)" in line and "(stall)" in line for line in told_in(path))
