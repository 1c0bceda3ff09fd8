"""Every refusal is one line with the right exit status, and changes nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import scsiusb

from .command import NOBODY, as_user, start
from .command import scsiusb as cli
from .machine import Device, wait_for

assert sys.platform == "linux"

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

MAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
descriptor = os.open(sys.argv[1], os.O_RDWR)
libc.mmap(None, 4096, 3, 1, descriptor, 0)  # PROT_READ | PROT_WRITE, MAP_SHARED
os.close(descriptor)
print("mapped", flush=True)
sys.stdin.readline()
"""  # not by Python's mmap, which keeps a descriptor of its own
PARTITION = 1 << 20  # where the FAT stick's partition begins


def one_line(error: str) -> bool:
    return error.startswith("scsiusb: error: ") and error.count("\n") == 1 and "; " in error


@pytest.fixture
def mounted(fat: Device, tmp_path: Path) -> Path:
    partition = fat.units[0].partition
    subprocess.run(["mount", "-t", "vfat", partition, tmp_path], check=True)
    return tmp_path


def test_a_mounted_stick_is_refused_and_the_mount_stays_usable(fat: Device, mounted: Path) -> None:
    try:
        (mounted / "before.txt").write_text("before")
        for words in (["capacity"], ["read", "--lba", "0"], ["raw", "000000000000"]):
            ended = cli(words[0], fat.address, *words[1:])
            assert ended.status == 15
            assert str(mounted) in ended.err
            assert one_line(ended.err)
            assert fat.bound() == "usb-storage"
        with pytest.raises(scsiusb.DeviceBusy, match=str(mounted)):
            scsiusb.open(fat.address)
        (mounted / "after.txt").write_text("after")
        os.sync()
        assert (mounted / "before.txt").read_text() == "before"
    finally:
        subprocess.run(["umount", mounted], check=True)
    subprocess.run(["fsck.vfat", "-n", fat.units[0].partition], check=True)
    assert cli("capacity", fat.address, "--json").json()["blocks"] == fat.units[0].blocks


def test_a_disk_that_another_process_holds_without_a_mount_is_refused(fat: Device) -> None:
    """A mount in another namespace looks like this: only an exclusive open detects it."""
    held = os.open(fat.units[0].partition, os.O_RDONLY | os.O_EXCL)
    try:
        ended = cli("capacity", fat.address)
        assert ended.status == 15
        assert one_line(ended.err)
        assert fat.bound() == "usb-storage"
    finally:
        os.close(held)


def refused(stick: Device, *why: str) -> None:
    ended = cli("capacity", stick.address)
    assert ended.status == 15
    assert one_line(ended.err)
    for part in why:
        assert part in ended.err
    with pytest.raises(scsiusb.DeviceBusy):
        scsiusb.open(stick.address)
    assert stick.bound() == "usb-storage"


def test_a_mount_through_a_loop_device_is_refused(fat: Device, tmp_path: Path) -> None:
    partition = fat.units[0].partition
    subprocess.run(["modprobe", "loop"], check=False)
    loop = subprocess.run(["losetup", "-f", "--show", partition], check=True, capture_output=True, text=True).stdout
    try:
        refused(fat, f"{partition} is held by {Path(loop.strip()).name}")
        subprocess.run(["mount", "-t", "vfat", loop.strip(), tmp_path], check=True)
        try:
            refused(fat, str(tmp_path))
        finally:
            subprocess.run(["umount", tmp_path], check=True)
    finally:
        subprocess.run(["losetup", "-d", loop.strip()], check=True)


