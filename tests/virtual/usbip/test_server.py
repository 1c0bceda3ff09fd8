"""The USB/IP server, tested with a client that packs and unpacks all messages itself."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from scsiusb.virtual import Memory, Stick, Unit, bot_interface, hid_interface
from scsiusb.virtual.usbip import server as usbip
from scsiusb.virtual.usbip import urbs as usbip_urbs
from scsiusb.virtual.usbip.server import Server
from scsiusb.virtual.usbip.wire import Exported
from tests.virtual.host import cbw, cdb10
from tests.virtual.usbip.client import (
    DEVICE,
    ECONNRESET,
    EINVAL,
    END_OF_STREAM,
    EOVERFLOW,
    EPIPE,
    EPROTO,
    EREMOTEIO,
    ESHUTDOWN,
    IN,
    OUT,
    SHORT_NOT_OK,
    SUBMIT,
    ZERO_PACKET,
    Client,
)


@pytest.fixture
def stick() -> Stick:
    content = bytes(range(256)) * (2 << 12)
    return Stick([Unit(Memory(content))])


@pytest.fixture
def server(stick: Stick) -> Iterator[Server]:
    with Server(stick, port=0) as server:
        yield server
    assert server.join(0)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server) as client:
        yield client.configure()


def devices(server: Server) -> int:
    """Return how many devices the server exports."""
    with Client(server) as client:
        assert client.request(0x8005) == (0x0111, 5, 0)
        (count,) = struct.unpack(">I", client.receive(4))
        return int(count)


# --- before it is attached ----------------------------------------------------------------------


def test_the_list_of_devices_contains_the_stick_with_its_interfaces(server: Server) -> None:
    with Client(server) as client:
        assert client.request(0x8005) == (0x0111, 5, 0)
        data = client.receive(4 + 312 + 4)
        assert client.receive(1) == END_OF_STREAM
    count, path, bus_id, *numbers = struct.unpack(">I256s32sIIIHHHBBBBBB3sx", data)
    assert (count, path[:5], bus_id.rstrip(b"\0")) == (1, b"/sys/", b"1-1")
    assert numbers == [1, 2, 3, 0x1209, 0x0001, 0x0100, 0, 0, 0, 0, 1, 1, bytes((8, 6, 0x50))]


def configuration(record: bytes) -> int:
    """Return bConfigurationValue of a record of 312 bytes."""
    return record[309]


def test_the_records_have_the_configuration_that_is_selected(server: Server) -> None:
    with Client(server) as client:
        assert configuration(client.attach()) == client.control_in(0x80, 8, 0, 0, 1)[1][0] == 0
        assert client.move(OUT, data=bytes(31))[0] == EPROTO
        assert client.control_out(0, 9, 1, 0) == 0
        with Client(server) as other:
            other.request(0x8005)
            assert configuration(other.receive(4 + 312)[4:]) == client.control_in(0x80, 8, 0, 0, 1)[1][0] == 1
    while server.is_attached:
        devices(server)
    with Client(server) as again:
        assert configuration(again.attach()) == 0


@pytest.mark.parametrize(("speed", "number"), [("full", 2), ("high", 3), ("super", 5), ("super-plus", 5)])
def test_the_speed_is_reported_in_linux_numbers(speed: str, number: int) -> None:
    record = Exported("1-1", speed, 1, 2, 3, ()).record(0)
    assert struct.unpack_from(">I", record, 296) == (number,)


def test_a_device_that_does_not_exist_cannot_be_attached(server: Server) -> None:
    with Client(server) as client:
        assert client.request(0x8003, b"3-2".ljust(32, b"\0")) == (0x0111, 3, 4)
        assert client.receive(1) == END_OF_STREAM


def test_a_second_client_is_refused_and_the_first_one_continues(server: Server, client: Client) -> None:
    with Client(server) as second:
        assert second.request(0x8003, b"1-1".ljust(32, b"\0")) == (0x0111, 3, 2)
        assert second.receive(1) == END_OF_STREAM
    assert devices(server) == 1
    client.command(bytes(6), 0)
    assert client.csw() == (0, 0)


def test_a_server_that_cannot_be_woken_leaves_its_port(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[socket.socket, socket.socket]:
        raise OSError(errno.EMFILE, "Too many open files")

    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", none_left)
        with pytest.raises(OSError, match="Too many open files") as caught:
            Server(stick, port=port)
    with Server(stick, port=port):
        assert caught.value.errno == errno.EMFILE, "the first server's frames are still there, its socket is closed"


def test_a_port_that_is_taken_is_named_in_the_systems_words(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has the error in words of its own, which os.strerror does not know; `socket` appends the address."""

    def taken(*_: object, **__: object) -> socket.socket:
        raise OSError(10048, "Only one usage is permitted (while attempting to bind on address ('127.0.0.1', 3240))")

    monkeypatch.setattr(socket, "create_server", taken)
    with pytest.raises(OSError) as caught:
        Server(stick, "127.0.0.1", 3240)
    assert (caught.value.errno, caught.value.filename) == (10048, "127.0.0.1:3240")
    assert caught.value.strerror == "Only one usage is permitted"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        struct.pack(">HHI", 0x0106, 0x8003, 0) + b"1-1".ljust(32, b"\0"),
        struct.pack(">HHI", 0x0111, 0x8001, 0),
    ],
    ids=["another protocol", "another version", "another request"],
)
def test_a_client_with_another_protocol_is_disconnected(server: Server, data: bytes) -> None:
    with Client(server) as client:
        client.socket.sendall(data)
        assert client.receive(1) == END_OF_STREAM
    assert devices(server) == 1


