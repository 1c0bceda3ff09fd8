"""The device's side of Bulk-Only Transport: the thirteen cases, halts, invalid CBWs, split data phases."""

from __future__ import annotations

import struct
import threading
import time
from dataclasses import replace

import pytest

from scsiusb.usb.backend import Code, UsbError
from scsiusb.virtual import BotOptions, DataIn, DataOut, Identity, Memory, Stick, Unit, bot_interface
from scsiusb.virtual.device.descriptors import EndpointDescriptor
from scsiusb.virtual.device.function import Stall
from tests.sticks import PATIENCE
from tests.virtual.host import IN, OUT, Host, cbw, cdb10

TEST_UNIT_READY = bytes(6)
INQUIRY_36 = bytes((0x12, 0, 0, 0, 36, 0))
READ_1 = cdb10(0x28, 0, 1)
READ_2 = cdb10(0x28, 0, 2)
WRITE_1 = cdb10(0x2A, 0, 1)
WRITE_2 = cdb10(0x2A, 0, 2)
BLOCK = bytes(range(256)) * 2
PHASE_ERROR = 2


def make(data_in: DataIn = DataIn.STALL, data_out: DataOut = DataOut.STALL, speed: str = "high") -> Host:
    medium = Memory(BLOCK + bytes(1 << 16))
    return Host(Stick([Unit(medium)], Identity(speed=speed), bot_options=BotOptions(data_in, data_out)))


@pytest.fixture
def host() -> Host:
    return make()


def stored(host: Host) -> bytes:
    medium = host.stick.units[0].medium
    assert isinstance(medium, Memory)
    return bytes(medium.data[:1024])


def reset_recovery(host: Host) -> None:
    host.handle.control_out(0x21, 0xFF, 0, 0, b"", 1000)
    host.handle.clear_halt(IN)
    host.handle.clear_halt(OUT)


# --- the thirteen cases (BOT 6.7) ---------------------------------------------------------------


def test_case_1_no_data_on_either_side(host: Host) -> None:
    host.command(TEST_UNIT_READY)
    assert host.read(13) == (Code.OK, b"USBS" + struct.pack("<IIB", host.tag, 0, 0))


def test_case_2_device_has_data_and_host_expects_none(host: Host) -> None:
    host.command(READ_1, 0)
    assert host.csw() == (PHASE_ERROR, 0)


def test_case_3_device_needs_data_and_host_has_none(host: Host) -> None:
    host.command(WRITE_1, 0, 0)
    assert host.csw() == (PHASE_ERROR, 0)


def test_case_4_device_has_no_data_and_host_expects_some_is_a_stall(host: Host) -> None:
    result = host.do(TEST_UNIT_READY, 100)
    assert (result.code, result.data, result.status, result.residue) == (Code.PIPE, b"", 0, 100)


@pytest.mark.parametrize(("data_in", "data"), [(DataIn.SHORT, b""), (DataIn.PAD, bytes(100))])
def test_case_4_with_an_empty_packet_or_padding(data_in: DataIn, data: bytes) -> None:
    result = make(data_in).do(TEST_UNIT_READY, 100)
    assert (result.code, result.data, result.status, result.residue) == (Code.OK, data, 0, 100)


def test_case_5_less_data_than_asked_ends_with_a_stall(host: Host) -> None:
    result = host.do(READ_1, 2048)
    assert (result.code, result.data, result.status, result.residue) == (Code.PIPE, BLOCK, 0, 1536)


def test_case_5_a_short_packet_hides_the_stall_until_the_csw(host: Host) -> None:
    host.command(INQUIRY_36, 255)
    code, data = host.read(255)
    assert (code, len(data)) == (Code.OK, 36)
    assert host.read(13) == (Code.PIPE, b"")
    assert host.csw() == (0, 219)


@pytest.mark.parametrize(("data_in", "length"), [(DataIn.SHORT, 512), (DataIn.PAD, 2048)])
def test_case_5_with_a_short_packet_or_padding(data_in: DataIn, length: int) -> None:
    result = make(data_in).do(READ_1, 2048)
    assert (result.code, result.data) == (Code.OK, BLOCK.ljust(length, b"\0"))
    assert (result.status, result.residue) == (0, 1536)


