"""The fault campaign: every fault of the virtual stick with each operation, at each stage, and the outcome."""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from campaigns.report import Report
from campaigns.scenarios import ANY, SCENARIOS, Scenario
from campaigns.stages import BLOCK, Failed, InProcess, Kernel, Stage, Target, ThroughKernel
from scsiusb import ledger
from scsiusb.virtual import Identity, Memory, Stick, Unit, uas_interface
from scsiusb.virtual.device.uas import Uas

BLOCKS: Final = 2048
LBA: Final = 40
COUNT: Final = 8
VENDOR: Final = "scsiusb"
OPERATIONS: Final = {"read": "28", "write": "2A", "inquiry": "12"}
STAGES: Final[dict[str, Callable[[float], Stage]]] = {
    "virtual": InProcess,
    "usbip": ThroughKernel,
    "linux": Kernel,
    "uas-high": InProcess,
    "uas-super": InProcess,
}
SPEEDS: Final = {"uas-high": "high", "uas-super": "super"}  # of the stages whose stick speaks UAS
BY_UAS: Final = {  # the kinds of faults that a UAS device can have, of those that the scenarios use
    *("stall", "nak", "hang", "delay", "short", "long", "empty", "tag", "no-sense", "phase-error", "status"),
    *("csw-as-data", "extra", "disconnect", "away", "sense", "eject", "attentions", "becoming-ready"),
    *("inquiry", "inquiry-garbage", "capacity", "blocks", "block-size", "write-protected"),
}
FUNCTIONS: Final = {0x01: "abort task", 0x08: "logical unit reset"}
RIGHT: Final = "right"
WRONG: Final = ("WRONG DATA", "LOST WRITE")
LEAST_BOUND: Final = 8.0  # seconds: the time limit is not below this
TRIES: Final = 8  # timeouts that an operation may take, including its recoveries


class Witness(Stick):
    """A stick that counts the recovery steps of the host."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.recovery: Counter[str] = Counter()
        super().__init__(*arguments, **keywords)

    def control(self, setup: bytes, data: bytes = b"") -> bytes:
        """Count class resets and cleared halts."""
        step = {b"\x21\xff": "class reset", b"\x02\x01": "clear halt"}.get(bytes(setup[:2]))
        if step:
            self.recovery[step] += 1
        return super().control(setup, data)

    @property
    def data(self) -> bytearray:
        """The content of its only medium."""
        medium = self.units[0].medium or self.units[0].remove()
        assert isinstance(medium, Memory)
        return medium.data

    def power_on(self) -> None:
        """Count port resets."""
        self.recovery["port reset"] += 1
        super().power_on()

    def count_orders(self) -> None:
        """Count the task management functions, too, of a stick that speaks UAS and is plugged in."""
        device = self.function_of_interface(0)
        assert isinstance(device, Uas)
        manage = device.manage

        def counted(function: int, task: int, lun: int) -> int:
            self.recovery[FUNCTIONS.get(function, "task management")] += 1
            return manage(function, task, lun)

        device.manage = counted  # type: ignore[method-assign]


def run(options: argparse.Namespace, report: Report) -> None:
    """Try all scenarios, or those whose name contains `options.only`, or every N-th one."""
    speed = SPEEDS.get(options.stage)
    possible = [each for each in SCENARIOS if options.only in each.name and (speed is None or _is_for_uas(each))]
    chosen = possible[options.seed % options.every :: options.every]
    outcomes: Counter[str] = Counter()
    with Session(STAGES[options.stage](options.timeout), random.Random(options.seed), speed) as session:
        for scenario in chosen:
            for facts in session.trials(scenario):
                outcomes[facts["outcome"]] += 1
                name = f"{scenario.name}, {facts['operation']}"
                report.line([f"{name}: {what}" for what in _wrong(facts, options)], stage=options.stage, **facts)
    held = [str(entry) for entry in ledger.outstanding()]
    report.line([f"still held at the end: {each}" for each in held])
    report.summary = {"stage": options.stage, "scenarios": len(chosen), "outcomes": dict(outcomes)}
    report.words = [options.stage, f"{len(chosen)} scenarios", f"{outcomes[RIGHT]} of {outcomes.total()} right"]


def _is_for_uas(scenario: Scenario) -> bool:
    return all(re.match(r"[a-z-]+", fault)[0] in BY_UAS for fault in scenario.faults)  # type: ignore[index]


def _wrong(facts: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    """Yield what may never happen, whatever the device does. The kernel's driver is only observed."""
    if options.stage == "linux":
        return
    for name in ("outcome", "after"):
        if facts[name] in WRONG:
            yield facts[name]
    if facts["seconds"] > max(TRIES * options.timeout, LEAST_BOUND):
        yield f"it took {facts['seconds']} s"
    if not facts["fired"] and facts["must_fire"]:
        yield "the fault never happened"


