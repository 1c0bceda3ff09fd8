"""The kernel's drivers on the virtual stick, which check it independently of this project."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import scsiusb
from scsiusb.errors import DeviceGone
from scsiusb.usb.backend import Code, Handle
from scsiusb.usb.libusb.backend import libusb
from scsiusb.virtual import Memory
from tests.deadlines import within

from . import oracles
from .command import scsiusb as run
from .command import start
from .kernel_log import KernelLog, warnings
from .machine import USB, wait_for
from .mounting import mounted, tool
from .served import Served, served

assert sys.platform == "linux"

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

MIB = 1 << 20
POWERED = "Power-on or device reset occurred"  # logged for UNIT ATTENTION 29h/00h, which every stick reports first
EXPECTED_WARNINGS = (  # all but the first: what vhci_hcd says if the kernel still uses the device while it is detached
    POWERED,
    "vhci_hcd: sendmsg failed",
    "enqueue for inactive port",
    "speed not set",
)
COMPLAINT = re.compile(r"error(?! recovery)|malformed|truncated|unexpected|fail|too (long|short)", re.IGNORECASE)


class Complaints:
    """The kernel's log: a call returns the new warnings and errors, `lines` has all new lines."""

    def __init__(self, log: KernelLog) -> None:
        self._log = log
        self.lines: list[str] = []

    def __call__(self) -> list[str]:
        new = self._log.new()
        self.lines += [message.text for message in new]
        return [text for text in warnings(new) if not any(each in text for each in EXPECTED_WARNINGS)]


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    with closing(KernelLog()) as log:
        yield Complaints(log)


def image(folder: Path, size: int) -> Path:
    path = folder / "stick.img"
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("speed", ["high", "super"])
def test_a_file_system_made_through_the_kernels_driver_keeps_its_files(
    tmp_path: Path, complaints: Complaints, speed: str
) -> None:
    files = {f"file-{number}": os.urandom(8 * MIB) for number in range(4)}
    with served(image(tmp_path, 48 * MIB), speed=speed) as device:
        tool("mkfs.vfat", "-F", "32", "-n", "STICK", device.node)
        with mounted(device.node, tmp_path / "mount") as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
        tool("fsck.vfat", "-n", device.node)
        tool("blockdev", "--flushbufs", device.node)
        with mounted(device.node, tmp_path / "mount") as folder:
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    tool("fsck.vfat", "-n", tmp_path / "stick.img")
    assert complaints() == []


@pytest.fixture(scope="module")
def device() -> Iterator[Served]:
    """A stick in memory, shared by the tests that do not change it."""
    with served() as device:
        yield device


def decoded(*words: str | Path) -> str:
    """Run a tool of sg3-utils and return its output, which must have no complaint."""
    said = tool(*words)
    assert [line for line in said.splitlines() if COMPLAINT.search(line)] == [], f"{words}: {said}"
    return said


def test_sg3_utils_decode_every_reply(device: Served) -> None:
    sg = device.sg
    assert "Virtual Stick" in decoded("sg_inq", sg)
    assert "scsiusb" in decoded("sg_inq", "--len=36", sg)
    capacity = "Last LBA=16383 (0x3fff), Number of logical blocks=16384"
    assert capacity in decoded("sg_readcap", sg)
    assert capacity in decoded("sg_readcap", "--16", sg)
    assert oracles.luns(sg) == [0]
    decoded("sg_luns", sg)
    for six in ([], ["-6"]):
        assert "Caching" in decoded("sg_modes", "-a", *six, sg)
    decoded("sg_requests", sg)


def test_sg_vpd_decodes_every_page(device: Served) -> None:
    pages = oracles.supported_pages(device.sg)
    assert pages[0] == 0
    assert {0x80, 0x83, 0xB0} <= set(pages)
    for page in pages:
        decoded("sg_vpd", f"--page={page:#x}", device.sg)
        decoded("sg_inq", f"--page={page:#x}", device.sg)


def test_badblocks_finds_nothing(complaints: Complaints) -> None:
    with served(size=2 * MIB) as device:
        assert "(0/0/0 errors)" in tool("badblocks", "-w", "-v", "-b", "4096", device.node)
        tool("udevadm", "settle")  # of a disk that was written to udev has the partitions read again
    assert complaints() == []


