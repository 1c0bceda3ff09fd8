"""What a unit says of itself in every way that sg3_utils and sdparm can ask: by those programs, and by scsiusb."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from scsiusb import CheckCondition
from scsiusb.scsi.commands import sbc, spc, spc_parameters, spc_support
from scsiusb.scsi.modes import PageList, read_pages
from scsiusb.scsi.pages.log import LogPage
from scsiusb.scsi.pages.mode import ModeParameters
from scsiusb.scsi.unit import LogicalUnit

from . import oracles

T = TypeVar("T")
UNLISTED_VPD, UNLISTED_LOGS = (0x80, 0x83, 0x8F, 0xC0), (0x0D, 0x18, 0x30)
"""Pages that are asked for beside those of the list: a unit has them or refuses them."""
NOT_READY, ILLEGAL, UNKNOWN_OPCODE = 2, 5, 9
REFUSED = (NOT_READY, ILLEGAL, UNKNOWN_OPCODE)  # exit statuses of sg3_utils for what the unit does not have
WHOLE = 0x1000  # bytes: more than any page of these units
PAGE = re.compile(r"^\S.* \[(\w+)\](?: mode page)?:.*$", re.MULTILINE)
ROW = re.compile(
    r"^ +([A-Z]\w*) +(-?\d+) +\[cha: ([yn])(?:, def: *(-?\d+))?(?:, sav: *(-?\d+))?\]",
    re.MULTILINE,
)
COMMAND = re.compile(r"^ ([0-9a-f]{2})  +([0-9a-f]{1,4})? +(\d+) ", re.MULTILINE)


class Field(NamedTuple):
    """A field of a mode page by sdparm: numbers as it prints them, None where it does not."""

    current: int
    can_change: bool
    default: int | None
    saved: int | None


class Theirs(NamedTuple):
    """What the programs say; of what the unit refuses, None."""

    inquiry: bytes
    inquiry_text: str
    vpd: dict[int, bytes | None]
    vpd_texts: dict[int, str]
    logs: dict[int, bytes | None]
    log_texts: dict[int, str]
    modes: oracles.Modes | None
    fields: dict[tuple[str, str], Field]
    opcodes: set[tuple[int, int | None, int]] | None
    luns: list[int] | None
    capacity: oracles.Capacity | None
    long_capacity: dict[str, int] | None


class Ours(NamedTuple):
    """The same by scsiusb; of what the unit refuses, None."""

    inquiry: bytes
    vpd: dict[int, bytes | None]
    logs: dict[int, LogPage | None]
    modes: ModeParameters | None
    pages: PageList
    opcodes: set[tuple[int, int | None, int]] | None
    luns: list[int] | None
    capacity: sbc.Capacity | None
    long_capacity: sbc.LongCapacity | None


def theirs(sg: Path) -> Theirs:
    """Ask by sg_inq, sg_vpd, sg_logs, sg_modes, sdparm, sg_opcodes, sg_luns and sg_readcap."""
    vpd = _pages(partial(_vpd, sg), UNLISTED_VPD)
    logs = _pages(partial(_log, sg), UNLISTED_LOGS)
    return Theirs(
        oracles.tool("sg_inq", "--raw", sg),
        _text(oracles.tool("sg_inq", "--descriptors", sg)),
        vpd,
        {page: _text(_vpd(sg, page, "--long")) for page, data in vpd.items() if data is not None},
        logs,
        {page: _text(_log(sg, page)) for page, data in logs.items() if data is not None},
        _allowed(lambda: oracles.modes(sg)),
        _fields(sg),
        _allowed(lambda: _opcodes(sg)),
        _allowed(lambda: oracles.luns(sg)),
        _allowed(lambda: oracles.readcap(sg)),
        _allowed(lambda: oracles.long_capacity(sg)),
    )


def _pages(ask: Callable[[int, str], bytes], others: Iterable[int]) -> dict[int, bytes | None]:
    """Return each page that page 00h lists, and `others`; None for those that are refused."""
    listed = _allowed(lambda: ask(0, "--raw"))
    asked = {0, *(listed or b"")[4:], *others}
    return {page: _allowed(partial(ask, page, "--raw")) for page in sorted(asked)}


def ours(unit: LogicalUnit, seen: Theirs) -> Ours:
    """Ask by scsiusb for what `seen` has."""
    return Ours(
        unit.execute(spc.InquiryVpdBytes(0, len(seen.inquiry), evpd=False)),
        {page: _granted(partial(unit.vpd_bytes, page)) for page in seen.vpd},
        {page: _granted(partial(unit.execute, spc_parameters.LogSense(page))) for page in seen.logs},
        _granted(lambda: unit.execute(spc.ModeSense10(length=WHOLE))),
        _granted(lambda: read_pages(unit)) or PageList(),
        _granted(lambda: _our_opcodes(unit)),
        _granted(lambda: [*unit.execute(spc.ReportLuns())]),
        _granted(lambda: _ready(unit).read_capacity()),
        _granted(lambda: _ready(unit).execute(sbc.ReadCapacity16())),
    )


def _ready(unit: LogicalUnit) -> LogicalUnit:
    """Return the unit when it is ready: QEMU's sends more than it was asked for to READ CAPACITY without a medium."""
    unit.make_ready()
    return unit


def _allowed(ask: Callable[[], T]) -> T | None:
    """Return what a program says; None if the unit refuses it. Raise OracleError for another end."""
    try:
        return ask()
    except oracles.OracleError as error:
        if error.status not in REFUSED:
            raise
        return None


def _granted(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except CheckCondition:
        return None


def _vpd(sg: Path, page: int, *words: str) -> bytes:
    return oracles.tool("sg_vpd", "--force", *words, f"--page={page:#x}", sg)


def _log(sg: Path, page: int, *words: str) -> bytes:
    return oracles.tool("sg_logs", *words, f"--page={page:#x}", sg)


def _fields(sg: Path) -> dict[tuple[str, str], Field]:
    """Return the fields of all mode pages by the page's acronym in sdparm and their name."""
    words = ["sdparm", "--all", "--all", "--long", str(sg)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=oracles.PATIENCE, check=False)
    parts = PAGE.split(done.stdout)
    return {
        (page, name): Field(int(value), can_change == "y", *(int(each) if each else None for each in kept))
        for page, rows in zip(parts[1::2], parts[2::2], strict=True)
        for name, value, can_change, *kept in ROW.findall(rows)
    }


def _opcodes(sg: Path) -> set[tuple[int, int | None, int]]:
    text = _text(oracles.tool("sg_opcodes", "--no-inquiry", sg))
    rows = COMMAND.findall(text)
    return {(int(code, 16), int(action, 16) if action else None, int(length)) for code, action, length in rows}


def _our_opcodes(unit: LogicalUnit) -> set[tuple[int, int | None, int]]:
    found = unit.execute(spc_support.ReportSupportedOperationCodes())
    return {(each.opcode, each.service, each.cdb_length) for each in found.commands}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