def test_a_client_that_sends_no_request_is_disconnected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usbip, "_HANDSHAKE_TIMEOUT", 0.05)
    with Client(server) as client:
        assert client.receive(1) == END_OF_STREAM


def is_served(server: Server) -> bool:
    with Client(server) as client:
        try:
            client.socket.sendall(struct.pack(">HHI", 0x0111, 0x8005, 0))
        except ConnectionError:
            return False
        return client.receive(8) == struct.pack(">HHI", 0x0111, 5, 0)


# --- the default control pipe -------------------------------------------------------------------


def test_a_host_can_enumerate_the_device(server: Server, stick: Stick) -> None:
    with Client(server) as client:
        client.attach()
        assert client.control_in(0x80, 6, 0x0100, 0, 64) == (0, stick.descriptors.device())
        assert client.control_in(0x80, 6, 0x0100, 0, 18) == (0, stick.descriptors.device())
        status, head = client.control_in(0x80, 6, 0x0200, 0, 9)
        assert (status, len(head)) == (0, 9)
        total = struct.unpack_from("<H", head, 2)[0]
        assert client.control_in(0x80, 6, 0x0200, 0, total) == (0, stick.descriptors.configuration())
        assert client.control_in(0x80, 6, 0x0303, 0x0409, 255) == (0, b"\x1a\x03" + "0123456789AB".encode("utf-16-le"))
        assert client.control_out(0, 9, 1, 0) == 0
        assert client.control_in(0x80, 8, 0, 0, 1) == (0, b"\x01")
        assert client.control_in(0xA1, 0xFE, 0, 0, 1) == (0, b"\x00")


def test_a_request_that_the_device_does_not_support_is_stalled(client: Client) -> None:
    assert client.control_in(0x80, 6, 0x0F00, 0, 5) == (EPIPE, b"")
    assert client.control_out(0x40, 1, 2, 3, b"vendor") == EPIPE


def test_a_request_that_is_not_answered_waits_until_it_is_unlinked(server: Server, stick: Stick) -> None:
    stick.faults.add("max-lun-hangs")
    with Client(server) as client:
        client.configure()
        waiting = client.submit(0x80, 1, setup=struct.pack("<BBHHH", 0xA1, 0xFE, 0, 0, 1))
        queued = client.submit(0x80, 1, setup=struct.pack("<BBHHH", 0x80, 8, 0, 0, 1))
        client.command(bytes(6), 0)
        assert client.csw() == (0, 0)
        unlinked = client.unlink(waiting)
        assert client.answer() == (4, unlinked, ECONNRESET, b"")
        assert client.answer() == (3, queued, 0, b"\x01")


