"""Exports a stick over USB/IP, so that an operating system's kernel attaches it as a device of its own."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

from scsiusb.virtual.stick import Stick
from scsiusb.virtual.usbip import wire as wire
from scsiusb.virtual.usbip.urbs import Urbs
from scsiusb.virtual.usbip.wire import Exported, Malformed, Unlink

LOOPBACK: Final = "127.0.0.1"
PORT: Final = 3240  # as IANA has it
BUS_ID: Final = "1-1"

_SLICE = 0.01  # seconds between two looks at a stick that has answered NAK
_HANDSHAKE = 10.0  # seconds that a client may take to say what it wants
_MOST_CLIENTS = 16
_UNSENT = 1 << 20  # bytes; a client that lets so many lie is not listened to
_TURN = 64  # messages of one client before the others are looked at

log = logging.getLogger("scsiusb.virtual.usbip.server")

_Talk = Generator[int, bytearray, None]  # yields how many bytes it wants, and is sent them


class Server:
    """Serves one stick, in a thread of its own, from `start` (or `with`) to `close`; attached by one client at a time.

    `port` 0 takes a free one; `host` and `port` say afterwards what it is. The stick stays the caller's to close.
    Raises OSError where it cannot listen.
    """

    def __init__(self, stick: Stick, host: str = LOOPBACK, port: int = PORT) -> None:
        self.stick, self.bus_id = stick, BUS_ID
        self.exported = _exported(stick)
        self._selector = selectors.DefaultSelector()
        self._listener = _listen(host, port)
        self.host, self.port = self._listener.getsockname()[:2]
        self._heard, self._call = socket.socketpair()
        for end in (self._listener, self._heard, self._call):
            end.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._heard, selectors.EVENT_READ, self._listen_to_calls)
        self._clients: list[_Client] = []
        self._holder: _Client | None = None
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
        self._thread = threading.Thread(target=self._run, name=f"usbip-{self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends what is under way, the connections and the thread; may be called again."""
        self._is_closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        else:
            self._shut()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until the server has ended; True if it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def unplug(self) -> None:
        """Pulls the stick out of the client that has it; it can be attached again at once."""
        self._is_unplugging = True
        self._wake()

    @property
    def is_attached(self) -> bool:
        return self._holder is not None

    # --- the thread -----------------------------------------------------------------------------

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: there is nobody to wake
            self._call.send(b"!")

    def _run(self) -> None:
        try:
            while not self._is_closing:
                for key, mask in self._selector.select(self._patience()):
                    key.data(mask)
                self._go_on()
        finally:
            self._shut()

    def _patience(self) -> float | None:
        if self._holder is not None and self._holder.is_waiting:
            return _SLICE
        return min((each.left for each in self._clients if each.left is not None), default=None)

    def _go_on(self) -> None:
        """What needs no message: transfers that had to wait, the plug, and clients that say nothing."""
        holder = self._holder
        if self._is_unplugging or (holder is not None and self.stick.is_gone):
            self._is_unplugging = False
            if holder is not None:
                holder.unplug()
        elif holder is not None:
            holder.go_on()
        for client in [each for each in self._clients if each.left == 0]:
            client.close("it does not say what it wants")

    def _shut(self) -> None:
        for client in tuple(self._clients):
            client.unplug()
        for end in (self._listener, self._heard, self._call):
            end.close()
        self._selector.close()

    def _listen_to_calls(self, mask: int) -> None:
        with suppress(BlockingIOError):
            self._heard.recv(4096)

    # --- clients --------------------------------------------------------------------------------

    def _accept(self, mask: int) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError:  # it has gone again, or there are no descriptors left: the next one may do better
            return
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        client = _Client(self, connection, str(address[0]))
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client.serve)

    def watch(self, client: _Client, mask: int) -> None:
        self._selector.modify(client.connection, mask, client.serve)

    def claim(self, client: _Client) -> bool:
        """Gives the stick to the client, as if plugged in there; False if another one has it."""
        if self._holder is not None:
            return False
        self._holder = client
        self.stick.plug_in()
        return True

    def forget(self, client: _Client) -> None:
        self._selector.unregister(client.connection)
        self._clients.remove(client)
        if self._holder is client:
            self._holder = None
            self.stick.power_on()


