"""The system is as before after any end of a program or device: clients, unplug, fork, exit, drivers, two processes."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import scsiusb
from scsiusb import ledger
from scsiusb.leases.lease import leases
from scsiusb.usb.interface import InterfaceInfo

from .command import NOBODY, as_user
from .command import scsiusb as run
from .machine import USB, Device, uas_devices, wait_for
from .plugging import plug, pull, unplug

assert sys.platform == "linux"

GIVEN_BACK = 60.0  # seconds after a process was killed, as the machine may be busy; the crash campaign requires 2
NOTICED = 60.0  # seconds after the kernel noticed an unplug; the plug campaign requires 1


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    yield
    assert ledger.outstanding() == []
    assert device_nodes("self") == []
    assert leases() == []


@pytest.fixture
def pulled(scratch: Device) -> Iterator[Device]:
    """The scratch stick, plugged in again after the test."""
    yield scratch
    if not scratch.present:
        plug(scratch)


def device_nodes(process: str) -> list[str]:
    """Return the USB device nodes that the process has open."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return [path for path in found if path.startswith("/dev/bus/usb/")]


@contextmanager
def worker(device: Device, ending: str, user: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Start another process that has the device open; see worker.py."""
    words = [*as_user(user), sys.executable, "-m", "tests.kernel.worker", device.address, ending]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert line(process) == "open"
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def given_back(device: Device, driver: str | None = "usb-storage") -> None:
    """Wait until the driver is bound again, and the lease and the warden are gone."""
    wait_for(lambda: device.bound() == driver, f"{driver} to have {device} again", GIVEN_BACK)
    wait_for(lambda: not leases(), "the lease to go", GIVEN_BACK)
    wait_for(lambda: not wardens(), "the warden to go", GIVEN_BACK)


def wardens() -> list[str]:
    """Return the process ids of the wardens of other processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"warden_main.py") for word in words) and str(os.getpid()).encode() not in words:
            found.append(path.parent.name)
    return found


# --- two processes, several clients ---------------------------------------------------------------


def test_a_second_process_is_refused_and_the_error_names_the_holder(scratch: Device) -> None:
    with worker(scratch, "read") as holder:
        refused = run("read", scratch.address, "--lba", 0, "--blocks", 1)
        assert refused.status == 15
        assert re.search(rf"held by pid {holder.pid} \(.*worker.*\) since \d{{4}}-", refused.err)
        (seen,) = leases()
        assert (seen.record.pid, seen.state) == (holder.pid, "live")
        (listed,) = (row for row in run("list", "--json").json() if row["address"] == scratch.address)
        assert listed["lease"]["pid"] == holder.pid
        (lease,) = run("leases", "--json").json()
        assert (lease["pid"], lease["state"], lease["serial"]) == (holder.pid, "live", scratch.serial)
        assert run("recover", "--json").json() == []
        assert holder.poll() is None
        holder.send_signal(signal.SIGKILL)
    given_back(scratch)
    assert run("read", scratch.address, "--lba", 0, "--blocks", 8).ok().out == scratch.units[0].backing(0, 8)