def test_a_setup_packet_that_contradicts_its_transfer_is_refused(client: Client) -> None:
    setup = struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 64)
    assert client.move(0x80, 18, setup=setup) == (EINVAL, b"")
    assert client.move(0, data=bytes(64), setup=setup) == (EINVAL, b"")


@pytest.mark.parametrize("length", [8, 64])
def test_the_first_request_of_an_enumeration_resets_the_port(client: Client, stick: Stick, length: int) -> None:
    """Linux's vhci_hcd forwards neither the port reset nor SET_ADDRESS, so the server infers the reset."""
    waiting = client.submit(IN, 512)
    seqnum = client.submit(0x80, length, setup=struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, length))
    assert client.answer() == (3, seqnum, 0, stick.descriptors.device()[:length])
    assert client.answer() == (3, waiting, EPROTO, b"")
    assert client.control_in(0x80, 8, 0, 0, 1) == (0, b"\x00")
    assert client.control_out(0, 9, 1, 0) == 0
    client.command(bytes(6), 0)
    assert client.csw() == (1, 0)
    client.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    status, sense = client.move(IN, 18)
    assert (status, sense[2], sense[12], sense[13]) == (0, 6, 0x29, 0)


def test_a_port_reset_that_the_host_requests_keeps_the_configuration(client: Client) -> None:
    assert client.control_out(0x23, 3, 4, 1) == 0
    assert client.control_in(0x80, 8, 0, 0, 1) == (0, b"\x01")
    client.command(bytes(6), 0)
    assert client.csw() == (1, 0)


# --- transfers ----------------------------------------------------------------------------------


def test_a_complete_read_and_a_complete_write(client: Client, stick: Stick) -> None:
    medium = stick.units[0].medium
    assert isinstance(medium, Memory)
    medium.data[512:] = bytes(i * 7 & 0xFF for i in range(len(medium.data) - 512))
    client.command(cdb10(0x28, 1, 1000), 512000)
    assert client.move(IN, 512000) == (0, bytes(medium.data[512:512512]))
    assert client.csw() == (0, 0)
    client.command(cdb10(0x2A, 3, 2), 1024, 0)
    assert client.move(OUT, data=b"\xa5" * 1024) == (0, bytes(1024))
    assert client.csw() == (0, 0)
    assert medium.data[1536:2560] == b"\xa5" * 1024


def test_three_phases_sent_at_once_are_answered_in_order(client: Client) -> None:
    """URBs on one endpoint complete in order; the first one waits for the URB of another endpoint."""
    data, status = client.submit(IN, 512), client.submit(IN, 13)
    command = client.submit(OUT, data=cbw(99, 512, 0x80, 0, cdb10(0x28, 0, 1)))
    assert client.answer(is_in=False)[:3] == (3, command, 0)
    assert client.answer()[1:3] == (data, 0)
    assert client.answer() == (3, status, 0, b"USBS" + struct.pack("<IIB", 99, 0, 0))


def test_a_transfer_that_waits_does_not_block_others_and_can_be_unlinked(client: Client) -> None:
    first, second = client.submit(IN, 512), client.submit(IN, 13)
    assert client.control_in(0x80, 8, 0, 0, 1) == (0, b"\x01")
    unlinked = client.unlink(first)
    assert client.answer() == (4, unlinked, ECONNRESET, b"")
    client.tag += 1
    command = client.submit(OUT, data=cbw(client.tag, 0, 0, 0, bytes(6)))
    assert client.answer(is_in=False)[:3] == (3, command, 0)
    assert client.answer()[:3] == (3, second, 0)


def test_unlinking_a_transfer_that_was_answered_already_reports_that(client: Client) -> None:
    client.control_in(0x80, 8, 0, 0, 1)
    unlinked = client.unlink(client.seqnum)
    assert client.answer() == (4, unlinked, 0, b"")


def test_a_stall_keeps_the_data_before_it_and_remains_until_it_is_cleared(client: Client) -> None:
    client.command(cdb10(0x28, 0, 1), 1024)
    status, data = client.move(IN, 1024)
    assert (status, len(data)) == (EPIPE, 512)
    assert client.move(IN, 13) == (EPIPE, b"")
    assert client.control_out(0x02, 1, 0, IN) == 0
    assert client.csw() == (0, 512)


