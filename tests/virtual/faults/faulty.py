"""Helpers for tests of faults: a host with a stick that has faults, and checks of the result."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st

from scsiusb.usb.backend import Code, UsbError
from scsiusb.virtual import KINDS, BotOptions, Fault, Memory, Stick, Unit
from scsiusb.virtual.faults.descriptor_faults import DESCRIPTOR_FAULTS
from scsiusb.virtual.faults.faults import ALWAYS, Scope
from tests.virtual.host import IN, OUT, Host, cdb10

Test = TypeVar("Test", bound=Callable[..., object])

TEST_UNIT_READY = bytes(6)
INQUIRY_36 = bytes((0x12, 0, 0, 0, 36, 0))
CAPACITY_10 = cdb10(0x25, 0, 0)
CAPACITY_16 = bytes((0x9E, 0x10)) + bytes(11) + bytes((32, 0, 0))
READ_2 = cdb10(0x28, 0, 2)
WRITE_2 = cdb10(0x2A, 0, 2)
BLOCKS = bytes(range(256)) * 4
NEW = b"\xaa" * 1024
SOON = 10  # milliseconds


def covers(*kinds: str) -> Callable[[Test], Test]:
    """Name the kinds of fault that a test covers; `test_each_kind_has_a_test` finds the names in the source text."""
    return lambda test: test


def make(*faults: str, bot_options: BotOptions | None = None) -> Host:
    """Return a host; the faults are added after the host's first commands, so the next command is number 1."""
    host = Host(Stick([Unit(Memory(BLOCKS + bytes(1 << 16)))], bot_options=bot_options))
    host.stick.faults.commands = 0
    for fault in faults:
        host.stick.faults.add(fault)
    return host


def stored(host: Host) -> bytes:
    medium = host.stick.units[0].medium
    assert isinstance(medium, Memory)
    return bytes(medium.data[:1024])


def good_csw(host: Host, residue: int = 0, status: int = 0) -> bytes:
    return b"USBS" + struct.pack("<IIB", host.tag, residue, status)


def class_reset(host: Host) -> None:
    host.handle.control_out(0x21, 0xFF, 0, 0, b"", SOON)


def reset_recovery(host: Host) -> None:
    class_reset(host)
    host.handle.clear_halt(IN)
    host.handle.clear_halt(OUT)


def check_recovered(host: Host) -> None:
    """Check that the next commands succeed with the right data."""
    assert host.data(READ_2, 1024) == stored(host)
    host.ok(WRITE_2, NEW)
    assert host.data(READ_2, 1024) == stored(host) == NEW


def refused(code: Code, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(UsbError) as caught:
        call(*arguments)
    assert caught.value.code is code


BITS_32 = st.integers(0, 0xFFFFFFFF)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "N": st.integers(1, 12),
    "S": st.floats(0, 1e6),
    "US": st.integers(0, 1 << 40),
    "HEX8": st.text("0123456789ABCDEFabcdef", min_size=8, max_size=8),
    "K/ASC/ASCQ": st.builds("{:x}/{:x}/{:X}".format, st.integers(0, 15), st.integers(0, 255), st.integers(0, 255)),
    "+N|-N": st.integers(),
    "NAME": st.sampled_from([*DESCRIPTOR_FAULTS, "garbage:7"]),
}
CONDITIONS = {
    "command": st.integers(1, 1 << 40),
    "opcode": st.integers(0, 255),
    "lba": st.tuples(st.integers(0, 1 << 64), st.integers(0, 1 << 64)).map(lambda ends: (min(ends), max(ends))),
    "lun": st.integers(0, 15),
    "over": BITS_32,
    "cdb": st.text("0123456789ABCDEFabcdef.", min_size=1, max_size=32),
    "by": st.sampled_from(["bot", "uas"]),
}


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    phase = draw(st.sampled_from(["", *kind.phases]))
    value: Any = (
        draw(VALUES[kind.value.placeholder]) if kind.value and (kind.needs_value or draw(st.booleans())) else None
    )
    if kind.name == "stall" and phase not in ("", "data"):
        value = None
    given_times = value is None or kind.name != "halt-stays"
    times = draw(st.one_of(st.just(0), st.integers(1, 1000), st.just(ALWAYS))) if given_times else 0
    conditions: dict[str, Any] = {}
    if kind.scope is Scope.COMMAND:
        names = draw(st.sets(st.sampled_from(sorted(CONDITIONS))))
        conditions = {name: draw(CONDITIONS[name]) for name in names}
    return Fault(kind.name, value, phase, times=times, **conditions)
