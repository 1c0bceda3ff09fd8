"""check: a device that is out of step is brought into step before the next check, and is never taken for not ready.

And: a check that needs a failure does not blame its own clause if the device accepts the command.
"""

from __future__ import annotations

import pytest

from scsiusb.conformance import device_under_test
from scsiusb.conformance.engine import Report
from scsiusb.conformance.outcome import Result, Verdict
from scsiusb.conformance.table import CHECKS
from scsiusb.usb.backend import ENDPOINT_IN, Code
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.target.task import Parameters, Task
from tests.conformance.queueing import queueing
from tests.conformance.test_conformance import AREA, disk, examine
from tests.sticks import Answer, InterceptedBus, OddUnit, Wire

NEEDS_MEDIUM = {name for name, check in CHECKS.items() if check.needs_medium}
# What the device of `queueing` does wrong, with its clause.
QUEUEING = {
    *("case-2", "case-2-read", "case-4", "case-7", "case-7-read", "case-9", "case-10", "case-10-read"),
    *("cbw-signature", "cbw-short", "cbw-long", "cbw-meaningless", "cbw-lun"),
    *("invalid-field", "mode-unknown-page"),
    *("recovery-after-cbw", "recovery-first-packet", "recovery-in-data", "recovery-before-csw"),
    *("recovery-without-data", "recovery-after-stall"),
}
QUEUEING_WRITES = {"case-3", "case-8", "case-11", "case-13", "write-zero-blocks"}


def verdict(report: Report, name: str) -> Result:
    return next(result for result in report.results if result.check.name == name)


def skipped(report: Report) -> set[str]:
    return {result.check.name for result in report.results if result.verdict is Verdict.SKIP}


# --- out of step --------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_one_check_leaves_in_bulk_in_does_not_hide_the_failures_of_later_ones() -> None:
    stick, function = queueing()
    report = examine(stick, area=AREA)
    assert (set(report.failed), report.ended) == (QUEUEING | QUEUEING_WRITES, "")
    assert not [result.detail for result in report.results if "not ready" in result.detail]
    assert not function.queue


def test_a_check_says_what_reset_recovery_left_in_bulk_in() -> None:
    stick, _ = queueing()
    report = examine(stick, "case-10", "case-6")
    assert "reset recovery left 13 bytes of it in bulk-in" in verdict(report, "case-10").detail
    assert "left" not in verdict(report, "case-6").detail


@pytest.mark.slow
def test_nothing_is_written_to_another_place_by_a_device_that_is_out_of_step() -> None:
    medium = Memory(bytes(range(256)) * 2 * 256)
    before = bytes(medium.data)
    stick, _ = queueing(medium)
    examine(stick, area=AREA)
    assert bytes(medium.data) == before


@pytest.mark.parametrize("left", [[b"x" * 512], [b"x" * 512] * 100, [b"USBS" + bytes(9)] * 7, [b""], [b"x" * 100_000]])
def test_stale_packets_before_the_first_check_are_drained(left: list[bytes]) -> None:
    stick, function = queueing()
    bus = InterceptedBus(stick)

    def leave(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if left:
            function.queue.extend(left)
            left.clear()
        return None

    bus.wire.intercept = leave
    report = examine(bus, "case-6-read", "case-7-read")
    assert (report.failed, skipped(report), report.ended) == (["case-7-read"], set(), "")


def never_empty(bus: InterceptedBus, until: str = "") -> None:
    """Have bulk-in send data without end from MODE SENSE(10) on, until `until` is on the wire."""

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        since = wire.log[wire.log.index("cbw 5a") :] if "cbw 5a" in wire.log else [until]
        return (Code.OK, min(len(buffer), 512)) if until not in since and endpoint & ENDPOINT_IN else None

    bus.wire.intercept = intercept


@pytest.mark.slow
def test_a_device_that_stays_out_of_step_ends_the_run_with_the_reason() -> None:
    """Its bulk-in never becomes empty, not even after a port reset."""
    bus = InterceptedBus(queueing()[0])
    never_empty(bus, until="never")
    report = examine(bus, "mode-sense-10", "case-6-read")
    assert report.failed == ["mode-sense-10"]
    assert "does not get into step again, not even by a port reset: TEST UNIT READY" in report.ended
    assert "a CSW of 512 bytes" in report.ended


@pytest.mark.slow
def test_a_port_reset_gets_into_step_where_a_reset_recovery_does_not() -> None:
    bus = InterceptedBus(queueing()[0])
    never_empty(bus, until="port reset")
    report = examine(bus, "mode-sense-10", "case-6-read", "case-6")
    assert (report.failed, report.ended) == (["mode-sense-10"], "")
    assert "only after a port reset" in verdict(report, "mode-sense-10").detail
    assert skipped(report) == set()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["short=5@csw,times=always", "long=3@csw,times=always"])
