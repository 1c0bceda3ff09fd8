"""Bulk-Only Transport: phases, checks and recovery, with transfers that the test answers or fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from scsiusb import DeviceBusy, DeviceGone, DeviceTimeout, MalformedReply, PhaseError, TransferStalled, TransportError
from scsiusb.opening import open_on
from scsiusb.transport.base import Direction
from scsiusb.transport.bot.transport import BulkOnlyTransport
from scsiusb.usb.backend import ENDPOINT_IN, Code, UsbError
from scsiusb.usb.interface import find
from scsiusb.usb.port import Port
from scsiusb.virtual import BotOptions, Bus, DataIn, Identity, Memory, Sparse, Stick, Unit, VirtualHandle, bot_interface
from tests.deadlines import within
from tests.sticks import (
    CSW_LENGTH,
    PATIENCE,
    Answer,
    Intercept,
    InterceptedBus,
    OddUnit,
    Wire,
    csw,
    execute,
    stick,
    transport_on,
)

TEST_UNIT_READY = bytes(6)
INQUIRY = bytes.fromhex("120000002400")
READ = bytes.fromhex("28000000000000000100")
WRITE = bytes.fromhex("2a000000000000000100")
RECOVERY = ["request ff", "clear in", "clear out"]


@pytest.fixture
def bus() -> Iterator[InterceptedBus]:
    bus = InterceptedBus(stick())
    yield bus
    assert not bus.handles
    bus.close()


@pytest.fixture
def transport(bus: InterceptedBus) -> Iterator[BulkOnlyTransport]:
    transport = transport_on(bus)
    run(transport, TEST_UNIT_READY)  # clears the unit attention after power on
    run(transport, bytes.fromhex("030000001200"), Direction.IN, 18)
    bus.wire.log.clear()
    yield transport
    transport.close()


def run(
    transport: BulkOnlyTransport, cdb: bytes, direction: Direction = Direction.NONE, length: int = 0, timeout: float = 5
) -> tuple[int, int, int, bytes]:
    """Return status, residue, bytes over the wire, and the buffer."""
    with transport.memory.lend(max(length, 1)) as whole, whole[:length] as buffer:
        buffer[:] = b"\xee" * length
        completion = execute(transport, 0, cdb, direction, buffer, timeout)
        return (*completion, bytes(buffer))


def on(opcode: int, phase: str, answer: Intercept, times: int = 1) -> Intercept:
    """Call `answer` in the phase ("cbw", "data", "csw") of the first `times` commands with that opcode."""
    left = [times]

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if wire.opcode != opcode or not left[0] or _phase(wire, endpoint) != phase:
            return None
        left[0] -= 1
        return answer(wire, endpoint, buffer)

    return intercept


def _phase(wire: Wire, endpoint: int) -> str:
    if wire.log[-1].startswith("cbw"):
        return "cbw"
    since = wire.log[max(at for at, entry in enumerate(wire.log) if entry.startswith("cbw")) :]
    has_data = wire.opcode in (0x12, 0x28, 0x2A, 0x03)
    transfers = [entry for entry in since if entry in ("in", "out")]
    return "data" if has_data and len(transfers) == 1 else "csw"


def fails(code: Code, count: int = 0) -> Intercept:
    return lambda wire, endpoint, buffer: (code, count)


def answers(**fields: int) -> Intercept:
    """Answer with a CSW of these fields instead of the device's CSW."""

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        return wire.put(buffer, csw(fields.get("tag", wire.tag), fields.get("residue", 0), fields.get("status", 0)))

    return intercept


def clear_attention(transport: BulkOnlyTransport) -> None:
    """Clear the unit attention after a port reset."""
    run(transport, TEST_UNIT_READY)
    run(transport, bytes.fromhex("030000001200"), Direction.IN, 18)


def is_usable(transport: BulkOnlyTransport) -> bool:
    status, residue, count, data = run(transport, READ, Direction.IN, 512)
    return (status, residue, count, data[:4]) == (0, 0, 512, bytes(4))


