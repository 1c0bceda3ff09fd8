"""Fixtures: each device of the zoo, and the rule that a test leaves the machine as it found it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from . import machine
from .machine import Device, Unit, wait_for

ALARM = re.compile(r"\b(BUG|Oops|WARNING|general protection fault|Call Trace|KASAN|blocked for more than)\b")
REBIND = 60.0  # seconds until the kernel must have its driver and nodes back


def pytest_configure() -> None:
    if "SCSIUSB_LAB" not in os.environ:
        raise pytest.UsageError("these tests run in the lab's guest: use tools/lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The checks last: of an exchange that broke the rules QEMU keeps a request, and cannot plug that disk in again."""
    items.sort(key=lambda item: item.path.name == "test_check.py")


class KernelLog:
    """The kernel's messages since the last look."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def new(self) -> list[str]:
        lines = []
        while True:
            try:
                lines.append(os.read(self._fd, 8192).decode(errors="replace").partition(";")[2].rstrip())
            except BlockingIOError:
                return lines
            except BrokenPipeError:  # the ring went over unread messages: go on with the oldest there is
                continue

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture(scope="session")
def zoo() -> dict[str, Device]:
    """Every device of the zoo by name, each driven by the kernel."""
    return {name: device.wait() for name, device in machine.zoo().items()}


@pytest.fixture(scope="session")
def kernel_log() -> Iterator[KernelLog]:
    log = KernelLog()
    yield log
    log.close()


def _state(zoo: dict[str, Device]) -> dict[str, str | None]:
    return {name: device.bound() for name, device in zoo.items()}


@pytest.fixture(autouse=True)
def as_found(zoo: dict[str, Device], kernel_log: KernelLog) -> Iterator[None]:
    """After each test every interface has its kernel driver and nodes again, and the kernel complained of nothing."""
    before = _state(zoo)
    wrong = [f"{name} has {before[name]}" for name, device in zoo.items() if before[name] != device.driver]
    if wrong:
        pytest.exit(f"the zoo is no longer whole, so that no further test would mean anything: {', '.join(wrong)}", 1)
    yield
    after = _state(zoo)
    _repair(zoo)
    assert after == before, "a driver was not given back"
    for device in zoo.values():
        wait_for(device.ready, f"the nodes of {device}", REBIND)
    assert [line for line in kernel_log.new() if ALARM.search(line)] == []


def _repair(zoo: dict[str, Device]) -> None:
    """Have the kernel bind what a failed test left, so that one failure stays one."""
    for device in zoo.values():
        if device.present and device.bound() is None:
            (machine.USB / "drivers_probe").write_text(device.interface.name)
            wait_for(device.ready, f"{device} to be driven again", REBIND)


@pytest.fixture
def stick(zoo: dict[str, Device]) -> Device:
    """The stick with 512-byte blocks, an odd number of them; not to be written to."""
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
    """The stick to write to."""
    return zoo["scratch"].wait()


@pytest.fixture
def gadget_high(zoo: dict[str, Device]) -> Device:
    """Linux's own mass-storage gadget at high speed: a disk and a read-only disk."""
    return zoo["gadget-high"].wait()


@pytest.fixture
def gadget_super(zoo: dict[str, Device]) -> Device:
    """The gadget at super speed: a disk, a CD-ROM with a disc, and a removable disk without a medium."""
    return zoo["gadget-super"].wait()
