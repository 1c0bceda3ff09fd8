"""Reading sysfs and procfs, from folders that are built like the kernel's."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scsiusb.usb.backend import Device, Strings
from scsiusb.usb.system import linux

from .machine import DEVICE, Machine, link

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="symlinks need a privilege on Windows")


# --- strings and drivers --------------------------------------------------------------------------


def test_strings_are_read_from_sysfs_without_the_line_end(machine: Machine) -> None:
    (machine.usb / "serial").write_bytes(b"4C53\n")
    (machine.usb / "manufacturer").write_bytes("Müller \n".encode())
    (machine.usb / "product").write_bytes(b"Ultra\xff\x1b[2J\n")
    assert linux.strings(DEVICE) == Strings("4C53", "Müller", "Ultra\ufffd\x1b[2J")


def test_missing_and_empty_strings_are_none(machine: Machine) -> None:
    (machine.usb / "serial").write_bytes(b"\n")
    assert linux.strings(DEVICE) == Strings(None, None, None)


def test_a_connection_is_another_one_after_a_replug_into_the_same_port(machine: Machine) -> None:
    (machine.usb / "devnum").write_text("7\n")
    before = linux.connection(DEVICE)
    assert before is not None
    assert linux.connection(DEVICE) == before
    machine.usb.rename(machine.usb.with_name("before"))  # kept, so that its inode is not used again
    machine.usb.mkdir()
    (machine.usb / "devnum").write_text("7\n")
    assert linux.connection(DEVICE) not in (None, before)
    (machine.usb / "devnum").write_text("8\n")
    assert linux.connection(DEVICE) is None, "another device is in the port"


def test_the_driver_is_the_one_that_sysfs_links_to(machine: Machine) -> None:
    assert linux.driver(DEVICE, 0) is None
    link(machine.interface / "driver", machine.sys / "bus/usb/drivers/usb-storage")
    assert linux.driver(DEVICE, 0) == "usb-storage"
    assert linux.driver(DEVICE, 1) is None


def test_the_disks_are_those_of_every_logical_unit(machine: Machine) -> None:
    assert linux.disks(DEVICE, 0) == []
    machine.disk("sdc", "8:32", lun=1)
    machine.disk("sdb", "8:16")
    assert linux.disks(DEVICE, 0) == ["sdb", "sdc"]


def test_a_device_that_is_gone_has_no_strings_driver_or_disks(machine: Machine) -> None:
    gone = Device(3, (1,), 2, 0, 0, 0, "high", 1, ())
    assert linux.strings(gone) == Strings()
    assert linux.driver(gone, 0) is None
    assert linux.disks(gone, 0) == []


# --- processes that have the device open ----------------------------------------------------------

NODE = "/dev/bus/usb/001/007"


def test_openers_names_the_other_processes_that_have_the_device_open(machine: Machine) -> None:
    machine.process(12, "python3", "/dev/null", NODE)
    machine.process(13, "bash", "/dev/null", "/dev/bus/usb/001/070")
    machine.process(14, None, NODE)
    machine.process(os.getpid(), "this one", NODE)
    assert sorted(linux.openers(DEVICE)) == ["pid 12 (python3)", "pid 14 (None)"]


def test_a_process_that_cannot_be_read_is_left_out(machine: Machine) -> None:
    (machine.proc / "20").mkdir()
    (machine.proc / "sys").mkdir()
    machine.process(21, "python3", NODE)
    assert linux.openers(DEVICE) == ["pid 21 (python3)"]


def test_a_file_that_a_process_closes_meanwhile_does_not_hide_its_others(machine: Machine) -> None:
    folder = machine.process(12, "python3", *[NODE] * 1)
    for name in ("a", "b", "c", "z"):
        (folder / "fd" / name).write_bytes(b"")  # readlink fails, as for a descriptor that was closed
    assert linux.openers(DEVICE) == ["pid 12 (python3)"]


def test_a_folder_that_goes_while_it_is_looked_at_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Path.glob` checks that a folder is there and then reads it; an unplug may come between the two."""
    for name in ("a", "b"):
        (tmp_path / name / "block").mkdir(parents=True)
    before, left = Path.glob, [errno.ENOENT, errno.ENODEV]

    def glob(self: Path, pattern: str) -> Iterator[Path]:
        found = iter(before(self, pattern))
        yield next(found)
        if left:
            raise OSError(left.pop(), "it has gone")
        yield from found

    monkeypatch.setattr(Path, "glob", glob)
    assert sorted(path.parent.name for path in linux.matching(tmp_path, "*/block")) == ["a", "b"]
    left[:] = [errno.EACCES]
    with pytest.raises(PermissionError):
        linux.matching(tmp_path, "*/block")
    left[:] = [errno.ENOENT] * 1000
    with pytest.raises(FileNotFoundError):
        linux.matching(tmp_path, "*/block")
