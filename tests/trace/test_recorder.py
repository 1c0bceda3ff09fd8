"""A trace contains every transfer, in a format that other programs read."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import scsiusb
from scsiusb import TransportError
from scsiusb.opening import open_on
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.trace.recorder import SNAPLEN, Tracing
from scsiusb.usb.backend import Code
from tests.programs import needs
from tests.sticks import InterceptedBus, stick

HEADER = struct.Struct("<QBBBBHBBqiiII8s")


def packets(path: Path) -> Iterator[tuple[str, int, int, int, int, bytes]]:
    """Yield each packet's event, transfer type, endpoint, status, length and data, parsed without the recorder."""
    data, at = path.read_bytes(), 0
    assert data[:4] == bytes.fromhex("0a0d0d0a")
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        if kind == 6:
            captured = struct.unpack_from("<I", data, at + 20)[0]
            packet = data[at + 28 : at + 28 + captured]
            _, event, transfer, endpoint, _, _, _, _, _, _, status, size, kept, _ = HEADER.unpack_from(packet)
            assert len(packet) == 64 + kept
            yield chr(event), transfer, endpoint, status, size, packet[64:]
        at += length
    assert at == len(data)


def test_every_transfer_is_recorded_with_its_data(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with scsiusb.open("virtual:", trace=str(path)) as disk:
        block = disk.read(0, 1)
        disk.write(1, b"\x77" * 512)
    rows = list(packets(path))
    assert len([row for row in rows if row[0] == "S"]) == len([row for row in rows if row[0] == "C"])
    written = [data for event, transfer, endpoint, _, _, data in rows if (event, transfer, endpoint) == ("S", 3, 2)]
    read = [data for event, transfer, endpoint, _, _, data in rows if (event, transfer, endpoint) == ("C", 3, 0x81)]
    assert b"\x77" * 512 in written
    assert block in read
    assert [data[:4] for data in written].count(b"USBC") == [data[:4] for data in read].count(b"USBS")


def test_failures_are_recorded_with_their_errno(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    bus = InterceptedBus(stick())
    trace = Tracing(bus, str(path))
    with pytest.raises(TransportError), open_on(trace) as disk:
        bus.wire.fail_requests["request ff"] = Code.PIPE
        bus.wire.intercept = lambda wire, endpoint, buffer: (Code.IO, 3)
        disk.inquiry()
    trace.close()
    bus.close()
    rows = list(packets(path))
    assert ("C", 3, 2, -71, 3, b"") in rows
    assert ("C", 2, 0, -32, 0, b"") in rows


def test_an_interrupted_transfer_is_recorded(tmp_path: Path) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "trace.pcapng"
    bus = InterceptedBus(stick())
    trace = Tracing(bus, str(path))
    with pytest.raises(KeyboardInterrupt), open_on(trace) as disk:
        bus.wire.intercept = interrupt
        disk.inquiry()
    trace.close()
    bus.close()
    assert ("C", 3, 2, -2, 0, b"") in list(packets(path))


def test_of_a_long_transfer_only_the_beginning_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with scsiusb.open("virtual:", trace=str(path)) as disk:
        disk.read(0, 240)
    lengths = [
        (size, len(data)) for event, _, endpoint, _, size, data in packets(path) if (event, endpoint) == ("C", 0x81)
    ]
    assert (240 * 512, SNAPLEN) in lengths


def test_a_trace_that_cannot_be_written_is_an_error_before_the_device_is_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scsiusb.open("virtual:", trace=str(tmp_path / "none" / "trace.pcapng"))


@needs("tshark")
@pytest.mark.parametrize("content", [b"S" * 4096, b"\n", b"\n\r\r"])
def test_a_file_that_is_not_a_trace_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(content)
    with pytest.raises(FileExistsError, match="is not a trace"):
        Tracing(InterceptedBus(stick(16)), str(path))
    assert path.read_bytes() == content


def test_an_older_trace_is_overwritten_but_not_one_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    trace = Tracing(InterceptedBus(stick(16)), str(path))
    with pytest.raises(BlockingIOError, match="another trace"):
        Tracing(InterceptedBus(stick(16)), str(path))
    trace.close()
    path.write_bytes(path.read_bytes() * 100)
    Tracing(InterceptedBus(stick(16)), str(path)).close()
    assert path.stat().st_size < 100


def test_the_file_of_a_virtual_stick_is_not_overwritten_even_if_it_holds_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes.fromhex("0a0d0d0a") + bytes(4092))
    with pytest.raises(BlockingIOError):
        scsiusb.open(f"virtual:{path}", trace=str(path))
    assert path.stat().st_size == 4096


def test_tshark_understands_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with scsiusb.open("virtual:", trace=str(path)) as disk:
        disk.read(7, 3)
        with pytest.raises(scsiusb.LbaOutOfRange):
            disk.execute(Read10(1 << 31, 1, block_size=512))
    words = ["tshark", "-r", str(path), "-Y", "usbms", "-T", "fields"]
    fields = ["scsi_sbc.opcode", "scsi_sbc.rdwr10.lba", "scsi_sbc.rdwr10.xferlen", "scsi.sns.ascascq", "_ws.expert"]
    shown = subprocess.run(
        [*words, *(w for f in fields for w in ("-e", f))], capture_output=True, text=True, check=True
    )
    rows = [line.split("\t") for line in shown.stdout.splitlines()]
    numbers = [[int(text, 0) for text in row[:4] if text] for row in rows]  # tshark 4.4 shows an LBA in hexadecimal
    assert [0x28, 7, 3] in numbers
    assert any(0x2100 in row for row in numbers)
    assert "Malformed" not in shown.stdout