def test_case_6_as_much_data_as_asked(host: Host) -> None:
    result = host.do(READ_1, 512)
    assert (result.code, result.data, result.status, result.residue) == (Code.OK, BLOCK, 0, 0)


def test_case_7_more_data_than_asked_is_a_phase_error(host: Host) -> None:
    result = host.do(READ_2, 512)
    assert (result.code, result.data, result.status) == (Code.OK, BLOCK, PHASE_ERROR)


def test_case_8_device_and_host_both_expect_data(host: Host) -> None:
    result = host.do(WRITE_1, 512)
    assert (result.code, result.data, result.status) == (Code.PIPE, b"", PHASE_ERROR)
    assert stored(host)[:512] == BLOCK


def test_case_9_device_needs_none_of_the_hosts_data(host: Host) -> None:
    result = host.do(TEST_UNIT_READY, out=bytes(512))
    assert (result.code, result.moved, result.status, result.residue) == (Code.PIPE, 0, 0, 512)


def test_case_9_data_is_discarded() -> None:
    result = make(data_out=DataOut.DISCARD).do(TEST_UNIT_READY, out=bytes(1000))
    assert (result.code, result.moved, result.status, result.residue) == (Code.OK, 1000, 0, 1000)


def test_case_10_device_and_host_both_have_data(host: Host) -> None:
    result = host.do(READ_1, out=bytes(512))
    assert (result.code, result.status) == (Code.PIPE, PHASE_ERROR)


@pytest.mark.parametrize(
    ("data_out", "code", "moved"), [(DataOut.STALL, Code.PIPE, 512), (DataOut.DISCARD, Code.OK, 1536)]
)
def test_case_11_device_needs_less_data_than_the_host_has(data_out: DataOut, code: Code, moved: int) -> None:
    host = make(data_out=data_out)
    result = host.do(WRITE_1, out=b"\xaa" * 512 + b"\xbb" * 1024)
    assert (result.code, result.moved, result.status, result.residue) == (code, moved, 0, 1024)
    assert stored(host) == b"\xaa" * 512 + bytes(512)


def test_case_12_as_much_data_as_needed(host: Host) -> None:
    result = host.do(WRITE_2, out=b"\xaa" * 1024)
    assert (result.code, result.moved, result.status, result.residue) == (Code.OK, 1024, 0, 0)
    assert stored(host) == b"\xaa" * 1024


@pytest.mark.parametrize(("data_out", "code"), [(DataOut.STALL, Code.PIPE), (DataOut.DISCARD, Code.OK)])
def test_case_13_device_needs_more_data_than_the_host_has_and_writes_nothing(data_out: DataOut, code: Code) -> None:
    host = make(data_out=data_out)
    result = host.do(WRITE_2, out=b"\xaa" * 512)
    assert (result.code, result.status) == (code, PHASE_ERROR)
    assert stored(host)[:512] == BLOCK


def test_a_failed_command_stalls_its_data_phase_and_has_status_1(host: Host) -> None:
    result = host.do(cdb10(0x28, 0xFFFFFFF0, 1), 512)
    assert (result.code, result.status, result.residue) == (Code.PIPE, 1, 512)


# --- how the data phase is divided into transfers -----------------------------------------------


def test_data_in_may_be_read_in_many_transfers(host: Host) -> None:
    host.command(cdb10(0x28, 0, 8), 4096)
    pieces = [host.read(size) for size in (512, 1024, 512, 2048)]
    assert [code for code, _ in pieces] == [Code.OK] * 4
    assert b"".join(data for _, data in pieces) == BLOCK + bytes(3584)
    assert host.csw() == (0, 0)


def test_data_out_may_be_written_in_transfers_of_any_size(host: Host) -> None:
    host.command(WRITE_2, 1024, 0)
    for size in (1, 10, 501, 7, 505):
        assert host.write(b"\xcc" * size) == (Code.OK, size)
    assert host.csw() == (0, 0)
    assert stored(host) == b"\xcc" * 1024


def test_a_buffer_that_ends_within_a_packet_overflows_and_the_rest_of_the_packet_is_lost(host: Host) -> None:
    host.command(READ_2, 1024)
    assert host.read(100) == (Code.OVERFLOW, BLOCK[:100])
    assert host.read(512) == (Code.OK, bytes(512))
    assert host.csw() == (0, 0)


