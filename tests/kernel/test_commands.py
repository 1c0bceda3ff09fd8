"""The commands watch, doctor and recover on a real kernel."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .command import NOBODY, as_user, start
from .command import scsiusb as run
from .machine import Device
from .plugging import plug, unplug

assert sys.platform == "linux"

PLAIN_LIBUSB = """
import os, signal, sys
import libusb_package, usb.core
device = usb.core.find(backend=libusb_package.get_libusb1_backend(), serial_number=sys.argv[1])
device.detach_kernel_driver(0)
usb.util.claim_interface(device, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def pulled(scratch: Device) -> Iterator[Device]:
    """The scratch stick, plugged in again after the test."""
    yield scratch
    if not scratch.present:
        plug(scratch)


def test_watch_prints_a_line_for_each_event(pulled: Device) -> None:
    with start("watch", "--json", f"serial={pulled.serial}", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline())]
        unplug(pulled)
        lines.append(json.loads(process.stdout.readline()))
        plug(pulled)
        lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, b"")
    assert [line["event"] for line in lines] == ["attached", "detached", "attached"]
    assert {line["serial"] for line in lines} == {pulled.serial}
    assert all({"event", "address", "vid", "pid", "serial", "time"} == set(line) for line in lines)
    assert lines[2]["address"] == pulled.address


def rows(address: str, said: str) -> dict[str, dict[str, Any]]:
    """Return the rows of doctor about one device, by the kind of check."""
    found = [row for row in json.loads(said) if row["check"].endswith(f" {address}")]
    return {row["check"].rpartition(" ")[0]: row for row in found}


def test_doctor_reports_no_problem_for_a_stick_with_its_kernel_driver(stick: Device) -> None:
    ended = run("doctor", "--json")
    for row in json.loads(ended.out):
        assert set(row) == {"check", "ok", "detail", "remedy"}
    of_stick = rows(stick.address, ended.text)
    assert of_stick["permission"]["ok"]
    assert of_stick["driver"]["ok"]
    assert {"libusb", "hotplug", "udev rule", "usbfs memory"} <= {row["check"] for row in json.loads(ended.out)}


def test_doctor_shows_the_remedy_to_a_user_without_permission(stick: Device) -> None:
    words = [*as_user(NOBODY), sys.executable, "-m", "scsiusb", "doctor", "--json"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    permission = rows(stick.address, ended.stdout)["permission"]
    assert not permission["ok"]
    assert "doctor --rule" in permission["remedy"]
    assert ended.returncode == 99


def test_a_device_left_without_driver_is_found_by_doctor_and_fixed_by_recover(scratch: Device) -> None:
    killed = subprocess.run([sys.executable, "-c", PLAIN_LIBUSB, scratch.serial], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert scratch.bound() is None
    driver = rows(scratch.address, run("doctor", "--json").text)["driver"]
    assert not driver["ok"]
    assert "recover" in driver["remedy"]
    (given_back,) = run("recover", scratch.address, "--json").json()
    assert (given_back["address"], given_back["driver"], given_back["ok"]) == (scratch.address, "usb-storage", True)
    assert scratch.bound() == "usb-storage"
    assert rows(scratch.address, run("doctor", "--json").text)["driver"]["ok"]
