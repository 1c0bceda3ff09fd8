"""Faults as data: what a stick does wrong, for which command, and how often; and their text form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from scsiusb.base.dataclass import dataclass
from scsiusb.virtual.faults import descriptor_faults

Value = int | float | str | None

ALWAYS = math.inf
CBW, DATA, CSW = "cbw", "data", "csw"
PROTOCOLS = BOT, UAS = "bot", "uas"


class Scope(Enum):
    """What triggers a fault."""

    COMMAND = "a command that fulfils the conditions"
    REQUEST = "a class request or CLEAR_FEATURE on the default control pipe"
    DESCRIPTOR = "GET_DESCRIPTOR"


class ValueKind(NamedTuple):
    """The syntax of a value, the part after NAME=.

    `placeholder` stands for it in help texts, `needs` is its description in error messages. `read` parses the text and
    raises ValueError if it is invalid; `show` is the inverse of `read`.
    """

    placeholder: str
    needs: str
    read: Callable[[str], Value]
    show: Callable[[Value], str] = str


def _number(text: str) -> int:
    """Parse a decimal number, or a hexadecimal one with the prefix 0x."""
    return int(text, 16 if text.lower().startswith("0x") else 10)


def _non_negative(text: str) -> int:
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


def _descriptor_error(text: str) -> str:
    descriptor_faults.find(text)
    return text


_BYTES = ValueKind("N", "a number of bytes", _within(0, 0xFFFFFFFF))
_FILLER_BYTES = ValueKind("N", "a number of bytes, at most 1 MiB", _within(0, 1 << 20))
_BLOCKS = ValueKind("N", "an unsigned number of 64 bits", _within(0, (1 << 64) - 1))
_NUMBER = ValueKind("N", "an unsigned number of 32 bits", _within(0, 0xFFFFFFFF))
_BYTE = ValueKind("N", "a number from 0 to 255", _within(0, 0xFF))
_COUNT = ValueKind("N", "a number, 1 or more", _within(1, 0xFFFFFFFF))
_COUNT_16 = ValueKind("N", "a number from 1 to 65535", _within(1, 0xFFFF))
_SECONDS = ValueKind("S", "a number of seconds", _seconds)
_MICROSECONDS = ValueKind("US", "a number of microseconds", _non_negative)
_HEX_8 = ValueKind("HEX8", "eight hexadecimal digits: four bytes in the order in which they are sent", _hex_8)
_SENSE = ValueKind("K/ASC/ASCQ", "three hexadecimal numbers, such as 5/24/00", _sense)
_CASE = ValueKind("N", "a number from 1 to 13", _within(1, 13))
_SIGNED = ValueKind("+N|-N", "a number with its sign", _signed, lambda value: f"{value:+d}")
_DESCRIPTOR_ERROR = ValueKind(
    "NAME",
    f"one of {', '.join(descriptor_faults.DESCRIPTOR_FAULTS)} (garbage:N: random bytes from seed N)",
    _descriptor_error,
)


@dataclass(frozen=True)
class Kind:
    """One kind of fault: its name, its description for help texts, and its syntax."""

    name: str
    about: str
    phases: tuple[str, ...] = ()  # the phases that are possible, the default first
    value: ValueKind | None = None
    default: Value = None  # used when no value is given; None: no value, unless `needs_value`
    needs_value: bool = False
    times: float = 1  # how often the fault applies by default; ALWAYS for some kinds
    scope: Scope = Scope.COMMAND
    opcodes: tuple[int, ...] = ()  # the commands that the kind applies to; empty: all

    @property
    def usage(self) -> str:
        """The syntax, with optional parts in brackets: `stall[=N][@data|csw|cbw]`."""
        value = f"={self.value.placeholder}" if self.value else ""
        if value and not self.needs_value:
            value = f"[{value}]"
        phase = f"[@{'|'.join(self.phases)}]" if self.phases else ""
        return self.name + value + phase


_ANYWHERE = (DATA, CSW, CBW)
_INQUIRY = (0x12,)
_READ_CAPACITY = (0x25, 0x9E)


def _permanent(name: str, about: str, value: ValueKind | None = None, opcodes: tuple[int, ...] = ()) -> Kind:
    return Kind(name, about, (), value, None, value is not None, ALWAYS, opcodes=opcodes)


def _request(name: str, about: str, value: ValueKind | None = None, needs_value: bool = False) -> Kind:
    return Kind(name, about, (), value, None, needs_value, ALWAYS, Scope.REQUEST)


_TABLE = (
    Kind("stall", "STALL of the endpoint; in the data phase after N bytes (default 0)", _ANYWHERE, _BYTES),
    Kind("nak", "no answer (NAK) until a class reset or a port reset", _ANYWHERE),
    Kind("hang", "no answer (NAK), and none to the class reset, until a port reset", _ANYWHERE),
    Kind("delay", "no answer (NAK) for S seconds; then the phase continues", _ANYWHERE, _SECONDS, needs_value=True),
    Kind("short", "only N bytes (default 0), with a correct residue", (DATA, CSW), _BYTES, 0),
    Kind("long", "N bytes too many (default 64); a write waits for N more bytes", (DATA, CSW), _FILLER_BYTES, 64),
    Kind("empty", "an empty packet instead of the data, or before the CSW", (DATA, CSW)),
    Kind("signature", "the CSW has this signature (default: USBU)", (CSW,), _HEX_8, "55534255"),
    Kind("tag", "the CSW has this tag (default: the tag of the CBW minus 1)", (CSW,), _NUMBER),
    Kind("residue", "the CSW has this residue", (CSW,), _NUMBER, needs_value=True),
    Kind("bogus-residue", "all data are transferred, but the residue says none", (CSW,)),
    Kind("no-sense", "the CSW says command failed (1), but the sense data are 0/00/00", (CSW,)),
    Kind("phase-error", "the CSW says phase error (2)", (CSW,)),
    Kind("status", "the CSW has this status", (CSW,), _BYTE, needs_value=True),
    Kind("csw-as-data", "the CSW is sent instead of the data, and nothing after it", (DATA,)),
    Kind("extra", "N more bytes after the CSW (default 13)", (CSW,), _FILLER_BYTES, 13),
    Kind("disconnect", "the device leaves the bus after N bytes of the phase (default 0)", _ANYWHERE, _BYTES, 0),
    Kind("away", "the device leaves the bus, and comes back after S seconds", _ANYWHERE, _SECONDS, needs_value=True),
    Kind("sense", "the command fails with these sense data", (), _SENSE, needs_value=True),
    Kind("case", "the device behaves as in case N of the thirteen cases (BOT 6.7)", (), _CASE, needs_value=True),
    Kind("eject", "the medium is ejected before the command"),
    Kind("attentions", "from this command on, N unit attentions 29h/00h (default 3)", (), _COUNT_16, 3),
    Kind(
        "becoming-ready",
        "from this command on, N commands that need the medium (default 3) fail with NOT READY 04h/01h",
        (),
        _COUNT_16,
        3,
    ),
    _permanent("rushed", "phase error if the host continues within US microseconds after the CBW", _MICROSECONDS),
    _permanent("inquiry", "the standard INQUIRY data have N bytes", _BYTE, _INQUIRY),
    _permanent("inquiry-garbage", "the standard INQUIRY data are random bytes", None, _INQUIRY),
    _permanent("capacity", "READ CAPACITY reports N blocks too many or too few", _SIGNED, _READ_CAPACITY),
    _permanent("blocks", "READ CAPACITY reports N blocks; if N is 0, a last LBA of all ones", _BLOCKS, _READ_CAPACITY),
    _permanent("block-size", "READ CAPACITY reports blocks of N bytes", _NUMBER, _READ_CAPACITY),
    _permanent("write-protected", "the medium is write protected"),
    _request("halt-stays", "clearing a halt succeeds, but the halt remains; N times, or always", _COUNT),
    _request("reset-stalls", "the device answers the class reset with STALL"),
    _request("reset-hangs", "the device does not answer the class reset"),
    _request("reset-ignored", "the device accepts the class reset and does nothing"),
    _request("max-lun-stalls", "the device answers GET MAX LUN with STALL"),
    _request("max-lun", "GET MAX LUN returns N", _BYTE, True),
    _request("max-lun-hangs", "the device does not answer GET MAX LUN"),
    Kind("descriptor", "an invalid descriptor", (), _DESCRIPTOR_ERROR, None, True, ALWAYS, Scope.DESCRIPTOR),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _TABLE}


@dataclass(frozen=True)
class Fault:
    """A kind of fault, the conditions that a command must fulfil (all of them), and how often it applies.

    Without conditions it applies to the next command; a fault of the data phase, to the next command with data.
    Raises ValueError if the fields do not fit the kind.
    """

    name: str
    value: Value = None
    phase: str = ""  # "": the default of the kind
    command: int | None = None  # the K-th CBW since the stick was plugged in, from 1
    opcode: int | None = None
    lba: tuple[int, int] | None = None  # first and last block; READ, WRITE or VERIFY of any of these blocks
    lun: int | None = None
    over: int | None = None  # dCBWDataTransferLength must be larger than this number of bytes
    cdb: str | None = None  # hexadecimal digits that the CDB begins with; "." stands for any digit
    by: str | None = None  # "bot" or "uas": only by this protocol
    times: float = 0  # 0: the default of the kind

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
            raise ValueError(f"{kind.name} applies to requests, not to commands; leave out {', '.join(conditions)}")
        for name, text in conditions.items():
            _read(name, text, _CONDITIONS[name], _HINTS[name])
        if self.times != ALWAYS and (self.times < 1 or self.times != int(self.times)):
            raise ValueError(f"times takes {_TIMES_HINT}, not {self.times}")
        if kind.name == "stall" and self.value is not None and self.phase != DATA:
            raise ValueError("stall=N is only possible in the data phase; leave out the N, or write stall=N@data")
        if kind.name == "short" and self.phase == CSW and self.number > 12:
            raise ValueError("a CSW has 13 bytes; short=N@csw takes 0 to 12")

    @property
    def kind(self) -> Kind:
        """The kind of this fault."""
        return KINDS[self.name]

    @property
    def number(self) -> int:
        """The value as a number; 0 if there is none."""
        return int(self.value or 0)

    def conditions(self) -> dict[str, str]:
        """Return the conditions as text, by name."""
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
        """Parse `NAME[=VALUE][@PHASE][,CONDITION=…]…[,times=N|always]`; the inverse of `str`.

        Raises ValueError with a message for users.
        """
        head, *tail = (part.strip() for part in text.split(","))
        match = re.fullmatch(r"([^=@]*)(?:=([^@]*))?(?:@(.*))?", head)
        if match is None:
            raise ValueError(f"invalid fault {head!r}; write NAME, NAME=VALUE or NAME=VALUE@PHASE")
        name, value, phase = match.groups()
        if phase == "":
            phases = _kind(name).phases
            raise ValueError(f"no phase after @ in {head!r}; {f'use {_list(phases)}' if phases else 'leave out the @'}")
        return cls(name, _read_value(_kind(name), value), phase or "", **_read_conditions(tail))


def _kind(name: str) -> Kind:
    if name not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(name, KINDS, 1)
        raise ValueError(f"unknown fault {name!r}; {f'did you mean {near[0]}?' if near else f'use {_list(KINDS)}'}")
    return KINDS[name]


def _list(names: Iterable[str]) -> str:
    """Join names as in "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _read_value(kind: Kind, text: str | None) -> Value:
    if text is None:
        return None
    if kind.value is None:
        raise ValueError(f"{kind.name} takes no value; leave out {f'={text}'!r}")
    try:
        return kind.value.read(text)
    except ValueError:
        raise ValueError(f"{kind.name} takes {kind.value.needs}, not {text!r}") from None


