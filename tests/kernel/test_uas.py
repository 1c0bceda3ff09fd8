"""UAS: data, sense, recovery, lifetime.

Against QEMU's device, with streams at SuperSpeed and without at high speed, and against the kernel's own SCSI target as
a gadget (f_tcm), which speaks BOT, too, and never answers task management (tools/lab --native --zoo target).
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb import Disk
from scsiusb.scsi.at_once import Batch, transfer_at_once
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.scsi.retry import NO_RETRY
from scsiusb.transport.base import Direction
from scsiusb.virtual import Fault, bot_interface, uas_interface

from . import oracles
from .machine import Device, uas_devices, wait_for, zoo
from .mounting import mounted, tool
from .qmp import qmp
from .served import Served, served

assert sys.platform == "linux"

with_uas = pytest.mark.uas("a device that speaks UAS")
BLOCK = 512
MIB = 1 << 20
OUT_OF_RANGE = bytes.fromhex("28007fffffff00000100")  # READ(10) of a block that is not there
OPERATIONS = 150
IN_FLIGHT = 16
FAULTS = ("stall@data", "stall@csw", "nak@csw", "hang@data", "short=5@csw", "tag=77@csw", "status=8", "phase-error@csw")


@pytest.fixture(params=uas_devices())
def device(request: pytest.FixtureRequest) -> Device:
    return zoo()[request.param].wait()


def transport(disk: Disk) -> str:
    return disk.unit.transport.info.protocol


@with_uas
def test_the_protocol_is_uas_at_the_speed_of_the_port(device: Device) -> None:
    with scsiusb.open(device.address) as disk:
        assert transport(disk) == "uas"
        assert disk.unit.transport.info.speed == {480: "high", 5000: "super"}[device.speed]
    assert device.bound() == device.driver


@pytest.mark.qemu("sense of a failed command by the kernel's driver, which f_tcm does not give it by BOT")
def test_what_a_failed_command_says_equals_what_sg_raw_is_told(device: Device) -> None:
    sense = oracles.failure(device.units[0].sg, OUT_OF_RANGE)
    with scsiusb.open(device.address) as disk, pytest.raises(scsiusb.LbaOutOfRange) as failure:
        disk.unit.execute(Read10(0x7FFFFFFF, 1, block_size=BLOCK))
    assert failure.value.sense.text.lower() in sense.lower()


@with_uas
def test_mixed_reads_and_writes_agree_with_a_model(device: Device) -> None:
    unit, choice = device.units[0], random.Random(15)
    model = bytearray(unit.backing(0, unit.blocks))
    with scsiusb.open(device.address) as disk:
        for _ in range(OPERATIONS):
            blocks = choice.choice((1, 2, 8, 63, 256, 1000))
            at = choice.randrange(unit.blocks - blocks)
            part = slice(at * BLOCK, (at + blocks) * BLOCK)
            if choice.random() < 0.5:
                assert disk.read(at, blocks) == model[part]
            else:
                model[part] = choice.randbytes(blocks * BLOCK)
                disk.write(at, bytes(model[part]))
    assert unit.backing(0, unit.blocks) == model


@with_uas
def test_reads_in_flight_agree_with_the_backing_file(device: Device) -> None:
    unit, choice = device.units[0], random.Random(16)
    sizes = (1, 2, 8, 64, 300)
    requests = [(choice.randrange(unit.blocks - 300), choice.choice(sizes)) for _ in range(OPERATIONS * 4)]
    with scsiusb.open(device.address) as disk:
        assert disk.unit.transport.depth > 10
        found = dict(disk.read_many(requests))
        assert disk.read(0, unit.blocks) == unit.backing(0, unit.blocks)
    assert found == {number: unit.backing(*request) for number, request in enumerate(requests)}


@pytest.mark.qemu("two devices that speak UAS")
def test_two_devices_are_read_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [zoo()[name].wait() for name in ("uas", "uas-high")]
    with ExitStack() as held:
        disks = [held.enter_context(scsiusb.open(device.address)) for device in devices]
        readings = [disk.reading(0, disk.blocks) for disk in disks]
        found = {reading: bytearray() for reading in readings}
        monkeypatch.setattr(threading.Thread, "start", None)  # none is needed
        with scsiusb.read_many(*readings) as chunks:
            for reading, piece, error in chunks:
                assert error is None
                found[reading] += piece
        monkeypatch.undo()
    for device, reading in zip(devices, readings, strict=True):
        assert found[reading] == device.units[0].backing(0, device.units[0].blocks)


@with_uas
def test_large_writes_and_streams_are_on_the_medium(device: Device) -> None:
    unit, data = device.units[0], random.Random(17).randbytes(15 * 256 * BLOCK)
    with scsiusb.open(device.address) as disk:
        disk.write(5, data)
        with disk.writing(5 + 15 * 256) as stream:
            stream.write(data[::-1])
        disk.flush()
    assert unit.backing(5, 30 * 256) == data + data[::-1]


@with_uas
def test_a_block_that_is_not_there_fails_alone_among_those_in_flight(device: Device) -> None:
    unit = device.units[0]
    with scsiusb.open(device.address) as disk:
        medium = disk.medium()
        beyond = disk.unit.transport.memory
        with beyond.lend(BLOCK) as first, beyond.lend(BLOCK) as second:
            reads = [(bytes.fromhex("28000000000500000100"), first), (OUT_OF_RANGE, second)]
            story = transfer_at_once(disk.unit, Batch(reads, Direction.IN, 30.0, None), medium, must_be_settled=False)
            assert disk.unit.transport.drive(story) == [True, False]
            assert bytes(first) == unit.backing(5, 1)


@contextmanager
def reads_each_second(device: Device, reads: int) -> Iterator[None]:
    """Let QEMU carry out so many reads in a second; each then takes its time, whatever the machine does."""
    limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_wr"), 0)
    qmp("block_set_io_throttle", id=f"{device.name}-lun0", iops_rd=reads, **limits)
    try:
        yield
    finally:
        qmp("block_set_io_throttle", id=f"{device.name}-lun0", iops_rd=0, **limits)


@pytest.mark.qemu("QEMU's throttle")
def test_a_command_that_is_late_is_aborted_and_the_next_one_is_right(device: Device) -> None:
    unit = device.units[0]
    with scsiusb.open(device.address) as disk, reads_each_second(device, 2):
        tried = []
        for at in range(3):
            disk.read(at, 8)  # the next one within half a second has to wait
            with pytest.raises(scsiusb.DeviceTimeout) as late:
                disk.unit.execute(Read10(at, 8, block_size=BLOCK), timeout=0.02, retry=NO_RETRY)
            tried.append(late.value.tried)
            assert disk.read(at, 8) == unit.backing(at, 8)
    assert {first for first, *_ in tried} == {"abort task"}


@with_uas
def test_after_a_port_reset_the_device_works(device: Device) -> None:
    unit = device.units[0]
    with scsiusb.open(device.address) as disk:
        for _ in range(2):
            disk.unit.transport.reset_port()
            assert disk.read(100, 300) == unit.backing(100, 300)
    assert device.bound() == device.driver


# --- Linux's uas driver, and scsiusb, on the virtual stick over USB/IP, at high speed -------------------


over_usbip = pytest.mark.native("virtual sticks, which under emulation only take longer")


@contextmanager
def virtual(*, both: bool, **options: Any) -> Iterator[Served]:
    interfaces = [bot_interface(), uas_interface()] if both else [uas_interface(alternate=0)]
    with served(interfaces=interfaces, driver="uas", size=40 * MIB, **options) as stick:
        yield stick


@over_usbip
def test_linux_drives_the_virtual_stick_by_uas_and_a_file_system_is_whole(tmp_path: Path) -> None:
    content = random.Random(32).randbytes(32 * MIB)
    with virtual(both=False) as stick:
        assert stick.bound() == "uas"
        tool("mkfs.vfat", "-F", "32", stick.node)
        with mounted(stick.node, tmp_path) as folder:
            (folder / "content").write_bytes(content)
        with mounted(stick.node, tmp_path) as folder:
            assert (folder / "content").read_bytes() == content
        tool("fsck.vfat", "-n", stick.node)


@over_usbip
def test_scsiusb_drives_the_virtual_stick_by_either_protocol_and_linux_has_it_back() -> None:
    data = random.Random(33).randbytes(4 * MIB)
    with virtual(both=True) as stick:
        for protocol in ("uas", "bot", "uas"):
            with scsiusb.open(stick.address, transport=protocol) as disk:
                assert transport(disk) == protocol
                disk.write(0, data)
                assert disk.read(0, len(data) // BLOCK) == data
                found = disk.read_many((lba, 4) for lba in range(0, 2000, 100))
                assert all(piece == data[100 * n * BLOCK : (100 * n + 4) * BLOCK] for n, piece in found)
            wait_for(lambda: stick.bound() == "uas", "uas to have the stick again")


@over_usbip
def test_over_the_kernel_each_fault_ends_in_right_data_or_an_error_in_time() -> None:
    with virtual(both=False) as stick, scsiusb.open(stick.address, timeout=2.0) as disk:
        wanted = disk.read(0, 2000)
        for fault in FAULTS:
            stick.stick.faults.add(fault)
            with suppress(scsiusb.DeviceTimeout):
                assert disk.read(0, 2000) == wanted, fault
            assert stick.stick.faults.fired[-1][1] == Fault.parse(fault)
            assert disk.read(0, 2000) == wanted, fault


HANGS = "hang@csw,by=uas,times=always"
KILLED = """
import sys, scsiusb
from contextlib import suppress
disk = scsiusb.open(sys.argv[1], timeout=1.0)
print(disk.unit.transport.info.protocol, flush=True)
sys.stdin.readline()
with suppress(scsiusb.DeviceTimeout):
    disk.read(0, 8)
