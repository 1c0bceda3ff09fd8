"""A run: what was measured, where, and how often; saved as JSON and loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from labkit.host import LabError

from benchkit.claims import Verdict, verdicts
from benchkit.machine import NO_EMULATOR
from benchkit.samples import Samples, from_json

FORMAT = 1


@dataclass
class Run:
    """The samples of one run of tools/bench, and the circumstances."""

    samples: Samples
    machine: dict[str, str]
    rounds: int
    quick: bool
    date: str = field(default_factory=lambda: date.today().isoformat())

    @property
    def is_native(self) -> bool:
        """Measured in the native lab, on which no claim is made."""
        return self.machine.get("emulator") == NO_EMULATOR

    def verdicts(self) -> list[Verdict]:
        """Return whether each claim holds; none for a run in the native lab."""
        return [] if self.is_native else verdicts(self.samples)


def save(run: Run, path: Path) -> None:
    """Write a run to a file, as JSON."""
    facts = {
        "format": FORMAT,
        "date": run.date,
        "machine": run.machine,
        "rounds": run.rounds,
        "quick": run.quick,
        "figures": run.samples.as_json(),
        "claims": [verdict.as_json() for verdict in run.verdicts()],
        "errors": run.samples.errors,
    }
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Run:
    """Return the run that `save` wrote. Raises LabError where the file cannot be read or holds something else."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        samples = from_json(facts["figures"])
        samples.errors = facts["errors"]
        return Run(samples, facts["machine"], facts["rounds"], facts["quick"], facts["date"])
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; name a file that --json wrote", 2) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LabError(f"{path} was not written by --json; name another file", 2) from None
