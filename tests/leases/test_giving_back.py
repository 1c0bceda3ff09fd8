"""The steps by which the warden and recovery give a device back, and when they do not touch it."""

from __future__ import annotations

import errno
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scsiusb.base.locks import try_lock
from scsiusb.leases import warden_main
from scsiusb.leases.record import holding_of
from scsiusb.leases.warden_main import GONE, Kernel, from_words, give_back, settle
from tests.leases.leasing import record_in
from tests.leases.processes import HOLD, WAIT, kill, line, running
from tests.leases.usbfs import RECORD, Usbfs, holding, with_lease

if sys.platform != "linux":
    pytest.skip("the warden is Linux's", allow_module_level=True)

START = "warden = Warden(*sys.argv[2:4])\nwarden.hold(lease.record, lease.path)\nsay(warden.pid)\n"


@pytest.fixture
def usbfs(tmp_path: Path) -> Usbfs:
    return Usbfs(tmp_path)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAIM_TIMEOUT", "BIND_TIMEOUT", "LOCK_TIMEOUT"):
        monkeypatch.setattr(warden_main, name, 0.05)


def test_an_idle_device_is_recovered_without_a_port_reset_and_bound(usbfs: Usbfs) -> None:
    assert give_back(usbfs.kernel, holding()) == (True, "kernel driver usb-storage is bound again")
    assert usbfs.names == ["claim", "control", "clear", "clear", "release", "connect"]
    arguments = dict(enumerate(argument for _, argument in usbfs.steps))
    assert arguments[0] == arguments[4] == struct.pack("I", 0)
    assert struct.unpack("BBHHHIP", arguments[1]) == (0x21, 0xFF, 0, 0, 0, 1000, 0)
    assert [struct.unpack("I", arguments[at])[0] for at in (2, 3)] == [0x81, 0x02]
    assert struct.unpack("iiP", arguments[5]) == (0, 0x5517, 0)
    assert usbfs.driver == "usb-storage"


def test_a_device_with_a_command_in_progress_is_released_before_its_port_is_reset(usbfs: Usbfs) -> None:
    assert give_back(usbfs.kernel, holding(in_command=True))[0]
    assert usbfs.names == ["claim", "control", "clear", "clear", "release", "reset", "connect"]


@pytest.mark.parametrize("fails", ["control", "clear"])
def test_the_port_is_reset_if_reset_recovery_fails(usbfs: Usbfs, fails: str) -> None:
    usbfs.fail[fails] = errno.ETIMEDOUT
    assert give_back(usbfs.kernel, holding())[0]
    assert usbfs.names[-3:] == ["release", "reset", "connect"]


def test_a_port_reset_that_fails_is_left_to_the_kernel(usbfs: Usbfs) -> None:
    usbfs.fail["reset"] = errno.EPERM
    assert give_back(usbfs.kernel, holding(in_command=True)) == (True, "kernel driver usb-storage is bound again")


@pytest.mark.parametrize("in_command", [False, True])
def test_a_device_without_a_driver_before_has_none_after(usbfs: Usbfs, in_command: bool) -> None:
    right, _ = give_back(usbfs.kernel, holding(had_driver=False, in_command=in_command))
    assert right
    assert "connect" not in usbfs.names
    assert usbfs.driver is None


def test_any_kernel_driver_counts_as_success(usbfs: Usbfs) -> None:
    usbfs.takes = "uas"
    assert give_back(usbfs.kernel, holding()) == (True, "kernel driver uas is bound again")


def test_a_device_with_a_kernel_driver_is_not_touched(tmp_path: Path) -> None:
    usbfs = Usbfs(tmp_path, "usb-storage")
    assert give_back(usbfs.kernel, holding()) == (True, "kernel driver usb-storage is already bound")
    assert usbfs.steps == []


def test_a_device_that_another_program_claims_is_not_touched(tmp_path: Path) -> None:
    usbfs = Usbfs(tmp_path, "usbfs")
    assert give_back(usbfs.kernel, holding()) == (False, "another program uses it")
    assert usbfs.steps == []