def test_a_device_without_one_correct_csw_is_tested_and_nothing_is_skipped_for_it(fault: str) -> None:
    unit = disk()
    report = examine(Stick([unit], faults=[fault]), area=AREA)
    assert report.ended == ""
    assert {"csw-length", "case-1", "last-block", "read-repeatable"} <= set(report.failed)
    assert not skipped(report) & NEEDS_MEDIUM
    assert isinstance(unit.medium, Memory)
    assert unit.medium.writes == 0


# --- not ready ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["sense=4/44/00", "sense=3/11/00", "no-sense@csw", "status=9@csw", "phase-error@csw"])
def test_only_a_unit_that_says_so_is_taken_for_not_ready(fault: str) -> None:
    """TEST UNIT READY fails for another reason, or without any: the checks that need a medium are made."""
    report = examine(Stick([disk()], faults=[f"{fault},opcode=00,times=always"]), "case-6-read", "last-block")
    assert [result.verdict for result in report.results] == [Verdict.PASS, Verdict.PASS]


def test_a_skipped_check_gives_the_sense_data_of_the_unit() -> None:
    report = examine(Stick([Unit()]), "last-block")
    assert verdict(report, "last-block").detail == (
        "the unit is not ready; insert a medium (TEST UNIT READY fails with sense 2/3A/00)"
    )


def test_unit_attentions_without_end_are_not_taken_for_not_ready() -> None:
    report = examine(Stick([disk()], faults=["sense=6/29/00,opcode=00,times=always"]), "last-block", "case-1")
    assert [result.verdict for result in report.results] == [Verdict.PASS, Verdict.PASS]


def test_a_check_after_which_the_unit_is_not_ready_fails() -> None:
    unit = OddUnit()
    gone: list[bool] = []

    def loses_its_medium(cdb: bytes) -> Task | None:
        gone.extend([True] * (cdb[0] == 0x5A))
        return unit.fail(2, 0x3A) if gone and cdb[0] == 0x00 else None

    unit.answer = loses_its_medium
    report = examine(Stick([unit]), "mode-sense-10", "last-block", "case-6")
    assert report.failed == ["mode-sense-10"]
    reason = "after the check, the unit was not ready any more: TEST UNIT READY fails with sense 2/3A/00"
    assert reason in verdict(report, "mode-sense-10").detail
    assert skipped(report) == {"last-block"}