def test_a_short_transfer_succeeds_unless_the_host_forbids_it(client: Client) -> None:
    for flags, expected in ((0, 0), (SHORT_NOT_OK, EREMOTEIO)):
        client.tag += 1
        client.move(OUT, data=cbw(client.tag, 0, 0, 0, bytes(6)))
        status, data = client.move(IN, 512, flags=flags)
        assert (status, len(data)) == (expected, 13)


def test_a_packet_larger_than_the_buffer_is_an_overflow(client: Client) -> None:
    client.command(cdb10(0x28, 0, 1), 512)
    status, data = client.move(IN, 100)
    assert (status, len(data)) == (EOVERFLOW, 100)


def test_a_transfer_to_an_endpoint_that_does_not_exist_fails(client: Client) -> None:
    assert client.move(0x85, 10) == (EPROTO, b"")
    assert client.control_out(0, 9, 0, 0) == 0
    assert client.move(IN, 10) == (EPROTO, b"")


def test_a_zero_length_packet_is_sent_at_the_end_if_the_host_wants_one(client: Client, stick: Stick) -> None:
    """The device takes this packet for the next CBW, which is invalid and so halts both endpoints."""
    client.command(cdb10(0x2A, 0, 1), 512, 0)
    assert client.move(OUT, data=bytes(512)) == (0, bytes(512))
    assert client.csw() == (0, 0)
    client.command(cdb10(0x2A, 0, 1), 512, 0)
    waiting = client.submit(OUT, data=bytes(512), flags=ZERO_PACKET)
    status = client.submit(IN, 13)
    assert client.answer()[:3] == (3, status, 0)
    assert client.answer(is_in=False) == (3, waiting, 0, bytes(512))
    assert client.move(IN, 13) == (EPIPE, b"")


def test_an_interrupt_endpoint_never_answers() -> None:
    stick = Stick([Unit(Memory(512))], interfaces=(bot_interface(), hid_interface(1)))
    with Server(stick, port=0) as server, Client(server) as client:
        client.configure()
        waiting = client.submit(0x88, 8)
        client.command(bytes(6), 0)
        assert client.csw() == (0, 0)
        unlinked = client.unlink(waiting)
        assert client.answer() == (4, unlinked, ECONNRESET, b"")


# --- detaching, unplugging, closing -------------------------------------------------------------


def test_after_a_client_has_disconnected_the_stick_can_be_attached_again_as_if_plugged_in(
    server: Server, client: Client, stick: Stick
) -> None:
    client.submit(IN, 512)
    client.socket.close()
    while server.is_attached:
        devices(server)
    with Client(server) as again:
        again.attach()
        assert again.control_in(0x80, 8, 0, 0, 1) == (0, b"\x00")
        assert again.control_out(0, 9, 1, 0) == 0
        again.command(bytes(6), 0)
        assert again.csw() == (1, 0)


def test_a_stick_that_leaves_by_itself_ends_the_connection(server: Server, client: Client, stick: Stick) -> None:
    stick.faults.add("disconnect=512@data")
    client.command(cdb10(0x28, 0, 2), 1024)
    status, data = client.move(IN, 1024)
    assert (status, len(data)) == (ESHUTDOWN, 512)
    assert client.receive(1) == END_OF_STREAM
    with Client(server) as again:
        again.configure()


@pytest.mark.slow
def test_a_stick_that_leaves_for_a_time_cannot_be_attached_before(server: Server, client: Client, stick: Stick) -> None:
    stick.faults.add("away=0.5@data")
    client.command(cdb10(0x28, 0, 2), 1024)
    assert client.move(IN, 1024) == (ESHUTDOWN, b"")
    assert client.receive(1) == END_OF_STREAM
    answers = []
    while (0x0111, 3, 0) not in answers:
        with Client(server) as again:
            answers.append(again.request(0x8003, b"1-1".ljust(32, b"\0")))
    assert answers[0] == (0x0111, 3, 4), "no such device"


def test_a_transfer_continues_after_a_delay(client: Client, stick: Stick) -> None:
    stick.faults.add("delay=0.05@csw")
    client.command(bytes(6), 0)
    assert client.csw() == (0, 0)


