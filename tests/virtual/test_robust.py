"""A stick survives any bytes from the host: after reset recovery it works correctly."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from scsiusb.usb.backend import Code
from scsiusb.virtual import BotOptions, DataIn, DataOut, Fault, Memory, Stick, Unit
from scsiusb.virtual.device.function import Stall
from tests.fuzz import profiles
from tests.virtual.faults.faulty import faults
from tests.virtual.host import IN, OUT, cbw, cdb10

OPCODES = st.sampled_from(
    [0x00, 0x03, 0x08, 0x0A, 0x12, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x2A, 0x2F, 0x35, 0x5A, 0x88, 0x8A, 0x9E, 0xA0, 0xAA]
)
CDBS = st.one_of(
    st.binary(min_size=1, max_size=16),
    st.builds(lambda opcode, rest: bytes((opcode, *rest)), OPCODES, st.binary(max_size=15)),
    st.builds(lambda opcode, rest: bytes((opcode,)) + bytes(5) + rest, OPCODES, st.binary(max_size=4)),
)
LENGTHS = st.one_of(st.integers(0, 3000), st.integers(0, 0xFFFFFFFF))
CBWS = st.builds(cbw, st.integers(0, 0xFFFFFFFF), LENGTHS, st.sampled_from([0, 0x80]), st.integers(0, 3), CDBS)
BOT_OPTIONS = st.builds(BotOptions, st.sampled_from(DataIn), st.sampled_from(DataOut))
SETUPS = st.builds(
    struct.Struct("<BBHHH").pack,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.sampled_from([0, 1, IN, OUT, 0xFFFF]),
    st.integers(0, 0xFFFF),
)
STEPS = st.one_of(
    st.tuples(st.just(OUT), st.one_of(CBWS, st.binary(max_size=2000))),
    st.tuples(st.just(IN), st.integers(0, 3000).map(bytes)),
    st.tuples(st.just(0), SETUPS),
)


def ask(stick: Stick, setup: bytes) -> None:
    try:
        answer = stick.control(setup)
    except Stall:
        return
    assert len(answer) <= int.from_bytes(setup[6:8], "little")


@profiles.quick(150)
@given(BOT_OPTIONS, st.lists(STEPS, max_size=12))
def test_any_bytes_are_survived(bot_options: BotOptions, steps: list[tuple[int, bytes]]) -> None:
    stick = Stick([Unit(Memory(4096)), Unit()], bot_options=bot_options)
    stick.configure(1)
    for endpoint, data in steps:
        if endpoint:
            code, count = stick.transfer(endpoint, memoryview(bytearray(data)), 0)
            assert count <= len(data)
            assert code in (Code.OK, Code.TIMEOUT, Code.PIPE, Code.OVERFLOW, Code.NOT_FOUND)
        else:
            ask(stick, data)
    ask(stick, struct.pack("<BBHHH", 0x00, 9, 1, 0, 0))
    assert stick.transfer(OUT, memoryview(bytearray(cbw(7, 18, 0x80, 0, bytes((3, 0, 0, 0, 18, 0))))), 0) == (0, 31)
    assert stick.transfer(IN, memoryview(bytearray(18)), 0) == (0, 18)
    answer = bytearray(13)
    assert stick.transfer(IN, memoryview(answer), 0) == (0, 13)
    assert answer == b"USBS" + struct.pack("<IIB", 7, 0, 0)


@profiles.quick(150)
@given(CBWS, BOT_OPTIONS)
def test_a_valid_command_always_ends_with_a_csw_of_its_tag(packet: bytes, bot_options: BotOptions) -> None:
    stick = Stick([Unit(Memory(4096)), Unit()], bot_options=bot_options)
    stick.configure(1)
    length, flags = struct.unpack_from("<IB", packet, 8)
    stick.transfer(OUT, memoryview(bytearray(packet)), 0)
    left = length if length <= 1 << 20 else 0
    data = memoryview(bytearray(left))
    code = Code.OK
    if left:
        code, _ = stick.transfer(IN if flags & 0x80 else OUT, data, 0)
    elif length:
        return
    answer = bytearray(13)
    for endpoint in (OUT, IN):
        ask(stick, struct.pack("<BBHHH", 0x02, 1, 0, endpoint, 0))
    assert code in (Code.OK, Code.PIPE)
    assert stick.transfer(IN, memoryview(answer), 0) == (Code.OK, 13)
    signature, tag, residue, status = struct.unpack("<4sIIB", answer)
    assert (signature, tag) == (b"USBS", struct.unpack_from("<I", packet, 4)[0])
    assert residue <= length
    assert status <= 2


WIRE = [
    (0x02, 1, 0, IN, 0),
    (0x02, 1, 0, OUT, 0),
    (0x21, 0xFF, 0, 0, 0),
    (0xA1, 0xFE, 0, 0, 1),
    (0x80, 6, 0x200, 0, 255),
]
EXCHANGES = st.tuples(
    st.sampled_from(
        [(cdb10(0x28, 1, 2), 0x80), (cdb10(0x2A, 1, 2), 0), (bytes((0x12, 0, 0, 0, 36)), 0x80), (bytes(6), 0)]
    ),
    st.sampled_from([0, 36, 1024, 2000]),
    st.lists(st.sampled_from(WIRE), max_size=3),
)


@profiles.quick(150)
@given(st.lists(faults(), max_size=6), BOT_OPTIONS, st.lists(EXCHANGES, max_size=8))
def test_any_script_of_faults_is_survived(
    script: list[Fault], bot_options: BotOptions, exchanges: list[tuple[tuple[bytes, int], int, list[tuple[int, ...]]]]
) -> None:
    """No transfer exceeds its buffer, only whole blocks are written, and the stick works when plugged in again."""
    medium = Memory(4096)
    stick = Stick([Unit(medium)], bot_options=bot_options, faults=script)
    stick.plug_in()
    stick.configure(1)
    for (cdb, flags), length, requests in exchanges:
        for setup in requests:
            ask(stick, struct.pack("<BBHHH", *setup))
        stick.transfer(OUT, memoryview(bytearray(cbw(1, length, flags, 0, cdb))), 0)
        data = memoryview(bytearray(b"\xaa" * length))
        for endpoint, view in ((IN if flags else OUT, data), (IN, memoryview(bytearray(13)))):
            code, count = stick.transfer(endpoint, view, 0)
            assert count <= len(view)
            assert code in (Code.OK, Code.TIMEOUT, Code.PIPE, Code.OVERFLOW, Code.NO_DEVICE)
    for start in range(0, 4096, 512):
        assert set(medium.data[start : start + 512]) in ({0}, {0xAA})
    stick.faults.clear()
    stick.plug_in()
    ask(stick, struct.pack("<BBHHH", 0x00, 9, 1, 0, 0))
    assert stick.transfer(OUT, memoryview(bytearray(cbw(7, 18, 0x80, 0, bytes((3, 0, 0, 0, 18, 0))))), 0) == (0, 31)
    assert stick.transfer(IN, memoryview(bytearray(18)), 0) == (0, 18)
    answer = bytearray(13)
    assert stick.transfer(IN, memoryview(answer), 0) == (0, 13)
    assert answer == b"USBS" + struct.pack("<IIB", 7, 0, 0)