def test_eight_threads_with_a_client_each_get_the_right_data(stick: Device) -> None:
    unit = stick.units[0]
    wrong: list[tuple[int, int]] = []

    def read(number: int) -> None:
        with scsiusb.open(stick.address) as disk:
            for at in range(12):
                lba = (number * 1000 + at * 37) % (unit.blocks - 300)
                if disk.read(lba, 1 + at * 13) != unit.backing(lba, 1 + at * 13):
                    wrong.append((number, lba))

    threads = [threading.Thread(target=read, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_in_another_thread_ends_a_command_and_the_device_works_for_the_next_program(stick: Device) -> None:
    for _ in range(5):
        disk = scsiusb.open(stick.address)
        errors: list[BaseException] = []
        begun = threading.Event()

        def read(disk: scsiusb.Disk, begun: threading.Event, errors: list[BaseException]) -> None:
            try:
                while True:
                    disk.read(0, 16384)
                    begun.set()
            except scsiusb.ScsiUsbError as ended:
                errors.append(ended)

        reader = threading.Thread(target=read, args=[disk, begun, errors])
        reader.start()
        assert begun.wait(60)
        disk.close()
        reader.join(60)
        assert [type(error) for error in errors] == [scsiusb.DeviceClosed]
        assert stick.bound() == "usb-storage"
    assert run("read", stick.address, "--lba", 5, "--blocks", 3).ok().out == stick.units[0].backing(5, 3)


# --- users ----------------------------------------------------------------------------------------


@pytest.fixture
def for_all(scratch: Device) -> Iterator[Device]:
    """The scratch stick with a device node that every user may open, as the udev rule allows the user at the seat."""
    node = Path(f"/dev/bus/usb/{int((scratch.folder / 'busnum').read_text()):03}") / (
        f"{int((scratch.folder / 'devnum').read_text()):03}"
    )
    mode = node.stat().st_mode
    node.chmod(0o666)
    yield scratch
    node.chmod(mode)


def test_the_device_of_a_killed_program_is_released_without_root(for_all: Device) -> None:
    with worker(for_all, "read", NOBODY) as process:
        (seen,) = leases()
        assert (seen.record.pid, seen.record.uid, seen.state) == (process.pid, NOBODY, "live")
        assert Path(seen.path).parent.stat().st_uid == NOBODY
        refused = run("read", for_all.address, "--lba", 0, "--blocks", 1)
        assert refused.status == 15
        process.kill()
        process.wait()
        given_back(for_all)


def test_the_error_names_the_holder_also_if_it_is_root(for_all: Device) -> None:
    with worker(for_all, "read") as process:
        words = [*as_user(NOBODY), sys.executable, "-m", "scsiusb", "read", for_all.address, "--lba", "0"]
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
        assert refused.returncode == 15
        assert f"held by pid {process.pid} (" in refused.stderr
        process.kill()
        process.wait()
        given_back(for_all)


@pytest.mark.parametrize("next_user", [0, NOBODY])
def test_a_device_whose_warden_was_killed_too_is_recovered_by_the_next_command(for_all: Device, next_user: int) -> None:
    with worker(for_all, "read", NOBODY) as process:
        for pid in wardens():
            os.kill(int(pid), signal.SIGKILL)
        process.kill()
        process.wait()
    assert for_all.bound() is None
    assert [seen.state for seen in leases()] == ["orphaned"]
    read = [sys.executable, "-m", "scsiusb", "read", for_all.address, "--lba", "3", "--blocks", "2"]
    done = subprocess.run([*as_user(next_user), *read], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == for_all.units[0].backing(3, 2)
    given_back(for_all)


# --- unplug ---------------------------------------------------------------------------------------


def test_an_unplug_ends_idle_clients(pulled: Device) -> None:
    gone: list[InterfaceInfo] = []
    notified = threading.Event()
    first = scsiusb.open(pulled.address, on_gone=gone.append)
    second = scsiusb.open(pulled.address, on_gone=notified.set)
    assert first.read(0, 1)
    unplug(pulled)
    assert notified.wait(NOTICED)
    wait_for(lambda: len(gone) == 1, "on_gone of the first client", NOTICED)
    assert device_nodes("self") == []
    assert leases() == []
    plug(pulled)
    for disk in (first, second):
        with pytest.raises(scsiusb.DeviceGone):
            disk.read(0, 1)
        disk.close()
        disk.close()
    with scsiusb.open(pulled.address) as disk:
        assert disk.read(3, 5) == pulled.units[0].backing(3, 5)
    assert len(gone) == 1


def test_the_manager_reports_each_attach_and_detach_once_and_in_order(pulled: Device) -> None:
    called: list[tuple[str, str]] = []
    with scsiusb.Manager() as manager:
        manager.on_attach(lambda info: called.append(("attached", info.address)), f"serial={pulled.serial}")
        manager.on_detach(lambda info: called.append(("detached", info.address)), f"serial={pulled.serial}")
        events = manager.events(timeout=60, device=f"serial={pulled.serial}")
        seen = [next(events)]
        for _ in range(3):
            unplug(pulled)
            plug(pulled)
            # Before it is unplugged again: a device that is gone before the manager sees its driver is not reported.
            seen += [next(events), next(events)]
        address = pulled.address
        disk = manager.open(f"serial={pulled.serial}")
        assert disk.read(1, 1) == pulled.units[0].backing(1, 1)
        assert {info.serial for info in manager.devices()} >= {pulled.serial}
    assert [event.kind for event in seen] == ["attached", *["detached", "attached"] * 3]
    assert [event.generation for event in seen] == sorted(event.generation for event in seen)
    assert len({event.generation for event in seen}) == 4
    assert all(event.device.driver == "usb-storage" for event in seen)
    assert called == [(event.kind, event.device.address) for event in seen]
    assert seen[-1].device.address == address


# --- ends of the program --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["exit", "exit-in-command"])
def test_the_device_is_released_if_the_interpreter_exits_without_closing(scratch: Device, ending: str) -> None:
    with worker(scratch, ending) as process:
        assert process.wait(60) == 0
        given_back(scratch)


def test_a_process_killed_while_it_reads_leaves_nothing(scratch: Device) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        with worker(scratch, "read") as process:
            time.sleep(0.1)
            process.send_signal(number)
            process.wait()
            given_back(scratch)
        wait_for(scratch.ready, "the kernel to have looked at the disk")
        assert scratch.units[0].kernel_read(0, 64) == scratch.units[0].backing(0, 64)
        assert run("read", scratch.address, "--lba", 7, "--blocks", 9).ok().out == scratch.units[0].backing(7, 9)


def test_the_child_of_a_fork_is_refused_and_the_parent_is_not_affected(pulled: Device) -> None:
    with worker(pulled, "fork-then-gone") as process:
        assert "opened by the process that forked this one" in line(process)
        assert line(process) == "ended 7"
        assert line(process) == "parent 512"
        assert line(process) == "again"
        unplug(pulled)
        assert line(process) == "gone"


# --- drivers --------------------------------------------------------------------------------------


def unbind(device: Device) -> None:
    (device.interface / "driver" / "unbind").write_text(device.interface.name)


def probe(device: Device) -> None:
    (USB / "drivers_probe").write_text(device.interface.name)
    device.wait()


@pytest.fixture
def driverless(scratch: Device) -> Iterator[Device]:
    unbind(scratch)
    yield scratch
    probe(scratch)


def test_a_driver_that_was_not_bound_before_is_not_bound_after(driverless: Device) -> None:
    with scsiusb.open(driverless.address) as disk:
        disk.read(0, 1)
    assert driverless.bound() is None
    with worker(driverless, "read") as process:
        process.kill()
        process.wait()
        given_back(driverless, None)


# --- UAS --------------------------------------------------------------------------------------------


@pytest.fixture(params=uas_devices())
def by_uas(request: pytest.FixtureRequest, zoo: dict[str, Device]) -> Device:
    """A device that speaks UAS."""
    return zoo[request.param].wait()


@pytest.mark.uas("a device that speaks UAS")
def test_killed_while_it_reads_by_uas_the_kernels_driver_is_back(by_uas: Device) -> None:
    with worker(by_uas, "read-many") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        given_back(by_uas, by_uas.driver)
    assert run("read", by_uas.address, "--lba", 5).out == by_uas.units[0].backing(5, 1)


@pytest.mark.uas("a device that speaks UAS")
def test_unplugged_with_many_commands_in_flight_the_reader_is_told_once(by_uas: Device) -> None:
    gone: list[scsiusb.InterfaceInfo] = []
    read = 0
    with scsiusb.open(by_uas.address, on_gone=gone.append) as disk:
        try:
            with pytest.raises(scsiusb.DeviceGone):
                for number, data in disk.read_many((lba % 4096, 8) for lba in itertools.count(step=8)):
                    assert len(data) == 4096
                    read = number
                    if number == 100:
                        pull(by_uas)
            with pytest.raises(scsiusb.DeviceGone):
                disk.read(0, 8)
            wait_for(lambda: gone, "the client to be told")
        finally:
            plug(by_uas)
    assert read >= 100
    assert len(gone) == 1
    assert by_uas.bound() == by_uas.driver


@pytest.mark.uas("a device that speaks UAS")
def test_unplugged_with_many_readers_each_is_told_once(by_uas: Device) -> None:
    gone: list[scsiusb.InterfaceInfo] = []
    begun: list[int] = []
    errors: list[BaseException] = []

    def read(disk: scsiusb.Disk) -> None:
        try:
            begun.append(len(disk.read(0, 8)))
            while True:
                disk.read(0, 8)
        except scsiusb.DeviceGone as error:
            errors.append(error)

    with scsiusb.open(by_uas.address, on_gone=gone.append) as disk:
        readers = [threading.Thread(target=read, args=[disk]) for _ in range(disk.unit.transport.depth)]
        for reader in readers:
            reader.start()
        wait_for(lambda: len(begun) == len(readers), "all readers to read")
        pull(by_uas)
        try:
            for reader in readers:
                reader.join(60)
            wait_for(lambda: gone, "the client to be told")
        finally:
            plug(by_uas)
    assert len(errors) == len(readers)
    assert len(gone) == 1
    assert by_uas.bound() == by_uas.driver
