"""A killed process leaves nothing on a real kernel: the warden cleans up, or recovery if the warden was killed too."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scsiusb.leases.lease import leases
from scsiusb.leases.orphans import recover
from scsiusb.leases.warden_main import DEAD, GONE, started

from .command import scsiusb as cli
from .machine import USB, Device, wait_for
from .plugging import plug, unplug

assert sys.platform == "linux"

GIVEN_BACK = 60.0  # seconds after a process was killed, as the machine may be busy; the crash campaign requires 2
BLOCKS = 128
# A program that claims a device, starts a command up to the given moment, and kills the given process, then itself.
HOLDER = """
import os, signal, struct, sys, time
from scsiusb.leases.lease import Lease
from scsiusb.leases.warden import Warden
from scsiusb.usb.interface import find
from scsiusb.usb.libusb.backend import LibusbBackend
from scsiusb.usb.port import Port

address, moment, whom = sys.argv[1:]
backend = LibusbBackend()
(info,) = [info for info in find(backend) if info.address == address]
warden = Warden()
lease = Lease.acquire(info, notify=warden.hold)

def before_taking(is_driven):
    lease.record_driver(backend.driver(info.device, info.interface) if is_driven else None)
    warden.hold(lease.record, lease.path)

port = Port(backend, info, before_taking)
size = {blocks} * 512
into, opcode = (0, 0x2A) if moment == "data-out" else (0x80, 0x28)
cbw = struct.pack("<4sIIBBB", b"USBC", 77, size, into, 0, 10)
cbw += struct.pack(">BBIBHB6x", opcode, 0, 0, 0, {blocks}, 0)
if moment != "idle":
    lease.note_command(True)
    assert port.write(memoryview(bytearray(cbw)), 1) == (0, 31)
if moment == "data-in":
    assert port.read(memoryview(bytearray(4096)), 1) == (0, 4096)
if moment == "data-out":
    assert port.write(memoryview(bytearray(b"cut off " * 512)), 1000) == (0, 4096)
print(warden.pid, flush=True)
if whom == "warden":
    os.kill(warden.pid, signal.SIGKILL)
if whom == "group":
    os.killpg(0, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
""".replace("{blocks}", str(BLOCKS))


def die(device: Device, moment: str, whom: str) -> int:
    """Run HOLDER until it has killed itself; return the process id of its warden."""
    words = [sys.executable, "-c", HOLDER, device.address, moment, whom]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        warden = int(process.stdout.readline())
        assert process.wait() == -signal.SIGKILL
    return warden


def ended(pid: int) -> bool:
    return started(pid) in (None, DEAD)


def assert_right(device: Device) -> None:
    """Check that the kernel reads the content of the medium, and that no lease is left."""
    device.wait()
    unit = device.units[0]
    assert unit.kernel_read(0, BLOCKS) == unit.backing(0, BLOCKS)
    assert leases() == []


@pytest.mark.parametrize("whom", ["itself", "group"])
@pytest.mark.parametrize("moment", ["idle", "cbw", "data-in", "data-out"])
def test_the_driver_is_back_soon_after_a_kill(scratch: Device, moment: str, whom: str) -> None:
    warden = die(scratch, moment, whom)
    wait_for(lambda: scratch.bound() == "usb-storage", "the driver", GIVEN_BACK)
    wait_for(lambda: ended(warden) and not leases(), "the warden to end", GIVEN_BACK)
    assert_right(scratch)


@pytest.mark.parametrize("moment", ["idle", "cbw", "data-out"])
def test_recovery_releases_the_device_if_the_warden_was_killed_too(scratch: Device, moment: str) -> None:
    die(scratch, moment, "warden")
    assert scratch.bound() is None
    (seen,) = leases()
    assert (seen.state, seen.in_command, seen.record.driver) == ("orphaned", moment != "idle", "usb-storage")
    (recovered,) = recover()
    assert (recovered.ok, recovered.done) == (True, "kernel driver usb-storage is bound again")
    assert scratch.bound() == "usb-storage"
    assert_right(scratch)


@pytest.fixture
def unbound(scratch: Device) -> Iterator[Device]:
    """The scratch stick, without a kernel driver during the test."""
    (USB / "drivers" / "usb-storage" / "unbind").write_text(scratch.interface.name)
    yield scratch
    assert scratch.bound() is None
    (USB / "drivers_probe").write_text(scratch.interface.name)
    scratch.wait()


@pytest.mark.parametrize("whom", ["itself", "warden"])
@pytest.mark.parametrize("moment", ["idle", "cbw", "data-in"])
def test_a_device_unbound_before_stays_unbound_and_is_in_step(unbound: Device, moment: str, whom: str) -> None:
    warden = die(unbound, moment, whom)
    wait_for(lambda: ended(warden), "the warden to end", GIVEN_BACK)
    if whom == "warden":
        assert [each.ok for each in recover()] == [True]
    assert unbound.bound() is None
    assert leases() == []
    # The next program, which takes it without any driver's help, finds the device in step.
    if unbound.kind == "gadget" and moment != "idle":
        assert_scsiusb_gets_over_a_stale_packet(unbound)
        return
    die(unbound, "data-in", "itself")
    wait_for(lambda: not leases(), "the lease to go", GIVEN_BACK)


def assert_scsiusb_gets_over_a_stale_packet(device: Device) -> None:
    """The kernel's gadget is not in step, whatever the warden does; scsiusb must read the right data all the same.

    A class reset makes f_mass_storage end a read with an empty packet. dummy_hcd calls it sent as soon as it is in its
    FIFO, which it cannot flush: it comes before the next command's data. See STALE_PACKET in test_check.py.
    """
    assert cli("read", device.address, "--lba", 7, "--blocks", BLOCKS).ok().out == device.units[0].backing(7, BLOCKS)


def test_of_a_device_that_was_pulled_meanwhile_only_the_lease_is_left(scratch: Device) -> None:
    address = scratch.address
    die(scratch, "idle", "warden")
    unplug(scratch)
    try:
        assert [(each.ok, each.done) for each in recover(address)] == [(True, GONE)]
        assert leases() == []
    finally:
        plug(scratch)
    assert_right(scratch)
