"""libusb's codes become the public errors."""

from __future__ import annotations

import errno
import os

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


@pytest.mark.parametrize("code", [Code.IO, Code.OTHER, Code.NO_MEM, Code.NOT_SUPPORTED])
def test_an_error_that_libusb_gives_no_reason_for_names_the_limit_of_open_files(
    code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A libusb that cannot open a file says "not supported" or "input/output error"."""

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    assert "open files" not in str(translate(UsbError(code), "opening 2-1"))
    monkeypatch.setattr("os.open", refuse)
    error = translate(UsbError(code), "opening 2-1")
    assert type(error) is TransportError
    assert "may open hardly any more files" in error.what
    assert "ulimit -n" in str(error)
    assert "open files" not in str(translate(UsbError(Code.PIPE), "opening 2-1"))


def test_looking_for_free_descriptors_leaves_none_open() -> None:
    before = os.open(os.devnull, os.O_RDONLY)
    os.close(before)
    translate(UsbError(Code.IO), "opening 2-1")
    after = os.open(os.devnull, os.O_RDONLY)
    os.close(after)
    assert after == before
