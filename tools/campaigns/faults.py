"""The fault campaign: every fault of the virtual stick under each operation, at each stage; what came of it."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from campaigns.report import Report
from campaigns.scenarios import ANY, SCENARIOS, Scenario
from campaigns.stages import BLOCK, Failed, InProcess, Kernel, Stage, Target, ThroughKernel
from scsiusb import ledger
from scsiusb.virtual import Fault, Identity, Memory, Stick, Unit

BLOCKS: Final = 2048
LBA: Final = 40
COUNT: Final = 8
VENDOR: Final = "scsiusb"
OPERATIONS: Final = {"read": "28", "write": "2A", "inquiry": "12"}
STAGES: Final[dict[str, Callable[[float], Stage]]] = {
    "virtual": InProcess,
    "usbip": ThroughKernel,
    "linux": Kernel,
}
RIGHT: Final = "right"
WRONG: Final = ("WRONG DATA", "LOST WRITE")
TRIES: Final = 8  # as many timeouts may an operation take, its recoveries among them


class Witness(Stick):
    """A stick that counts what a host does to get it back into step."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.rungs: Counter[str] = Counter()
        super().__init__(*arguments, **keywords)

    def control(self, setup: bytes, data: bytes = b"") -> bytes:
        rung = {b"\x21\xff": "class reset", b"\x02\x01": "clear halt"}.get(bytes(setup[:2]))
        if rung:
            self.rungs[rung] += 1
        return super().control(setup, data)

    def power_on(self) -> None:
        self.rungs["port reset"] += 1
        super().power_on()


def run(options: argparse.Namespace, report: Report) -> None:
    """Tries every scenario, or those whose name has `options.only` in it."""
    stage = STAGES[options.stage](options.timeout)
    chosen = [each for each in SCENARIOS if options.only in each.name]
    outcomes: Counter[str] = Counter()
    for scenario in chosen:
        for operation in OPERATIONS:
            trial = Trial(scenario, operation, options.seed)
            facts = trial.run(stage)
            outcomes[facts["outcome"]] += 1
            wrong = list(_wrong(facts, options))
            report.line([f"{scenario.name}, {operation}: {what}" for what in wrong], stage=options.stage, **facts)
    report.summary = {"stage": options.stage, "scenarios": len(chosen), "outcomes": dict(outcomes)}
    report.words = [options.stage, f"{len(chosen)} scenarios", f"{outcomes[RIGHT]} of {outcomes.total()} right"]


def _wrong(facts: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    """What may never be, whatever the device does; the kernel's driver is only looked at."""
    if options.stage == "linux":
        return
    if facts["outcome"] in WRONG or facts["after"] in WRONG:
        yield facts["outcome"] if facts["outcome"] in WRONG else facts["after"]
    if facts["seconds"] > TRIES * options.timeout:
        yield f"it took {facts['seconds']} s"
    if not facts["fired"] and facts["must_fire"]:
        yield "the fault never came"
    if facts["held"]:
        yield f"held afterwards: {facts['held']}"


class Trial:
    """One fault under one operation, on a stick of its own."""

    def __init__(self, scenario: Scenario, operation: str, seed: int) -> None:
        self.scenario, self.operation = scenario, operation
        source = random.Random(f"{seed}{scenario.name}{operation}")
        self._old, self._new = source.randbytes(BLOCKS * BLOCK), source.randbytes(COUNT * BLOCK)
        self._medium = Memory(self._old)
        identity = Identity(serial=f"F{source.randrange(16**11):011X}")
        self._stick = Witness([Unit(self._medium, vendor=VENDOR)], identity)
        self._rungs: Counter[str] = Counter()
        self._faults = [Fault.parse(fault.replace(ANY, OPERATIONS[operation])) for fault in scenario.faults]

    def run(self, stage: Stage) -> dict[str, Any]:
        """Facts for a row of the table."""
        if self.scenario.is_standing:
            self._arm()
        outcome, seconds, after = "no disk", 0.0, ""
        began = time.monotonic()
        try:
            with stage.plugged(self._stick) as open_target:
                outcome, seconds, after = self._run(open_target)
        except Failed as error:
            outcome, seconds = str(error), time.monotonic() - began
        self._stick.close()
        return {
            "scenario": self.scenario.name,
            "script": [str(fault) for fault in self._faults],
            "operation": self.operation,
            "outcome": outcome,
            "seconds": round(seconds, 2),
            "rungs": {rung: count for rung, count in self._rungs.items() if count > 0},
            "fired": len(self._stick.faults.fired),
            "must_fire": bool(self._faults) and not self.scenario.is_standing,
            "after": after,
            "held": [str(entry) for entry in ledger.outstanding()],
        }

    def _run(self, open_target: Callable[[], Target]) -> tuple[str, float, str]:
        target: Target | None = None
        if not self.scenario.is_standing:
            target = self._warm(open_target())
            self._arm()
        self._stick.rungs.clear()
        began = time.monotonic()
        try:
            target = target or open_target()
            outcome = self._operate(target)
        except Failed as error:
            outcome = str(error)
        seconds = time.monotonic() - began
        self._rungs = Counter(self._stick.rungs)
        self._stick.faults.clear()
        try:
            target = target or open_target()
            return self._checked(outcome), seconds, self._after(target)
        except Failed as error:
            return self._checked(outcome), seconds, str(error)
        finally:
            if target is not None:
                target.close()

    def _arm(self) -> None:
        for fault in self._faults:
            self._stick.faults.add(fault)

    @staticmethod
    def _warm(target: Target) -> Target:
        """With everything that a first command brings behind it."""
        target.read(0, COUNT)
        return target

    def _operate(self, target: Target) -> str:
        if self.operation == "read":
            return RIGHT if target.read(LBA, COUNT) == self._at(LBA) else WRONG[0]
        if self.operation == "write":
            target.write(LBA, self._new)
            return RIGHT
        vendor = target.inquiry()
        return RIGHT if vendor == VENDOR else f"vendor {vendor!r}"

    def _at(self, lba: int) -> bytes:
        return self._old[lba * BLOCK : (lba + COUNT) * BLOCK]

    def _checked(self, outcome: str) -> str:
        """Are the blocks what the outcome says, each of them the old or the new one, and all others untouched?"""
        now, start, end = bytes(self._medium.data), LBA * BLOCK, (LBA + COUNT) * BLOCK
        if now[:start] != self._old[:start] or now[end:] != self._old[end:]:
            return WRONG[0]
        if self.operation == "write" and outcome == RIGHT and now[start:end] != self._new:
            return WRONG[1]
        pairs = zip(_blocks(now[start:end]), _blocks(self._old[start:end]), _blocks(self._new), strict=True)
        return outcome if all(found in (old, new) for found, old, new in pairs) else WRONG[0]

    def _after(self, target: Target) -> str:
        """The next read, without the fault: a target that failed may fail once more."""
        far = LBA + 16 * COUNT
        with suppress(Failed):
            return RIGHT if target.read(far, COUNT) == self._at(far) else WRONG[0]
        return f"{RIGHT} at the second try" if target.read(far, COUNT) == self._at(far) else WRONG[0]


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