def test_another_programs_claim_that_comes_first_is_not_disturbed(usbfs: Usbfs) -> None:
    usbfs.intercept = lambda name: usbfs.bind("usbfs")
    assert give_back(usbfs.kernel, holding())[0] is False
    assert usbfs.steps == []


def test_the_claim_of_a_dying_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usbfs = Usbfs(tmp_path, "usbfs")
    monkeypatch.setattr(warden_main, "CLAIM_TIMEOUT", 30.0)
    monkeypatch.setattr("time.sleep", lambda seconds: usbfs.bind(None))
    assert give_back(usbfs.kernel, holding())[0]


@pytest.mark.parametrize("changes", [{"number": 8}, {"bus": 3}, {"interface": 1}, {"name": "2-2:1.0"}], ids=str)
def test_another_device_in_the_same_port_is_not_touched(usbfs: Usbfs, changes: dict[str, Any]) -> None:
    assert give_back(usbfs.kernel, holding(**changes)) == (True, GONE)
    assert usbfs.steps == []


def test_only_mass_storage_is_touched(usbfs: Usbfs) -> None:
    (usbfs.interface / "bInterfaceClass").write_text("03\n")
    give_back(usbfs.kernel, holding())
    assert usbfs.steps == []


@pytest.mark.parametrize("at", ["claim", "control", "clear", "release", "reset", "connect"])
def test_a_device_may_be_unplugged_at_any_step(usbfs: Usbfs, at: str) -> None:
    usbfs.intercept = lambda name: usbfs.unplug() if name == at else None
    before = len(os.listdir("/proc/self/fd"))
    assert give_back(usbfs.kernel, holding(in_command=True)) == (True, GONE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_missing_permission_is_reported(usbfs: Usbfs) -> None:
    usbfs.fail["claim"] = errno.EACCES
    assert give_back(usbfs.kernel, holding()) == (False, "permission denied")


def test_it_is_a_failure_if_no_kernel_driver_is_bound(usbfs: Usbfs) -> None:
    usbfs.takes = None
    assert give_back(usbfs.kernel, holding()) == (False, "no kernel driver takes it")
    probe = usbfs.sysfs / "bus" / "usb" / "drivers_probe"  # the second way to ask for one
    assert probe.read_text() == "2-1:1.0"


def test_no_descriptor_is_left_open(usbfs: Usbfs) -> None:
    before = os.listdir("/proc/self/fd")
    give_back(usbfs.kernel, holding(in_command=True))
    usbfs.fail["claim"] = errno.EBUSY
    give_back(usbfs.kernel, holding())
    assert len(os.listdir("/proc/self/fd")) == len(before)


def codes(machine: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "", "", machine)))
    kernel = Kernel(ioctl=lambda node, code, argument: seen.append(code))
    kernel.claim(0, 0)
    kernel.reset(0)
    kernel.class_reset(0, 0)
    kernel.connect(0, 0)
    return seen


def test_request_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes of linux/usbdevice_fs.h and asm/ioctl.h, with this machine's structure sizes."""
    control, ioctl = struct.calcsize("BBHHHIP"), struct.calcsize("iiP")
    low = [0x4550F, 0x5514, control << 16 | 0x5500, ioctl << 16 | 0x5512]
    generic = [2 << 30, 0, 3 << 30, 3 << 30]
    assert codes("x86_64", monkeypatch) == [a | b for a, b in zip(generic, low, strict=True)]
    powerpc = [2 << 29, 1 << 29, 6 << 29, 6 << 29]
    assert codes("ppc64le", monkeypatch) == [a | b for a, b in zip(powerpc, low, strict=True)]
    assert codes("mips64", monkeypatch) == codes("sparc64", monkeypatch) == codes("ppc", monkeypatch)
    assert codes("parisc", monkeypatch)[0] == 1 << 30 | low[0]


# --- one lease ------------------------------------------------------------------------------------