def test_unplugging_ends_the_transfers_in_progress(server: Server, client: Client) -> None:
    waiting, other = client.submit(IN, 512), client.submit(IN, 13)
    client.control_in(0x80, 8, 0, 0, 1)
    server.unplug()
    assert client.answer()[:3] == (3, waiting, ESHUTDOWN)
    assert client.answer()[:3] == (3, other, ESHUTDOWN)
    assert client.receive(1) == END_OF_STREAM
    with Client(server) as again:
        again.configure()


def test_closing_the_server_ends_everything_at_once(stick: Stick) -> None:
    server = Server(stick, port=0)
    server.start()
    with Client(server) as client, Client(server) as idle:
        waiting = client.configure().submit(IN, 512)
        client.control_in(0x80, 8, 0, 0, 1)
        server.close()
        assert client.answer()[:3] == (3, waiting, ESHUTDOWN)
        assert client.receive(1) == idle.receive(1) == END_OF_STREAM
    server.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("usbip")]
    with Server(stick, port=server.port) as again:
        assert devices(again) == 1


def test_a_server_that_was_never_started_releases_its_port_when_it_is_closed(stick: Stick) -> None:
    with closing(Server(stick, port=0)) as server, pytest.raises(OSError) as failure:
        Server(stick, port=server.port)
    assert str(failure.value.filename) == f"127.0.0.1:{server.port}"
    Server(stick, port=server.port).close()


# --- hostile clients ----------------------------------------------------------------------------


def head(command: int = SUBMIT, device: int = DEVICE, direction: int = 1, endpoint: int = 1) -> bytes:
    return struct.pack(">IIIII", command, 7, device, direction, endpoint)


def body(length: int = 512, packets: int = 0) -> bytes:
    return struct.pack(">IIIII8x", 0, length, 0, packets, 0)


@pytest.mark.parametrize(
    "data",
    [
        head(command=3) + body(),
        head(command=0xFFFFFFFF) + body(),
        head(device=0x10003) + body(),
        head(direction=2) + body(),
        head(endpoint=16) + body(),
        head(endpoint=0x81) + body(),
        head() + body(length=(16 << 20) + 1),
        head(direction=0) + body(length=0xFFFFFFFF),
        head() + body(packets=4),
        head() + body(packets=0xFFFFFFFE),
    ],
)
def test_an_invalid_command_ends_the_connection_but_not_the_server(server: Server, client: Client, data: bytes) -> None:
    client.socket.sendall(data)
    assert client.receive(1) == END_OF_STREAM
    with Client(server) as again:
        again.configure()


def test_the_transfers_in_progress_are_limited(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usbip_urbs, "MAX_BYTES", 1 << 20)
    for _ in range(3):
        client.submit(IN, 1 << 19)
    assert client.receive(1) == END_OF_STREAM
    monkeypatch.setattr(usbip_urbs, "MAX_URBS", 5)
    with Client(server) as again:
        again.configure()
        for _ in range(6):
            again.submit(IN, 1)
        assert again.receive(1) == END_OF_STREAM


# --- connections that send nothing ----------------------------------------------------------------


def silent(server: Server, held: ExitStack, count: int, said: bytes = b"") -> list[Client]:
    """Open connections that send less than a request."""
    clients = [held.enter_context(Client(server)) for _ in range(count)]
    for client in clients:
        client.socket.sendall(said)
    return clients


@pytest.mark.parametrize("said", [b"", b"\x01", struct.pack(">HHI", 0x0111, 0x8003, 0) + b"1-1"])
@pytest.mark.parametrize("count", [16, 40])
def test_a_newcomer_is_served_while_sixteen_say_nothing(server: Server, said: bytes, count: int) -> None:
    with ExitStack() as held:
        clients = silent(server, held, count, said)
        assert devices(server) == 1
        with Client(server) as newcomer:
            newcomer.configure()
            newcomer.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)
            assert newcomer.move(IN, 36)[0] == 0
        assert clients[0].receive(1) == END_OF_STREAM
        assert len(server._clients) <= 16


def test_the_client_that_attached_keeps_its_place(server: Server, client: Client) -> None:
    with ExitStack() as held:
        silent(server, held, 40)
        assert devices(server) == 1
        client.command(bytes(6), 0)
        assert client.csw() == (0, 0)
        assert len(server._clients) <= 16