def _value(kind: Kind, value: Value) -> Value:
    if value is None:
        if kind.needs_value and kind.value is not None:
            raise ValueError(
                f"{kind.name} needs a value; write {kind.name}={kind.value.placeholder} with {kind.value.needs}"
            )
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
        remedy = f"use {_list(kind.phases)}" if kind.phases else f"leave out {f'@{phase}'!r}"
        raise ValueError(f"{kind.name} has no phase {phase!r}; {remedy}")
    return phase


def _extent(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    extent = _non_negative(first), _non_negative(last or first)
    if extent[0] > extent[1]:
        raise ValueError(text)
    return extent


def _pattern(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F.]{1,32}", text):
        raise ValueError(text)
    return text.upper()


def _protocol(text: str) -> str:
    if text not in PROTOCOLS:
        raise ValueError(text)
    return text


def _opcode(text: str) -> int:
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,2}", text):
        raise ValueError(text)
    return int(text, 16)


_CONDITIONS: Mapping[str, Callable[[str], object]] = {
    "command": _within(1, 1 << 62),
    "opcode": _opcode,
    "lba": _extent,
    "lun": _within(0, 15),
    "over": _non_negative,
    "cdb": _pattern,
    "by": _protocol,
}
_HINTS: Mapping[str, str] = {
    "command": "the number of a command, 1 or more",
    "opcode": "two hexadecimal digits",
    "lba": "a block number N, or a range N-M",
    "lun": "a number from 0 to 15",
    "over": "a number of bytes",
    "cdb": "up to 32 hexadecimal digits, with . for any digit",
    "by": "bot or uas",
}
_TIMES_HINT = "a number, 1 or more, or always"


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
            raise ValueError(f"{name} is given twice; leave one out")
        if name == "times":
            found[name] = ALWAYS if text == "always" else _read(name, text, _COUNT.read, _TIMES_HINT)
        elif name in _CONDITIONS:
            found[name] = _read(name, text, _CONDITIONS[name], _HINTS[name])
        else:
            raise ValueError(f"unknown condition {name!r}; use {_list((*_CONDITIONS, 'times'))}")
    return found


def _read(name: str, text: str, read: Callable[[str], object], hint: str) -> object:
    try:
        return read(text)
    except ValueError:
        raise ValueError(f"{name} takes {hint}, not {text!r}") from None