def test_the_lease_says_whether_a_command_was_in_progress_and_is_removed(usbfs: Usbfs, dead: tuple[Path, int]) -> None:
    path, pid = dead
    settle(usbfs.kernel, with_lease(path), pid)
    assert "reset" in usbfs.names
    assert not path.exists()


def test_the_lease_stays_if_the_device_could_not_be_given_back(usbfs: Usbfs, dead: tuple[Path, int]) -> None:
    path, pid = dead
    usbfs.takes = None
    settle(usbfs.kernel, with_lease(path), pid)
    assert path.exists()


def test_a_device_that_another_process_is_recovering_is_not_touched(usbfs: Usbfs, dead: tuple[Path, int]) -> None:
    path, pid = dead
    with path.open("rb") as file:
        assert try_lock(file.fileno())
        settle(usbfs.kernel, with_lease(path), pid)
    assert usbfs.steps == []
    assert path.exists()


def test_a_shared_lock_does_not_prevent_recovery(usbfs: Usbfs, dead: tuple[Path, int]) -> None:
    path, pid = dead
    with path.open("rb") as file:
        assert try_lock(file.fileno(), shared=True)
        settle(usbfs.kernel, with_lease(path), pid)
    assert usbfs.driver == "usb-storage"
    assert not path.exists()


def test_another_process_lease_is_left_alone(usbfs: Usbfs, dead: tuple[Path, int]) -> None:
    path, pid = dead
    settle(usbfs.kernel, with_lease(path), pid + 1)
    assert usbfs.steps == []
    assert path.exists()


@pytest.mark.parametrize("is_same", [True, False])
def test_a_process_is_known_by_its_start_too(usbfs: Usbfs, dead: tuple[Path, int], is_same: bool) -> None:
    """A process of another PID namespace, as in a container, may have the same pid."""
    path, pid = dead
    since = record_in(path).started
    assert since is not None
    settle(usbfs.kernel, with_lease(path), pid, str(since if is_same else since + 1))
    assert path.exists() is not is_same
    assert bool(usbfs.steps) is is_same


def test_the_lease_overrides_a_message_without_a_driver(usbfs: Usbfs, dead: tuple[Path, int]) -> None:
    path, pid = dead
    settle(usbfs.kernel, with_lease(path, had_driver=False), pid)  # its process was killed before it sent the driver
    assert usbfs.driver == "usb-storage"


def test_the_lease_overrides_a_message_with_a_driver(usbfs: Usbfs, tmp_path: Path) -> None:
    with running(HOLD + WAIT, tmp_path / "leases") as process:
        assert line(process) == "ready"
        kill(process)
    (path,) = (tmp_path / "leases").iterdir()
    settle(usbfs.kernel, with_lease(path, had_driver=True), process.pid)
    assert usbfs.driver is None
    assert not path.exists()


@pytest.mark.parametrize("had_driver", [True, False])
def test_without_its_lease_only_what_had_a_driver_is_given_back(usbfs: Usbfs, tmp_path: Path, had_driver: bool) -> None:
    """The lease was released, or the folder was cleaned."""
    settle(usbfs.kernel, with_lease(tmp_path / "gone", had_driver), 1)
    assert usbfs.driver == ("usb-storage" if had_driver else None)
    assert bool(usbfs.steps) == had_driver


def test_without_a_lease_a_command_is_assumed_to_be_in_progress(usbfs: Usbfs) -> None:
    made = holding(in_command=True)
    settle(usbfs.kernel, made, 1)
    assert "reset" in usbfs.names


def test_a_holding_survives_the_conversion_to_a_message_and_back() -> None:
    for path in (Path("/run/user/1000/a b\n/x.json"), None):
        made = holding_of(RECORD, path)
        words = made.message().decode().split(" ")
        assert words[0] == "hold"
        assert vars(from_words(words[1:])) == vars(made)
    long = holding_of(RECORD, Path("/x" * 2000))
    assert long.lease is None
    assert holding_of(replace(RECORD, driver=None), None).had_driver is False