@contextmanager
def looped(*words: object) -> Iterator[str]:
    """Make a loop device; yield its node."""
    command = ["losetup", "--find", "--show", *map(str, words)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield made
    finally:
        subprocess.run(["losetup", "-d", made], check=True)


@pytest.mark.parametrize("where", ["here", "another mount namespace"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_mount_through_loop_devices_on_a_part_of_the_whole_disk_is_refused_and_stays_usable(
    fat: Device, tmp_path: Path, depth: int, where: str
) -> None:
    subprocess.run(["modprobe", "loop"], check=False)
    mount = f"mount -t vfat $1 {tmp_path} && echo mounted && read go && date >{tmp_path}/after && sync && ls {tmp_path}"
    prefix = ["unshare", "-m"] if where != "here" else []
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        node = stack.enter_context(looped("-o", PARTITION, fat.units[0].node))
        if depth == 2:
            node = stack.enter_context(looped(node))
        command = [*prefix, "sh", "-c", f"{mount}; umount {tmp_path}", "sh", node]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "mounted\n"
            refused(fat, str(tmp_path))
            output, _ = other.communicate("go\n", timeout=60)
    assert "after" in output.split()
    assert cli("capacity", fat.address).status == 0


def test_a_mount_in_another_mount_namespace_is_refused_for_root_and_for_a_user_without_rights_to_the_disk(
    fat: Device, tmp_path: Path
) -> None:
    mount = f"mount -t vfat {fat.units[0].partition} {tmp_path} && echo mounted && read end"
    pipe = subprocess.PIPE
    with subprocess.Popen(["unshare", "-m", "sh", "-c", mount], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "mounted\n"
        bus, number = (int((fat.folder / name).read_text()) for name in ("busnum", "devnum"))
        node = Path(f"/dev/bus/usb/{bus:03}/{number:03}")
        mode = node.stat().st_mode & 0o777
        try:
            refused(fat, str(tmp_path), "another mount namespace")
            node.chmod(0o666)
            ended = as_nobody("capacity", fat.address)
            assert ended.returncode == 15
            assert "another mount namespace" in ended.stderr
        finally:
            node.chmod(mode)
            other.stdin.close()
    assert fat.bound() == "usb-storage"


@pytest.mark.parametrize("which", ["node", "partition"])
def test_a_disk_that_a_program_has_open_for_writing_is_refused(fat: Device, which: str) -> None:
    node: Path = getattr(fat.units[0], which)
    descriptor = os.open(node, os.O_RDWR)
    try:
        refused(fat, f"{node} is open for writing in pid {os.getpid()}")
        block = os.pread(descriptor, 4096, 0)
        assert os.pwrite(descriptor, block, 0) == len(block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    assert cli("capacity", fat.address).status == 0


def test_a_disk_that_a_program_writes_to_by_another_name_or_by_its_memory_alone_is_refused(fat: Device) -> None:
    """As a container does, which may have the node under any name."""
    node, name = fat.units[0].node, Path("/var/tmp") / f"scsiusb-{os.getpid()}"  # where there may be nodes
    os.mknod(name, 0o600 | stat.S_IFBLK, node.stat().st_rdev)
    try:
        descriptor = os.open(name, os.O_RDWR)
    finally:
        name.unlink()
    try:
        refused(fat, f"{name} is open for writing in pid {os.getpid()}")
    finally:
        os.close(descriptor)
    other = subprocess.Popen(
        [sys.executable, "-c", MAP, node], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mapped\n"
        refused(fat, f"{node} is mapped for writing in pid {other.pid}")
        other.communicate("end\n", timeout=60)
    assert cli("capacity", fat.address).status == 0


def test_a_disk_that_the_kernel_exports_as_a_gadgets_is_refused(fat: Device) -> None:
    function = Path("/sys/kernel/config/usb_gadget/export/functions/mass_storage.0")
    function.parent.parent.mkdir()
    try:
        function.mkdir()
        (function / "lun.0/file").write_text(str(fat.units[0].node))
        refused(fat, f"{fat.units[0].node} is exported by the kernel")
        (function / "lun.0/file").write_text("\n")
        function.rmdir()
    finally:
        function.parent.parent.rmdir()
    assert cli("capacity", fat.address).status == 0


def test_swap_is_refused(fat: Device) -> None:
    node = fat.units[0].partition
    saved = node.read_bytes()
    subprocess.run(["mkswap", node], check=True, capture_output=True)
    subprocess.run(["swapon", node], check=True)
    try:
        ended = cli("capacity", fat.address)
        assert ended.status == 15
        assert "swap" in ended.err
    finally:
        subprocess.run(["swapoff", node], check=True)
        with node.open("r+b") as file:
            file.write(saved)
            os.fsync(file.fileno())


def test_a_second_process_is_refused_and_the_error_names_the_holder(stick: Device) -> None:
    with scsiusb.open(stick.address) as disk, start("inquiry", stick.address) as second:
        _, error = second.communicate(timeout=120)
        assert disk.read(0, 8) == stick.units[0].backing(0, 8)
    assert second.returncode == 15
    assert f"pid {os.getpid()}" in error.decode()
    assert one_line(error.decode())


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["capacity"], 15),  # several are attached
        (["capacity", "46f4:0001"], 15),
        (["capacity", "9-9"], 15),
        (["capacity", "serial=none"], 15),
        (["read", "ADDRESS", "--lba", "-1"], 1),
        (["read", "ADDRESS", "--lba", "131109"], 22),
        (["read", "ADDRESS", "--lba", "131108", "--blocks", "2"], 22),
        (["read", "ADDRESS", "--blocks", "99999999999999999999999"], 22),
        (["read", "ADDRESS", "-o", "/dev/full"], 15),
        (["read", "ADDRESS", "-o", "/nonexistent/file"], 15),
        (["write", "ADDRESS", "--lba", "0", "-i", "/etc/hostname", "--yes"], 1),
        (["write", "ADDRESS", "--lba", "0", "-i", "/nonexistent", "--yes"], 15),
        (["write", "ADDRESS", "--lba", "0", "-i", "/", "--yes"], 15),
        (["raw", "ADDRESS", "12 0"], 1),
        (["raw", "ADDRESS", "nonsense"], 1),
        (["inquiry", "ADDRESS", "--lun", "9"], 15),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(stick: Device, words: list[str], status: int) -> None:
    before = (stick.units[0].device.folder / "urbnum").read_text()
    ended = cli(*(stick.address if word == "ADDRESS" else word for word in words))
    assert ended.status == status
    assert one_line(ended.err)
    assert ended.out == b""
    if status == 1 and words[0] != "write":
        assert (stick.folder / "urbnum").read_text() == before, "something was sent to the device"


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    command = [*as_user(NOBODY), sys.executable, "-m", "scsiusb", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_permission(stick: Device) -> None:
    ended = as_nobody("inquiry", stick.address)
    assert ended.returncode == 15
    assert "permission" in ended.stderr
    assert "udev" in ended.stderr
    assert one_line(ended.stderr)
    assert stick.serial in as_nobody("list").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_device_is_released_after_a_signal_in_a_long_read(stick: Device, tmp_path: Path, number: int) -> None:
    output = tmp_path / "image"
    process = start("read", stick.address, "--blocks", stick.units[0].blocks, "-o", output)
    interrupt(process, lambda: output.exists() and output.stat().st_size > 1 << 20, number)
    answers_again(stick)


def test_the_device_is_released_after_ctrl_c_in_a_long_write(scratch: Device, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(scratch.units[0].size)
    written = scratch.folder / "urbnum"
    before = int(written.read_text())
    process = start("write", scratch.address, "--lba", 0, "-i", image, "--yes", "--verify")
    interrupt(process, lambda: int(written.read_text()) > before + 100, signal.SIGINT)
    answers_again(scratch)


def interrupt(process: subprocess.Popen[bytes], running: Callable[[], bool], number: int) -> None:
    with process:
        wait_for(running, "the command to be running")
        assert process.poll() is None, "it ended before the signal"
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert b"Traceback" not in error


def answers_again(device: Device) -> None:
    wait_for(device.ready, f"the kernel to have {device} again")
    unit = device.units[0]
    assert unit.kernel_read(0, 64) == unit.backing(0, 64)
    with scsiusb.open(device.address) as disk:
        assert disk.read(0, 64) == unit.backing(0, 64)
