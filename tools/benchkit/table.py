"""The table of results, for the terminal and for docs/speed.md."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.host import LabError

from benchkit.report import Run
from benchkit.samples import Name, spread, subjects

BEGIN = "<!-- what follows is made by `tools/bench --docs` -->"
END = "<!-- what was made by `tools/bench --docs` ends here -->"

NATIVE_NOTE = """\
What these figures mean: Python and C run at this machine's own speed, and the limit is dummy_hcd's: at most 16 KiB for
each of its timer's ticks of 125 µs. A large transfer has few system calls, so that the ways can be compared by it.
What they do not mean: the speed of any real host controller or device; nor anything for small commands, because under
User-Mode Linux a system call costs 10 to 60 µs in place of 0.4 and a page fault 31 in place of 2.4, and libusb makes
twenty calls where the kernel's own pread makes one. Under QEMU's emulation the error is the other way round."""


def number(value: float) -> str:
    """Return a number with three significant digits; a measurement has no more."""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}"


def text(run: Run) -> str:
    """Return the results for a terminal."""
    lines = [_facts(run), ""]
    for subject, figures in subjects(run.samples):
        lines += [subject, *_lines(run, figures), ""]
    lines += [NATIVE_NOTE] * run.is_native
    found = run.verdicts()
    width = max((len(verdict.claim.title) for verdict in found), default=0)
    for verdict in found:
        mark = "" if verdict.held else "   MISSED"
        value = f"{number(verdict.value):>8}  wanted {verdict.wanted:7}"
        lines.append(f"{verdict.claim.item}  {verdict.claim.title:{width}} {value}{mark}")
    lines += [f"failed: {key}: {error}" for key, error in run.samples.errors.items()]
    return "\n".join(lines)


def _lines(run: Run, figures: list[Name]) -> Iterator[str]:
    last = ""
    for name in figures:
        way = name[0].partition(": ")[2]
        values = run.samples.of(name)
        median, least, most = map(number, spread(values))
        between = f"({least} to {most})" if len(values) > 1 else ""
        yield f"  {'' if way == last else way:42} {median:>9} {name[1]:24} {between}".rstrip()
        last = way


def _facts(run: Run) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in run.machine.items())
    how = f"medians of {run.rounds} round{'s' * (run.rounds > 1)}{' of little work' if run.quick else ''}"
    return f"{run.date}, {how}. {facts}."


def document(page: str, run: Run) -> str:
    """Return the page with new content between the marks. Raises LabError if a mark is missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise LabError(f"the page for the table has no {BEGIN if not begin else END}; put both marks back")
    return "\n".join([head + BEGIN, "", *_markdown(run), "", END + tail])


def _markdown(run: Run) -> Iterator[str]:
    yield f"Measured on {_facts(run)}"
    yield from ("", "### What must be true", "")
    yield from ("| item | what | measured | wanted | |", "| --- | --- | --- | --- | --- |")
    for verdict in run.verdicts():
        cells = (str(verdict.claim.item), verdict.claim.title, number(verdict.value), verdict.wanted)
        yield f"| {' | '.join(cells)} | {'held' if verdict.held else '**missed**'} |"
    yield from ("", "### All figures", "")
    yield from ("| what | how | median | least to most | |", "| --- | --- | --- | --- | --- |")
    for subject, figures in subjects(run.samples):
        yield from _rows(run, subject, figures)
    if run.samples.errors:
        yield from ("", "Failed, at least in one round:", "")
        yield from (f"- {key}: {error}" for key, error in run.samples.errors.items())


def _rows(run: Run, subject: str, figures: list[Name]) -> Iterator[str]:
    last = ""
    for name in figures:
        way = name[0].partition(": ")[2]
        median, least, most = map(number, spread(run.samples.of(name)))
        yield f"| {subject} | {'' if way == last else way} | {median} | {least} to {most} | {name[1]} |"
        subject, last = "", way
