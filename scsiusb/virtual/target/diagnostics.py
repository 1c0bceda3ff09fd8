"""SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS and LOG SELECT: self-tests that pass, and counters to reset (SPC-4)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target import logs
from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, INVALID_FIELD_IN_PARAMETERS, CommandFailed
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

SUPPORTED: Final = 0x00
_PAGE_FORMAT, _SELF_TEST, _VALID = 0x10, 0x04, 0x01
_TESTS: Final = (1, 2, 5, 6)  # SELF-TEST CODE: background and foreground, short and extended
_RESET, _SAVE = 0x02, 0x01


def send(unit: Unit, cdb: bytes) -> Task:
    """Run a self-test, which passes at once, or take page 00h (SPC-4 6.42)."""
    code, length = cdb[1] >> 5, int.from_bytes(cdb[3:5], "big")
    if code not in (0, *_TESTS) or ((code or cdb[1] & _SELF_TEST) and length) or (code and cdb[1] & _SELF_TEST):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    if code:
        unit.ready_medium()
        unit.kept.add_self_test(code)
    if length and not cdb[1] & _PAGE_FORMAT:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return act_on(unit, length, _take_page)


def _take_page(data: bytes) -> None:
    if data and (data[0] != SUPPORTED or len(data) < 4 or any(data[2:4])):
        raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)


def receive(unit: Unit, cdb: bytes) -> Task:
    """Return page 00h, the list of the pages, which has only itself (SPC-4 6.27)."""
    if cdb[2] != SUPPORTED and cdb[1] & _VALID:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Parameters(struct.pack(">BxHB", SUPPORTED, 1, SUPPORTED), int.from_bytes(cdb[3:5], "big"))


def log_select(unit: Unit, cdb: bytes) -> Task:
    """Reset what can be reset of a page, or of all: the self-tests. No parameter can be set (SPC-4 6.7)."""
    page, subpage, length = cdb[2] & 0x3F, cdb[3], int.from_bytes(cdb[7:9], "big")
    is_reset = bool(cdb[1] & _RESET)
    if cdb[1] & _SAVE or subpage or (is_reset and length) or (page and logs.page(page, 0, unit.kept) is None):
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    if is_reset and page in (0, logs.SELF_TESTS):
        unit.kept.self_tests.clear()
    return act_on(unit, length, _refuse_parameters)


def _refuse_parameters(data: bytes) -> None:
    if data:
        raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