@pytest.mark.parametrize("block_size", [2048, 4096])
def test_the_kernel_accepts_other_block_sizes(block_size: int, complaints: Complaints) -> None:
    with served(block_size=block_size) as device:
        assert oracles.readcap(device.sg) == (8 * MIB // block_size, block_size)
        assert tool("blockdev", "--getss", device.node) == f"{block_size}\n"
        medium = device.stick.units[0].medium
        assert isinstance(medium, Memory)
        medium.data[-block_size:] = os.urandom(block_size)
        assert device.device.units[0].kernel_read(medium.blocks - 1, 1) == bytes(medium.data[-block_size:])
    assert complaints() == []


def test_a_read_only_stick_is_read_only_for_the_kernel() -> None:
    with served(read_only=True) as device:
        assert tool("blockdev", "--getro", device.node) == "1\n"


def test_scsiusb_uses_the_stick_through_usbfs(device: Served) -> None:
    medium = device.stick.units[0].medium
    assert isinstance(medium, Memory)
    data = os.urandom(2 * MIB)
    with scsiusb.open(device.address) as disk:
        assert device.bound() == "usbfs"
        disk.write(100, data)
        disk.flush()
        assert bytes(medium.data[51200 : 51200 + len(data)]) == data
        assert disk.read(100, len(data) // 512) == data
    device.wait()
    assert device.device.units[0].kernel_read(100, 8) == data[:4096]
    assert run("inquiry", device.address, "--json").json()["product"] == "Virtual Stick"
    capacity = run("capacity", f"serial={device.serial}", "--json").json()
    assert capacity.pop("device")["serial"] == device.serial
    assert capacity == {"blocks": 16384, "block_size": 512, "bytes": 8 * MIB}
    device.wait()


@pytest.mark.parametrize("speed", ["full", "super"])
def test_scsiusb_uses_the_stick_at_other_speeds_without_a_kernel_driver(speed: str) -> None:
    with served(speed=speed, driver=None) as device:
        assert device.bound() is None
        with scsiusb.open(device.address) as disk:
            disk.write(5, b"\x5a" * 65536)
            assert disk.read(5, 128) == b"\x5a" * 65536
            assert speed in {info.speed for info in scsiusb.devices() if info.serial == device.serial}


ENDS = [
    ("case=6", Code.OK, 4096),
    ("stall=1024@data", Code.PIPE, 1024),
    ("short=700@data", Code.OK, 700),
    ("empty@data", Code.OK, 0),
    ("long=512@data", Code.OVERFLOW, 4096),
    ("nak@data", Code.TIMEOUT, 0),
    ("disconnect=1024@data", Code.NO_DEVICE, 1024),
]


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[Served, Handle]]:
    """A stick without a kernel driver, and a libusb handle to it."""
    with served(driver=None) as device, closing(libusb()) as backend:
        (found,) = (each for each in backend.devices() if each.address == device.address)
        with closing(backend.open(found)) as handle:
            handle.claim(0)
            yield device, handle


@pytest.mark.parametrize(("fault", "code", "moved"), ENDS, ids=[fault for fault, _, _ in ENDS])
def test_libusb_reports_each_way_that_a_transfer_ends(
    raw: tuple[Served, Handle], fault: str, code: Code, moved: int
) -> None:
    device, handle = raw
    read = struct.pack(">BxIxHx", 0x28, 0, 8)
    medium = device.stick.units[0].medium
    assert isinstance(medium, Memory)
    medium.data[:4096] = os.urandom(4096)
    device.stick.units[0].queue_attentions(0)
    device.stick.faults.add(fault)
    assert handle.bulk(0x02, memoryview(bytearray(cbw(7, 4096, read))), 5000) == (Code.OK, 31)
    buffer = bytearray(4096)
    assert handle.bulk(0x81, memoryview(buffer), within(1000)) == (code, moved)
    assert buffer[:moved] == medium.data[:moved]
    if code is Code.NO_DEVICE:
        return
    handle.control_out(0x21, 0xFF, 0, 0, b"", 5000)
    for endpoint in (0x81, 0x02):
        handle.clear_halt(endpoint)


def cbw(tag: int, length: int, cdb: bytes) -> bytes:
    """Return a CBW with direction IN (BOT 1.0 table 5.1)."""
    return struct.pack("<4sIIBBB16s", b"USBC", tag, length, 0x80, 0, len(cdb), cdb)


@pytest.mark.parametrize("speed", ["high", "super"])
def test_a_reset_of_the_port_resets_the_stick(complaints: Complaints, speed: str) -> None:
    """The kernel's vhci_hcd does not send a reset: the stick detects it by the requests that follow."""
    with served(speed=speed) as device:
        complaints()
        complaints.lines.clear()
        device.reset()
        assert device.stick.configuration == 1
        device.device.units[0].kernel_read(0, 8)
        complaints()
        assert [line for line in complaints.lines if POWERED in line]
        assert device.bound() == "usb-storage"


def test_a_stick_unplugged_in_use_is_gone_and_works_after_a_replug() -> None:
    with served() as device:
        with scsiusb.open(device.address) as disk:
            disk.read(0, 8)
            device.server.unplug()
            with pytest.raises(DeviceGone):
                while True:
                    disk.read(0, 8)
        device.detach()
        device.attach()
        device.wait()
        assert device.device.units[0].kernel_read(0, 8) == bytes(4096)


@contextmanager
def program(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program; kill it at the end of the test."""
    with start(*words) as process:
        try:
            yield process
        finally:
            process.kill()


def test_virtual_serve_works_with_the_usbip_tool(tmp_path: Path, complaints: Complaints) -> None:
    path, serial = tmp_path / "stick.img", "5C5100C0FFEE"
    words = ("virtual", "serve", path, "--create", "16M", "--port", "0", "--serial", serial, "--json", "-v")
    with program(*words) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert (started["host"], started["busid"]) == ("127.0.0.1", "1-1")
        usbip = ("usbip", "--tcp-port", str(started["port"]))
        assert "1-1" in tool(*usbip, "list", "-r", started["host"])
        tool(*usbip, "attach", "-r", started["host"], "-b", started["busid"])
        wait_for(lambda: _node(serial), "the kernel to have the stick")
        content = os.urandom(MIB)
        with Path("/dev", _node(serial)).open("r+b", buffering=0) as disk:
            disk.write(content)
            os.fsync(disk.fileno())
        ports = re.split(r"^Port (?=\d)", tool("usbip", "port"), flags=re.MULTILINE)
        (port,) = (each[:2] for each in ports if f"127.0.0.1:{started['port']}/1-1" in each)
        tool("usbip", "detach", "-p", port)
        wait_for(lambda: not _node(serial), "the kernel to forget the stick")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0
    assert path.read_bytes()[:MIB] == content
    assert b"127.0.0.1 attached the stick" in said
    assert b"command 2a 00" in said
    assert complaints() == []


def _node(serial: str) -> str:
    """Return the name of the block device, or an empty string."""
    for path in (USB / "devices").glob("*/serial"):
        try:
            if path.read_text().strip() == serial:
                found = path.parent.glob(f"{path.parent.name}:1.0/host*/target*/*/block/*")
                return next((each.name for each in found), "")
        except OSError:
            continue
    return ""
