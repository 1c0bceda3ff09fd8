"""An ISO image in a CD drive: QEMU's, which has a tray, and the kernel's gadget, whose disc is its file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import oracles
from .command import scsiusb as cli
from .machine import Device, share, wait_for
from .mounting import tool
from .plugging import GADGETS
from .qmp import qmp

BLOCK = 2048  # bytes
READ_TOC = bytes.fromhex("43000000000000032400")  # format 0, 804 bytes
DRIVE = "cdrom-lun0"
CHECKOUT = "image-checkout"  # a node of QEMU's whose file is beside the folder that the guest shares


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make an ISO image in the folder that is shared with the host."""
    content = tmp_path_factory.mktemp("content")
    (content / "random.bin").write_bytes(random.Random(9660).randbytes(3_000_001))
    (content / "read me.txt").write_text("made by a test\n")
    image = share() / "disc.iso"
    tool("genisoimage", "-quiet", "-J", "-V", "SCSIUSB", "-o", image, content)
    yield image
    image.unlink()


def is_seen(device: Device, lun: int, iso: Path) -> None:
    """Check what our commands say of the disc against the image, and against what the kernel's driver is told."""
    content = iso.read_bytes()
    blocks = len(content) // BLOCK
    place = (device.address, "--lun", lun)
    tracks = cli("toc", *place, "--json").json()["tracks"]
    assert [(row["track"], row["kind"], row["lba"]) for row in tracks] == [
        (1, "data", 0),
        ("lead-out", "lead-out", blocks),
    ]
    assert tracks[0]["blocks"] == blocks
    assert cli("read", *place, "--lba", 0, "--blocks", blocks).ok().out == content
    told = oracles.raw(device.units[lun].sg, READ_TOC, 804)
    assert cli("raw", *place, READ_TOC.hex(), "--in", 804).ok().out == told


def tray_is_open() -> bool:
    (drive,) = [each for each in qmp("query-block") if each.get("qdev") == DRIVE]
    return bool(drive["tray_open"])


@contextmanager
def inserted(iso: Path) -> Iterator[None]:
    """Insert the disc into QEMU's drive; take it out at the end, and leave the tray closed."""
    (checkout,) = [each for each in qmp("query-named-block-nodes") if each["node-name"] == CHECKOUT]
    on_host = Path(checkout["file"]).parent / "share" / iso.name
    qmp("blockdev-change-medium", id=DRIVE, filename=str(on_host), format="raw")
    try:
        yield
    finally:
        qmp("blockdev-open-tray", id=DRIVE, force=True)
        qmp("blockdev-remove-medium", id=DRIVE)
        qmp("blockdev-close-tray", id=DRIVE)


@pytest.mark.qemu("a CD drive with a tray")
def test_a_disc_is_read_ejected_and_loaded(cdrom: Device, iso: Path) -> None:
    with inserted(iso):
        is_seen(cdrom, 0, iso)
        features = cli("features", cdrom.address, "--json").json()
        assert features["current_profile_name"] in ("CD-ROM", "DVD-ROM")
        assert features["current_profile"] in [profile["profile"] for profile in features["profiles"]]
        cli("eject", cdrom.address).ok()
        wait_for(tray_is_open, "the tray to open")
        refused = cli("toc", cdrom.address)
        assert refused.status
        assert "medium" in refused.err
        cli("load", cdrom.address).ok()
        wait_for(lambda: not tray_is_open(), "the tray to close")
        is_seen(cdrom, 0, iso)


def test_the_gadgets_disc_is_exchanged_for_an_iso(gadget_super: Device, iso: Path) -> None:
    lun = next(unit.lun for unit in gadget_super.units if unit.type == "cdrom")
    file = GADGETS / gadget_super.name / "functions" / "mass_storage.0" / f"lun.{lun}" / "file"
    before = file.read_text()
    file.write_text(f"{iso}\n")
    try:
        is_seen(gadget_super, lun, iso)
    finally:
        file.write_text(before)