def test_the_phases_of_each_command(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    run(transport, TEST_UNIT_READY)
    run(transport, READ, Direction.IN, 512)
    run(transport, WRITE, Direction.OUT, 512)
    assert bus.wire.log == ["cbw 00", "in", "cbw 28", "in", "in", "cbw 2a", "out", "in"]


def test_a_failed_command_is_a_status_and_not_an_exception(transport: BulkOnlyTransport) -> None:
    status, _, _, _ = run(transport, bytes.fromhex("c00000000000"))
    assert status == 1
    assert is_usable(transport)


@pytest.mark.parametrize("data_in", [DataIn.SHORT, DataIn.STALL, DataIn.PAD])
def test_less_data_than_asked_is_reported_by_the_residue(data_in: DataIn) -> None:
    with TransportTo(Stick([Unit(Memory(1 << 16))], bot_options=BotOptions(data_in=data_in))) as transport:
        status, residue, count, data = run(transport, bytes.fromhex("12000000ff00"), Direction.IN, 255)
        assert status == 0
        assert data[8:15] == b"scsiusb"
        assert min(count, 255 - residue) == 36


class TransportTo:
    """Context manager: a transport on a new bus with this stick."""

    def __init__(self, stick: Stick) -> None:
        self.bus = InterceptedBus(stick)

    def __enter__(self) -> BulkOnlyTransport:
        self.transport = transport_on(self.bus)
        return self.transport

    def __exit__(self, *error: object) -> None:
        self.transport.close()
        self.bus.close()


def test_a_stalled_csw_is_read_again_once(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "csw", fails(Code.PIPE))
    assert is_usable(transport)
    assert bus.wire.log == ["cbw 28", "in", "in", "clear in", "in"]


def test_a_csw_that_stalls_twice_ends_in_reset_recovery(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "csw", fails(Code.PIPE), times=2)
    with pytest.raises(TransferStalled):
        run(transport, READ, Direction.IN, 512)
    assert bus.wire.log[-3:] == RECOVERY
    assert is_usable(transport)


def test_an_empty_csw_is_read_again_once(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "csw", fails(Code.OK))
    assert is_usable(transport)
    bus.wire.intercept = on(0x28, "csw", fails(Code.OK), times=2)
    with pytest.raises(MalformedReply):
        run(transport, READ, Direction.IN, 512)
    assert is_usable(transport)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answers(tag=0xDEAD), MalformedReply),
        (answers(status=3), MalformedReply),
        (answers(status=2), PhaseError),
        (fails(Code.OK, 12), MalformedReply),
        (fails(Code.OK, 14), MalformedReply),
        (fails(Code.OVERFLOW), MalformedReply),
        (lambda wire, endpoint, buffer: wire.put(buffer, csw(wire.tag, signature=b"USBC")), MalformedReply),
        (fails(Code.IO), TransportError),
    ],
    ids=["tag", "status 3", "phase error", "short", "long", "overflow", "signature", "i/o"],
)
def test_a_bad_csw_is_an_error_and_the_transport_recovers(
    bus: InterceptedBus, transport: BulkOnlyTransport, answer: Intercept, error: type[TransportError]
) -> None:
    bus.wire.intercept = on(0x28, "csw", answer)
    with pytest.raises(error):
        run(transport, READ, Direction.IN, 512)
    assert bus.wire.log[-3:] == RECOVERY
    assert is_usable(transport)


def test_a_csw_in_the_place_of_the_data_counts_as_no_data(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "data", lambda wire, _, buffer: wire.put(buffer, csw(wire.tag, 512, 1)))
    status, residue, count, _ = run(transport, READ, Direction.IN, 512)
    assert (status, residue, count) == (1, 512, 0)
    assert "clear in" not in bus.wire.log


def discard_data(bus: InterceptedBus, endpoint: int, size: int) -> None:
    """Read and discard the device's data, so that its CSW is next."""
    with memoryview(bytearray(size)) as discarded:
        VirtualHandle.bulk(bus.handles[0], endpoint, discarded, within(1000))


