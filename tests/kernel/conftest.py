"""Fixtures: each device of the zoo, and a check that every test leaves the machine as it was."""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import median

import pytest

from . import machine
from .kernel_log import KernelLog, alarms
from .machine import Device, Unit, wait_for

if sys.platform != "linux":
    raise ImportError("these tests run on Linux only")

REBIND = 60.0  # seconds until the kernel must have its driver and nodes back


NEEDS_OTHER = pytest.StashKey[list[str]]()
FIGURES = pytest.StashKey["Figures"]()


class Figures:
    """Seconds that things took, by what it was. Tests do not assert them, as the machine may be busy."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, what: str, seconds: float) -> None:
        self.seconds[what].append(seconds)

    def lines(self) -> Iterator[str]:
        """Yield a line for each thing: how often, the median and the maximum."""
        for what, seconds in self.seconds.items():
            yield f"{what}: {len(seconds)} times; median {median(seconds):.2f} s, at most {max(seconds):.2f} s"


def pytest_configure(config: pytest.Config) -> None:
    if "SCSIUSB_LAB" not in os.environ:
        raise pytest.UsageError("these tests run in the lab's guest: use tools/lab")
    config.stash[FIGURES] = Figures()
    config.addinivalue_line("markers", "qemu(reason): needs what only QEMU has; not run in the native lab")
    config.addinivalue_line("markers", "native(reason): run in the native lab only")
    config.addinivalue_line("markers", "uas(reason): needs a device that speaks UAS; the native zoo `target` has one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The checks last: of an exchange that broke the rules QEMU keeps a request, and cannot plug that disk in again.

    In the native lab the tests that are marked `qemu` are deselected, in QEMU's those that are marked `native`, and
    those marked `uas` where no device speaks it; the summary says so.
    """
    items.sort(key=lambda item: item.path.name == "test_check.py")
    others = ["qemu" if machine.is_native() else "native", *([] if machine.uas_devices() else ["uas"])]
    marks = [(item, next(filter(None, map(item.get_closest_marker, others)), None)) for item in items]
    config.stash[NEEDS_OTHER] = [mark.args[0] for _, mark in marks if mark]
    config.hook.pytest_deselected(items=[item for item, mark in marks if mark])
    items[:] = [item for item, mark in marks if not mark]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[FIGURES].lines():
        terminalreporter.write_line(line)
    reasons = config.stash.get(NEEDS_OTHER, [])
    if reasons:
        other = "QEMU's lab (tools/lab)" if machine.is_native() else "the native lab (tools/lab --native)"
        terminalreporter.write_line(f"{len(reasons)} tests were not run, as they need {other}, for:")
    for reason, count in Counter(reasons).items():
        terminalreporter.write_line(f"  {count}: {reason}")


@pytest.fixture(scope="session")
def zoo() -> dict[str, Device]:
    """Every device of the zoo by name, each driven by the kernel."""
    return {name: device.wait() for name, device in machine.zoo().items()}


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """The figures of this run, which its last lines show."""
    return request.config.stash[FIGURES]


@pytest.fixture(scope="session")
def kernel_log() -> Iterator[KernelLog]:
    log = KernelLog()
    yield log
    log.close()


def _state(zoo: dict[str, Device]) -> dict[str, str | None]:
    return {name: device.bound() for name, device in zoo.items()}


@pytest.fixture(autouse=True)
def as_found(zoo: dict[str, Device], kernel_log: KernelLog) -> Iterator[None]:
    """After each test, check that every interface has its driver and nodes, and that the kernel logged no alarm."""
    before = _state(zoo)
    wrong = [f"{name} has {before[name]}" for name, device in zoo.items() if before[name] != device.driver]
    if wrong:
        pytest.exit(f"devices of the zoo have lost their drivers; no further test is possible: {', '.join(wrong)}", 1)
    yield
    after = _state(zoo)
    _repair(zoo)
    assert after == before, "a kernel driver was not bound again"
    for device in zoo.values():
        wait_for(device.ready, f"the nodes of {device}", REBIND)
    assert alarms(kernel_log.new()) == []


def _repair(zoo: dict[str, Device]) -> None:
    """Let the kernel bind what a failed test left unbound, so that later tests do not fail too."""
    for device in zoo.values():
        if device.present and device.bound() is None:
            (machine.USB / "drivers_probe").write_text(device.interface.name)
            wait_for(device.ready, f"{device} to be driven again", REBIND)


@pytest.fixture
def stick(zoo: dict[str, Device]) -> Device:
    """The stick with an odd number of 512-byte blocks; tests must not write to it."""
    return zoo["stick"].wait()


@pytest.fixture
def stick_4k(zoo: dict[str, Device]) -> Device:
    """The stick with 4096-byte blocks."""
    return zoo["stick-4k"].wait()


@pytest.fixture
def empty(zoo: dict[str, Device]) -> Device:
    """A removable disk without a medium."""
    return zoo["empty"].wait()


@pytest.fixture
def multi(zoo: dict[str, Device]) -> Device:
    """Three LUNs: a small disk, a 3 TiB disk, a CD-ROM drive without a disc."""
    return zoo["multi"].wait()


@pytest.fixture
def huge(multi: Device) -> Unit:
    """The 3 TiB disk."""
    return multi.units[1]


@pytest.fixture
def cdrom(zoo: dict[str, Device]) -> Device:
    """A CD-ROM drive without a disc, alone on its device, so that its sense data can be trusted."""
    return zoo["cdrom"].wait()


@pytest.fixture
def uas(zoo: dict[str, Device]) -> Device:
    """A device that speaks UAS only."""
    return zoo["uas"].wait()


@pytest.fixture
def fat(zoo: dict[str, Device]) -> Device:
    """A removable stick with one FAT partition, label SCSIUSB."""
    return zoo["fat"].wait()


@pytest.fixture
def scratch(zoo: dict[str, Device]) -> Device:
    """The stick that tests may write to."""
    return zoo["scratch"].wait()


@pytest.fixture
def gadget_high(zoo: dict[str, Device]) -> Device:
    """Linux's mass-storage gadget at high speed: a disk and a read-only disk."""
    return zoo["gadget-high"].wait()


@pytest.fixture
def gadget_super(zoo: dict[str, Device]) -> Device:
    """The gadget at super speed: a disk, a CD-ROM with a disc, and a removable disk without a medium."""
    return zoo["gadget-super"].wait()
