"""Exceptions survive pickle, copy and processes; objects that hold a device refuse both with a clear TypeError."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import scsiusb
from scsiusb import errors
from scsiusb.cli.failure import Refused
from scsiusb.conformance.outcome import Violation
from scsiusb.errors import CheckCondition, ScsiUsbError
from scsiusb.opening import Manager, open_on
from scsiusb.scsi.sense import Sense, error_for
from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.interface import find
from scsiusb.virtual import Bus
from tests.sticks import stick

SENSE = Sense(0x3, 0x11, 0x00, information=7, raw=b"\x70")
ROUND_TRIPS: tuple[Callable[[Any], Any], ...] = (
    copy.copy,
    copy.deepcopy,
    *(lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol)) for protocol in range(6)),
)


def public_errors() -> list[type[ScsiUsbError]]:
    found = (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ScsiUsbError))
    return sorted(found, key=lambda kind: kind.__name__)


def make(kind: type[ScsiUsbError]) -> ScsiUsbError:
    error = kind("it failed", SENSE, "do this") if issubclass(kind, CheckCondition) else kind("it failed", "do this")
    error.lba = 7
    return error


@pytest.mark.parametrize("kind", public_errors(), ids=lambda kind: kind.__name__)
def test_an_exception_keeps_everything(kind: type[ScsiUsbError]) -> None:
    error = make(kind)
    for round_trip in ROUND_TRIPS:
        again = round_trip(error)
        assert type(again) is kind
        assert str(again) == str(error) == "it failed; do this"
        assert (again.args, again.what, again.remedy, again.lba) == (error.args, "it failed", "do this", 7)
        assert getattr(again, "sense", None) == getattr(error, "sense", None)
        assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_a_gone_device_keeps_its_errno() -> None:
    assert pickle.loads(pickle.dumps(errors.DeviceGone("gone"))).errno == errno.ENODEV


class OwnError(errors.MediumError):
    """An error of a user of the package, whose constructor takes other arguments."""

    def __init__(self, card: str) -> None:
        super().__init__(f"{card} is bad", SENSE)
        self.card = card


def test_a_subclass_with_a_constructor_of_its_own() -> None:
    again = pickle.loads(pickle.dumps(OwnError("card 4")))
    assert (str(again), again.card, again.sense) == (str(OwnError("card 4")), "card 4", SENSE)


@pytest.mark.parametrize(
    "error",
    [Violation("INQUIRY", "nothing", "36 bytes"), Refused("no", "yes"), UsbError(Code.PIPE, "stalled")],
    ids=repr,
)
def test_other_exceptions_with_several_arguments(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def fail(number: int) -> None:
    raise error_for(Sense(number, 0, 0), "READ(10)")


@pytest.mark.slow
def test_a_pool_of_processes_raises_the_error_of_its_worker() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outcome = pool.map_async(fail, [3])
        with pytest.raises(errors.MediumError, match=r"READ\(10\) failed"):
            outcome.get(timeout=50)


def test_what_holds_a_device_refuses() -> None:
    bus = Bus(stick())
    with Manager(bus) as manager, open_on(bus) as disk, disk.reading(0, 1) as reading:
        held = [disk, disk.unit, disk.unit.transport, scsiusb.aopen(), manager, manager.events(), reading, bus]
        held += [disk.writing(0), manager.on_attach(print), *bus.handles]
        for each in held:
            for round_trip in ROUND_TRIPS:
                with pytest.raises(TypeError, match=f"a {type(each).__name__} cannot be copied or pickled"):
                    round_trip(each)


def test_values_survive() -> None:
    for value in (SENSE, find(Bus(stick()))[0], scsiusb.RetryPolicy()):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
