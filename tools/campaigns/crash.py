"""The crash campaign: a program that uses a device is killed at a random instant, and nothing of it may be left."""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns import deaths
from campaigns.child import Child, scsiusb, warm_up
from campaigns.content import Content, written_and_flushed
from campaigns.deaths import SIGNALS, WAYS, MemoryLimit, Victim
from campaigns.progress import BLOCK, Phase, Progress
from campaigns.remains import Complaints, remains
from campaigns.report import Report, in_words, spread
from campaigns.worker import VARIANTS, Worker
from scsiusb.leases.folders import own
from scsiusb.leases.record import file_name
from scsiusb.leases.warden_main import IN_COMMAND
from tests.kernel.machine import USB, Device, wait_for, zoo

if sys.platform != "linux":
    raise ImportError("this campaign runs on Linux only")

WINDOW = 16384  # blocks at the start of the disk that are written and compared
OVERTIME = 8.0  # seconds: waits beyond the limit, to report how late the recovery comes
DEATH_TIMEOUT = 60.0  # seconds until a killed worker must be dead
AIMING = 5.0  # seconds: the worker may never enter the phase again
INSIDE = 0.8  # share of the kills that wait for a command on the wire, in phases that consist of commands
PAUSE = 0.0005  # seconds
SHORTLY = 0.002  # seconds at most after a command was seen on the wire
MOST_ACTIONS = 8  # before the kill
# The phase of the worker in which it is killed; None: any.
AIMS: tuple[Phase | None, ...] = (Phase.READING, Phase.WRITING, Phase.OPENING, Phase.CLOSING, Phase.FLUSHING, None)
WEIGHTS = (30, 28, 18, 10, 6, 8)


def run(options: argparse.Namespace, report: Report) -> None:
    """Kill a worker so many times; check the machine after each."""
    warm_up()
    campaign = Campaign(zoo()[options.on].wait(), options.seed, report, options.within)
    try:
        campaign.run(options.kills)
    finally:
        campaign.close()
    campaign.conclude(options.kills, options.inside)


@dataclass
class Kill:
    """One kill: how it is done, and what was found after it."""

    number: int
    way: str
    variant: str
    aim: Phase | None
    inside: bool
    coin: bool
    faults: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the facts for the report."""
        aim = self.aim.name.lower() if self.aim is not None else "any"
        return {"kill": self.number, "way": self.way, "variant": self.variant, "aim": aim, **self.facts}


class LeaseView:
    """A mapping of the lease: it shows whether a command is, or was, on the wire, even after the file is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._view: mmap.mmap | None = None

    def look(self) -> bool:
        """Map the file again if it is another one; return whether a command is on the wire."""
        with suppress(OSError, ValueError):
            if self._path.stat().st_ino != self._inode:
                with self._path.open("rb") as file:
                    self._inode = os.fstat(file.fileno()).st_ino
                    self._view = mmap.mmap(file.fileno(), IN_COMMAND + 1, access=mmap.ACCESS_READ)
        return self.in_command

    @property
    def in_command(self) -> bool:
        """Whether a command was on the wire at the last write to the lease."""
        return self._view is not None and self._view[IN_COMMAND] == ord("1")


def _lease(device: Device) -> Path:
    bus, number = (int((device.folder / name).read_text()) for name in ("busnum", "devnum"))
    return own()[0] / file_name(bus, number, 0)


