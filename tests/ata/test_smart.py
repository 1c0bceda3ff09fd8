"""ATA commands through a bridge: what disks say of their health, by each form of the commands and of the sense data."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import scsiusb
from scsiusb import Disk, IllegalRequest, MalformedReply, Sense, UnsupportedOpcode
from scsiusb.ata.device import read_smart
from scsiusb.ata.health import Figures, figures, judge
from scsiusb.ata.identify import IdentifyData
from scsiusb.ata.nvme import NvmeIdentity, NvmeSmart
from scsiusb.ata.passthrough import AtaPassThrough12, AtaPassThrough16, registers_of
from scsiusb.ata.power import power_mode
from scsiusb.ata.self_test import begin_self_test, read_self_test
from scsiusb.ata.smart import KEY, NAMES, Attribute, Smart, parse_attributes
from scsiusb.errors import DeviceUnsupported
from scsiusb.transport.base import Direction
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.target.ata import HEALTHS, KINDS, AtaDisk


@contextmanager
def opened(disk: AtaDisk | None, unit: Unit | None = None) -> Iterator[Disk]:
    unit = unit or Unit(Memory(512 * 100), ata=disk)
    with scsiusb.open_on(Bus(Stick([unit]))) as opened_disk:
        yield opened_disk


def test_cdbs_are_those_of_smartctl() -> None:
    """As `smartctl -r ioctl,2 -d sat` and `-d sat,12` print them."""
    assert AtaPassThrough16(0xEC).cdb().hex(" ") == "85 08 0e 00 00 00 01 00 00 00 00 00 00 00 ec 00"
    assert AtaPassThrough16(0xB0, 0xD0, 1, KEY).cdb().hex(" ") == "85 08 0e 00 d0 00 01 00 00 00 4f 00 c2 00 b0 00"
    without_data = AtaPassThrough16(0xB0, 0xDA, 0, KEY, 0, Direction.NONE, 0, check=True)
    assert without_data.cdb().hex(" ") == "85 06 20 00 da 00 00 00 00 00 4f 00 c2 00 b0 00"
    assert AtaPassThrough12(0xB0, 0xD0, 1, KEY).cdb().hex(" ") == "a1 08 0e d0 01 00 4f c2 00 b0 00 00"
    short = AtaPassThrough12(0xB0, 0xDA, 0, KEY, 0, Direction.NONE, 0, check=True)
    assert short.cdb().hex(" ") == "a1 06 20 da 00 00 4f c2 00 b0 00 00"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("health", HEALTHS)
@pytest.mark.parametrize("short_only", [False, True])
def test_a_disk_says_how_it_is(kind: str, health: str, short_only: bool) -> None:
    with opened(AtaDisk(kind, health, short_only=short_only)) as disk:
        found = read_smart(disk.unit)
    assert isinstance(found, Smart)
    assert found.via == ("sat,12" if short_only else "sat")
    assert (found.identity.model, found.identity.blocks, found.identity.block_size) == (KINDS[kind][0], 100, 512)
    assert (found.identity.rotation_rate, found.identity.checksum_fits) == (KINDS[kind][1], True)
    assert found.attributes[0].name in ("reallocated_sectors", "raw_read_error_rate")
    assert (found.passed, found.problems) == (health != "failing", ())
    assert judge(found).verdict == health


def test_the_short_form_alone_is_sent_where_it_is_asked_for() -> None:
    """Some bridges hang at the longer one, and docs/howto/health.md names the dialect."""
    unit = Unit(Memory(512 * 100), ata=AtaDisk(short_only=True))
    sent: list[int] = []
    before = unit.execute
    unit.execute = lambda cdb: sent.append(cdb[0]) or before(cdb)  # type: ignore[method-assign, func-returns-value]
    with opened(None, unit) as disk:
        assert read_smart(disk.unit, "sat,12").passed
        assert power_mode(disk.unit, "sat,12") == "active or idle"
        begin_self_test(disk.unit, "short", "sat,12")
        assert read_self_test(disk.unit, "sat,12").running
    assert 0xA1 in sent
    assert 0x85 not in sent


def test_a_bridge_without_registers_leaves_the_status_open() -> None:
    with opened(AtaDisk("sat-ssd", "good", has_registers=False)) as disk:
        found = read_smart(disk.unit)
    assert (found.passed, found.problems) == (None, ("the bridge does not return the status",))
    assert judge(found).verdict == "good", "by its attributes"


def test_a_stick_has_none() -> None:
    with opened(None) as disk, pytest.raises(UnsupportedOpcode):
        read_smart(disk.unit)
    assert judge(None).verdict == "unknown"


def test_an_optical_drive_never_gets_the_short_form_which_blanks_its_disc() -> None:
    drive = Unit.cd_rom(Memory(2048 * 10, 2048))
    sent: list[int] = []
    before = drive.execute
    drive.execute = lambda cdb: sent.append(cdb[0]) or before(cdb)  # type: ignore[method-assign, func-returns-value]
    with opened(None, drive) as disk, pytest.raises(DeviceUnsupported, match="type CD/DVD"):
        read_smart(disk.unit)
    assert not {0x85, 0xA1}.intersection(sent)


def test_registers_come_in_both_formats_of_sense_data() -> None:
    fixed = bytes.fromhex("70 00 01 04 51 00 05 0a 00 11 22 33 00 1d 00 00 00 00")
    described = bytes.fromhex("72 01 00 1d 00 00 00 0e 09 0c 00 04 00 05 00 11 00 22 00 33 00 51")
    for raw in (fixed, described):
        found = registers_of(Sense.parse(raw))
        assert found is not None
        assert tuple(found) == (4, 0x51, 5, 0x332211)
    assert registers_of(Sense.parse(fixed[:12] + bytes(6))) is None, "another additional sense"
    assert registers_of(Sense.parse(described[:20])) is None


def test_an_aborted_command_is_an_error() -> None:
    from scsiusb.ata.passthrough import Ata

    with opened(AtaDisk()) as disk:
        ata = Ata(disk.unit)
        assert ata.registers(0xE5) == (0, 0x50, 0xFF, 0), "CHECK POWER MODE: active"
        with pytest.raises(scsiusb.CheckCondition):
            ata.registers(0x77)
        with pytest.raises(scsiusb.CheckCondition):
            ata.read(0xB0, features=0xD0)


def identification(**words: int) -> bytes:
    values = [0] * 256
    values[27], values[82], values[83] = 0x4142, 1, 0x0400
    for name, value in words.items():
        values[int(name[1:])] = value
    return struct.pack("<256H", *values)


@pytest.mark.parametrize(
    ("words", "now", "possible"),
    [
        ({"w76": 0x000E, "w77": 0x0002}, "1.5 Gb/s", "6.0 Gb/s"),
        ({"w76": 0x0006}, None, "3.0 Gb/s"),
        ({"w76": 0xFFFF}, None, None),
        ({}, None, None),
    ],
)
def test_the_speeds_of_the_sata_link(words: dict[str, int], now: str | None, possible: str | None) -> None:
    found = IdentifyData.parse(identification(**words))
    assert (found.link_speed, found.fastest_link) == (now, possible)


def test_figures_that_are_no_counts_are_not_known() -> None:
    rows = [(5, 100, 1 << 40), (197, 100, 3), (233, 0, 0), (231, 88, 0)]
    attributes = tuple(Attribute(n, NAMES[n], value, value, 0, raw, False) for n, value, raw in rows)
    disk = Smart("sat", IdentifyData.parse(identification()), True, attributes, ())
    assert figures(disk) == Figures(life_left=88, reallocated=None, pending=3)
    assert figures(None) == Figures()
    assert figures(NvmeSmart("sntasmedia", NvmeIdentity("", "", "", None, 1, ""), None, ())) == Figures()


def test_sizes_of_sectors() -> None:
    found = IdentifyData.parse(identification(w100=1000, w106=0x6003))
    assert (found.block_size, found.physical_size, found.blocks) == (512, 4096, 1000)
    found = IdentifyData.parse(identification(w100=1000, w106=0x5000, w117=2048))
    assert (found.block_size, found.size) == (4096, 4096 * 1000)
    found = IdentifyData.parse(identification(w60=5, w61=1, w83=0))
    assert found.blocks == 65541
    assert found.model == "AB"


@pytest.mark.parametrize("data", [b"", bytes(512), b"\xff" * 512, b"AB" * 100])
def test_what_is_no_identification(data: bytes) -> None:
    with pytest.raises(MalformedReply):
        IdentifyData.parse(data)


def test_the_parts_of_a_verdict() -> None:
    with opened(AtaDisk("sat-hdd", "good")) as disk:
        good = read_smart(disk.unit)
    health = judge(good, write_protected=True)
    assert (health.verdict, health.reasons) == ("good", ("the medium is write protected",))
    data = bytearray(512)
    struct.pack_into("<BHBB6s", data, 2, 197, 0, 100, 100, (3).to_bytes(6, "little"))
    (pending,) = parse_attributes(bytes(data), None)
    assert (pending.name, pending.raw, pending.threshold, pending.has_failed) == ("pending_sectors", 3, None, False)


def test_a_short_reply_is_no_smart_data() -> None:
    with pytest.raises(MalformedReply):
        parse_attributes(bytes(100), None)


def test_refused_smart_is_a_problem_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: AtaDisk) -> bytes:
        from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, CommandFailed

        raise CommandFailed(INVALID_FIELD_IN_CDB)

    monkeypatch.setattr(AtaDisk, "smart_data", refuse)
    with opened(AtaDisk()) as disk:
        found = read_smart(disk.unit)
        assert isinstance(found, Smart)
        assert (found.passed, found.attributes) == (True, ())
        assert "cannot be read" in found.problems[0]
        with pytest.raises(IllegalRequest):
            disk.execute(AtaPassThrough16(0xB0, 0xD0, 1, KEY))
