"""The devices that a virtual stick plays, as a host sees them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import scsiusb
from scsiusb import Disk, RawCommand
from scsiusb.ata.device import read_smart
from scsiusb.imaging.looking import glance, look
from scsiusb.imaging.probing import probe
from scsiusb.scsi.commands.mmc_burn import Blank, CloseTrackSession, SendOpc
from scsiusb.scsi.commands.mmc_disc import ReadDiscInformation, ReadToc, ReadTrackInformation
from scsiusb.scsi.commands.mmc_drive import GetConfiguration
from scsiusb.scsi.commands.sbc import Unmap
from scsiusb.scsi.commands.spc_support import ReportSupportedOperationCodes, SupportedCommand
from scsiusb.scsi.commands.zbc import CloseZone, FinishZone, OpenZone, ReportZones, ResetWritePointer, Zone
from scsiusb.scsi.modes import read_pages
from scsiusb.scsi.pages.vpd import FieldsPage, LogicalBlockProvisioning
from scsiusb.virtual.address import open_stick
from scsiusb.virtual.profiles import PROFILES

CD = 2048
GEOMETRY = ("XRATE", "NUM_HD", "SECT_TR", "NUM_CYL", "MRR")


def play(profile: str, options: str = "") -> Disk:
    return scsiusb.open(f"virtual:?profile={profile}{options}")


@pytest.mark.parametrize("profile", PROFILES)
def test_each_can_be_opened_read_and_asked_for_its_identity(profile: str) -> None:
    with play(profile) as disk:
        assert disk.inquiry().product
        assert len(disk.read(0, 4)) == 4 * disk.block_size
        assert read_pages(disk.unit)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("protocol", ["bot", "uas", "both"])
def test_each_by_each_protocol(profile: str, protocol: str) -> None:
    with play(profile, f"&protocol={protocol}") as disk:
        assert len(disk.read(0, 4)) == 4 * disk.block_size


@pytest.mark.parametrize(
    ("name", "is_thin"),
    [("", False), ("thin=yes", True), ("profile=sat-ssd", True), ("profile=sat-ssd&thin=no", False)],
)
def test_a_thin_disk_unmaps_blocks_and_says_so(name: str, is_thin: bool) -> None:
    with scsiusb.open(f"virtual:?{name}") as disk:
        disk.write(100, b"x" * 512)
        if not is_thin:
            with pytest.raises(scsiusb.IllegalRequest):
                disk.unit.execute(Unmap(100, 1))
            return
        disk.unit.execute(Unmap(100, 1))
        assert disk.read(100, 1) == bytes(512)
        assert isinstance(disk.unit.vpd(0xB2), LogicalBlockProvisioning)


# --- zones ----------------------------------------------------------------------------------------


def zones(disk: Disk, options: int = 0, lba: int = 0) -> tuple[Zone, ...]:
    return disk.unit.execute(ReportZones(lba=lba, options=options)).zones


def test_zones_follow_what_is_written() -> None:
    with play("smr") as disk:
        found = zones(disk)
        assert sum(zone.blocks for zone in found) == disk.blocks
        assert [zone.kind for zone in found] == [1] * 8 + [3] * 24
        zone = found[8]
        disk.write(zone.lba, bytes(5 * 512))
        assert zones(disk)[8] == Zone(zone.lba, zone.blocks, 3, 2, zone.lba + 5, reset_recommended=False)
        disk.write(zone.lba + 5, bytes((zone.blocks - 5) * 512))
        assert zones(disk, 5) == (zones(disk)[8],), "the only one that is full"
        disk.write(found[9].lba + 1, b"x" * 512)  # not where its pointer is
        assert [each.lba for each in zones(disk, 0x11)] == [found[9].lba]
        assert disk.read(found[9].lba, 2) == bytes(512) + b"x" * 512, "host-aware: it is read as any block"
        disk.unit.execute(ResetWritePointer(lba=found[9].lba))
        assert disk.read(found[9].lba, 2) == bytes(1024)
        assert [each.condition for each in zones(disk, lba=found[8].lba)[:3]] == [14, 1, 1]


def test_zones_are_opened_closed_and_finished() -> None:
    with play("smr") as disk:
        lba = zones(disk)[10].lba

        def condition() -> int:
            return zones(disk, lba=lba)[0].condition

        conditions = []
        for command in (OpenZone(lba), CloseZone(lba), OpenZone(lba), FinishZone(lba), OpenZone(lba)):
            disk.unit.execute(command)
            conditions.append(condition())
        assert conditions == [3, 1, 3, 14, 14]
        disk.unit.execute(OpenZone(zones(disk)[11].lba))
        disk.write(zones(disk)[11].lba, bytes(512))
        assert [each.lba for each in zones(disk, 3)] == [zones(disk)[11].lba]
        disk.unit.execute(CloseZone(0, all_zones=True))
        assert [each.lba for each in zones(disk, 4)] == [zones(disk)[11].lba]
        disk.unit.execute(ResetWritePointer(0, all_zones=True))
        assert len(zones(disk, 1)) == 24
        assert len(zones(disk, 0x3F)) == 8
        assert zones(disk, 0x10) == ()


@pytest.mark.parametrize("command", [OpenZone(0), ResetWritePointer(1), ReportZones(options=9), FinishZone(3)])
def test_a_zone_that_is_none_is_refused(command: scsiusb.Command[object]) -> None:
    with play("smr") as disk, pytest.raises(scsiusb.IllegalRequest):
        disk.unit.execute(command)
    with play("smr") as disk, pytest.raises(scsiusb.LbaOutOfRange):
        disk.unit.execute(ReportZones(lba=disk.blocks))


def test_a_disk_with_zones_says_so_and_others_do_not_have_the_commands() -> None:
    with play("smr") as disk:
        characteristics, zoned = disk.unit.vpd(0xB1), disk.unit.vpd(0xB6)
        assert isinstance(characteristics, FieldsPage)
        assert isinstance(zoned, FieldsPage)
        assert (characteristics.fields["zoned"], zoned.fields["optimal_open_zones"]) == (1, 4)
        codes = {(each.opcode, each.service) for each in commands(disk)}
        assert {(0x95, 0), (0x94, 1), (0x94, 4)} <= codes
        assert read_smart(disk.unit).via == "sat"
    with play("sat-hdd") as disk:
        assert not {0x94, 0x95} & {each.opcode for each in commands(disk)}
        with pytest.raises(scsiusb.UnsupportedOpcode):
            disk.unit.execute(ReportZones())


def commands(disk: Disk) -> tuple[SupportedCommand, ...]:
    return disk.unit.execute(ReportSupportedOperationCodes()).commands


# --- a CD that is blanked and written ---------------------------------------------------------------


def burn(lba: int, data: bytes) -> RawCommand:
    return RawCommand(bytes((0x2A, 0)) + lba.to_bytes(4, "big") + bytes((0, 0, len(data) // CD, 0)), data=data)


def test_a_disc_is_blanked_written_in_order_and_closed(tmp_path: Path) -> None:
    image, content = tmp_path / "disc.iso", random.Random(8).randbytes(300 * CD)
    image.write_bytes(b"\xa5" * (1000 * CD))
    with scsiusb.open(f"virtual:{image}?profile=cd-rw") as disk:
        unit = disk.unit
        assert disk.read(999, 1) == b"\xa5" * CD
        assert unit.execute(GetConfiguration()).profile == 0x000A
        before = unit.execute(ReadDiscInformation())
        assert (before.disc, before.erasable) == (2, True)
        with pytest.raises(scsiusb.IllegalRequest, match="5/64/00"):
            disk.write(0, bytes(CD))
        unit.execute(Blank())
    assert image.read_bytes() == bytes(1000 * CD)

    with open_stick(f"virtual:{image}?profile=cd-rw") as stick:
        bus = scsiusb.virtual.Bus(stick)
        with scsiusb.open_on(bus) as disk:
            disk.unit.execute(Blank(kind=0))
            disk.unit.execute(SendOpc())
        with scsiusb.open_on(bus) as disk:
            unit = disk.unit
            assert unit.execute(ReadDiscInformation()).disc == 0
            assert unit.execute(ReadTrackInformation(1)).blank
            with pytest.raises(scsiusb.MediumError, match="3/57/00"):
                unit.execute(ReadToc())
            with pytest.raises(scsiusb.IllegalRequest, match="5/21/02"):
                unit.execute(burn(16, bytes(CD)))
            for at in range(0, 300, 50):
                unit.execute(burn(at, content[at * CD : (at + 50) * CD]))
            track = unit.execute(ReadTrackInformation(1))
            assert (track.next_writable, track.free, track.blank) == (300, 700, False)
            assert unit.execute(ReadDiscInformation()).disc == 1
            unit.execute(CloseTrackSession(function=1))
            assert unit.execute(ReadDiscInformation()).disc == 1
            unit.execute(CloseTrackSession(function=2))
            assert unit.execute(ReadDiscInformation()).disc == 2
        with scsiusb.open_on(bus) as disk:
            assert disk.blocks == 300
            assert disk.read(0, 300) == content
            assert [track.start for track in disk.unit.execute(ReadToc()).tracks] == [0, 300]
    assert image.read_bytes()[: 300 * CD] == content


def test_the_drive_has_the_page_of_write_parameters_where_disks_have_geometry() -> None:
    with play("cd-rw") as disk:
        pages = {page.name: page.fields for page in read_pages(disk.unit)}
    assert pages["writing"]["WR_T"].current == 1
    assert pages["optical"]["CD_RW_W"].current == 1
    assert "flexible" not in pages


# --- a floppy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "sectors"), [(1440, 9), (2880, 18)])
def test_a_floppy_drive_has_its_geometry_and_no_vital_product_data(tmp_path: Path, blocks: int, sectors: int) -> None:
    image = tmp_path / "floppy.img"
    image.write_bytes(bytes(blocks * 512))
    with scsiusb.open(f"virtual:{image}?profile=floppy") as disk:
        (page,) = [page.fields for page in read_pages(disk.unit) if page.code == 5]
        assert [page[name].current for name in GEOMETRY] == [500, 2, sectors, 80, 300]
        disk.write(7, b"floppy! " * 64)
        assert disk.read(7, 1) == b"floppy! " * 64
        with pytest.raises(scsiusb.IllegalRequest):
            disk.unit.vpd(0x83)
        with pytest.raises(scsiusb.UnsupportedOpcode):
            commands(disk)


def test_a_file_of_another_size_is_no_floppy(tmp_path: Path) -> None:
    image = tmp_path / "floppy.img"
    image.write_bytes(bytes(512))
    with pytest.raises(ValueError, match="737,280 or 1,474,560 bytes, not 512"):
        scsiusb.open(f"virtual:{image}?profile=floppy")


# --- a counterfeit ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_counterfeit_is_seen_by_reading_and_proved_by_writing() -> None:
    with play("counterfeit") as disk:
        assert glance(disk).repeats_after == disk.blocks // 4
        found = probe(disk, destructive=True)
        assert (found.kind, found.usable_blocks) == ("wraparound", disk.blocks // 4)
    with play("counterfeit", "&fake=limbo:2M") as disk:
        assert probe(disk, destructive=True).kind == "limbo"


def test_an_honest_stick_is_not_accused() -> None:
    with play("flash") as disk:
        noise = random.Random(1).randbytes(512 * 256)
        for lba in range(0, disk.blocks, 1024):
            disk.write(lba, noise)  # copies, but not where a counterfeit would have them
        disk.write(0, random.Random(2).randbytes(512 * 64))
        assert glance(disk).repeats_after is None
        assert look(disk, lambda _: None).kind == "unknown"


def test_a_glance_at_a_disk_that_cannot_be_read_ends_soon() -> None:
    with play("flash", "&bad=0-16383") as disk:
        found = glance(disk)
    assert (found.kind, found.findings) == ("damaged", ("none of 3 blocks can be read",))


@pytest.mark.parametrize(
    ("options", "message"), [("floppy&bridge=sat", "a floppy has none"), ("smr&bridge=usbjmicron", "has no smr")]
)
def test_a_bridge_that_does_not_fit_is_named(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scsiusb.open(f"virtual:?profile={options}")