def test_a_unit_that_becomes_ready_again_after_a_check_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk does whose port was reset."""
    monkeypatch.setattr(device_under_test, "INTERVAL", 0.0)
    unit = disk()
    power_on = unit.power_on

    def spin_up() -> None:
        power_on()
        unit.becoming_ready = 5

    unit.power_on = spin_up  # type: ignore[method-assign]
    report = examine(Stick([unit]), "port-reset", "case-6-read", "last-block")
    assert [result.verdict for result in report.results] == [Verdict.PASS] * 3


# --- commands that some devices accept ----------------------------------------------------------


def accepts(*opcodes: int, also: bytes = b"") -> Stick:
    """Return a stick whose unit ends these commands with status 0 without data, and those whose CDB begins so."""
    unit = OddUnit()
    unit.answer = lambda cdb: Task() if cdb[0] in opcodes or (also and cdb.startswith(also)) else None
    return Stick([unit])


def accepts_pages() -> Stick:
    """Return a stick that ignores the page code of INQUIRY without EVPD."""
    unit = OddUnit()
    unit.answer = lambda cdb: Unit.execute(unit, cdb[:2] + b"\0" + cdb[3:]) if cdb[:3] == b"\x12\0\x80" else None
    return Stick([unit])


def test_only_one_check_blames_a_device_that_accepts_a_page_code_without_evpd() -> None:
    report = examine(accepts_pages(), area=AREA)
    assert (report.failed, report.ended) == (["invalid-field"], "")


def test_a_device_that_accepts_one_command_that_cannot_exist_is_still_tested() -> None:
    report = examine(accepts(0x4F), area=AREA)
    assert (report.failed, report.ended) == (["invalid-opcode"], "")
    assert skipped(report) == {"bos-descriptor"}


def test_checks_of_failures_are_not_applicable_to_a_device_that_accepts_every_opcode() -> None:
    report = examine(accepts(0x4F, 0x1F), area=AREA)
    assert (report.failed, report.ended) == (["invalid-opcode"], "")
    assert {"failure-is-no-phase-error", "residue-failed", "sense-kept", "sense-cleared"} <= skipped(report)
    assert {"sense-after-success", "sense-format", "sense-lengths"} <= skipped(report)
    assert "accepts commands that cannot exist" in verdict(report, "sense-kept").detail


def test_a_device_that_refuses_nothing_at_all_is_blamed_where_it_must_refuse_only() -> None:
    unit = OddUnit()

    def accept(cdb: bytes) -> Task | None:
        """Accept what the unit would refuse."""
        task = Unit.execute(unit, cdb)
        return Task() if task.failed and cdb[0] not in (0x00, 0x03) else task

    unit.answer = accept
    report = examine(Stick([unit]))
    own = {"invalid-opcode", "invalid-field", "vpd-unlisted", "mode-unknown-page", "beyond-end", "crossing-end"}
    assert own <= set(report.failed)
    assert not set(report.failed) & {"residue-failed", "sense-kept", "sense-per-failure", "failure-is-no-phase-error"}


@pytest.mark.parametrize("opcode", ["4F", "1F"])
def test_a_device_that_never_answers_a_command_that_cannot_exist_fails_the_check_of_that_only(opcode: str) -> None:
    names = ("invalid-opcode", "sense-kept", "sense-format", "residue-failed", "case-6")
    report = examine(Stick([disk()], faults=[f"nak@csw,opcode={opcode},times=always"]), *names)
    assert report.failed == ["invalid-opcode"] * (opcode == "4F")


# --- skips that hid a failure -------------------------------------------------------------------

HIDDEN = {
    "sense=3/11/00,opcode=88": "read-16",
    "sense=5/21/00,opcode=88": "read-16",
    "sense=4/44/00,opcode=5A": "mode-sense-10",
    "sense=2/3A/00,opcode=1A": "mode-sense-6",
    "no-sense@csw,opcode=9E": "capacity-16",
    "sense=5/24/00,cdb=1A007F": "mode-page-control",
    "sense=5/24/00,cdb=1A0008": "mode-one-page",
    "sense=5/20/00,opcode=A0": "report-luns",
}


@pytest.mark.parametrize("fault", HIDDEN)
def test_an_optional_command_that_fails_is_not_said_to_be_unsupported(fault: str) -> None:
    report = examine(Stick([disk()], faults=[f"{fault},times=always"]), HIDDEN[fault])
    assert report.failed == [HIDDEN[fault]], verdict(report, HIDDEN[fault]).detail


@pytest.mark.parametrize("opcode", ["08", "A8", "88"])
def test_a_read_that_is_supported_in_one_place_only_fails_its_check(opcode: str) -> None:
    unit = disk(blocks=4096)
    names = {"08": "read-6", "A8": "read-12", "88": "read-16"}
    stick = Stick([unit], faults=[f"sense=5/20/00,opcode={opcode},lba=100-9999,times=always"])
    assert examine(stick, names[opcode]).failed == [names[opcode]]


@pytest.mark.parametrize("name", ["read-6", "read-12", "read-16", "case-2-read", "case-7-read", "case-10-read"])
def test_a_block_that_cannot_be_read_is_not_blamed_on_other_clauses(name: str) -> None:
    report = examine(Stick([disk()], faults=["sense=3/11/00,lba=0,times=always"]), name)
    assert report.failed == []


def test_a_capacity_that_is_not_believed_fails_its_check() -> None:
    unit = OddUnit()
    report = examine(Stick([unit]), "capacity-16")
    assert report.failed == []
    answers = {0x25: bytes((255,)) * 4 + bytes((0, 0, 2, 0)), 0x9E: bytes((1,)) * 8 + bytes((0, 0, 2, 0)) + bytes(20)}
    unit.answer = lambda cdb: Parameters(answers[cdb[0]], 32) if cdb[0] in answers else None
    report = examine(Stick([unit]), "capacity-16", "last-block")
    assert report.failed == ["capacity-16"]
    assert skipped(report) == {"last-block"}
