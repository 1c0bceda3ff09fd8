"""Faults as data: what a stick does wrong, at which command, and how often."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.faults import descriptor_faults

Value = int | float | str | None

ALWAYS = math.inf
CBW, DATA, CSW = "cbw", "data", "csw"


class Scope(Enum):
    """What a fault waits for."""

    COMMAND = "a command that meets its conditions"
    REQUEST = "a request on the default control pipe"
    DESCRIPTOR = "a descriptor that is asked for"


class ValueKind(NamedTuple):
    """What may stand behind NAME=; `read` raises ValueError, and undoes `show`."""

    sign: str
    needs: str
    read: Callable[[str], Value]
    show: Callable[[Value], str] = str


def _number(text: str) -> int:
    """Decimal, or hexadecimal after 0x."""
    return int(text, 16 if text.lower().startswith("0x") else 10)


def _natural(text: str) -> int:
    number = _number(text)
    if number < 0:
        raise ValueError(text)
    return number


def _within(first: int, last: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = _number(text)
        if not first <= number <= last:
            raise ValueError(text)
        return number

    return read


def _signed(text: str) -> int:
    if text[:1] not in ("+", "-"):
        raise ValueError(text)
    return int(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(text)
    return seconds


def _hex_8(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8}", text):
        raise ValueError(text)
    return text.upper()


def _sense(text: str) -> str:
    key, asc, ascq = (int(part, 16) for part in text.split("/"))
    if not (0 <= key <= 0xF and 0 <= asc <= 0xFF and 0 <= ascq <= 0xFF):
        raise ValueError(text)
    return f"{key:X}/{asc:02X}/{ascq:02X}"


def _twist(text: str) -> str:
    descriptor_faults.find(text)
    return text


_BYTES = ValueKind("N", "a number of bytes", _within(0, 0xFFFFFFFF))
_FILLING = ValueKind("N", "a number of bytes, 1 MiB at most", _within(0, 1 << 20))
_BLOCKS = ValueKind("N", "a number of 64 bits", _within(0, (1 << 64) - 1))
_NUMBER = ValueKind("N", "a number of 32 bits", _within(0, 0xFFFFFFFF))
_BYTE = ValueKind("N", "a number from 0 to 255", _within(0, 0xFF))
_COUNT = ValueKind("N", "a number from 1", _within(1, 0xFFFFFFFF))
_FEW = ValueKind("N", "a number from 1 to 65535", _within(1, 0xFFFF))
_SECONDS = ValueKind("S", "a number of seconds", _seconds)
_MICROSECONDS = ValueKind("US", "a number of microseconds", _natural)
_HEX_8 = ValueKind("HEX8", "eight hexadecimal digits, in the order of the wire", _hex_8)
_SENSE = ValueKind("K/ASC/ASCQ", "three hexadecimal numbers, as in 5/24/00", _sense)
_CASE = ValueKind("N", "a number from 1 to 13", _within(1, 13))
_SIGNED = ValueKind("+N|-N", "a number with its sign", _signed, lambda value: f"{value:+d}")
_TWIST = ValueKind("NAME", f"one of {', '.join(descriptor_faults.TWISTS)} (garbage:N with another seed)", _twist)


@dataclass(frozen=True)
class Kind:
    """One kind of fault: what parsing, help and documents know of it."""

    name: str
    about: str
    phases: tuple[str, ...] = ()  # the first one where none is named
    value: ValueKind | None = None
    default: Value = None  # of a value that is left out; None: it does without, or has to be there
    needs_value: bool = False
    times: float = 1
    scope: Scope = Scope.COMMAND
    opcodes: tuple[int, ...] = ()  # where it is for some commands only

    @property
    def usage(self) -> str:
        """`stall[=N][@data|csw|cbw]`: brackets around what may be left out."""
        value = f"={self.value.sign}" if self.value else ""
        if value and not self.needs_value:
            value = f"[{value}]"
        phase = f"[@{'|'.join(self.phases)}]" if self.phases else ""
        return self.name + value + phase


_ANYWHERE = (DATA, CSW, CBW)
_INQUIRY = (0x12,)
_READ_CAPACITY = (0x25, 0x9E)


def _standing(name: str, about: str, value: ValueKind | None = None, opcodes: tuple[int, ...] = ()) -> Kind:
    return Kind(name, about, (), value, None, value is not None, ALWAYS, opcodes=opcodes)


def _request(name: str, about: str, value: ValueKind | None = None, needs_value: bool = False) -> Kind:
    return Kind(name, about, (), value, None, needs_value, ALWAYS, Scope.REQUEST)


_TABLE = (
    Kind("stall", "the endpoint is halted; in the data phase after N bytes", _ANYWHERE, _BYTES),
    Kind("nak", "no answer until the class reset or a reset of the port", _ANYWHERE),
    Kind("delay", "no answer for S seconds", _ANYWHERE, _SECONDS, needs_value=True),
    Kind("short", "N bytes and no more, with a true residue", (DATA, CSW), _BYTES, 0),
    Kind("long", "N bytes too many; of a write, N bytes more are waited for", (DATA, CSW), _FILLING, 64),
    Kind("empty", "an empty packet in place of the data, or before the CSW", (DATA, CSW)),
    Kind("signature", "the CSW has this signature, or USBU", (CSW,), _HEX_8, "55534255"),
    Kind("tag", "the CSW has this tag, or that of the command before", (CSW,), _NUMBER),
    Kind("residue", "the CSW has this residue", (CSW,), _NUMBER, needs_value=True),
    Kind("bogus-residue", "all data, and the residue says that there was none", (CSW,)),
    Kind("no-sense", "CHECK CONDITION, and the sense data are 0/00/00", (CSW,)),
    Kind("phase-error", "the CSW says phase error", (CSW,)),
    Kind("status", "the CSW has this status", (CSW,), _BYTE, needs_value=True),
    Kind("csw-as-data", "the CSW comes in place of the data, and nothing after it", (DATA,)),
    Kind("extra", "N bytes more behind the CSW", (CSW,), _FILLING, 13),
    Kind("disconnect", "the device leaves the bus after N bytes of the phase", _ANYWHERE, _BYTES, 0),
    Kind("sense", "the command fails with this sense", (), _SENSE, needs_value=True),
    Kind("case", "the device intends what it does in that case of BOT 6.7", (), _CASE, needs_value=True),
    Kind("eject", "the medium is taken out before the command"),
    Kind("attentions", "from the command on, N unit attentions 29h/00h", (), _FEW, 3),
    Kind("becoming-ready", "from the command on, NOT READY 04h/01h for N commands that need the medium", (), _FEW, 3),
    _standing("rushed", "phase error if the host comes back sooner than US microseconds after the CBW", _MICROSECONDS),
    _standing("inquiry", "the standard INQUIRY data have N bytes", _BYTE, _INQUIRY),
    _standing("inquiry-garbage", "the standard INQUIRY data are noise", None, _INQUIRY),
    _standing("capacity", "READ CAPACITY is off by N blocks", _SIGNED, _READ_CAPACITY),
    _standing("blocks", "READ CAPACITY tells N blocks; of none, the last is all ones", _BLOCKS, _READ_CAPACITY),
    _standing("block-size", "READ CAPACITY tells blocks of N bytes", _NUMBER, _READ_CAPACITY),
    _standing("write-protected", "the medium cannot be written"),
    _request("halt-stays", "CLEAR_FEATURE is taken, and the halt remains; N times, or always", _COUNT),
    _request("reset-stalls", "the class reset is answered with STALL"),
    _request("reset-hangs", "the class reset is not answered"),
    _request("reset-ignored", "the class reset is taken, without effect"),
    _request("max-lun-stalls", "GET MAX LUN is answered with STALL"),
    _request("max-lun", "GET MAX LUN answers N", _BYTE, True),
    _request("max-lun-hangs", "GET MAX LUN is not answered"),
    Kind("descriptor", "a wrong descriptor", (), _TWIST, None, True, ALWAYS, Scope.DESCRIPTOR),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _TABLE}


@dataclass(frozen=True)
class Fault:
    """One line of a script: a kind of fault, and the commands that it is for; all conditions must hold.

    Without a condition it is for the next command, or the next one that has the phase.
    """

    name: str
    value: Value = None
    phase: str = ""  # the kind's first where it has one
    command: int | None = None  # the K-th CBW since the stick was plugged in, from 1
    opcode: int | None = None
    lba: tuple[int, int] | None = None  # first and last; a READ, WRITE or VERIFY that meets it
    lun: int | None = None
    over: int | None = None  # a CBW that announces more than so many bytes
    cdb: str | None = None  # hexadecimal, from its beginning; "." is any digit
    times: float = 0  # 0: as often as is usual for the kind

    def __post_init__(self) -> None:
        kind = _kind(self.name)
        if self.name == "halt-stays" and self.value is not None:
            self._set("times", int(_value(kind, self.value) or 0))
            self._set("value", None)
        self._set("value", _value(kind, self.value))
        self._set("phase", _phase(kind, self.phase))
        self._set("times", self.times or kind.times)
        self._set("cdb", self.cdb.upper() if self.cdb else None)
        self._check(kind)

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def _check(self, kind: Kind) -> None:
        conditions = self.conditions()
        if kind.scope is not Scope.COMMAND and conditions:
            raise ValueError(f"{kind.name} does not belong to a command; leave out {', '.join(conditions)}")
        for name, text in conditions.items():
            _read(name, text, _CONDITIONS[name], _HINTS[name])
        if self.times != ALWAYS and (self.times < 1 or self.times != int(self.times)):
            raise ValueError(f"times={self.times}: a number from 1, or always")
        if kind.name == "stall" and self.value is not None and self.phase != DATA:
            raise ValueError("stall=N is for the data phase: leave out the N, or say stall=N@data")
        if kind.name == "short" and self.phase == CSW and self.number > 12:
            raise ValueError("a CSW has 13 bytes: short=N@csw takes 0 to 12")

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def number(self) -> int:
        """The value of a kind whose values are numbers."""
        return int(self.value or 0)

    def conditions(self) -> dict[str, str]:
        """By name, as they are written."""
        given = {name: getattr(self, name) for name in _CONDITIONS}
        return {name: _show(name, value) for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        kind = self.kind
        value = "" if self.value is None or kind.value is None else f"={kind.value.show(self.value)}"
        phase = f"@{self.phase}" if len(kind.phases) > 1 else ""
        parts = [f"{name}={text}" for name, text in self.conditions().items()]
        if self.times != kind.times:
            parts.append(f"times={'always' if self.times == ALWAYS else int(self.times)}")
        return ",".join((f"{self.name}{value}{phase}", *parts))

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Reads `NAME[=VALUE][@PHASE][,CONDITION=…]…[,times=N|always]`; ValueError says what is wrong with it."""
        head, *tail = (part.strip() for part in text.split(","))
        match = re.fullmatch(r"([^=@]*)(?:=([^@]*))?(?:@(.*))?", head)
        if match is None:
            raise ValueError(f"{head!r} is not NAME, NAME=VALUE or NAME=VALUE@PHASE")
        name, value, phase = match.groups()
        if phase == "":
            raise ValueError(f"a phase is missing in {head!r}: {', '.join(_kind(name).phases) or 'leave out the @'}")
        return cls(name, _read_value(_kind(name), value), phase or "", **_read_conditions(tail))