print(disk.unit.transport.info.protocol, flush=True)
while True:
    disk.read(0, 8)
"""


@over_usbip
def test_a_device_that_hangs_by_uas_is_used_by_bot_and_linux_has_it_back() -> None:
    data = random.Random(34).randbytes(2 * MIB)
    with virtual(both=True) as stick:
        with scsiusb.open(stick.address, timeout=1.0) as disk:
            assert transport(disk) == "uas"
            disk.write(0, data)
            disk.flush()
            stick.stick.faults.add(HANGS)
            with suppress(scsiusb.DeviceTimeout):
                disk.read(0, 8)
            assert transport(disk) == "bot"
            assert disk.read(0, len(data) // BLOCK) == data
            disk.write(8, data[:4096])
            assert disk.read(8, 8) == data[:4096]
        stick.stick.faults.clear()
        wait_for(lambda: stick.bound() == "uas", "uas to have the stick again")


@over_usbip
def test_a_process_that_is_killed_after_the_change_leaves_the_device_to_linux() -> None:
    with virtual(both=True) as stick:
        command, pipe = [sys.executable, "-c", KILLED, stick.address], subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "uas\n"
            stick.stick.faults.add(HANGS)  # not before: Linux's uas would wait a minute for what udev reads
            print(file=process.stdin, flush=True)
            assert process.stdout.readline() == "bot\n"
            stick.stick.faults.clear()
            process.kill()
        wait_for(lambda: stick.bound() == "uas", "uas to have the stick again")


@over_usbip
def test_linux_keeps_sixteen_commands_in_flight_and_each_block_is_right() -> None:
    """By fio, which writes blocks with checksums at random places and reads them back."""
    with virtual(both=False) as stick:
        queue = stick.node.resolve().name
        assert int(Path(f"/sys/block/{queue}/device/queue_depth").read_text()) >= IN_FLIGHT
        words = ["--name=verify", f"--filename={stick.node}", "--rw=randwrite", "--bs=4k", f"--size={2 * MIB}"]
        words += ["--ioengine=libaio", "--direct=1", f"--iodepth={IN_FLIGHT}", "--verify=crc32c", "--verify_fatal=1"]
        said = tool("fio", *words, "--randseed=16", "--group_reporting")
        assert "err= 0" in said
        assert f"{IN_FLIGHT}=" in said.partition("IO depths")[2].splitlines()[0], said
