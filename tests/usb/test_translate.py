"""libusb's codes become the public errors."""

from __future__ import annotations

import errno

import pytest

from scsiusb.errors import (
    AccessDenied,
    DeviceBusy,
    DeviceGone,
    DeviceTimeout,
    DeviceUnsupported,
    TransferStalled,
    TransportError,
)
from scsiusb.usb.backend import Code, UsbError
from scsiusb.usb.translate import translate

FAILURES = [code for code in Code if code is not Code.OK]


@pytest.mark.parametrize("code", FAILURES)
def test_every_code_has_a_public_error_that_says_what_happened_and_what_to_do(code: Code) -> None:
    error = translate(UsbError(code), "opening 2-1")
    what, _, remedy = str(error).partition("; ")
    assert isinstance(error, TransportError)
    assert what.startswith("opening 2-1: ")
    assert len(what) > len("opening 2-1: ")
    assert remedy
    assert (error.what, error.remedy) == (what, remedy)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.ACCESS, AccessDenied),
        (Code.NO_DEVICE, DeviceGone),
        (Code.BUSY, DeviceBusy),
        (Code.TIMEOUT, DeviceTimeout),
        (Code.PIPE, TransferStalled),
        (Code.NOT_SUPPORTED, DeviceUnsupported),
        (Code.IO, TransportError),
        (Code.OVERFLOW, TransportError),
        (Code.NO_MEM, TransportError),
        (Code.OTHER, TransportError),
    ],
)
def test_a_code_becomes_the_error_that_callers_tell_apart(code: Code, kind: type[TransportError]) -> None:
    assert type(translate(UsbError(code), "doing")) is kind


def test_the_errors_are_also_the_builtin_ones_that_people_catch() -> None:
    gone = translate(UsbError(Code.NO_DEVICE), "doing")
    assert isinstance(gone, OSError)
    assert gone.errno == errno.ENODEV
    assert isinstance(translate(UsbError(Code.TIMEOUT), "doing"), TimeoutError)
    assert isinstance(translate(UsbError(Code.ACCESS), "doing"), PermissionError)


def test_the_detail_is_told_and_nothing_where_there_is_none() -> None:
    told = translate(UsbError(Code.BUSY, "pid 12 (python3)"), "claiming 2-1")
    assert str(told).startswith("claiming 2-1: the device is in use (pid 12 (python3)); ")
    assert translate(UsbError(Code.BUSY), "claiming 2-1").what == "claiming 2-1: the device is in use"