def _kind(name: str) -> Kind:
    if name not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(name, KINDS, 1)
        raise ValueError(
            f"no fault is called {name!r}; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(KINDS)}"
        )
    return KINDS[name]


def _read_value(kind: Kind, text: str | None) -> Value:
    if text is None:
        return None
    if kind.value is None:
        raise ValueError(f"{kind.name} takes no value: leave out {f'={text}'!r}")
    try:
        return kind.value.read(text)
    except ValueError:
        raise ValueError(f"{kind.name} takes {kind.value.needs}, not {text!r}") from None


def _value(kind: Kind, value: Value) -> Value:
    if value is None:
        if kind.needs_value and kind.value is not None:
            raise ValueError(f"{kind.name} needs a value, {kind.name}={kind.value.sign}: {kind.value.needs}")
        return kind.default
    try:
        text = kind.value.show(value) if kind.value else str(value)
    except (TypeError, ValueError):
        text = str(value)
    return _read_value(kind, text)


def _phase(kind: Kind, phase: str) -> str:
    if not phase:
        return kind.phases[0] if kind.phases else ""
    if phase not in kind.phases:
        where = f"it may be at {', '.join(kind.phases)}" if kind.phases else f"leave out {f'@{phase}'!r}"
        raise ValueError(f"{kind.name} cannot be at {phase!r}: {where}")
    return phase


