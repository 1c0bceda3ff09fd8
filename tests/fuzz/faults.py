"""Any fault of the virtual stick, and of a host controller, selected by a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from scsiusb.usb.backend import ENDPOINT_IN, Code
from scsiusb.virtual import Stick
from scsiusb.virtual.faults.descriptor_faults import DESCRIPTOR_FAULTS
from scsiusb.virtual.faults.faults import ALWAYS, KINDS, Fault, Kind
from scsiusb.virtual.faults.script import Script
from tests.sticks import Answer, InterceptedBus, Wire

Choose = Callable[[Sequence[Any]], Any]
"""Chooses one of several."""

LENGTHS: Final = (
    "0",
    "1",
    "2",
    "3",
    "12",
    "13",
    "31",
    "36",
    "100",
    "255",
    "511",
    "512",
    "513",
    "1024",
    "4096",
    "65536",
)
NUMBERS: Final = (*LENGTHS, "4294967295")
NUMBERED: Final = (
    "tag",
    "residue",
    "blocks",
    "block-size",
)  # the values of the others are numbers of bytes that a stick really sends
SENSES: Final = ("0/00/00", "1/17/01", "2/04/01", "2/3A/00", "3/11/00", "4/44/00", "5/20/00", "5/24/00", "5/25/00")
MORE_SENSES: Final = ("6/28/00", "6/29/00", "7/27/00", "B/00/00", "F/FF/FF")
VALUES: Final[dict[str, Sequence[str]]] = {  # by the placeholder of a kind's value
    "N": LENGTHS,
    "S": ("0", "0.001", "0.005", "0.03"),
    "US": ("1", "100", "100000"),
    "HEX8": ("55534255", "00000000", "55534243"),
    "K/ASC/ASCQ": (*SENSES, *MORE_SENSES),
    "+N|-N": ("+1", "-1", "+1000"),
}
NONE: Final = ("",) * 5
CASES: Final = tuple(map(str, range(1, 14)))
CONDITIONS: Final = (*NONE, ",opcode=28", ",opcode=2A", ",opcode=03", ",opcode=12", ",opcode=25", ",opcode=35")
MORE_CONDITIONS: Final = (
    "",
    "",
    "",
    ",lba=0-7",
    ",lba=9",
    ",over=36",
    ",over=2048",
    ",cdb=2.00",
    ",command=9",
    ",lun=0",
)
TIMES: Final = (*NONE, ",times=2", ",times=3", ",times=always")
MASKING: Final = ("residue", "bogus-residue", "status")
"""Together with another fault of the same command, these could hide a loss of data, which no host could detect."""
LEARNED: Final = ("residue", "bogus-residue")
"""After these, residues may be ignored for good, and so the true one of a command whose data another fault drops."""

CODES: Final = (Code.IO, Code.TIMEOUT, Code.PIPE, Code.OVERFLOW, Code.NO_MEM, Code.OTHER)


@dataclass(frozen=True)
class HostFault:
    """The `nth` bulk transfer from now on ends with `code` after `count` bytes; the device does not notice."""

    code: Code
    nth: int
    count: int


BY_TIME: Final = ("away",)
"""Faults that a timer ends: a sequence of steps would not be the same each time. tests/virtual/faults has them."""


def any_fault(choose: Choose) -> str:
    """Return the text of a fault of the virtual stick."""
    kind: Kind = choose(tuple(kind for name, kind in KINDS.items() if name not in BY_TIME))
    text: str = choose(texts_of(kind.name, choose(kind.phases or ("",))))
    whole = text + choose(CONDITIONS) + choose(MORE_CONDITIONS) + choose(TIMES)
    return whole if _is_fault(whole) else text


@cache
def texts_of(name: str, phase: str) -> tuple[str, ...]:
    """Return the fault with every value that it takes, and without a value."""
    kind = KINDS[name]
    placeholder = kind.value.placeholder if kind.value else ""
    special = {"case": CASES, "descriptor": (*DESCRIPTOR_FAULTS, "garbage:7"), **dict.fromkeys(NUMBERED, NUMBERS)}
    values = special.get(name, VALUES.get(placeholder, ()))
    at = f"@{phase}" if phase else ""
    return tuple(filter(_is_fault, (f"{name}{at}", *(f"{name}={value}{at}" for value in values))))


def _is_fault(text: str) -> bool:
    try:
        Fault.parse(text)
    except ValueError:
        return False
    return True


def any_host_fault(choose: Choose) -> HostFault:
    """Return a fault of the host controller."""
    return HostFault(choose(CODES), choose(range(4)), choose((0, 1, 13, 100, 512)))


def add_fault(stick: Stick, bus: InterceptedBus, fault: str | HostFault) -> None:
    """Add a fault to the stick or the bus."""
    if isinstance(fault, HostFault):
        bus.wire.intercept = intercept_for(fault)
        return
    new = Fault.parse(fault)
    if new.name not in MASKING and has_learned(stick.faults):
        return
    if new.name in MASKING or any(entry.fault.name in MASKING for entry in stick.faults.entries):
        clear_faults(stick, bus)
    if new.kind.times != ALWAYS or not is_active(stick, new.name):  # one standing fault of a kind at a time
        stick.faults.add(new)


def has_learned(faults: Script) -> bool:
    """Return whether the host may have learned from this stick that its residues are false."""
    return any(fault.name in LEARNED for _, fault in faults.fired)


def clear_faults(stick: Stick, bus: InterceptedBus) -> None:
    """Remove all faults."""
    stick.faults.clear()
    bus.wire.intercept = None


def is_active(stick: Stick, name: str) -> bool:
    """Report whether a fault of that name has times left."""
    return any(entry.fault.name == name for entry in stick.faults.entries)


def has_left(stick: Stick, bus: InterceptedBus) -> bool:
    """Report whether the stick has left the bus."""
    return bus._connection_of(stick) is None


def intercept_for(fault: HostFault) -> Callable[[Wire, int, memoryview], Answer | None]:
    """Return the function by which a wire has the fault."""
    left = [fault.nth]

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        left[0] -= 1
        if left[0] != -1:
            return None
        count = min(fault.count, len(buffer))
        if endpoint & ENDPOINT_IN:
            buffer[:count] = b"\x5a" * count
        return fault.code, count

    return intercept
