"""The plug campaign: a device is unplugged and plugged in while clients use it, open it and wait for events."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import scsiusb
from campaigns.clients import KINDS, Client, RandomOpener
from campaigns.footprint import Footprint, changes, footprint, growth, one_heap, trend
from campaigns.recorder import ATTACHED, DETACHED, Recorder
from campaigns.remains import Complaints
from campaigns.report import Report, in_words, spread
from campaigns.uevents import Uevents
from tests.kernel.machine import Device, wait_for, zoo
from tests.kernel.plugging import insert, pull
from tests.kernel.qmp import QmpError, qmp

DEVICES = ("scratch", "scratch", "stick", "fat")  # each cycle takes one of them
TIMEOUT = 30.0  # seconds
REFERENCE = 8192  # blocks that are compared
RUN_FOR = 0.15  # seconds at most that the clients run before the unplug
WARM_UP = 3  # cycles at least before footprints are compared; otherwise a tenth of all


def run(options: argparse.Namespace, report: Report) -> None:
    """Run the cycles."""
    one_heap()
    devices = {name: zoo()[name].wait() for name in dict.fromkeys(DEVICES)}
    with ExitStack() as stack:
        uevents = Uevents()
        stack.callback(uevents.close)
        manager = stack.enter_context(scsiusb.Manager())
        campaign = Campaign(manager, devices, uevents, random.Random(options.seed), report)
        campaign.within = options.within
        campaign.run(options.cycles)
        campaign.conclude()


class Campaign:
    """One manager that sees all devices."""

    def __init__(
        self,
        manager: scsiusb.Manager,
        devices: dict[str, Device],
        uevents: Uevents,
        choice: random.Random,
        report: Report,
    ) -> None:
        self._manager = manager
        self.within = 1.0  # seconds from the kernel's notice to the notice of each client
        self._devices = devices
        self._uevents = uevents
        self._choice = choice
        self._report = report
        self._complaints = Complaints()
        self._references = {name: device.units[0].backing(0, REFERENCE) for name, device in devices.items()}
        self._plugs = Counter({device.serial: 1 for device in devices.values()})
        self._recorder = Recorder(manager, self._plugs)
        self._opener = RandomOpener([manager.open, scsiusb.open], choice.getrandbits(32))
        self._footprints: list[Footprint] = []
        self._delays: list[float] = []

    def run(self, cycles: int) -> None:
        """Run the cycles; report the faults of each."""
        warm = self._warm(cycles)
        for number in range(1, cycles + 1):
            name = self._choice.choice(DEVICES) if number > len(DEVICES) else DEVICES[number - 1]
            faults, facts = self._cycle(name)
            base = self._footprints[warm - 1] if number > warm else None
            self._footprints.append(footprint(base))
            if base:
                faults += changes(base, self._footprints[-1])
            faults += [f"the kernel reports: {line}" for line in self._complaints.new()]
            self._report.line(faults, cycle=number, device=name, **facts, **self._footprints[-1].as_json())

    def _warm(self, cycles: int) -> int:
        return min(max(WARM_UP, cycles // 10), cycles)

    def conclude(self) -> None:
        """Close everything; check the events and the memory of the whole run."""
        self._opener.close()
        self._manager.close()
        self._recorder.join()
        report, plugs = self._report, dict(self._plugs)
        report.faults += self._recorder.faults(plugs, plugs)
        cycles = len(self._footprints)
        events = len(self._recorder.by_iterator)
        opened, others = self._opener.outcomes["opened"], self._opener.outcomes.total()
        report.words += [f"{cycles} cycles", f"{len(self._delays)} clients notified in {in_words(self._delays)}"]
        report.words += [f"{events} events by each of three ways", f"{opened} of {others} random openings worked"]
        settled = self._footprints[self._warm(cycles) - 1 :]
        report.faults += growth(settled)
        report.summary |= {
            "cycles": cycles,
            "notified_after": spread(self._delays),
            "events": events,
            "openings": dict(self._opener.outcomes),
            "memory_trend_kib": trend(settled),
        }

    # --- one cycle ------------------------------------------------------------------------------

    def _cycle(self, name: str) -> tuple[list[str], dict[str, Any]]:
        device, reference = self._devices[name], self._references[name]
        words = f"serial={device.serial}"
        self._await_events(ATTACHED, device)
        self._opener.begin(words, reference)
        clients = [self._client(kind, words, reference) for kind in KINDS if kind != "write" or name == "scratch"]
        wait_for(lambda: all(client.actions or client.ended_at for client in clients), "all clients to run", TIMEOUT)
        time.sleep(self._choice.random() * RUN_FOR)
        facts = self._unplug(device, clients)
        faults = self._late_notices(facts, clients)
        for client in clients:
            client.must_be_dead("after the unplug")
        self._await_events(DETACHED, device)
        time.sleep(self._choice.random() * RUN_FOR)
        self._plug(device)
        self._await_events(ATTACHED, device)
        for client in clients:
            client.must_be_dead("after the replug")
            client.close()
        self._opener.pause()
        faults += self._works_again(words, reference)
        for client in clients:
            faults += client.faults
        faults += self._opener.faults
        self._opener.faults.clear()
        device.wait()
        return faults, facts

    def _client(self, kind: str, words: str, reference: bytes) -> Client:
        opener = self._choice.choice([self._manager.open, scsiusb.open])
        return Client(kind, opener, words, reference, self._choice.getrandbits(32))

    def _await_events(self, kind: str, device: Device) -> None:
        """Wait until all three ways have shown all events so far."""
        plugs = self._plugs[device.serial]
        wait_for(lambda: self._recorder.count(kind, device.serial) >= plugs, f"{device} to be {kind}", TIMEOUT)

    def _unplug(self, device: Device, clients: list[Client]) -> dict[str, Any]:
        """Unplug the device; return when each consequence took place, in seconds after the order."""
        address = device.address
        self._uevents.new()
        unplugged_at = time.monotonic()
        pull(device)
        wait_for(lambda: not device.present, f"the kernel to notice that {device} is gone", TIMEOUT)
        vanished = time.monotonic()
        _wait(lambda: all(client.is_notified() for client in clients))
        for client in clients:
            client.join()
        removals = [
            each.at
            for each in self._uevents.new()
            if each.action in ("remove", "unbind") and each.name.split(":")[0] == address
        ]
        noticed = min([*removals, vanished])
        return {
            "noticed": round(noticed - unplugged_at, 4),
            "ended": {client.kind: round(client.ended_at - noticed, 4) for client in clients},
            "on_gone": {
                client.kind: round(client.calls_of_on_gone[0] - noticed, 4)
                for client in clients
                if client.calls_of_on_gone
            },
        }

    def _late_notices(self, facts: dict[str, Any], clients: list[Client]) -> list[str]:
        found = []
        for what in ("ended", "on_gone"):
            self._delays += facts[what].values()
            found += [
                f"the client that does {kind}: {what} {after:.2f} s after the kernel noticed"
                for kind, after in facts[what].items()
                if after > self.within
            ]
        return found + [
            f"the client that does {each.kind} was not notified" for each in clients if not each.is_notified()
        ]

    def _plug(self, device: Device) -> None:
        self._plugs[device.serial] += 1
        if device.udc:
            insert(device)
        else:
            (properties,) = device.qemu
            plug(properties)

    def _works_again(self, words: str, reference: bytes) -> list[str]:
        with self._manager.open(words) as disk:
            return [] if disk.read(0, 64) == reference[: 64 * 512] else ["wrong data after the replug"]


def plug(properties: dict[str, Any]) -> None:
    """Plug a device in, after QEMU has finished with the one that had the name before."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            qmp("device_add", **properties)
        except QmpError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
