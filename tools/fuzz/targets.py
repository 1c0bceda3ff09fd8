"""The targets of fuzzing: each takes bytes, and raises if something happens that must never happen."""

from __future__ import annotations

import logging
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from scsiusb.virtual import Stick
from scsiusb.virtual.usbip.server import Server
from tests.fuzz.exchange import small_bounds
from tests.fuzz.model import script
from tests.fuzz.onwire import wire_parsers
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import all_parsers, interfaces
from tests.fuzz.properties import check, check_error
from tests.fuzz.steps import play

Target = Callable[[bytes], None]

KEY: Final = 2  # bytes before a reply that select its parser
TIMEOUT: Final = 10.0  # seconds for the server's answer
CHECK_EVERY: Final = 50  # sessions
DEVLIST: Final = bytes.fromhex("0111 8005 00000000")


def key(parser: Parser) -> bytes:
    """Return the key of a parser. It does not depend on the other parsers, so that the corpus stays valid."""
    return (zlib.crc32(parser.name.encode()) & 0xFFFF).to_bytes(KEY, "big")


@contextmanager
def replies() -> Iterator[Target]:
    """Parse replies, sense data, pages, descriptors, CSWs, leases, quirks: each parser with its documented errors."""
    with wire_parsers() as on_wire:
        parsers = (*all_parsers(), *on_wire)
        by_key = {key(parser): parser for parser in parsers}
        assert len(by_key) == len(parsers)

        def run(data: bytes) -> None:
            chosen, rest = data[:KEY], data[KEY:]
            parser = by_key.get(chosen) or parsers[sum(chosen) % len(parsers)]
            try:
                value = parser.parse(rest)
            except parser.errors as error:
                check_error(error, rest)
            else:
                check(value, rest)

        yield run


@contextmanager
def exchange() -> Iterator[Target]:
    """Play whole sessions: reads, writes, unplugs and faults in any order, compared with a model of the blocks."""
    with small_bounds():

        def run(data: bytes) -> None:
            play(data)

        yield run


@contextmanager
def model() -> Iterator[Target]:
    """Play sequences of users' calls, swapped media, resets and faults, compared with a model of the media."""
    with small_bounds():

        def run(data: bytes) -> None:
            script.play(data)

        yield run


@contextmanager
def descriptors() -> Iterator[Target]:
    """Parse devices with any descriptors."""

    def run(data: bytes) -> None:
        check(interfaces(data), data)

    yield run


@contextmanager
def usbip() -> Iterator[Target]:
    """Send bytes to the USB/IP server; whatever a client sends, the next one must be served."""
    warnings = _Warnings()
    log = logging.getLogger("scsiusb.virtual.usbip.server")
    log.addHandler(warnings)
    sessions = 0
    try:
        with Stick.formatted() as stick, Server(stick, port=0) as server:

            def run(data: bytes) -> None:
                nonlocal sessions
                _session(server.port, data)
                sessions += 1
                if sessions % CHECK_EVERY == 0:
                    answer = _session(server.port, DEVLIST)
                    assert answer[:4] == bytes.fromhex("01110005"), f"the server answers {answer[:12].hex()}"
                assert warnings.last is None, warnings.last

            yield run
    finally:
        log.removeHandler(warnings)


class _Warnings(logging.Handler):
    """Keeps the last warning of the server: it reports its own failures so."""

    last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.last = record.getMessage()


def _session(port: int, data: bytes) -> bytes:
    """Send the bytes, end the sending side, and return what the server sends."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        received = b""
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 16):
                received += piece
        except OSError:  # the server may have closed the connection already
            pass
        return received


TARGETS: Final[Mapping[str, Callable[[], AbstractContextManager[Target]]]] = {
    "replies": replies,
    "exchange": exchange,
    "model": model,
    "descriptors": descriptors,
    "usbip": usbip,
}
FRESH: Final[Mapping[str, Callable[[int], bytes]]] = {"model": script.bytes_of}
"""Makes the input with that number, for a target of which the random engine tries no changed seeds."""
RUNS_OF_A_SEED: Final = 1_000_000  # the inputs of two seeds differ
