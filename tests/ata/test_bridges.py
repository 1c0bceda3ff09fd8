"""Bridges with commands of their own: each is found, by the table or by trying, and read as one that translates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import scsiusb
from scsiusb import CheckCondition, Disk, IllegalRequest, MalformedReply, UnsupportedOpcode
from scsiusb.ata import bridges, device, nvme
from scsiusb.ata.device import DIALECTS, read_smart
from scsiusb.ata.health import judge
from scsiusb.ata.nvme import NvmeHealth, NvmeIdentity, NvmeSmart
from scsiusb.ata.nvme_bridges import Jmicron
from scsiusb.ata.passthrough import AtaRegisters
from scsiusb.ata.smart import Smart
from scsiusb.cli.commands.health import VIA
from scsiusb.transport.base import Direction
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.target import bridges as virtual_bridges
from scsiusb.virtual.target.ata import HEALTHS, AtaDisk
from scsiusb.virtual.target.nvme import NvmeDisk

ATA = [name for name in virtual_bridges.ATA if name != "sat"]
NVME = list(virtual_bridges.NVME)
UNKNOWN = "vid=1209&pid=0001"


@contextmanager
def opened(bridge: str, *options: str) -> Iterator[Disk]:
    profile = "nvme-bridge" if bridge in NVME else "sat-ssd"
    with scsiusb.open("virtual:?" + "&".join((f"profile={profile}&bridge={bridge}", *options)), timeout=0.5) as disk:
        yield disk


def test_the_command_line_knows_each_dialect() -> None:
    assert set(VIA) == set(DIALECTS)


def test_each_row_names_dialects_that_exist_and_each_id_is_in_one_row() -> None:
    ids = [(row.vid, pid) for row in bridges.ROWS for pid in row.pids]
    assert len(ids) == len(set(ids))
    for vid, pid in ids:
        assert set(bridges.dialects_of(vid, pid, is_removable=False)) <= set(DIALECTS)


@pytest.mark.parametrize("health", HEALTHS)
@pytest.mark.parametrize("bridge", ATA)
def test_a_disk_after_an_old_bridge_says_what_it_says_after_another(bridge: str, health: str) -> None:
    with opened(bridge, f"health={health}") as disk:
        found = read_smart(disk.unit)
    with opened("sat", f"health={health}") as disk:
        expected = read_smart(disk.unit)
    assert isinstance(found, Smart)
    assert isinstance(expected, Smart)
    assert found.via == bridge
    assert (found.passed, found.attributes) == (expected.passed, expected.attributes)
    assert (found.identity, found.problems) == (expected.identity, ())
    assert judge(found).verdict == health


@pytest.mark.parametrize("health", HEALTHS)
@pytest.mark.parametrize("bridge", NVME)
def test_an_nvme_disk_says_how_it_is(bridge: str, health: str) -> None:
    with opened(bridge, f"health={health}") as disk:
        found = read_smart(disk.unit)
        size = disk.size
    assert isinstance(found, NvmeSmart)
    assert found.health is not None
    values = NvmeDisk(health).values
    assert (found.via, found.identity.size, found.identity.version) == (bridge, size, "1.4.0")
    assert (found.temperature, found.health.percentage_used) == (values["temperature"], values["used"])
    assert found.health.bytes_written == values.get("written", 21_000_000) * 512_000
    assert found.health.sensors == (values["temperature"], values["temperature"] + 9)
    assert found.passed == (health != "failing")
    assert judge(found).verdict == health


@pytest.mark.parametrize("bridge", [*ATA, *NVME])
def test_the_user_may_name_the_dialect_of_an_unknown_device(bridge: str) -> None:
    with opened(bridge, UNKNOWN) as disk:
        with pytest.raises((UnsupportedOpcode, IllegalRequest)):
            read_smart(disk.unit)
        assert read_smart(disk.unit, bridge).via == bridge
        with pytest.raises(ValueError, match="sntasmedia"):
            read_smart(disk.unit, "nothing")


@pytest.mark.parametrize("maker", bridges.MAKERS)
def test_an_unknown_bridge_of_a_maker_is_tried_as_its_others_are_but_not_a_card_reader(maker: int) -> None:
    dialect, ids = bridges.MAKERS[maker], f"vid={maker:04x}&pid=ff01"
    with opened(dialect, ids) as disk:
        assert read_smart(disk.unit).via == dialect
    with opened(dialect, ids, "removable") as disk, pytest.raises((UnsupportedOpcode, IllegalRequest)):
        read_smart(disk.unit)


@pytest.mark.parametrize("bridge", [name for name in (*NVME, *ATA) if name != "usbjmicron"])
def test_where_either_may_be_after_the_bridge_the_other_is_tried(bridge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge has the IDs of one dialect, and a disk that it reads by SAT."""
    vid, pid = virtual_bridges.IDS[bridge]
    monkeypatch.setattr(bridges, "ROWS", (bridges.Row(vid, (pid,), f"{bridge}/sat", "either"),))
    with scsiusb.open(f"virtual:?profile=sat-ssd&vid={vid:04x}&pid={pid:04x}", timeout=0.5) as disk:
        assert read_smart(disk.unit).via == "sat"


