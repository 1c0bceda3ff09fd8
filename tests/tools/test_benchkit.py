"""The pure parts of tools/bench: medians, ratios, claims, comparisons, tables, and turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.machine import Device, Unit

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from benchkit import names, sick, turns  # noqa: E402
from benchkit.claims import AT_LEAST, AT_MOST, CLAIMS, Claim, Verdict, verdicts  # noqa: E402
from benchkit.compare import compared, is_worse  # noqa: E402
from benchkit.main import main  # noqa: E402
from benchkit.names import key  # noqa: E402
from benchkit.report import Run, load, save  # noqa: E402
from benchkit.samples import Samples  # noqa: E402
from benchkit.table import BEGIN, END, document, number, text  # noqa: E402
from benchkit.turns import Contestant, Result, Subject, contest  # noqa: E402
from benchkit.work import (  # noqa: E402
    MIB,
    SMALL,
    WARMING,
    Runner,
    Slice,
    Timing,
    Way,
    combined,
    scattered,
    sequential,
    throughput,
    timed,
)
from labkit.host import LabError  # noqa: E402
from labkit.zoo import BENCH, CONTROLLERS, ZOO, ZOOS  # noqa: E402

OURS = key("read, stick", names.SCSIUSB)
DD = key("read, stick", names.DD)
C = key("read, stick", names.C)


def run_of(**figures: list[float]) -> Run:
    """A run with speeds by round, for `ours`, `dd` and `c`."""
    samples = Samples()
    for name, values in figures.items():
        for round_number, value in enumerate(values):
            samples.add({"ours": OURS, "dd": DD, "c": C}[name], round_number, {names.MBS: value})
    return Run(samples, {"CPU": "one"}, 3, quick=False, date="2026-01-02")


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    samples = run_of(ours=[100, 300, 50], dd=[50, 100, 100]).samples
    assert samples.median((OURS, names.MBS)) == 100
    assert samples.ratios((OURS, names.MBS), (DD, names.MBS)) == [2.0, 3.0, 0.5]
    held = {verdict.claim.title: verdict for verdict in verdicts(samples)}
    assert held[f"{OURS} / {names.DD}"].value == 2.0
    assert held[f"{OURS} / {names.DD}"].held


def test_a_ratio_takes_only_the_rounds_in_which_both_were_measured() -> None:
    samples = Samples()
    samples.add("a", 0, {"MB/s": 1})
    samples.add("a", 2, {"MB/s": 6})
    samples.add("b", 1, {"MB/s": 1})
    samples.add("b", 2, {"MB/s": 2})
    assert samples.ratios(("a", "MB/s"), ("b", "MB/s")) == [3.0]


def test_what_was_not_measured_is_no_claim() -> None:
    assert verdicts(Samples()) == []
    assert [verdict.claim.lower for verdict in verdicts(run_of(ours=[1], dd=[1]).samples)] == [(DD, names.MBS)]


@pytest.mark.parametrize(
    ("relation", "value", "held"), [(AT_LEAST, 2, True), (AT_LEAST, 1.9, False), (AT_MOST, 2.1, False)]
)
def test_a_claim_has_a_bound_on_one_side(relation: str, value: float, held: bool) -> None:
    claim = Claim(1, "it", ("a", "x"), None, relation, 2)
    assert Verdict(claim, value).held is held
    assert Verdict(claim, value).wanted == f"{relation} 2"


def test_each_numbered_requirement_has_claims() -> None:
    assert {claim.item for claim in CLAIMS} == {1, 2, 3, 4, 5, 6, 7}
    titles = [claim.title for claim in CLAIMS]
    assert len(set(titles)) == len(titles)


def test_a_saved_run_is_loaded_complete_with_missing_rounds(tmp_path: Path) -> None:
    run = run_of(ours=[100, 200], dd=[50, 50])
    run.samples.add(C, 1, {names.MBS: 7})
    run.samples.fail("x: y", "no such thing")
    save(run, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == run


@pytest.mark.parametrize("content", ["", "[]", '{"figures": 3}'])
def test_a_file_that_is_no_run_is_refused_with_a_reason(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(LabError, match="name another file"):
        load(tmp_path / "other.json")
    with pytest.raises(LabError, match="name a file"):
        load(tmp_path / "none.json")


def test_a_comparison_names_what_got_worse_by_more_than_the_tolerance() -> None:
    lines, worse = compared(run_of(ours=[100], dd=[100], c=[3]), run_of(ours=[89], dd=[91]), 0.1)
    assert worse == [(OURS, names.MBS)]
    assert [line.endswith("WORSE") for line in lines if "->" in line] == [True, False]
    assert any(C in line and "not measured" in line for line in lines)
    assert lines[-1] == "1 figure got worse"


def test_a_comparison_reports_that_the_machine_differs() -> None:
    later = run_of(ours=[1])
    later.machine = {"CPU": "two"}
    assert "different CPU: then one, now two" in compared(run_of(ours=[1]), later, 0.1)[0]


def test_more_is_better_for_speeds_and_worse_for_times() -> None:
    assert is_worse(("a", names.MBS), 0.8, 0.1)
    assert not is_worse(("a", names.MBS), 1.2, 0.1)
    assert is_worse(("a", names.P99), 1.2, 0.1)
    assert not is_worse(("a", names.COST), 0.8, 0.1)


def test_the_table_shows_missed_claims_and_errors() -> None:
    run = run_of(ours=[100, 110, 105], dd=[200, 200, 200])
    run.samples.fail("x: y", "no such thing")
    shown = text(run)
    assert "MISSED" in shown
    assert "(100 to 110)" in shown
    assert "failed: x: y: no such thing" in shown


def test_the_documents_table_is_rewritten_between_the_marks() -> None:
    page = f"head\n{BEGIN}\nold\n{END}\ntail\n"
    once = document(page, run_of(ours=[100], dd=[200]))
    assert "old" not in once
    assert once.startswith("head\n")
    assert once.endswith(f"{END}\ntail\n")
    assert "**missed**" in once
    assert "Failed" not in once
    assert document(once, run_of(ours=[100], dd=[200])) == once


def test_a_page_without_marks_is_refused_with_a_reason() -> None:
    with pytest.raises(LabError, match="put both marks back"):
        document("nothing here", run_of(ours=[1]))


def test_docs_speed_has_the_marks() -> None:
    page = (TOOLS.parent / "docs" / "speed.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1


@pytest.mark.parametrize(("value", "shown"), [(1234.5, "1,234"), (56.78, "56.8"), (1.234, "1.23"), (0.1234, "0.123")])
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize("words", [["--only", "randm"], ["--rounds", "0"]])
def test_wrong_arguments_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "tools/bench" in capsys.readouterr().err


def test_the_zoo_for_measuring_differs_from_the_one_for_tests() -> None:
    assert ZOOS["tests"] is ZOO
    assert len({device.serial for device in BENCH}) == len(BENCH)
    plugged = [device.controller for device in BENCH if device.kind != "gadget"]
    assert all(plugged.count(controller) <= 15 for controller in CONTROLLERS)


def unit_of(size: int) -> Unit:
    device = Device("stick", "usb-storage", "usb-storage", "LAB", 5000, (), ())
    return Unit(device, 0, "disk", None, 512, size // 512, False, False, ())


def last_byte(piece: Slice) -> int:
    return max(piece.lbas) * 512 + piece.size


@pytest.mark.slow
def test_the_sick_device_has_a_fault_of_each_kind_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sick, "AMOUNT", 4 * sick.PIECE * 512)
    found = dict(sick.in_this_process())
    assert set(found) == {sick.POLLED, sick.THREADED}
    for way, left_out in ((sick.POLLED, sick.BLOCKING), (sick.THREADED, ())):
        kinds = set(names.SICK) - set(left_out)
        assert {names.KEPT[kind] for kind in kinds} < set(found[way])
        assert all(value > 0 for value in found[way].values())


def test_sequential_slices_run_to_the_end_of_the_unit_and_start_again() -> None:
    unit = unit_of(40 * MIB + 512)
    slices = list(sequential(unit, 64 * MIB, 4))
    assert [piece.lbas[0] * 512 // MIB for piece in slices] == [0, 16, 0, 16]
    assert sum(piece.bytes for piece in slices) == 64 * MIB
    assert all(last_byte(piece) <= unit.size for piece in slices)
    assert list(slices[0].lbas) == list(range(0, 32768, 2048))
    assert not any(piece.warming for piece in slices)
    assert slices == list(sequential(unit, 64 * MIB, 4))


def test_a_slice_can_be_one_large_command() -> None:
    slices = list(sequential(unit_of(32 * MIB), 64 * MIB, 4, 16 * MIB))
    assert [list(piece.lbas) for piece in slices] == [[0], [32768], [0], [32768]]


def test_scattered_slices_are_within_the_unit_and_repeatable() -> None:
    unit = unit_of(8 * SMALL + 512)
    slices = list(scattered(unit, 400, 4))
    assert slices == list(scattered(unit, 400, 4))
    assert [len(piece.lbas) for piece in slices] == [100] * 4
    assert {lba for piece in slices for lba in piece.lbas} == set(range(0, 64, 8))
    assert all(last_byte(piece) <= unit.size and piece.warming == WARMING for piece in slices)
    assert slices[0].lbas != slices[1].lbas


def test_a_part_of_a_slice_has_at_least_one_command() -> None:
    piece = Slice(SMALL, range(10), 3)
    assert piece.part(4) == Slice(SMALL, range(2), 3)
    assert piece.part(100).lbas == range(1)


def test_only_commands_after_the_warming_are_timed() -> None:
    seen: list[tuple[int, str]] = []
    timing = timed(lambda lba, word: seen.append((lba, word)), "x")(Slice(SMALL, (7, 8, 9), 2))
    assert seen == [(lba, "x") for lba in (7, 8, 7, 8, 9)]
    assert timing.bytes == 3 * SMALL
    assert 0 <= timing.p50 <= timing.p99


def test_a_round_is_all_bytes_and_all_seconds_of_its_slices() -> None:
    turns_of_it = [Timing(100, 1, 5, 50, 2), Timing(100, 3, 7, 90, 4), Timing(100, 1, 6, 60, 3)]
    assert combined(turns_of_it) == Timing(300, 5, 6, 60, 3)


class Ways:
    """Contestants that record their turns; each slice takes as many seconds as it has commands."""

    def __init__(self, *keys: str, shares: Sequence[int] = ()) -> None:
        self.turns: list[str] = []
        self.closed: list[str] = []
        self.faults: dict[str, int] = {}  # by key: the number of turns before the failure; 0: at opening
        pairs = zip(keys, shares or [1] * len(keys), strict=True)
        contestants = [Contestant(key, unit_of(8 * MIB), self.way(key), share) for key, share in pairs]
        self.subject = Subject(contestants, MIB, lambda: sequential(unit_of(8 * MIB), 8 * MIB, 2), throughput)

    def way(self, key: str) -> Way:
        @contextmanager
        def opening(unit: Unit, size: int) -> Iterator[Runner]:
            self.fail(key)
            yield lambda piece: self.run(key, piece)
            self.closed.append(key)

        return opening

    def run(self, key: str, piece: Slice) -> Timing:
        self.fail(key)
        self.turns.append(f"{key}{len(piece.lbas)}")
        return Timing(piece.bytes, len(piece.lbas))

    def fail(self, key: str) -> None:
        if self.faults.get(key) == sum(turn.startswith(key) for turn in self.turns):
            raise OSError(f"{key} is gone")


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SETTLING", 0)


def test_contestants_take_turns_in_rotating_order() -> None:
    ways = Ways("a", "b", "c", shares=(1, 1, 4))
    results = list(contest(ways.subject, 2))
    warm_up, a_round = ["a4", "b4", "c1"], ["a4", "b4", "c1", "b4", "c1", "a4"]
    assert ways.turns == [*warm_up, *a_round, *a_round]
    figures = {names.MBS: MIB / 1e6}
    assert results == [Result(key, number, figures) for number in (0, 1) for key in "abc"]
    assert ways.closed == ["c", "b", "a"]


def test_a_contestant_that_fails_is_reported_and_dropped() -> None:
    ways = Ways("a", "b", "c")
    ways.faults = {"a": 4, "c": 0}
    results = list(contest(ways.subject, 3))
    assert [result.key + str(result.number) for result in results] == ["c0", "a0", "b0", "a1", "b1", "b2"]
    errors = {result.key + str(result.number): str(r) for result in results if isinstance(r := result.outcome, OSError)}
    assert errors == {"c0": "c is gone", "a1": "a is gone"}
    assert sum(turn.startswith("b") for turn in ways.turns) == 7
    assert ways.closed == ["b", "a"]


def test_a_contest_ends_if_all_contestants_fail() -> None:
    ways = Ways("a", "b")
    ways.faults = {"a": 0, "b": 0}
    assert [result.key for result in contest(ways.subject, 2)] == ["a", "b"]
    assert ways.turns == []