def test_only_as_many_are_closed_as_are_in_the_way(server: Server) -> None:
    with ExitStack() as held:
        first, second, *_ = silent(server, held, 16)
        assert devices(server) == 1
        assert first.receive(1) == END_OF_STREAM
        assert second.request(0x8005) == (0x0111, 5, 0)


def test_a_request_that_has_just_come_is_answered_before_its_place_is_given_away(stick: Stick) -> None:
    """The server has no thread here, so that all connections come in one round."""
    with closing(Server(stick, port=0)) as busy, ExitStack() as held:
        first, second, *_ = silent(busy, held, 17)
        first.socket.sendall(struct.pack(">HHI", 0x0111, 0x8003, 0) + b"1-1".ljust(32, b"\0"))
        for _ in range(17):
            busy._accept(selectors.EVENT_READ)
        assert first.receive(8) == struct.pack(">HHI", 0x0111, 3, 0)
        assert second.receive(1) == END_OF_STREAM
        assert busy.is_attached


def test_where_no_connection_can_be_closed_the_newcomer_is(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip, "_MAX_CLIENTS", 1)
    with Client(server) as newcomer:
        assert newcomer.receive(1) == END_OF_STREAM
    client.command(bytes(6), 0)
    assert client.csw() == (0, 0)


def test_without_file_descriptors_the_oldest_silent_connection_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as held:
        (first,) = silent(server, held, 1)
        while not server._clients:
            devices(server)
        accept, failures = server._listener.accept, [OSError(errno.EMFILE, "too many open files")]

        class Listener:
            def accept(self) -> object:
                if failures:
                    raise failures.pop()
                return accept()

        monkeypatch.setattr(server, "_listener", Listener())
        assert devices(server) == 1
        assert first.receive(1) == END_OF_STREAM
        monkeypatch.undo()


def test_the_server_stops_reading_from_a_client_that_does_not_read_and_loses_no_answer(client: Client) -> None:
    count = 24
    for _ in range(count):
        client.tag += 1
        client.submit(OUT, data=cbw(client.tag, 1 << 20, 0x80, 0, cdb10(0x28, 0, 1 << 11)))
        client.submit(IN, 1 << 20)
        client.submit(IN, 13)
    for tag in range(client.tag - count, client.tag):
        assert client.answer(is_in=False)[3] == bytes(31)
        assert len(client.answer()[3]) == 1 << 20
        assert client.answer()[3] == b"USBS" + struct.pack("<IIB", tag + 1, 0, 0)


def test_a_message_in_pieces_is_one_message(client: Client) -> None:
    setup = struct.pack("<BBHHH", 0x80, 8, 0, 0, 1)
    data = struct.pack(">IIIII", SUBMIT, 50, DEVICE, 1, 0) + struct.pack(">IIIII8s", 0, 1, 0, 0, 0, setup)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in data:
        client.socket.sendall(bytes((byte,)))
    assert client.answer() == (3, 50, 0, b"\x01")


def test_a_stick_that_fails_ends_the_connection_but_not_the_server(
    server: Server, client: Client, stick: Stick, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stick, "control", lambda setup, data: 1 // 0)
        client.submit(0x80, 1, setup=struct.pack("<BBHHH", 0x80, 8, 0, 0, 1))
        assert client.receive(1) == END_OF_STREAM
    assert "the stick failed: ZeroDivisionError" in caplog.text
    with Client(server) as again:
        again.configure()


def test_the_log_names_the_client_and_the_commands(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scsiusb.virtual.usbip.server")
    server.stick.faults.add("status=4,opcode=12")
    with Client(server) as client:
        client.configure()
        client.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)
        client.move(IN, 36)
        assert client.csw() == (4, 0)
    server.close()
    assert caplog.messages[:2] == ["127.0.0.1 attached the stick", "command 00 00 00 00 00 00, LUN 0, 0 bytes in"]
    assert caplog.messages[3:6] == [
        "fault status=4,opcode=12 at command 2",
        "command 12 00 00 00 24 00, LUN 0, 36 bytes in",
        "status 4, residue 0",
    ]
    assert caplog.messages[-1].startswith("127.0.0.1 is detached: ")