def test_data_that_looks_like_a_csw_with_another_tag_is_data(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    def look_alike(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        discard_data(bus, endpoint, 512)
        return wire.put(buffer, csw(wire.tag + 1))

    bus.wire.intercept = on(0x28, "data", look_alike)
    status, residue, count, data = run(transport, READ, Direction.IN, 512)
    assert (status, residue, count) == (0, 0, 13)
    assert data[:4] == b"USBS"
    assert bus.wire.log == ["cbw 28", "in", "in"]


@pytest.mark.parametrize("length", range(1, 15))
def test_a_csw_in_the_place_of_little_data_counts_as_no_data(length: int) -> None:
    """The CSW is as long as the data, or longer."""
    with TransportTo(Stick([Unit(Memory(1 << 20))], faults=["csw-as-data,opcode=12"])) as transport:
        inquiry = INQUIRY[:4] + bytes([length, 0])
        assert run(transport, inquiry, Direction.IN, length)[:3] == (0, length, 0)
        status, residue, count, data = run(transport, inquiry, Direction.IN, length)
        assert (status, residue, count) == (0, 0, length)
        assert data[1:2] in (b"", b"\x80")


def test_13_bytes_of_data_that_look_like_a_csw_with_another_tag_are_data(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    def look_alike(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        discard_data(bus, endpoint, CSW_LENGTH)
        return wire.put(buffer, csw(wire.tag + 1))

    bus.wire.intercept = on(0x12, "data", look_alike)
    status, residue, count, data = run(transport, bytes.fromhex("120000000d00"), Direction.IN, CSW_LENGTH)
    assert (status, residue, count) == (0, 0, CSW_LENGTH)
    assert data[:4] == b"USBS"


@pytest.mark.parametrize("surplus", [5, 64, 503])
def test_more_than_a_little_data_is_an_error(surplus: int) -> None:
    """With a surplus of 5 bytes, a reply of 8 is as long as a CSW."""
    with TransportTo(Stick([Unit(Memory(1 << 20))], faults=[f"long={surplus}@data,opcode=12"])) as transport:
        with pytest.raises(PhaseError, match="more than the 8 bytes"):
            run(transport, bytes.fromhex("120000000800"), Direction.IN, 8)
        clear_attention(transport)
        assert is_usable(transport)


@pytest.mark.parametrize("length", [4, 8, 12])
def test_little_data_in_packets_of_8_bytes(length: int) -> None:
    """A reply of whole packets ends without a short one: the host must not wait for more."""
    interface = bot_interface()
    small = replace(interface, endpoints=tuple(replace(each, max_packet_size=8) for each in interface.endpoints))
    with TransportTo(Stick([Unit(Memory(1 << 20))], Identity(speed="full"), [small])) as transport:
        inquiry = INQUIRY[:4] + bytes([length, 0])
        assert run(transport, inquiry, Direction.IN, length)[:3] == (0, 0, length)


def test_a_babble_is_an_error_but_the_csw_is_read(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    def babble(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        discard_data(bus, endpoint, 512)
        return Code.OVERFLOW, 512

    bus.wire.intercept = on(0x28, "data", babble)
    with pytest.raises(PhaseError, match="more than the 512 bytes"):
        run(transport, READ, Direction.IN, 512)
    assert bus.wire.log[:3] == ["cbw 28", "in", "in"]
    assert is_usable(transport)


def test_a_refused_cbw_is_an_error(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "cbw", fails(Code.PIPE))
    with pytest.raises(TransferStalled, match=r"refused the command block .* \(recovered by class reset\)"):
        run(transport, READ, Direction.IN, 512)
    assert is_usable(transport)


def test_a_cbw_sent_in_part_is_an_error(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "cbw", fails(Code.OK, 30))
    with pytest.raises(TransportError, match="only 30"):
        run(transport, READ, Direction.IN, 512)
    assert is_usable(transport)


def test_a_stall_of_data_out_ends_the_data_phase(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    unit = bus._connections[2].stick.units[0]
    unit.write_protected = True
    status, residue, count, _ = run(transport, WRITE, Direction.OUT, 512)
    assert status == 1
    assert residue == 512
    assert count == 0
    assert "clear out" in bus.wire.log


def test_a_silent_device_times_out_and_is_recovered(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "data", fails(Code.TIMEOUT, 100))
    with pytest.raises(DeviceTimeout, match="100 of 512 bytes received"):
        run(transport, READ, Direction.IN, 512)
    assert bus.wire.log[-4:] == [*RECOVERY, "port reset"]
    clear_attention(transport)
    assert is_usable(transport)


def test_the_timeout_is_for_all_phases_together(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    """A real timeout: the device did not get the CBW, so it has nothing to send in the status phase."""
    bus.wire.intercept = on(0x00, "cbw", fails(Code.OK, 31))
    with pytest.raises(DeviceTimeout):
        run(transport, TEST_UNIT_READY, timeout=0.05)
    clear_attention(transport)
    assert is_usable(transport)


def test_the_port_is_reset_if_the_class_reset_fails(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "csw", answers(status=2))
    bus.wire.fail_requests["request ff"] = Code.PIPE
    with pytest.raises(PhaseError):
        run(transport, READ, Direction.IN, 512)
    assert bus.wire.log[-2:] == ["request ff", "port reset"]
    clear_attention(transport)
    assert is_usable(transport)


def test_a_recovery_that_failed_is_retried_before_the_next_command(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    bus.wire.intercept = on(0x28, "csw", answers(status=2))
    bus.wire.fail_requests = {"request ff": Code.PIPE, "port reset": Code.IO}
    with pytest.raises(TransportError):
        run(transport, READ, Direction.IN, 512)
    bus.wire.fail_requests = {}
    bus.wire.log.clear()
    assert is_usable(transport)
    assert bus.wire.log[:4] == [*RECOVERY, "cbw 28"]


def test_an_unplugged_device_is_gone_without_any_recovery(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.unplug(bus.devices()[0])
    bus.wire.log.clear()
    with pytest.raises(DeviceGone):
        run(transport, READ, Direction.IN, 512)
    assert bus.wire.log == ["cbw 28"]


def test_a_device_unplugged_in_the_data_phase_is_gone(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    def pull(wire: Wire, endpoint: int, buffer: memoryview) -> None:
        bus.unplug(bus.devices()[0])

    bus.wire.intercept = on(0x28, "data", pull)
    with pytest.raises(DeviceGone):
        run(transport, READ, Direction.IN, 512)


def test_a_device_found_gone_while_recovering_is_gone(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    def fail(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        bus.unplug(bus.devices()[0])
        return Code.IO, 0

    bus.wire.intercept = on(0x28, "data", fail)
    with pytest.raises(DeviceGone):
        run(transport, READ, Direction.IN, 512)


@pytest.mark.parametrize("phase", ["cbw", "data", "csw"])
def test_an_interrupted_command_is_recovered_before_the_next(
    bus: InterceptedBus, transport: BulkOnlyTransport, phase: str
) -> None:
    def interrupt(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        raise KeyboardInterrupt

    bus.wire.intercept = on(0x28, phase, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(transport, READ, Direction.IN, 512)
    bus.wire.log.clear()
    assert is_usable(transport)
    assert bus.wire.log[:3] == RECOVERY


def test_an_interrupted_command_is_recovered_at_close(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    def interrupt(wire: Wire, endpoint: int, buffer: memoryview) -> Answer:
        raise KeyboardInterrupt

    bus.wire.intercept = on(0x28, "data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(transport, READ, Direction.IN, 512)
    bus.wire.log.clear()
    transport.close()
    assert bus.wire.log == RECOVERY
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_closing_raises_nothing_if_the_recovery_fails(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "csw", answers(status=2))
    bus.wire.fail_requests = {"request ff": Code.PIPE, "port reset": Code.IO}
    with pytest.raises(TransportError):
        run(transport, READ, Direction.IN, 512)
    transport.close()
    transport.close()
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


@pytest.mark.parametrize(("code", "luns"), [(Code.PIPE, 0), (Code.TIMEOUT, 0), (Code.IO, 0), (Code.OVERFLOW, 0)])
def test_get_max_lun_may_fail(code: Code, luns: int) -> None:
    bus = InterceptedBus(Stick([Unit(Memory(512)), Unit(Memory(512))]))
    bus.wire.fail_requests["request fe"] = code
    with_failure = transport_on(bus)
    assert with_failure.max_lun == luns
    with_failure.close()
    bus.wire.fail_requests.clear()
    without = transport_on(bus)
    assert without.max_lun == 1
    without.close()
    bus.close()


@pytest.mark.parametrize("reply", [b"", b"\x10", b"\xff"])
def test_an_impossible_max_lun_counts_as_0(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    bus = InterceptedBus(stick())
    monkeypatch.setattr("tests.sticks.InterceptedHandle.control_in", lambda *arguments: reply)
    transport = transport_on(bus)
    assert transport.max_lun == 0
    transport.close()
    bus.close()


@pytest.mark.parametrize(("lun", "cdb"), [(16, TEST_UNIT_READY), (-1, TEST_UNIT_READY), (0, b""), (0, bytes(17))])
def test_a_lun_or_cdb_that_does_not_fit_a_cbw_is_refused(
    bus: InterceptedBus, transport: BulkOnlyTransport, lun: int, cdb: bytes
) -> None:
    with pytest.raises(ValueError, match="do not fit a CBW"):
        execute(transport, lun, cdb, Direction.NONE, memoryview(b""), 1)
    assert bus.wire.log == []


@pytest.mark.parametrize(("subclass", "shortest"), [(0x01, 6), (0x02, 12), (0x04, 12), (0x05, 12), (0x06, 6)])
def test_command_blocks_have_at_least_12_bytes_where_the_subclass_wants_them(subclass: int, shortest: int) -> None:
    unit = OddUnit(Sparse((1 << 32) + 8))
    setting = replace(bot_interface(), subclass=subclass)
    bus = Bus(Stick([unit], interfaces=[setting]))
    with open_on(bus) as disk:
        disk.read(0, 1)
        disk.read(1 << 32, 1)
    bus.close()
    lengths = {cdb[0]: len(cdb) for cdb in unit.cdbs}
    assert [lengths[opcode] for opcode in (0x00, 0x28, 0x88)] == [shortest, max(shortest, 10), 16]
    assert all(not any(cdb[6:]) for cdb in unit.cdbs if cdb[0] < 0x20)


def test_a_residue_above_the_length_means_that_no_data_was_processed(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    bus.wire.intercept = on(0x12, "csw", answers(residue=0xFFFFFFFF))
    _, residue, count, _ = run(transport, INQUIRY, Direction.IN, 36)
    assert (residue, count) == (36, 36)


def test_threads_do_not_interleave(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    wrong: list[int] = []

    def read_blocks(first: int) -> None:
        for lba in range(first, first + 50):
            _, _, _, data = run(transport, bytes([0x28, 0, *lba.to_bytes(4, "big"), 0, 0, 1, 0]), Direction.IN, 512)
            if data[:4] != lba.to_bytes(4, "big"):
                wrong.append(lba)

    threads = [threading.Thread(target=read_blocks, args=(first * 100,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(bus.wire.log[at : at + 3] == ["cbw 28", "in", "in"] for at in range(0, len(bus.wire.log), 3))


@pytest.mark.parametrize(("speed", "most"), [("high", 120 * 1024), ("full", 120 * 1024), ("super", 1 << 20)])
def test_the_bus_speed_bounds_a_command(speed: str, most: int) -> None:
    with TransportTo(Stick([Unit(Memory(1 << 16))], Identity(speed=speed))) as transport:
        assert transport.max_transfer == most


@pytest.mark.parametrize("size", [8, 16, 64])
def test_a_csw_may_span_packets(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full-speed device may have bulk packets of 8 bytes (USB 2.0 5.8.3)."""
    bus = InterceptedBus(stick())
    seen: list[int] = []

    def note(wire: Wire, endpoint: int, buffer: memoryview) -> None:
        seen.append(len(buffer))

    info = find(bus)[0]
    endpoints = tuple(replace(endpoint, max_packet_size=size) for endpoint in info.setting.endpoints)
    transport = BulkOnlyTransport(Port(bus, replace(info, setting=replace(info.setting, endpoints=endpoints))))
    bus.wire.intercept = note
    run(transport, TEST_UNIT_READY)
    assert seen[-1] == max(16, size)
    transport.close()
    bus.close()


def test_a_failing_recovery_does_not_replace_the_error(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    bus.wire.intercept = on(0x28, "data", fails(Code.TIMEOUT))
    bus.wire.fail_requests = {"request ff": Code.PIPE, "port reset": Code.IO}
    with pytest.raises(DeviceTimeout):
        run(transport, READ, Direction.IN, 512)
    bus.wire.fail_requests = {}
    clear_attention(transport)
    assert is_usable(transport)


def test_data_without_a_direction_is_refused(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    with pytest.raises(ValueError, match="do not fit a CBW"):
        run(transport, TEST_UNIT_READY, Direction.NONE, 8)
    assert bus.wire.log == []


@pytest.mark.parametrize("what", ["execute", "close"])
def test_a_signal_handler_cannot_use_the_transport_between_the_phases(
    bus: InterceptedBus, transport: BulkOnlyTransport, what: str
) -> None:
    def handler(wire: Wire, endpoint: int, buffer: memoryview) -> None:
        with pytest.raises(DeviceBusy, match="from a signal handler while a command is running in this thread"):
            transport.close() if what == "close" else run(transport, TEST_UNIT_READY)

    bus.wire.intercept = handler
    assert is_usable(transport)


def test_closing_waits_for_the_command_of_another_thread(bus: InterceptedBus, transport: BulkOnlyTransport) -> None:
    started, closed = threading.Event(), threading.Event()
    was_open: list[bool] = []

    def slow(wire: Wire, endpoint: int, buffer: memoryview) -> None:
        started.set()
        was_open.append(not closed.wait(0.05))

    def close() -> None:
        transport.close()
        closed.set()

    bus.wire.intercept = on(0x28, "data", slow)
    reader = threading.Thread(target=lambda: run(transport, READ, Direction.IN, 512))
    reader.start()
    started.wait(PATIENCE)
    closers = [threading.Thread(target=close) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in (reader, *closers):
        thread.join()
    assert was_open == [True]
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"


def test_a_buffer_in_use_is_freed_by_close_and_may_be_released_later(
    bus: InterceptedBus, transport: BulkOnlyTransport
) -> None:
    handle = bus.handles[0]
    with transport.memory.lend(512):
        transport.close()
        assert handle.outstanding == 0
    assert handle.outstanding == 0


def test_a_kernel_driver_that_does_not_return_is_logged(
    bus: InterceptedBus, transport: BulkOnlyTransport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_driver(self: object, interface: int) -> None:
        raise UsbError(Code.NOT_FOUND)

    monkeypatch.setattr("tests.sticks.InterceptedHandle.attach_driver", no_driver)
    transport.close()
    assert "giving the kernel back its driver" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def quirky(vid: int, pid: int, release: int) -> TransportTo:
    identity = Identity(vid=vid, pid=pid, release=release)
    return TransportTo(Stick([Unit(Memory(1 << 16)), Unit(Memory(1 << 16))], identity))


@pytest.mark.parametrize(("release", "most"), [(0x0370, 32), (0x0610, 32), (0x036F, 120), (0x0611, 120)])
def test_a_device_that_fails_on_long_transfers_gets_short_ones(release: int, most: int) -> None:
    with quirky(0x0421, 0x047C, release) as transport:
        assert transport.max_transfer == most * 1024


def test_the_residue_of_a_device_in_the_quirks_table_is_ignored_from_the_start() -> None:
    with quirky(0x03EB, 0x2002, 0x0100) as transport:
        run(transport, TEST_UNIT_READY)
        _, residue, count, _ = run(transport, bytes.fromhex("12000000ff00"), Direction.IN, 255)
        assert (residue, count) == (0, 36)


def test_a_device_that_claims_too_many_units_has_one() -> None:
    with quirky(0x0409, 0x0040, 0x0100) as transport:
        assert transport.max_lun == 0
    with quirky(0x0409, 0x0041, 0x0100) as transport:
        assert transport.max_lun == 1


def test_the_constants_of_these_tests() -> None:
    assert ENDPOINT_IN == 0x80
    assert len(csw(1)) == CSW_LENGTH