class Campaign:
    """One device, one victim after the other."""

    def __init__(self, device: Device, seed: int, report: Report, within: float) -> None:
        self._within = within  # time limit for the recovery, in seconds after the death
        self._device = device
        self._unit = device.units[0]
        self._choice = random.Random(seed)
        self._report = report
        self._complaints = Complaints()
        self._limit = MemoryLimit()
        self._beyond = self._unit.backing(WINDOW, self._unit.blocks - WINDOW)
        self._content = Content(self._unit.kernel_read(0, WINDOW))
        self._spent = {phase: [0.0, 0] for phase in Phase}
        self._kills: list[Kill] = []

    def run(self, kills: int) -> None:
        """Kill so many workers; check and repair after each."""
        self._report.faults += [f"before the campaign: {remain}" for remain in remains()]
        for number, way in enumerate(self._ways(kills)):
            kill = self._plan(number + 1, way)
            self._kills.append(kill)
            self._kill(kill)
            self._report.line(kill.faults + kill.stale, **kill.as_json())
            self._repair(kill)

    def close(self) -> None:
        """Remove the memory limit."""
        self._limit.close()

    def conclude(self, kills: int, part: float) -> None:
        """Check the whole disk; add up the results."""
        whole = bytes(self._content.data) + self._beyond
        if self._unit.backing(0, self._unit.blocks) != whole:
            self._report.faults.append(
                "the medium differs from what the kernel read, or blocks outside the window were written"
            )
        inside = sum(bool(kill.facts.get("in_command")) for kill in self._kills)
        if inside < kills * part:
            self._report.faults.append(f"only {inside} of {kills} kills hit a command")
        stale = sum(bool(kill.stale) for kill in self._kills)
        bound = [kill.facts["bound_after"] for kill in self._kills if kill.way != "warden" and not kill.stale]
        self._report.words += [f"{kills} kills", f"{inside} in a command", f"{stale} stale"]
        self._report.words.append(f"driver back in {in_words(bound)}")
        self._report.summary |= self._summary(kills, inside, stale)

    def _summary(self, kills: int, inside: int, stale: int) -> dict[str, Any]:
        times = ("bound_after", "clean_after", "readable_after", "read_seconds")
        own = [kill for kill in self._kills if kill.way != "warden"]
        return {
            "kills": kills,
            "in_command": inside,
            "stale": stale,
            "ways": Counter(kill.way for kill in self._kills),
            "phases": Counter(kill.facts["phase"] for kill in self._kills if "phase" in kill.facts),
            "flushed_blocks": sum(kill.facts.get("flushed_blocks", 0) for kill in self._kills),
            "out_of_memory_by": self._limit.name,
            "times": {name: spread([kill.facts[name] for kill in own if name in kill.facts]) for name in times},
        }

    def _ways(self, kills: int) -> list[str]:
        """Return each way equally often, in random order."""
        ways = [WAYS[number % len(WAYS)] for number in range(kills)]
        self._choice.shuffle(ways)
        return ways

    def _plan(self, number: int, way: str) -> Kill:
        (aim,) = self._choice.choices(AIMS, WEIGHTS)
        variants = [each for each in VARIANTS if aim is not Phase.CLOSING or each != "keep"]
        inside = aim not in (None, Phase.OPENING) and self._choice.random() < INSIDE
        return Kill(number, way, self._choice.choice(variants), aim, inside, self._choice.random() < 0.5)

    # --- one kill -------------------------------------------------------------------------------

    def _kill(self, kill: Kill) -> None:
        progress, view = Progress(), LeaseView(_lease(self._device))
        receiver, sender = os.pipe()
        child = Child(lambda: self._work(kill, progress, receiver))
        try:
            self._aim(kill, progress, child, view)
            view.look()
            self._strike(kill, Victim(child.pid, sender), child)
            died = time.monotonic()
            kill.facts |= {"phase": progress.phase.name.lower(), "in_command": view.in_command}
            self._judge(kill, child)
            self._after(kill, progress, died)
        except AssertionError as error:  # raised by tests.kernel.machine where the machine is in a wrong state
            kill.faults.append(str(error))
        finally:
            self._end(child)
            os.close(receiver)
            os.close(sender)

    def _work(self, kill: Kill, progress: Progress, orders: int) -> int:
        if kill.way == "memory":
            self._limit.apply()
        Worker(kill.variant, self._device.address, self._content, self._choice.getrandbits(32), progress).run(orders)

    def _aim(self, kill: Kill, progress: Progress, child: Child, view: LeaseView) -> None:
        """Wait until the worker is in the phase in which it is to be killed, then for a random time."""
        if kill.aim is None:
            child.is_dead(self._choice.random())
            return
        actions = self._choice.randrange(MOST_ACTIONS)
        if kill.aim is Phase.OPENING and (kill.variant == "keep" or kill.coin):
            actions = 0
        deadline = time.monotonic() + AIMING
        while progress.phase is not kill.aim or progress.actions < actions or (kill.inside and not view.look()):
            # Commands are short: in the right phase, poll without sleeping.
            if child.is_dead(0 if progress.phase is kill.aim else PAUSE):
                return
            if time.monotonic() > deadline:  # kill it in any phase
                return
        time.sleep(self._choice.random() * (SHORTLY if kill.inside else self._length(kill.aim)))

    def _length(self, phase: Phase) -> float:
        seconds, times = self._spent[phase]
        return seconds / times if times else 0.005

    def _strike(self, kill: Kill, victim: Victim, child: Child) -> None:
        struck = time.monotonic()
        deaths.kill(victim, kill.way, kill.coin)
        if not child.is_dead(DEATH_TIMEOUT):
            kill.faults.append(f"the worker survived {kill.way}")
            os.kill(victim.pid, signal.SIGKILL)
        kill.facts["died_after"] = round(time.monotonic() - struck, 4)

    def _judge(self, kill: Kill, child: Child) -> None:
        """Check that the worker died of what it was killed with."""
        ended = child.wait()
        wanted = {"exit": {0}, "memory": {-signal.SIGKILL, -signal.SIGABRT}}.get(kill.way, {-signal.SIGKILL})
        if kill.way in SIGNALS:
            wanted = {-signal.Signals[kill.way]}
        kill.facts["status"] = ended.status
        if ended.status not in wanted:
            kill.faults.append(f"the worker ended with {ended.status}: {ended.err}")

    def _end(self, child: Child) -> None:
        if not child.is_dead():
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.close()

    # --- what must be so afterwards -------------------------------------------------------------

    def _after(self, kill: Kill, progress: Progress, died: float) -> None:
        for phase in Phase:
            seconds, times = progress.spent(phase)
            self._spent[phase][0] += seconds
            self._spent[phase][1] += times
        reads_at_once = kill.way == "warden" and kill.coin
        if reads_at_once:
            self._read(kill)
        elif kill.way == "warden":
            self._recover(kill)
        self._await_recovery(kill, time.monotonic() if kill.way == "warden" else died)
        self._look_with_kernel(kill, progress, died)
        if not reads_at_once:
            self._read(kill)
            self._check_clean(kill, "after the read")

    def _recover(self, kill: Kill) -> None:
        ended = scsiusb("recover", "--json")
        kill.facts["recovered"] = ended.out.decode(errors="replace").strip()
        if ended.status:
            kill.faults.append(f"recover: status {ended.status}: {ended.err}")

    def _await_recovery(self, kill: Kill, since: float) -> None:
        """Check that the driver is bound and nothing remains, in time."""
        self._wait(lambda: self._device.bound() == self._device.driver, since)
        kill.facts["bound_after"] = round(time.monotonic() - since, 4)
        if self._device.bound() != self._device.driver:
            kill.stale.append(f"no driver is bound {time.monotonic() - since:.1f} s after the death")
        elif kill.facts["bound_after"] > self._within:
            kill.stale.append(f"the driver was bound {kill.facts['bound_after']:.2f} s after the death")
        left, clean = self._await_clean(since)
        kill.facts["clean_after"] = round(clean - since, 4)
        kill.stale += left
        if not kill.stale and kill.facts["clean_after"] > self._within:
            kill.stale.append(f"something remained for {kill.facts['clean_after']:.2f} s after the death")

    def _await_clean(self, since: float) -> tuple[list[str], float]:
        """Return what remains, and since when nothing does.

        It must look clean twice in a row, because a warden may be about to start.
        """
        found, empty_since = remains(), 0.0
        while time.monotonic() < since + self._within + OVERTIME:
            if not found and empty_since:
                break
            empty_since = 0.0 if found else time.monotonic()
            time.sleep(0.02)
            found = remains()
        return found, empty_since or time.monotonic()

    def _wait(self, condition: Callable[[], bool], since: float) -> None:
        while not condition() and time.monotonic() < since + self._within + OVERTIME:
            time.sleep(0.002)

    def _look_with_kernel(self, kill: Kill, progress: Progress, died: float) -> None:
        self._device.wait()
        found = self._unit.kernel_read(0, WINDOW)
        kill.facts["readable_after"] = round(time.monotonic() - died, 4)
        journal = progress.journal()
        kill.facts |= {"actions": progress.actions, "rounds": progress.rounds}
        kill.facts["flushed_blocks"] = written_and_flushed(journal)
        kill.faults += self._content.settle(journal, found)

    def _read(self, kill: Kill) -> None:
        """Check that the next command succeeds at its first try; compare its data with what the kernel reads."""
        blocks = self._choice.choice((1, 8, 256))
        lba = self._choice.randrange(WINDOW, self._unit.blocks - blocks)
        began = time.monotonic()
        ended = scsiusb("read", self._device.address, "--lba", lba, "--blocks", blocks)
        kill.facts["read_seconds"] = round(time.monotonic() - began, 4)
        at = (lba - WINDOW) * BLOCK
        if ended.status:
            kill.faults.append(f"the next read: status {ended.status}: {ended.err}")
        elif ended.out != self._beyond[at : at + blocks * BLOCK]:
            kill.faults.append(f"the next read got wrong data, {len(ended.out)} bytes: {ended.err}")
        if self._device.bound() != self._device.driver:
            kill.faults.append("the driver is not bound after the read")

    def _check_clean(self, kill: Kill, when: str) -> None:
        left, _ = self._await_clean(time.monotonic())
        kill.faults += [f"{remain} {when}" for remain in left]
        kill.faults += [f"the kernel reports: {line}" for line in self._complaints.new()]

    def _repair(self, kill: Kill) -> None:
        """Bind the driver, so that a fault does not cause others."""
        if self._device.bound() is None:
            scsiusb("recover")
            with suppress(OSError):
                Path(USB / "drivers_probe").write_text(self._device.interface.name)
            wait_for(lambda: self._device.bound() is not None, "the driver to be bound again")