def _extent(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    extent = _natural(first), _natural(last or first)
    if extent[0] > extent[1]:
        raise ValueError(text)
    return extent


def _pattern(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F.]{1,32}", text):
        raise ValueError(text)
    return text.upper()


def _opcode(text: str) -> int:
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,2}", text):
        raise ValueError(text)
    return int(text, 16)


_CONDITIONS: Mapping[str, Callable[[str], object]] = {
    "command": _within(1, 1 << 62),
    "opcode": _opcode,
    "lba": _extent,
    "lun": _within(0, 15),
    "over": _natural,
    "cdb": _pattern,
}
_HINTS: Mapping[str, str] = {
    "command": "the number of a command, from 1",
    "opcode": "two hexadecimal digits",
    "lba": "a block N, or blocks N-M",
    "lun": "a number from 0 to 15",
    "over": "a number of bytes",
    "cdb": "up to 32 hexadecimal digits, with . for any digit",
}


def _show(name: str, value: object) -> str:
    if name == "opcode" and isinstance(value, int):
        return f"{value:02X}"
    if isinstance(value, tuple):
        return "-".join(map(str, dict.fromkeys(value)))
    return str(value)


def _read_conditions(parts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        name, _, text = part.partition("=")
        if name in found:
            raise ValueError(f"{name} is there twice")
        if name == "times":
            found[name] = ALWAYS if text == "always" else _read(name, text, _COUNT.read, "a number from 1, or always")
        elif name in _CONDITIONS:
            found[name] = _read(name, text, _CONDITIONS[name], _HINTS[name])
        else:
            raise ValueError(f"no condition is called {name!r}; there are {', '.join((*_CONDITIONS, 'times'))}")
    return found


def _read(name: str, text: str, read: Callable[[str], object], hint: str) -> object:
    try:
        return read(text)
    except ValueError:
        raise ValueError(f"{name}={text!r}: {hint}") from None
