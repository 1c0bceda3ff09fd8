"""A USB/IP server that exports a virtual stick, so that an operating system's kernel can attach it as a device."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Final

from scsiusb.base.copying import Uncopyable
from scsiusb.base.waits import join
from scsiusb.virtual.stick import Stick
from scsiusb.virtual.usbip import wire
from scsiusb.virtual.usbip.urbs import Urbs
from scsiusb.virtual.usbip.wire import Exported, Malformed, Unlink

LOOPBACK: Final = "127.0.0.1"
PORT: Final = 3240  # assigned to USB/IP by IANA
BUS_ID: Final = "1-1"

_POLL_INTERVAL = 0.01  # seconds between two polls of a stick that has answered NAK
_HANDSHAKE_TIMEOUT = 10.0  # seconds that a client may take to send its request
_MAX_CLIENTS = 16
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_MAX_UNSENT = 1 << 20  # bytes; while more wait for a client, the server reads nothing from it
_MAX_READS = 64  # reads from one client's socket before the other clients are served

log = logging.getLogger("scsiusb.virtual.usbip.server")

_Protocol = Generator[int, bytearray, None]  # yields the length of the message that it needs, and is sent the message


class Server(Uncopyable):
    """A server of one stick, which one client at a time can attach.

    It serves in a thread from `start`, or the beginning of a `with`, to `close`. `port` 0 uses a free port; the
    attributes `host` and `port` have the actual address. The caller must close the stick.
    Raises OSError if the server cannot listen there.
    """

    def __init__(self, stick: Stick, host: str = LOOPBACK, port: int = PORT) -> None:
        self.stick, self.bus_id = stick, BUS_ID
        self.exported = _exported(stick)
        with ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._listener = opened.enter_context(_listen(host, port))
            self.host, self.port = self._listener.getsockname()[:2]
            self._wake_receiver, self._wake_sender = socket.socketpair()  # wakes `select` from other threads
            for end in (self._wake_receiver, self._wake_sender):
                opened.enter_context(end)
            for end in (self._listener, self._wake_receiver, self._wake_sender):
                end.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._drain_wakeups)
            opened.pop_all()
        self._clients: list[_Client] = []
        self._owner: _Client | None = None
        self._is_closing = self._is_unplugging = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server's thread."""
        self._thread = threading.Thread(target=self._run, name=f"usbip-{self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the server: end the transfers in progress, the connections and the thread; may be called again."""
        self._is_closing = True
        self._wake()
        if self._thread is not None:
            join(self._thread)
        else:
            self._shut()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped, `timeout` seconds at most; return whether it has."""
        if self._thread is not None:
            join(self._thread, timeout)
        return self._thread is None or not self._thread.is_alive()

    def unplug(self) -> None:
        """Disconnect the stick from the client that attached it, if any; it can be attached again at once."""
        self._is_unplugging = True
        self._wake()

    @property
    def is_attached(self) -> bool:
        """Whether a client has attached the stick."""
        return self._owner is not None

    # --- the thread -----------------------------------------------------------------------------

    def _wake(self) -> None:
        with suppress(OSError):  # a full socket has woken the thread already; a closed one has no thread
            self._wake_sender.send(b"!")

    def _run(self) -> None:
        try:
            while not self._is_closing:
                for key, mask in self._selector.select(self._poll_timeout()):
                    key.data(mask)
                self._run_pending()
        finally:
            self._shut()

    def _poll_timeout(self) -> float | None:
        """Return the seconds that `select` may wait; None: until a message comes."""
        if self._owner is not None and self._owner.needs_polling:
            return _POLL_INTERVAL
        return min((each.time_left for each in self._clients if each.time_left is not None), default=None)

    def _run_pending(self) -> None:
        """Do what no message triggers: continue waiting transfers, unplug the stick, close clients that timed out."""
        owner = self._owner
        if self._is_unplugging or (owner is not None and self.stick.is_gone):
            self._is_unplugging = False
            if owner is not None:
                owner.unplug()
        elif owner is not None:
            owner.advance()
        for client in [each for each in self._clients if each.time_left == 0]:
            client.close("no request came in time")

    def _shut(self) -> None:
        for client in tuple(self._clients):
            client.unplug()
        for end in (self._listener, self._wake_receiver, self._wake_sender):
            end.close()
        self._selector.close()

    def _drain_wakeups(self, mask: int) -> None:
        with suppress(BlockingIOError):
            self._wake_receiver.recv(4096)

    # --- clients --------------------------------------------------------------------------------

    def _accept(self, mask: int) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError as error:  # the client is gone already, or no file descriptors are left
            if error.errno in _NO_DESCRIPTOR:
                self._make_room(len(self._clients))
            return
        if not self._make_room(_MAX_CLIENTS):
            connection.close()
            return
        client = _Client(self, connection, str(address[0]))
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client.serve)

    def _make_room(self, most: int) -> bool:
        """Close the oldest connections without a request until there are fewer than `most`; return whether there are.

        Connections that send nothing must not keep others out for the time that they have for a request.
        """
        for client in tuple(self._clients):
            if len(self._clients) < most:
                break
            if client.time_left is not None:
                client.serve(selectors.EVENT_READ)  # its request may have come by now
            if client.time_left is not None:
                client.close("it sent no request, and a newer connection needs its place")
        return len(self._clients) < most

    def select_events(self, client: _Client, mask: int) -> None:
        """Set the events (`selectors.EVENT_…`) that the client's connection is served for."""
        self._selector.modify(client.connection, mask, client.serve)

    def attach(self, client: _Client) -> bool:
        """Attach the stick to the client, as if plugged in there; return False if another client has attached it."""
        if self._owner is not None:
            return False
        self._owner = client
        self.stick.plug_in()
        return True

    def remove(self, client: _Client) -> None:
        """Remove a client that is closed, and reset the stick if the client had attached it."""
        self._selector.unregister(client.connection)
        self._clients.remove(client)
        if self._owner is client:
            self._owner = None
            self.stick.power_on()


class _Client:
    """A client's connection, without blocking: incoming messages go to `_protocol`, outgoing ones to `_unsent`."""

    def __init__(self, server: Server, connection: socket.socket, name: str) -> None:
        self._server, self.connection, self._name = server, connection, name
        self._urbs: Urbs | None = None
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._is_ending = self._is_closed = False
        self._deadline: float | None = time.monotonic() + _HANDSHAKE_TIMEOUT
        connection.setblocking(False)
        with suppress(OSError):  # not every kind of socket has these options
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._protocol = self._run_protocol()
        self._expect(next(self._protocol))
        self._mask = selectors.EVENT_READ

    @property
    def time_left(self) -> float | None:
        """Seconds that are left to send a request; None: the client has attached the stick."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)

    @property
    def needs_polling(self) -> bool:
        """Whether transfers are in progress that the stick must be polled for."""
        return self._urbs is not None and self._urbs.count > 0 and not self._unsent

    # --- the protocol ---------------------------------------------------------------------------

    def _run_protocol(self) -> _Protocol:
        """Handle the messages of the connection, as a generator so that it can wait for the next one."""
        version, code, _ = wire.REQUEST.unpack((yield wire.REQUEST.size))
        if version != wire.VERSION:
            raise Malformed(f"protocol version {version:#06x}, not {wire.VERSION:#06x}")
        if code == wire.DEVLIST:
            self.send(self._server.exported.devlist(self._server.stick.configuration))
        elif code == wire.IMPORT:
            if self._import(wire.bus_id((yield wire.BUS_ID_SIZE))):
                yield from self._commands()
        else:
            raise Malformed(f"an unknown request, {code:#06x}")

    def _import(self, bus_id: bytes) -> bool:
        server = self._server
        if bus_id != server.bus_id.encode() or server.stick.is_away:
            status = wire.NO_SUCH_DEVICE
        else:
            status = wire.GOOD if server.attach(self) else wire.DEVICE_BUSY
        is_good = status == wire.GOOD
        record = server.exported.record(server.stick.configuration) if is_good else b""
        self.send(wire.reply(wire.IMPORT, status, record))
        if is_good:
            self._deadline = None
            self._urbs = Urbs(server.stick, self.send)
        log.info("%s %s", self._name, "attached the stick" if is_good else f"was refused with status {status}")
        return is_good

    def _commands(self) -> _Protocol:
        while self._urbs is not None:
            command = wire.parse_command((yield wire.HEADER_SIZE))
            if isinstance(command, Unlink):
                self._urbs.unlink(command)
                continue
            self._urbs.check(command)
            self._urbs.submit(command, (yield command.payload) if command.payload else b"")
            self._advance()

    # --- the socket -----------------------------------------------------------------------------

    def serve(self, mask: int) -> None:
        """Send and receive what the socket is ready for; never raises."""
        with self._closing_on_error():
            if mask & selectors.EVENT_WRITE:
                self._flush()
            if mask & selectors.EVENT_READ:
                self._receive()

    def advance(self) -> None:
        """Continue the transfers that had to wait; never raises."""
        with self._closing_on_error():
            self._advance()

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        """Close this connection if the client or the stick fails; the server continues."""
        try:
            yield
        except Malformed as error:
            self.close(f"it sent {error}")
        except OSError as error:
            self.close(error.strerror or str(error))
        except Exception as error:  # a bug of the stick, or of a subclass, must not end the server
            log.debug("traceback", exc_info=error)
            log.warning("the stick failed: %r", error)
            self.close("the stick failed")

    def _expect(self, count: int) -> None:
        self._message, self._filled = bytearray(count), 0

    def _receive(self) -> None:
        for _ in range(_MAX_READS):
            if self._is_ending or self._is_closed or self._unsent_bytes > _MAX_UNSENT:
                return
            try:
                count = self.connection.recv_into(memoryview(self._message)[self._filled :])
            except BlockingIOError:
                return
            if count == 0:
                self.close("the client closed the connection")
                return
            self._filled += count
            if self._filled == len(self._message):
                self._handle_message(self._message)

    def _handle_message(self, message: bytearray) -> None:
        try:
            self._expect(self._protocol.send(message))
        except StopIteration:  # the protocol is finished: close after the last answer has been sent
            self._is_ending = True
            self._flush()

    def send(self, data: bytes) -> None:
        """Send data, or queue them until the socket accepts them."""
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        self._flush()

    def _flush(self) -> None:
        """Send what the socket accepts; select the events for the rest."""
        if self._is_closed:
            return
        with suppress(BlockingIOError):
            while self._unsent:
                sent = self.connection.send(self._unsent[0])
                self._unsent_bytes -= sent
                rest = self._unsent.popleft()[sent:]
                if rest:
                    self._unsent.appendleft(rest)
        if self._is_ending and not self._unsent:
            self.close(None)
            return
        writes = selectors.EVENT_WRITE if self._unsent else 0
        self._watch(writes | (selectors.EVENT_READ if self._unsent_bytes <= _MAX_UNSENT else 0))

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._server.select_events(self, mask)

    # --- transfers, and the end of the connection -----------------------------------------------

    def _advance(self) -> None:
        """Continue the transfers in progress, unless too many answers wait to be sent."""
        if self._urbs is not None and self._unsent_bytes <= _MAX_UNSENT:
            self._urbs.advance()

    def unplug(self) -> None:
        """End the transfers in progress with ESHUTDOWN, as for a device that was unplugged, and close."""
        with suppress(OSError):
            if self._urbs is not None:
                self._urbs.end(wire.ESHUTDOWN)
        self.close("the stick was unplugged")

    def close(self, reason: str | None) -> None:
        """Close the connection, and log the reason if any; may be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        if reason and self._urbs is not None:
            log.info("%s is detached: %s", self._name, reason)
        elif reason:
            log.info("%s is disconnected: %s", self._name, reason)
        self._protocol.close()
        self._urbs = None
        self._server.remove(self)
        self.connection.close()


def _exported(stick: Stick) -> Exported:
    identity = stick.identity
    kinds = [(each.interface_class, each.subclass, each.protocol) for each in stick.settings if not each.alternate]
    return Exported(BUS_ID, identity.speed, identity.vid, identity.pid, identity.release, kinds)


def _listen(host: str, port: int) -> socket.socket:
    """Open the listening socket; OSError with the address as its file name, gaierror for an unknown host."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family)
    except socket.gaierror:
        raise
    except OSError as error:
        # Without the address, which `socket` appends. Not os.strerror, which knows no errors of Windows' sockets.
        words = (error.strerror or str(error)).partition(" (while ")[0]
        raise OSError(error.errno, words, f"{host}:{port}") from error