@pytest.mark.slow
def test_a_bridge_that_hangs_at_a_command_of_another_maker_is_recovered_and_asked_by_the_next() -> None:
    options = "profile=sat-ssd&vid=152d&pid=0583&fault=hang@data,opcode=a1,times=always"
    with scsiusb.open(f"virtual:?{options}", timeout=0.3) as disk:
        assert read_smart(disk.unit).via == "sat"


def test_an_empty_identification_is_none() -> None:
    """Some bridges say so where a SATA disk is in their place."""
    with pytest.raises(MalformedReply, match="no model"):
        NvmeIdentity.parse(bytes(nvme.IDENTIFY_LENGTH))
    with pytest.raises(MalformedReply, match="512"):
        NvmeHealth.parse(bytes(511))


def test_a_failed_admin_command_says_its_status() -> None:
    with opened("sntjmicron") as disk, pytest.raises(CheckCondition, match="02h failed with status 4002h"):
        Jmicron(disk.unit).log(0x7F, 512)


@pytest.mark.parametrize("bridge", NVME)
def test_a_health_that_cannot_be_read_is_a_problem_and_no_error(bridge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = NvmeDisk.admin
    monkeypatch.setattr(
        NvmeDisk, "admin", lambda self, unit, opcode, low: None if opcode == 2 else admin(self, unit, opcode, low)
    )
    with opened(bridge) as disk:
        found = read_smart(disk.unit)
    assert (found.passed, found.temperature) == (None, None)
    assert "the health cannot be read" in found.problems[0]
    assert judge(found).verdict == "unknown"


@pytest.mark.parametrize("bridge", [name for name in ATA if name != "usbjmicron"])
def test_a_command_that_the_disk_aborted_is_an_error(bridge: str) -> None:
    with opened(bridge) as disk, pytest.raises(CheckCondition):
        device.ATA[bridge](disk.unit).registers(0xB0, features=0x55)


@pytest.mark.parametrize("bridge", [*ATA, *NVME])
def test_a_cdb_that_is_too_short_is_refused(bridge: str) -> None:
    """A host on the network may send any."""
    unit = Unit(Memory(1 << 20))
    disk = NvmeDisk() if bridge in NVME else AtaDisk()
    virtual_bridges.furnish(unit, disk, bridge)
    added = set(unit.opcodes) - set(Unit(Memory(1 << 20)).opcodes)
    assert added
    with scsiusb.open_on(Bus(Stick([unit]))) as opened_disk:
        for code in added:
            with pytest.raises(IllegalRequest):
                opened_disk.execute(scsiusb.RawCommand(bytes((code, 0x24)), length=8))


def test_registers_are_bytes_of_the_lba_in_their_order() -> None:
    class Any(AtaRegisters, abstract=True):
        NAME = "any"

    command = Any(0xB0, 0, 1, 0x030201)
    assert (command.lba_low, command.lba_mid, command.lba_high) == (1, 2, 3)
    assert (command.direction, command.length) == (Direction.IN, 512)


def test_a_bridge_does_not_fit_every_disk() -> None:
    for name, reason in (
        ("bridge=sntasmedia", "nvme-bridge"),
        ("profile=sat-ssd&bridge=sntasmedia", "has no sat-ssd"),
        ("profile=nvme-bridge&bridge=sat", "use sntasmedia"),
        ("profile=nvme-bridge&bridge=nothing", "there is no bridge"),
    ):
        with pytest.raises(ValueError, match=reason):
            scsiusb.open(f"virtual:?{name}")


def test_an_old_disk_behind_jmicron_whose_status_is_no_byte_of_ours() -> None:
    with opened("usbjmicron") as disk:
        channel = device.ATA["usbjmicron"](disk.unit)
        assert channel.registers(0xE5) is None
    assert AtaDisk().has_registers