class _Client:
    """A connection: what it says is taken apart by `_talk`, what it is told waits until it takes it."""

    def __init__(self, server: Server, connection: socket.socket, name: str) -> None:
        self._server, self.connection, self._name = server, connection, name
        self._urbs: Urbs | None = None
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._is_ending = self._is_closed = False
        self._deadline: float | None = time.monotonic() + _HANDSHAKE
        connection.setblocking(False)
        with suppress(OSError):  # not every kind of socket has these
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._talk = self._converse()
        self._want(next(self._talk))
        self._mask = selectors.EVENT_READ

    @property
    def left(self) -> float | None:
        """Seconds that it has to say what it wants; None: it has said so."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)

    @property
    def is_waiting(self) -> bool:
        """Is something under way, so that the stick must be looked at again soon?"""
        return self._urbs is not None and self._urbs.count > 0 and not self._unsent

    # --- what it says ---------------------------------------------------------------------------

    def _converse(self) -> _Talk:
        version, code, _ = wire.REQUEST.unpack((yield wire.REQUEST.size))
        if version != wire.VERSION:
            raise Malformed(f"version {version:#06x} of the protocol, not {wire.VERSION:#06x}")
        if code == wire.DEVLIST:
            self.send(self._server.exported.devlist())
        elif code == wire.IMPORT:
            if self._import(wire.bus_id((yield wire.BUS_ID_SIZE))):
                yield from self._commands()
        else:
            raise Malformed(f"request {code:#06x}")

    def _import(self, bus_id: bytes) -> bool:
        server = self._server
        if bus_id != server.bus_id.encode():
            status = wire.NO_SUCH_DEVICE
        else:
            status = wire.GOOD if server.claim(self) else wire.DEVICE_BUSY
        is_good = status == wire.GOOD
        self.send(wire.reply(wire.IMPORT, status, server.exported.record() if is_good else b""))
        if is_good:
            self._deadline = None
            self._urbs = Urbs(server.stick, self.send)
        log.info("%s %s", self._name, "attached the stick" if is_good else f"was refused with status {status}")
        return is_good

    def _commands(self) -> _Talk:
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
        with self._blaming():
            if mask & selectors.EVENT_WRITE:
                self._flush()
            if mask & selectors.EVENT_READ:
                self._receive()

    def go_on(self) -> None:
        """Looks at what had to wait."""
        with self._blaming():
            self._advance()

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """Nothing that a client or a stick does takes the server along."""
        try:
            yield
        except Malformed as error:
            self.close(f"it sent {error}")
        except OSError as error:
            self.close(error.strerror or str(error))
        except Exception as error:  # whatever a stick with faults comes up with
            log.debug("traceback", exc_info=error)
            log.warning("the stick failed: %r", error)
            self.close("the stick failed")

    def _want(self, count: int) -> None:
        self._message, self._filled = bytearray(count), 0

    def _receive(self) -> None:
        for _ in range(_TURN):
            if self._is_ending or self._is_closed or self._unsent_bytes > _UNSENT:
                return
            try:
                count = self.connection.recv_into(memoryview(self._message)[self._filled :])
            except BlockingIOError:
                return
            if count == 0:
                self.close("it hung up")
                return
            self._filled += count
            if self._filled == len(self._message):
                self._hear(self._message)

    def _hear(self, message: bytearray) -> None:
        try:
            self._want(self._talk.send(message))
        except StopIteration:  # all is said: what is still to be sent goes out first
            self._is_ending = True
            self._flush()

    def send(self, data: bytes) -> None:
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        self._flush()

    def _flush(self) -> None:
        """Sends what the socket takes, and watches for what it lacks."""
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
        self._watch(writes | (selectors.EVENT_READ if self._unsent_bytes <= _UNSENT else 0))

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._server.watch(self, mask)

    # --- what happens to it ---------------------------------------------------------------------

    def _advance(self) -> None:
        """Goes on with what is under way, if the client takes the answers."""
        if self._urbs is not None and self._unsent_bytes <= _UNSENT:
            self._urbs.advance()

    def unplug(self) -> None:
        """Ends what is under way as on a device that has left."""
        with suppress(OSError):
            if self._urbs is not None:
                self._urbs.end(wire.ESHUTDOWN)
        self.close("the stick was unplugged")

    def close(self, reason: str | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if reason and self._urbs is not None:
            log.info("%s is detached: %s", self._name, reason)
        elif reason:
            log.info("%s is sent away: %s", self._name, reason)
        self._talk.close()
        self._urbs = None
        self._server.forget(self)
        self.connection.close()


def _exported(stick: Stick) -> Exported:
    identity = stick.identity
    kinds = [(each.interface_class, each.subclass, each.protocol) for each in stick.settings if not each.alternate]
    return Exported(BUS_ID, identity.speed, identity.vid, identity.pid, identity.release, kinds)


def _listen(host: str, port: int) -> socket.socket:
    """OSError with the place in it, gaierror for a host that there is none of."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family)
    except socket.gaierror:
        raise
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)  # socket adds to it what the name tells already
        raise OSError(error.errno, words, f"{host}:{port}") from error
