"""Compares two runs: the ratio of each figure, and which got worse."""

from __future__ import annotations

from benchkit.names import MORE_IS_BETTER
from benchkit.report import Run
from benchkit.samples import Name


def compared(earlier: Run, later: Run, tolerance: float) -> tuple[list[str], list[Name]]:
    """Return lines to print, and the figures that are worse by more than `tolerance` (0.1: ten per cent)."""
    lines = [f"now / then ({earlier.date}), ratios of medians; worse: by more than {tolerance:.0%}"]
    lines += [f"different {fact}: then {was}, now {now}" for fact, was, now in _differences(earlier, later)]
    worse = []
    for name in later.samples.values:
        before, now = earlier.samples.median(name), later.samples.median(name)
        if not before or now is None:
            continue
        ratio = now / before
        mark = ""
        if is_worse(name, ratio, tolerance):
            worse.append(name)
            mark = "  WORSE"
        lines.append(f"{ratio:7.2f}  {name[0]}, {name[1]}: {before:.5g} -> {now:.5g}{mark}")
    subjects = {key.partition(":")[0] for key, _ in later.samples.values}
    gone = [name for name in earlier.samples.values if name not in later.samples.values]
    missed = [name for name in gone if name[0].partition(":")[0] in subjects]
    lines += [f"      -  {key}, {measure}: not measured now" for key, measure in missed]
    if len(gone) > len(missed):
        lines.append(f"      -  {len(gone) - len(missed)} figures of other subjects: not measured now")
    lines.append(f"{len(worse)} figure{'s' * (len(worse) > 1)} got worse" if worse else "nothing got worse")
    return lines, worse


def is_worse(name: Name, ratio: float, tolerance: float) -> bool:
    """Report whether a ratio, later / earlier, is worse by more than `tolerance`."""
    return ratio < 1 - tolerance if name[1] in MORE_IS_BETTER else ratio > 1 + tolerance


def _differences(earlier: Run, later: Run) -> list[tuple[str, str, str]]:
    """Return the circumstances that differ and thereby make a comparison doubtful."""
    found = [
        (fact, earlier.machine.get(fact, "?"), later.machine.get(fact, "?"))
        for fact in ("CPU", "kernel", "guest kernel", "emulator")
    ]
    found.append(("amount of work", _extent(earlier), _extent(later)))
    return [(fact, was, now) for fact, was, now in found if was != now]


def _extent(run: Run) -> str:
    return "quick" if run.quick else "full"
