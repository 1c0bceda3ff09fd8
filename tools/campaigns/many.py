"""The many campaign: sticks are plugged in and unplugged at the same time; every event must come once and in order."""

from __future__ import annotations

import argparse
import random
import time
from contextlib import ExitStack
from typing import Any

import scsiusb
from campaigns.footprint import Footprint, changes, footprint, one_heap
from campaigns.plug import plug
from campaigns.recorder import ATTACHED, DETACHED, Recorder
from campaigns.remains import Complaints
from campaigns.report import Report
from tests.kernel.machine import wait_for
from tests.kernel.qmp import qmp

SIZE = 16 << 20  # bytes
SPARE = "xhci-spare.0"
SPARE_PORTS = 15
FIRST = "xhci.0"
CLIENTS = 4  # sticks that are open when they are unplugged
TIMEOUT = 60.0  # seconds


def run(options: argparse.Namespace, report: Report) -> None:
    """Run the rounds."""
    one_heap()
    with ExitStack() as stack:
        sticks = [Stick(number) for number in range(options.sticks)]
        for stick in sticks:
            stick.make()
            stack.callback(stick.destroy)
        manager = stack.enter_context(scsiusb.Manager())
        campaign = Campaign(manager, sticks, random.Random(options.seed), report)
        stack.callback(campaign.unplug_all)
        campaign.run(options.rounds)
        campaign.conclude()


class Stick:
    """One of QEMU's sticks; its content is zeroes."""

    def __init__(self, number: int) -> None:
        self.name = f"many-{number}"
        self.serial = f"MANY{number:02d}"
        bus = SPARE if number < SPARE_PORTS else FIRST
        self._qemu: dict[str, Any] = {
            "driver": "usb-storage",
            "id": self.name,
            "bus": bus,
            "drive": self.name,
            "serial": self.serial,
        }
        self.is_plugged = False

    def make(self) -> None:
        """Create its storage in QEMU."""
        qmp("blockdev-add", driver="null-co", size=SIZE, **{"node-name": self.name, "read-zeroes": True})

    def destroy(self) -> None:
        """Remove its storage."""
        qmp("blockdev-del", **{"node-name": self.name})

    def plug(self) -> None:
        """Plug it in."""
        plug(self._qemu)
        self.is_plugged = True

    def unplug(self) -> None:
        """Unplug it."""
        self.is_plugged = False
        qmp("device_del", id=self.name)


class Campaign:
    """One manager that sees all sticks."""

    def __init__(self, manager: scsiusb.Manager, sticks: list[Stick], choice: random.Random, report: Report) -> None:
        self._manager = manager
        self._sticks = sticks
        self._choice = choice
        self._report = report
        self._complaints = Complaints()
        self._recorder = Recorder(manager, [stick.serial for stick in sticks])
        self._footprints: list[Footprint] = []

    def run(self, rounds: int) -> None:
        """Run the rounds; report the faults of each."""
        for number in range(1, rounds + 1):
            faults, facts = self._round(number)
            base = self._footprints[0] if self._footprints else None
            self._footprints.append(footprint(base))
            if base:
                faults += changes(base, self._footprints[-1])
            faults += [f"the kernel reports: {line}" for line in self._complaints.new()]
            self._report.line(faults, round=number, **facts, **self._footprints[-1].as_json())

    def unplug_all(self) -> None:
        """Unplug what is still plugged in."""
        for stick in self._sticks:
            if stick.is_plugged:
                stick.unplug()
        time.sleep(1)

    def conclude(self) -> None:
        """Close the manager; check the events of all rounds."""
        self._manager.close()
        self._recorder.join()
        rounds = len(self._footprints)
        self._report.faults += self._recorder.faults({stick.serial: rounds for stick in self._sticks}, ())
        events = len(self._recorder.by_iterator)
        self._report.words += [
            f"{len(self._sticks)} sticks",
            f"{rounds} rounds",
            f"{events} events by each of three ways",
        ]
        self._report.summary |= {"sticks": len(self._sticks), "rounds": rounds, "events": events}

    def _round(self, number: int) -> tuple[list[str], dict[str, Any]]:
        """Plug all in and unplug all, in random order; clients with an open disk must be notified."""
        self._choice.shuffle(self._sticks)
        began = time.monotonic()
        for stick in self._sticks:
            stick.plug()
        ordered = time.monotonic()
        self._await(ATTACHED, number)
        attached = time.monotonic()
        gone: list[str] = []
        disks = [
            self._open(stick, gone) for stick in self._choice.sample(self._sticks, min(CLIENTS, len(self._sticks)))
        ]
        self._choice.shuffle(self._sticks)
        unplugged = time.monotonic()
        for stick in self._sticks:
            stick.unplug()
        self._await(DETACHED, number)
        facts = {"ordered": ordered - began, "attached": attached - began, "detached": time.monotonic() - unplugged}
        wait_for(lambda: len(gone) >= len(disks), "every client to be notified", TIMEOUT)
        faults = [] if len(gone) == len(disks) else [f"{len(gone)} calls of on_gone for {len(disks)} clients"]
        for disk in disks:
            faults += _must_be_gone(disk)
        return faults, {name: round(value, 3) for name, value in facts.items()}

    def _open(self, stick: Stick, gone: list[str]) -> scsiusb.Disk:
        disk = self._manager.open(f"serial={stick.serial}", on_gone=lambda: gone.append(stick.serial))
        if any(disk.read(0, 8)):
            raise AssertionError(f"{stick.name} does not read as zeroes")
        return disk

    def _await(self, kind: str, number: int) -> None:
        serials = [stick.serial for stick in self._sticks]
        wait_for(
            lambda: all(self._recorder.count(kind, serial) >= number for serial in serials),
            f"all sticks to be {kind}",
            TIMEOUT,
        )


def _must_be_gone(disk: scsiusb.Disk) -> list[str]:
    try:
        disk.read(0, 1)
    except scsiusb.DeviceGone:
        return []
    finally:
        disk.close()
    return [f"{disk} still works after the unplug"]