def test_an_empty_buffer_overflows_when_the_device_has_a_packet(host: Host) -> None:
    host.command(READ_1, 512)
    assert host.read(0) == (Code.OVERFLOW, b"")


def test_the_csw_follows_an_overflow_in_the_last_packet(host: Host) -> None:
    host.command(READ_1, 512)
    assert host.read(511) == (Code.OVERFLOW, BLOCK[:511])
    assert host.csw() == (0, 0)


def test_a_csw_ends_a_transfer_with_a_larger_buffer_as_a_short_packet(host: Host) -> None:
    host.command(TEST_UNIT_READY)
    code, data = host.read(512)
    assert (code, len(data)) == (Code.OK, 13)


def test_more_data_out_than_announced_is_a_phase_error(host: Host) -> None:
    host.command(WRITE_1, 512, 0)
    assert host.write(bytes(100)) == (Code.OK, 100)
    assert host.write(bytes(500)) == (Code.OK, 500)
    assert host.csw() == (PHASE_ERROR, 0)


def test_an_empty_data_out_packet_changes_nothing(host: Host) -> None:
    host.command(WRITE_1, 512, 0)
    assert host.write(b"") == (Code.OK, 0)
    assert host.write(b"\xdd" * 512) == (Code.OK, 512)
    assert host.csw() == (0, 0)


@pytest.mark.parametrize(("speed", "packet"), [("full", 64), ("high", 512), ("super", 1024), ("super-plus", 1024)])
def test_packets_are_as_large_as_the_speed_allows(speed: str, packet: int) -> None:
    host = make(DataIn.SHORT, speed=speed)
    assert {endpoint.max_packet_size for endpoint in host.device.settings[0].endpoints} == {packet}
    assert host.do(READ_2, 4096).data == BLOCK + bytes(512)


@pytest.mark.parametrize("first", [8, 16, 24])
def test_a_cbw_may_come_in_several_packets_at_full_speed(first: int) -> None:
    endpoints = (EndpointDescriptor(IN, max_packet_size=8), EndpointDescriptor(OUT, max_packet_size=8))
    layout = replace(bot_interface(), endpoints=endpoints)
    host = Host(Stick([Unit(Memory(4096))], Identity(speed="full"), [layout]), attentions=True)
    packet = cbw(5, 36, 0x80, 0, INQUIRY_36)
    assert host.write(packet[:first]) == (Code.OK, first)
    assert host.write(packet[first:]) == (Code.OK, 31 - first)
    assert host.read(512)[0] is Code.OK
    assert host.read(13) == (Code.OK, b"USBS" + struct.pack("<IIB", 5, 0, 0))


# --- waiting ------------------------------------------------------------------------------------


def test_a_read_with_nothing_to_send_waits_until_its_timeout(host: Host) -> None:
    start = time.monotonic()
    assert host.read(13, timeout_ms=60) == (Code.TIMEOUT, b"")
    assert time.monotonic() - start > 0.05


def test_a_waiting_read_gets_the_csw_of_another_threads_command(host: Host) -> None:
    results: list[tuple[Code, bytes]] = []
    thread = threading.Thread(target=lambda: results.append(host.read(13, timeout_ms=60_000)))
    thread.start()
    time.sleep(0.02)
    host.command(TEST_UNIT_READY)
    thread.join(PATIENCE)
    assert results == [(Code.OK, b"USBS" + struct.pack("<IIB", host.tag, 0, 0))]


def test_the_next_cbw_waits_until_the_csw_has_been_read(host: Host) -> None:
    host.command(TEST_UNIT_READY)
    assert host.write(cbw(99, 0, 0, 0, TEST_UNIT_READY)) == (Code.TIMEOUT, 0)
    assert host.csw() == (0, 0)


def test_data_that_the_device_does_not_accept_times_out_with_the_correct_count(host: Host) -> None:
    host.command(WRITE_1, 512, 0)
    assert host.write(bytes(1024)) == (Code.TIMEOUT, 512)
    assert host.csw() == (0, 0)


def test_a_read_of_more_than_announced_gets_the_csw_after_whole_packets(host: Host) -> None:
    host.command(READ_1, 512)
    code, data = host.read(1024)
    assert (code, data) == (Code.OK, BLOCK + b"USBS" + struct.pack("<IIB", host.tag, 0, 0))