class Session:
    """A stick that stays plugged in and open from one trial to the next, as long as possible."""

    def __init__(self, stage: Stage, source: random.Random, speed: str | None) -> None:
        """`speed`: of a stick that speaks UAS; None: it speaks BOT."""
        self._stage, self._source, self._speed = stage, source, speed
        self._content = source.randbytes(BLOCKS * BLOCK)  # of the blocks that no operation moves
        self._plugged = ExitStack()
        self._target: Target | None = None
        self._open: Callable[[], Target] | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._unplug()

    def trials(self, scenario: Scenario) -> Iterator[dict[str, Any]]:
        """Yield the facts of each operation, for a row of the table."""
        if scenario.is_standing:
            self._unplug()
        for operation in OPERATIONS:
            script = [fault.replace(ANY, OPERATIONS[operation]) for fault in scenario.faults]
            trial = Trial(operation, self._source, self._content)
            facts = self._standing(trial, script) if scenario.is_standing else self._transient(trial, script)
            must_fire = bool(script) and not scenario.is_standing
            yield {"scenario": scenario.name, "script": script, **facts, "must_fire": must_fire}
        if scenario.is_standing:
            self._unplug()

    def _standing(self, trial: Trial, script: list[str]) -> dict[str, Any]:
        """Run a trial with faults that were there when the device was plugged in; the first one includes opening it."""
        if self._open is None:
            try:
                self._plug(script)
            except Failed as error:
                return self._facts(trial, str(error), 0.0, "")
        trial.prepare(self._stick, self._target)
        outcome = ""
        began = time.monotonic()
        try:
            if self._target is not None:
                self._stick.recovery.clear()
            target = self._target = self._target or self._opened()
        except Failed as error:
            outcome = str(error)
        else:
            outcome = trial.run(target)
        seconds = time.monotonic() - began
        return self._facts(trial, trial.checked(outcome, self._stick), seconds, "")

    def _transient(self, trial: Trial, script: list[str]) -> dict[str, Any]:
        """Run a trial with faults that begin while the device is in use.

        If the device does not recover, the next trial gets another one.
        """
        if self._open is None:
            self._plug(())
        target = self._target = self._target or self._opened()
        trial.prepare(self._stick, target)
        target.read(0, COUNT)
        fired = len(self._stick.faults.fired)
        self._stick.recovery.clear()
        for fault in script:
            self._stick.faults.add(fault)
        began = time.monotonic()
        outcome = trial.run(target)
        seconds = time.monotonic() - began
        recovery = Counter(self._stick.recovery)
        self._stick.faults.clear()
        outcome = trial.checked(outcome, self._stick)
        after = trial.after(target)
        facts = self._facts(trial, outcome, seconds, after, recovery, fired)
        if after != RIGHT:
            self._unplug()
        return facts

    def _facts(
        self,
        trial: Trial,
        outcome: str,
        seconds: float,
        after: str,
        recovery: Counter[str] | None = None,
        fired: int = 0,
    ) -> dict[str, Any]:
        recovery = Counter(self._stick.recovery) if recovery is None else recovery
        return {
            "operation": trial.operation,
            "outcome": outcome,
            "seconds": round(seconds, 2),
            "recovery": {step: count for step, count in recovery.items() if count > 0},
            "fired": len(self._stick.faults.fired) - fired,
            "after": after,
        }

    def _plug(self, script: Sequence[str]) -> None:
        identity = Identity(serial=f"F{self._source.randrange(16**11):011X}", speed=self._speed or "high")
        interfaces = [uas_interface(alternate=0)] if self._speed else None
        self._stick = Witness([Unit(Memory(BLOCKS * BLOCK), vendor=VENDOR)], identity, interfaces, faults=script)
        self._plugged.callback(self._stick.close)
        self._open = self._plugged.enter_context(self._stage.plugged(self._stick))
        if self._speed:
            self._stick.count_orders()
        self._stick.recovery.clear()

    def _opened(self) -> Target:
        assert self._open is not None
        return self._open()

    def _unplug(self) -> None:
        if self._target is not None:
            self._target.close()
        self._target = self._open = None
        self._plugged.close()


class Trial:
    """One operation, and what it must leave on the medium."""

    def __init__(self, operation: str, source: random.Random, content: bytes) -> None:
        self.operation = operation
        self._before, self._new = source.randbytes(COUNT * BLOCK), source.randbytes(COUNT * BLOCK)
        self._old = content[: LBA * BLOCK] + self._before + content[(LBA + COUNT) * BLOCK :]

    def prepare(self, stick: Witness, target: Target | None) -> None:
        """Set the content of the medium; through the target, if it is open, which else takes it for another medium."""
        if target is not None:
            with suppress(Failed):
                target.write(LBA, self._before)
        stick.data[:] = self._old

    def run(self, target: Target) -> str:
        """Return the outcome as text."""
        try:
            return self._operate(target)
        except Failed as error:
            return str(error)

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

    def checked(self, outcome: str, stick: Witness) -> str:
        """Return the outcome, corrected by what is on the medium.

        Each block of the operation must be the old or the new one, and all others must be unchanged.
        """
        now, start, end = bytes(stick.data), LBA * BLOCK, (LBA + COUNT) * BLOCK
        if now[:start] != self._old[:start] or now[end:] != self._old[end:]:
            return WRONG[0]
        if self.operation == "write" and outcome == RIGHT and now[start:end] != self._new:
            return WRONG[1]
        pairs = zip(_blocks(now[start:end]), _blocks(self._old[start:end]), _blocks(self._new), strict=True)
        return outcome if all(found in (old, new) for found, old, new in pairs) else WRONG[0]

    def after(self, target: Target) -> str:
        """Read without the fault; a target that failed may fail once more. Return the outcome."""
        far = LBA + 16 * COUNT
        for words in (RIGHT, f"{RIGHT} at the second try"):
            try:
                return words if target.read(far, COUNT) == self._at(far) else WRONG[0]
            except Failed as error:
                failure = str(error)
        return failure


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
