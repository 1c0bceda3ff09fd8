"""check: no false alarm on a stick without a fault; each injected fault is found by the check for it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scsiusb.conformance.device_under_test import Area
from scsiusb.conformance.engine import Report, run
from scsiusb.conformance.outcome import Check, NotApplicable, Result, Severity, Verdict, Violation
from scsiusb.conformance.table import CHECKS, GROUPS
from scsiusb.opening import open_on
from scsiusb.usb.backend import ENDPOINT_IN, Code, Device
from scsiusb.virtual import Bus, Identity, Memory, Sparse, Stick, Unit, VirtualHandle, bot_interface
from scsiusb.virtual.device.bot import BotOptions, DataIn, DataOut
from scsiusb.virtual.target.task import Task
from tests.sticks import Answer, InterceptedBus, OddUnit, Wire

TIMEOUT = 0.05
AREA = Area(1, 4)


def examine(where: Stick | Bus, *names: str, lun: int = 0, area: Area | None = None) -> Report:
    """Run all checks, or the named ones, on the only stick of a bus."""
    bus = Bus(where) if isinstance(where, Stick) else where
    checks = [check for check in CHECKS.values() if not names or check.name in names]
    with open_on(bus, lun=lun) as disk:
        transport = disk.unit.transport
        return run(transport, lun, checks, timeout=TIMEOUT, area=area)


def disk(blocks: int = 64, block_size: int = 512, **attributes: object) -> Unit:
    data = random.Random(blocks).randbytes(blocks * block_size)
    return Unit(Memory(data, block_size), **attributes)  # type: ignore[arg-type]


# --- the table ----------------------------------------------------------------------------------


def test_the_table_is_complete() -> None:
    assert len(CHECKS) == sum(map(len, GROUPS.values())) >= 100
    for check in CHECKS.values():
        assert check.demand.endswith(".")
        assert check.section.split()[0] in ("BOT", "USB", "SPC-4", "SBC-2", "SBC-3", "SAM-5")
    for case in range(1, 14):
        assert f"case-{case}" in CHECKS


def test_what_could_write_is_marked() -> None:
    writing = {check.name for check in CHECKS.values() if check.destructive}
    assert writing == {check.name for check in GROUPS["writing"]}
    assert {"case-3", "case-8", "case-11", "case-12", "case-13"} <= writing


# --- no false alarm -----------------------------------------------------------------------------


def test_a_unit_that_wants_command_blocks_of_12_bytes_passes() -> None:
    unit = OddUnit()
    unit.answer = lambda cdb: None if len(cdb) >= 12 else unit.fail(5, 0x24)
    report = examine(
        Stick([unit], interfaces=[replace(bot_interface(), subclass=0x05)]), "invalid-opcode", "inquiry-steady"
    )
    assert {result.verdict for result in report.results} == {Verdict.PASS}


@pytest.mark.slow
@pytest.mark.parametrize("data_in", DataIn)
@pytest.mark.parametrize("data_out", DataOut)
def test_all_behaviour_that_the_specification_allows_passes(data_in: DataIn, data_out: DataOut) -> None:
    report = examine(Stick([disk()], bot_options=BotOptions(data_in, data_out, data_in is DataIn.STALL)), area=AREA)
    early = ["early-end-stalls"] if data_in is DataIn.SHORT else []  # BOT 6.7.2 requires a STALL there
    assert (report.failed, report.warned, report.ended) == ([], early, "")
    assert report.count(Verdict.SKIP) == 1  # the stick has no BOS descriptor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speed", "block_size"), [("full", 512), ("full", 4096), ("high", 2048), ("super", 512), ("super-plus", 4096)]
)
def test_every_speed_and_block_size_passes(speed: str, block_size: int) -> None:
    report = examine(Stick([disk(64, block_size)], Identity(speed=speed)), area=AREA)
    assert (report.failed, report.warned, report.ended) == ([], [], "")
    assert report.count(Verdict.SKIP) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: Unit(),
        lambda: Unit.cd_rom(),
        lambda: Unit.cd_rom(Memory(64 * 2048, 2048)),
        lambda: disk(write_protected=True),
        lambda: disk(becoming_ready=1),
        lambda: disk(blocks=1),
        lambda: disk(blocks=9, block_size=1024),
        lambda: disk(version=2, removable=False),
        lambda: Unit(Sparse((1 << 32) - 1)),
        lambda: Unit(Sparse(1 << 32)),
        lambda: Unit(Sparse(3 << 31)),
    ],
    ids=["empty", "empty-cd", "cd", "protected", "becoming-ready", "tiny", "odd", "old", "2TiB-1", "2TiB", "3TiB"],
)
def test_every_kind_of_unit_passes(make: Callable[[], Unit]) -> None:
    report = examine(Stick([make()]), area=AREA)
    assert (report.failed, report.warned, report.ended) == ([], [], "")


@pytest.mark.slow
def test_every_lun_passes() -> None:
    stick = Stick([disk(), Unit(), disk(32, 4096), Unit.cd_rom()])
    for lun in range(4):
        report = examine(stick, lun=lun)
        assert (report.failed, report.warned, report.ended) == ([], [], "")


def test_without_a_medium_only_what_needs_one_is_skipped() -> None:
    report = examine(Stick([Unit()]))
    skipped = {result.check.name for result in report.results if result.verdict is Verdict.SKIP}
    assert {name for name in skipped if not CHECKS[name].needs_medium} == {"bos-descriptor"}


# --- injected faults ------------------------------------------------------------------------------

# The fault: the check that is meant for it, and all other checks that fail because of it.
WITHOUT_RESET = {"recovery-first-packet", "recovery-in-data", "recovery-before-csw", "recovery-without-data"}
WITHOUT_RESET |= {"recovery-after-stall", "recovery-of-write", "recovery-in-write"}
WITHOUT_RESET |= {"cbw-signature", "cbw-short", "cbw-long", "cbw-meaningless", "cbw-lun"}
FAULTS: dict[str, tuple[str, set[str]]] = {
    "signature=55534243@csw,times=always": ("csw-signature", set()),
    "tag=7@csw,times=always": ("csw-tag", set()),
    "empty@csw,times=always": ("csw-length", {"csw-at-once"}),
    "residue=0@csw,opcode=03,times=always": ("residue-short-sense", set()),
    "residue=65535@csw,opcode=00,times=always": ("csw-meaningful", {"case-4", "case-9"}),
    "residue=0@csw,times=always": (
        "residue-short-inquiry",
        {"case-4", "case-5", "case-5-read", "case-9", "case-11", "residue-short-sense", "residue-failed"},
    ),
    "bogus-residue@csw,times=always": (
        "residue-full",
        {
            *("case-5", "case-5-read", "case-6", "case-6-read", "case-11", "case-12"),
            *("residue-short-inquiry", "residue-short-sense"),
        },
    ),
    "phase-error@csw,opcode=4F,times=always": ("failure-is-no-phase-error", {"csw-meaningful", "invalid-opcode"}),
    "phase-error@csw,cdb=120080,times=always": ("invalid-field", set()),
    "csw-as-data@data,opcode=00,times=always": ("case-4", {"case-9"}),
    "short=0@data,opcode=2A,times=always": ("case-12", {"case-8", "case-11", "case-13"}),
    "no-sense@csw,opcode=4F,times=always": ("sense-kept", {"invalid-opcode", "sense-per-failure", "sense-lengths"}),
    "sense=5/24/00,opcode=4F,times=always": ("invalid-opcode", set()),
    "sense=5/20/00,cdb=120080,times=always": ("invalid-field", set()),
    "sense=5/24/00,cdb=120180,times=always": ("vpd-listed", {"vpd-cut"}),
    "short=8@data,cdb=120183,times=always": ("vpd-listed", {"vpd-designators"}),
    "nak@csw,opcode=5A,times=always": ("mode-sense-10", {"mode-agree"}),
    "inquiry=5": ("inquiry-standard", {"residue-full"}),
    "inquiry-garbage": ("inquiry-names", {"inquiry-standard", "residue-short-inquiry", "vpd-listed"}),
    "capacity=+1": ("last-block", {"read-split"}),
    "capacity=-1": ("beyond-end", {"crossing-end"}),
    "block-size=3": ("capacity-10", set()),
    "blocks=0": ("capacity-16", set()),
    "max-lun=16": ("get-max-lun", set()),
    "max-lun=3": ("luns-answer", {"report-luns"}),
    "reset-ignored": ("recovery-after-cbw", WITHOUT_RESET),
    "reset-stalls": (
        "reset-accepted",
        {
            *("reset-keeps-halts", "reset-keeps-toggles", "clear-resets-toggles", "halt-feature", "halt-status"),
            *("recovery-idle", "recovery-after-cbw", *WITHOUT_RESET),
        },
    ),
    "descriptor=long-total-length": ("configuration-descriptor", set()),
    "descriptor=odd-string": ("string-descriptors", {"serial-number"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_injected_fault_is_found_by_its_check(fault: str) -> None:
    meant, _ = FAULTS[fault]
    report = examine(Stick([disk()], faults=[fault]), meant, area=AREA)
    assert (report.failed, report.ended) == ([meant], "")
    assert "expected" in report.results[0].detail


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_an_injected_fault_is_found_among_all_checks(fault: str) -> None:
    meant, others = FAULTS[fault]
    report = examine(Stick([disk()], faults=[fault]), area=AREA)
    assert meant in report.failed
    assert set(report.failed) == {meant} | others
    found = next(result for result in report.results if result.check.name == meant)
    assert "expected" in found.detail
    assert report.ended == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("identity", "meant"),
    [(Identity(serial="12AB"), "serial-number"), (Identity(serial="0123456789ab"), "serial-number")],
)
def test_a_wrong_serial_number_is_found(identity: Identity, meant: str) -> None:
    assert examine(Stick([disk()], identity)).failed == [meant]


def test_halts_that_stay_are_found_and_do_not_end_the_run() -> None:
    report = examine(Stick([disk()], faults=["halt-stays"]))
    assert {"halt-feature", "case-4", "cbw-signature"} <= set(report.failed)
    assert len(report.results) == len(CHECKS)


def test_extra_bytes_after_each_csw_are_found_and_do_not_end_the_run() -> None:
    report = examine(Stick([disk()], faults=["extra=3@csw,times=always"]))
    assert "csw-length" in report.failed
    assert len(report.results) == len(CHECKS)


def test_a_unit_attention_that_is_reported_twice_is_found() -> None:
    """The stick reports one after a port reset; here it reports the same one twice."""
    stick = Stick([disk()])
    unit = stick.units[0]
    power_on = unit.power_on

    def raise_two() -> None:
        power_on()
        unit._attentions *= 2

    unit.power_on = raise_two  # type: ignore[method-assign]
    assert examine(stick).failed == ["attention-once"]


def test_inquiry_that_clears_a_unit_attention_is_found() -> None:
    stick = Stick([disk()])
    unit = stick.units[0]
    inquiry = unit.inquiry

    def forget() -> bytes:
        unit._attentions.clear()
        return inquiry()

    unit.inquiry = forget  # type: ignore[method-assign]
    assert examine(stick).failed == ["inquiry-keeps-attention"]


def test_reads_that_differ_are_found() -> None:
    class Unstable(Memory):
        def _readinto(self, offset: int, view: memoryview) -> None:
            super()._readinto(offset, view)
            view[0] = self.reads & 0xFF

    report = examine(Stick([Unit(Unstable(64 * 512))]), "read-repeatable", "read-split", "read-16", "last-block")
    assert set(report.failed) == {"read-repeatable", "read-split", "read-16", "last-block"}


def test_a_write_that_is_not_written_is_found_and_nothing_else_changes() -> None:
    class IgnoresWrites(Memory):
        def _write(self, offset: int, view: memoryview) -> None:
            pass

    stick = Stick([Unit(IgnoresWrites(random.Random(1).randbytes(64 * 512)))])
    report = examine(stick, area=AREA)
    assert set(report.failed) == {"case-11", "case-12"}


# --- the engine ---------------------------------------------------------------------------------


def _fails(name: str, function: Callable[..., str], severity: Severity = Severity.MUST) -> Result:
    with open_on(Bus(Stick([disk()]))) as opened:
        transport = opened.unit.transport
        check = Check(name, "BOT 1", "It works.", function, severity)
        return run(transport, 0, [check], timeout=TIMEOUT).results[0]


def test_how_outcomes_become_verdicts() -> None:
    def violate(device: object) -> str:
        raise Violation("a question", "this", "that")

    def skip(device: object) -> str:
        raise NotApplicable("no reason")

    assert _fails("bad", violate).verdict is Verdict.FAIL
    assert _fails("bad", violate).detail == "a question: this; expected that"
    assert _fails("dubious", violate, Severity.SHOULD).verdict is Verdict.WARN
    assert (_fails("odd", skip).verdict, _fails("odd", skip).detail) == (Verdict.SKIP, "no reason")


def test_nothing_is_written_unless_a_range_is_given() -> None:
    stick = Stick([disk()])
    medium = stick.units[0].medium
    assert isinstance(medium, Memory)
    before = bytes(medium.data)
    report = examine(stick)
    assert medium.writes == 0
    assert bytes(medium.data) == before
    assert report.count(Verdict.SKIP) == 1 + len(GROUPS["writing"])


def test_no_command_that_writes_or_changes_the_unit_is_sent_unless_a_range_is_given() -> None:
    bus = InterceptedBus(Stick([disk()]))
    examine(bus)
    sent = {line.split()[1] for line in bus.wire.log if line.startswith("cbw")}
    assert sent <= {"00", "03", "08", "12", "1a", "25", "28", "4f", "5a", "88", "9e", "a0", "a8"}


@pytest.mark.parametrize("bot_options", [BotOptions(), BotOptions(DataIn.SHORT, DataOut.DISCARD)])
def test_the_content_of_the_range_is_restored(bot_options: BotOptions) -> None:
    stick = Stick([disk()], bot_options=bot_options)
    medium = stick.units[0].medium
    assert isinstance(medium, Memory)
    before = bytes(medium.data)
    assert examine(stick, area=AREA).failed == []
    assert medium.writes > 8
    assert bytes(medium.data) == before


def test_writes_stay_in_the_range() -> None:
    touched: set[int] = set()

    class Watched(Memory):
        def _write(self, offset: int, view: memoryview) -> None:
            touched.update(range(offset // 512, (offset + len(view)) // 512))
            super()._write(offset, view)

    examine(Stick([Unit(Watched(64 * 512))]), area=Area(40, 2))
    assert touched == {40, 41}


class Swapped(Memory):
    """A medium that is replaced by another one during a write."""

    def __init__(self, units: list[Unit], other: Memory) -> None:
        super().__init__(bytes(64 * 512))
        self.units = units
        self.other = other

    def _write(self, offset: int, view: memoryview) -> None:
        super()._write(offset, view)
        if self.units[0].medium is self:
            self.units[0].insert(self.other)


WRITERS = ("case-11", "case-12", "case-13", "recovery-in-write", "write-protect")


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_to_a_medium_that_replaced_the_tested_one(name: str) -> None:
    units: list[Unit] = []
    other = Memory(random.Random(2).randbytes(64 * 512))
    units.append(Unit(Swapped(units, other)))
    before = bytes(other.data)
    report = examine(Stick(units), name, area=AREA)
    assert (other.writes, bytes(other.data)) == (0, before)
    # write-protect writes only the content that is already there
    assert name == "write-protect" or "the medium was changed" in report.ended
    if name == "case-12":
        assert report.ended == "the medium was changed; LBA 1-2 of the old medium may hold a test pattern"
        assert [(each.verdict, each.detail) for each in report.results] == [(Verdict.SKIP, report.ended)]


@pytest.mark.parametrize("opcode", [0x1A, 0x28, 0x2A, 0x35])
@pytest.mark.parametrize("name", WRITERS)
def test_a_medium_that_is_changed_at_any_command_is_noticed(name: str, opcode: int) -> None:
    """Also if the check does not fetch the sense data of the command that fails because of it."""
    unit = disk()
    other = Memory(random.Random(2).randbytes(64 * 512))
    bus = InterceptedBus(Stick([unit]))

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        is_cbw = not endpoint & ENDPOINT_IN and bytes(buffer[:4]) == b"USBC"
        if is_cbw and buffer[15] == opcode and unit.medium is not other:
            unit.insert(other)
        return None

    bus.wire.intercept = intercept
    report = examine(bus, name, "case-3", area=AREA)
    assert other.writes == 0
    assert unit.medium is not other or "the medium was changed" in report.ended


def test_a_device_that_reports_a_medium_change_after_each_port_reset_can_be_tested() -> None:
    unit = disk()
    power_on = unit.power_on

    def and_changed() -> None:
        power_on()
        unit._changed()

    unit.power_on = and_changed  # type: ignore[method-assign]
    report = examine(Stick([unit]), "port-reset", "attention-once", "inquiry-keeps-attention", "case-12", area=AREA)
    assert (report.failed, report.ended, report.count(Verdict.PASS)) == ([], "", 4)


@pytest.mark.parametrize("fault", ["", "sense=5/20/00,opcode=35,times=always"])
def test_restored_content_is_flushed(fault: str) -> None:
    bus = InterceptedBus(Stick([disk()], faults=[fault] if fault else []))
    assert examine(bus, "case-12", area=AREA).failed == []
    assert bus.wire.log.index("cbw 35") > max(at for at, line in enumerate(bus.wire.log) if line == "cbw 2a")


def test_a_flush_that_fails_is_found() -> None:
    report = examine(Stick([disk()], faults=["sense=4/44/00,opcode=35,times=always"]), "case-12", area=AREA)
    assert report.failed == ["case-12"]
    assert "SYNCHRONIZE CACHE" in report.results[0].detail


def test_endless_unit_attentions_do_not_block_the_run() -> None:
    report = examine(Stick([disk()], faults=["sense=6/29/00,opcode=1A,times=always"]), "mode-sense-6", "write-protect")
    assert report.ended == ""
    assert len(report.results) == 2


def test_checks_that_need_a_larger_range_are_skipped() -> None:
    report = examine(Stick([disk()]), area=Area(1, 1))
    skipped = {result.check.name for result in report.results if result.verdict is Verdict.SKIP}
    assert {"case-11", "case-12", "case-13"} <= skipped
    assert "case-3" not in skipped


def test_the_evidence_has_the_packets_on_the_wire() -> None:
    (result,) = examine(Stick([disk()]), "case-6").results
    cbw, data, csw = result.evidence[-3:]
    assert (cbw["phase"], len(bytes.fromhex(cbw["hex"])), cbw["hex"][:8]) == ("cbw", 31, "55534243")
    assert (data["phase"], data["asked"], data["came"]) == ("data-in", 36, 36)
    assert (csw["phase"], len(bytes.fromhex(csw["hex"])), csw["hex"][:8]) == ("csw", 13, "55534253")


def test_the_device_works_after_the_run() -> None:
    bus = Bus(Stick([disk()]))
    examine(bus)
    with open_on(bus) as opened:
        assert opened.read(0, 1)
        assert opened.blocks == 64


def test_an_unplugged_device_ends_the_run_with_what_was_found() -> None:
    report = examine(Stick([disk()], faults=["disconnect=0@cbw,opcode=5A"]))
    assert "gone" in report.ended
    last = report.results[-1]
    assert (last.check.name, last.verdict) == ("mode-sense-10", Verdict.FAIL)
    assert report.failed == ["mode-sense-10"]


def test_a_check_that_leaves_the_device_dead_fails_and_ends_the_run() -> None:
    def dead_from_mode_sense_on(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        dead.extend([True] * (wire.opcode == 0x5A))
        return (Code.TIMEOUT, 0) if dead else None

    dead: list[bool] = []
    bus = InterceptedBus(Stick([disk()]))
    bus.wire.intercept = dead_from_mode_sense_on
    report = examine(bus)
    assert report.failed == ["mode-sense-10"]
    assert "dead" in report.results[-1].detail
    assert "port reset" in report.ended


def test_a_check_after_which_only_a_port_reset_helps_fails() -> None:
    stick = Stick([disk()], faults=["nak@csw,opcode=5A,times=always", "reset-ignored"])
    report = examine(stick, "mode-sense-10", "case-6")
    assert report.failed == ["mode-sense-10"]
    assert report.ended == ""


class NoisyHandle(VirtualHandle):
    """A handle whose data-in is sometimes corrupted or truncated."""

    noise: random.Random

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> Answer:
        code, count = super().bulk(endpoint, buffer, deadline)
        if endpoint & ENDPOINT_IN and count and self.noise.random() < 0.2:
            self._spoil(buffer, count)
            count = self.noise.choice((count, count, self.noise.randrange(count + 1)))
        return code, count

    def _spoil(self, buffer: memoryview, count: int) -> None:
        for _ in range(self.noise.choice((0, 1, 4, count))):
            buffer[self.noise.randrange(count)] = self.noise.choice((0, 0xFF, self.noise.randrange(256)))

    def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, timeout_ms: int
    ) -> bytes:
        data = bytearray(super().control_in(request_type, request, value, index, length, timeout_ms))
        with memoryview(data) as view:
            if data and self.noise.random() < 0.2:
                self._spoil(view, len(data))
        return bytes(data[: self.noise.choice((length, length, self.noise.randrange(length + 1)))])


class NoisyBus(Bus):
    def __init__(self, stick: Stick, seed: int) -> None:
        super().__init__(stick)
        self.noise = random.Random(seed)

    def open(self, device: Device) -> VirtualHandle:
        handle = super().open(device)
        handle.__class__ = NoisyHandle
        assert isinstance(handle, NoisyHandle)
        handle.noise = self.noise
        return handle


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_noise_never_breaks_a_check(seed: int) -> None:
    """Whatever bytes come, each check ends with a verdict and the run continues."""
    report = examine(NoisyBus(Stick([disk()]), seed), area=AREA)
    assert len(report.results) == len(CHECKS) or report.ended
    assert report.failed or report.ended


def test_the_docs_have_every_check() -> None:
    """In the same order and with the same text as `check --list`."""
    text = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `") and line.count("|") == 5]
    wanted = []
    for check in CHECKS.values():
        severity = "" if check.severity is Severity.MUST else "should"
        wanted.append(f"| `{check.name}` | {check.section} | {severity} | {check.demand} |")
    assert rows == wanted


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["sense=3/03/00", "sense=B/00/00", "stall@cbw", "phase-error@csw"])
def test_the_old_content_is_restored_even_if_that_fails_at_first(fault: str) -> None:
    first = 4  # which WRITE of case 12 restores the content is found by trying
    for number in range(first, 30):
        medium = Memory(bytes(range(256)) * 2 * 64)
        before = bytes(medium.data)
        report = examine(Stick([Unit(medium)], faults=[f"{fault},opcode=2A,command={number}"]), "case-12", area=AREA)
        assert bytes(medium.data) == before, number
        assert report.ended == ""


def test_content_that_cannot_be_restored_is_saved_in_a_file_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    medium = Memory(bytes(range(256)) * 2 * 64)
    before = bytes(medium.data)

    class Worn(Unit):
        def execute(self, cdb: bytes) -> Task:
            if cdb[0] == 0x2A and bytes(medium.data) != before:
                return Unit(None).execute(cdb)  # every write after the first fails
            return super().execute(cdb)

    report = examine(Stick([Worn(medium)]), "case-12", "case-13", area=AREA)
    assert "LBA 1-2 does NOT hold its old content" in report.ended
    (kept,) = tmp_path.iterdir()
    assert str(kept) in report.ended
    assert kept.read_bytes() == before[512 : 3 * 512]
    assert [result.check.name for result in report.results] == ["case-12"]