# --- invalid CBWs and reset recovery ------------------------------------------------------------


INVALID = {
    "signature": b"USBX" + cbw(1, 0, 0, 0, TEST_UNIT_READY)[4:],
    "short": cbw(1, 0, 0, 0, TEST_UNIT_READY)[:30],
    "long": cbw(1, 0, 0, 0, TEST_UNIT_READY) + b"\0",
    "empty": b"",
    "reserved flag": cbw(1, 0, 0x01, 0, TEST_UNIT_READY),
    "reserved LUN bit": cbw(1, 0, 0, 0x10, TEST_UNIT_READY),
    "no CDB": cbw(1, 0, 0, 0, TEST_UNIT_READY, 0),
    "CDB of 17 bytes": cbw(1, 0, 0, 0, TEST_UNIT_READY, 17),
    "reserved length bit": cbw(1, 0, 0, 0, TEST_UNIT_READY, 0x26),
}


@pytest.mark.parametrize("packet", INVALID.values(), ids=INVALID.keys())
def test_an_invalid_cbw_halts_both_endpoints_until_reset_recovery(host: Host, packet: bytes) -> None:
    assert host.write(packet) == (Code.OK, len(packet))
    for _ in range(2):
        assert host.read(13) == (Code.PIPE, b"")
        assert host.write(cbw(2, 0, 0, 0, TEST_UNIT_READY)) == (Code.PIPE, 0)
        host.handle.clear_halt(IN)
        host.handle.clear_halt(OUT)
    reset_recovery(host)
    host.ok(TEST_UNIT_READY)


def test_packets_after_an_invalid_cbw_are_stalled(host: Host) -> None:
    assert host.write(bytes(2000)) == (Code.PIPE, 512)


def test_the_class_reset_keeps_the_halts_and_drops_the_command(host: Host) -> None:
    host.command(TEST_UNIT_READY, 64)
    host.handle.control_out(0x21, 0xFF, 0, 0, b"", 1000)
    assert host.read(13) == (Code.PIPE, b"")
    host.handle.clear_halt(IN)
    assert host.read(13) == (Code.TIMEOUT, b"")
    host.ok(TEST_UNIT_READY)


def test_a_halt_remains_until_it_is_cleared_and_get_status_reports_it(host: Host) -> None:
    host.command(TEST_UNIT_READY, 64)
    assert host.handle.control_in(0x82, 0, 0, IN, 2, 1000) == b"\x01\x00"
    assert host.read(64) == (Code.PIPE, b"")
    assert host.read(64) == (Code.PIPE, b"")
    host.handle.clear_halt(IN)
    assert host.handle.control_in(0x82, 0, 0, IN, 2, 1000) == b"\x00\x00"
    assert host.csw() == (0, 64)


def test_the_host_may_set_a_halt(host: Host) -> None:
    host.handle.control_out(0x02, 3, 0, OUT, b"", 1000)
    assert host.write(cbw(1, 0, 0, 0, TEST_UNIT_READY)) == (Code.PIPE, 0)
    host.handle.clear_halt(OUT)
    host.ok(TEST_UNIT_READY)


# --- class requests -----------------------------------------------------------------------------


def test_get_max_lun_returns_the_last_lun() -> None:
    host = Host(Stick([Unit(Memory(512)), Unit(), Unit()]))
    assert host.handle.control_in(0xA1, 0xFE, 0, 0, 1, 1000) == b"\x02"


def test_get_max_lun_may_be_stalled() -> None:
    host = Host(Stick.formatted(bot_options=BotOptions(has_max_lun=False)))
    with pytest.raises(UsbError) as caught:
        host.handle.control_in(0xA1, 0xFE, 0, 0, 1, 1000)
    assert caught.value.code is Code.PIPE


@pytest.mark.parametrize(("request_type", "request_", "value"), [(0x21, 0xFF, 1), (0x21, 0xFE, 0), (0xA1, 0xFE, 1)])
def test_a_class_request_with_wrong_fields_is_stalled(request_type: int, request_: int, value: int) -> None:
    with pytest.raises(Stall):
        Host(Stick.formatted()).stick.control(struct.pack("<BBHHH", request_type, request_, value, 0, 1))
