"""A lease that another program truncates, changes or removes while its device is in use: a warning, and never SIGBUS.

The digit is written into a map of the file, and a store into a map beyond the end of its file kills the process.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scsiusb.leases.digit import Digit
from scsiusb.leases.lease import Lease, leases
from scsiusb.usb.interface import InterfaceInfo
from tests.leases.leasing import record_in
from tests.leases.processes import HOLD, WAIT, kill, line, running
from tests.sticks import Worker

if sys.platform != "linux":
    pytest.skip("the digit is copied by the kernel on Linux only", allow_module_level=True)


@pytest.mark.parametrize("size", [0, 1, 14, 15, 100])
def test_a_truncated_lease_is_written_again_and_the_program_goes_on(
    held: Lease, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    assert held.path is not None
    before = record_in(held.path)
    for value in (True, False):
        os.truncate(held.path, size)
        held.note_command(value)
        held.note_command(value)
        assert held.in_command is value
    if size == 0:  # a map reaches to the end of its page, so a file of one byte still has all of it
        assert record_in(held.path) == before
        assert [(seen.state, seen.in_command) for seen in leases()] == [("live", False)]
        assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
        assert "another program has truncated" in caplog.text
        assert "it was written again" in caplog.text
    held.release()
    assert not held.path.exists()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    path.unlink()
    path.write_text("{}\n")


def overwritten(path: Path) -> None:
    path.write_text(json.dumps({"x": 1}))


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [emptied, removed, replaced, overwritten, made_a_folder])
def test_whatever_is_done_to_the_file_the_lease_can_be_used_and_released(
    held: Lease, change: Callable[[Path], None]
) -> None:
    assert held.path is not None
    change(held.path)
    for value in (True, False, True):
        held.note_command(value)
    held.record_driver("uas")
    held.note_command(False)
    held.release()
    held.note_command(True)
    assert not held.in_command


def test_a_lease_truncated_again_and_again_is_one_warning(held: Lease, caplog: pytest.LogCaptureFixture) -> None:
    assert held.path is not None
    for _ in range(20):
        os.truncate(held.path, 0)
        held.note_command(True)
        held.note_command(False)
    assert len(caplog.records) == 1
    assert not leases()[0].in_command


def test_a_process_whose_lease_was_truncated_in_a_command_is_recovered_with_a_port_reset(folder: Path) -> None:
    """What says so is in the file again."""
    code = HOLD + "say('held'); sys.stdin.readline(); lease.note_command(True)\n" + WAIT
    with running(code, folder) as process:
        assert line(process) == "held"
        (path,) = folder.iterdir()
        os.truncate(path, 0)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert line(process) == "ready"
        kill(process)
    assert [(seen.state, seen.in_command) for seen in leases()] == [("orphaned", True)]


def test_a_file_under_the_number_of_the_closed_descriptor_is_never_written_to(
    held: Lease, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a program does that closes all its descriptors to become a daemon."""
    other = tmp_path / "other"
    other.write_bytes(b"")
    assert held.path is not None
    assert held._digit is not None
    os.truncate(held.path, 0)
    file = os.open(other, os.O_RDWR)
    numbers = [held._open[-1], *held._digit._source]
    for number in numbers:
        os.dup2(file, number)
    for value in (True, False, True):
        held.note_command(value)
    assert other.read_bytes() == b""
    os.dup2(os.open(os.devnull, os.O_RDONLY), numbers[0])
    held._is_ours = False  # its lock ended with the descriptor
    os.close(file)


def test_a_full_file_system_is_a_warning(
    held: Lease, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    assert held.path is not None
    os.truncate(held.path, 0)
    monkeypatch.setattr("scsiusb.leases.lease._write", full)
    held.note_command(True)
    assert "other processes cannot see what uses the device: No space left on device" in caplog.text


def test_a_lease_released_by_another_thread_during_commands(folder: Path, info: InterfaceInfo) -> None:
    for _ in range(20):
        lease = Lease.acquire(info)

        def note(lease: Lease = lease) -> None:
            for number in range(200):
                lease.note_command(bool(number & 1))

        workers = [Worker(note) for _ in range(2)]
        lease.release()
        for worker in workers:
            worker.result()
        assert not lease.in_command
        assert list(folder.iterdir()) == []


def test_a_closed_digit_keeps_no_descriptor_and_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_bytes(b'{"in_command": 0}')
    before = set(os.listdir("/proc/self/fd"))
    with path.open("r+b") as file:
        digit = Digit(file.fileno())
    digit.put(True)
    assert path.read_bytes() == b'{"in_command": 1}'
    digit.close()
    digit.close()
    digit.put(False)
    assert path.read_bytes() == b'{"in_command": 1}'
    assert set(os.listdir("/proc/self/fd")) == before
