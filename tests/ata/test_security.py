"""The ATA security of a disk: its state, the erase with all its guards, and what is left when it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import scsiusb
from scsiusb import Disk
from scsiusb.ata import security
from scsiusb.ata.security import PASSWORD, SecurityState, read_security, remove_password, security_erase
from scsiusb.opening import open_on
from scsiusb.scsi.telling import Teller
from scsiusb.trace.commands import CommandLog
from scsiusb.trace.conversation import Exchange
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.target import ata_security, bridges
from scsiusb.virtual.target.ata import AtaDisk
from scsiusb.virtual.target.ata_security import Security

DATA = bytes(range(256)) * 2 * 64


@pytest.fixture
def ata() -> AtaDisk:
    return AtaDisk()


@pytest.fixture
def unit(ata: AtaDisk) -> Unit:
    unit = Unit(Memory(bytearray(DATA)), removable=False)
    bridges.furnish(unit, ata, "sat")
    return unit


@pytest.fixture
def disk(unit: Unit) -> Iterator[Disk]:
    with open_on(Bus(Stick([unit]))) as disk:
        yield disk


def power_cycle(disk: Disk, unit: Unit) -> None:
    unit.power_on()
    with pytest.raises(scsiusb.UnitAttention):
        disk.unit.test_unit_ready(retry=scsiusb.RetryPolicy(unit_attentions=0))


@pytest.mark.parametrize("enhanced", [False, True])
def test_the_disk_erases_itself_and_has_no_password_afterwards(disk: Disk, ata: AtaDisk, *, enhanced: bool) -> None:
    assert disk.read(0, 64) == DATA
    assert read_security(disk.unit) == SecurityState(True, False, False, False, False, True, 2, 2)
    security_erase(disk.unit, enhanced=enhanced)
    assert disk.read(0, 64) == bytes(len(DATA))
    assert ata.security.password is None
    assert not read_security(disk.unit).enabled


def test_the_commands_are_those_of_the_standard_and_the_log_has_no_password(unit: Unit) -> None:
    told: list[Exchange] = []
    with open_on(CommandLog(Bus(Stick([unit])), told.append)) as disk:
        disk.read(0, 1)  # and the unit attention with it
        told.clear()
        security_erase(disk.unit)
    sent = [each.cdb.hex() for each in told if each.cdb[0] == 0x85]
    wanted = ["ec", "f1", "ec", "f3", "f4", "ec"]
    assert [cdb[28:30] for cdb in sent] == wanted
    assert sent[1] == "850a060000000100000000000000f100"
    assert sent[3] == "8506200000000000000000000000f300"
    assert sent[4] == "850a060000000100000000000000f400"
    teller = Teller()
    assert not any(PASSWORD in teller.line(each) for each in told)


def test_a_frozen_disk_is_not_touched(disk: Disk, ata: AtaDisk) -> None:
    ata.security.is_frozen = True
    with pytest.raises(scsiusb.DeviceUnsupported, match="frozen until its next power-on; unplug"):
        security_erase(disk.unit)
    assert ata.security.password is None
    assert disk.read(0, 64) == DATA


def test_a_disk_with_a_password_of_another_is_not_touched(disk: Disk, unit: Unit, ata: AtaDisk) -> None:
    ata.security.password = b"theirs".ljust(32, b"\0")
    with pytest.raises(scsiusb.DeviceUnsupported, match="has a password already"):
        security_erase(disk.unit)
    power_cycle(disk, unit)
    assert read_security(disk.unit).locked
    with pytest.raises(scsiusb.DataProtect, match="7/74/71"):
        disk.read(0, 1)
    with pytest.raises(scsiusb.AbortedCommand):
        remove_password(disk.unit, "wrong")
    remove_password(disk.unit, "theirs")
    assert disk.read(0, 64) == DATA
    with pytest.raises(scsiusb.DeviceUnsupported, match="no password"):
        remove_password(disk.unit)


def test_after_too_many_wrong_passwords_none_is_sent(disk: Disk, unit: Unit, ata: AtaDisk) -> None:
    ata.security.password = b"theirs".ljust(32, b"\0")
    power_cycle(disk, unit)
    for _ in range(5):
        with pytest.raises(scsiusb.AbortedCommand):
            remove_password(disk.unit, "wrong")
    with pytest.raises(scsiusb.DeviceUnsupported, match="too many"):
        remove_password(disk.unit, "theirs")
    power_cycle(disk, unit)
    remove_password(disk.unit, "theirs")


def test_an_erase_that_fails_leaves_no_password(disk: Disk, ata: AtaDisk) -> None:
    ata.security.is_stubborn = True
    with pytest.raises(scsiusb.AbortedCommand):
        security_erase(disk.unit)
    assert ata.security.password is None
    assert disk.read(0, 64) == DATA


def test_where_the_password_cannot_be_taken_away_the_error_says_how(
    disk: Disk, unit: Unit, ata: AtaDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ata.security.is_stubborn = True
    monkeypatch.setitem(
        ata_security._ACTIONS,
        0xF6,
        lambda security, password, unit: False,
    )
    with pytest.raises(scsiusb.AbortedCommand) as failure:
        security_erase(disk.unit)
    assert "--remove scsiusb" in failure.value.remedy
    monkeypatch.undo()
    power_cycle(disk, unit)
    assert read_security(disk.unit).locked
    remove_password(disk.unit)
    assert disk.read(0, 64) == DATA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"), [("hang@csw", scsiusb.DeviceTimeout), ("disconnect@csw", scsiusb.DeviceGone)]
)
def test_an_erase_that_is_cut_off_is_an_error(
    unit: Unit, ata: AtaDisk, monkeypatch: pytest.MonkeyPatch, fault: str, error: type[scsiusb.ScsiUsbError]
) -> None:
    """The disk is still asked for its state, and its password taken away, if it is there."""
    monkeypatch.setattr(security, "LEAST_TIMEOUT", 0.2)
    monkeypatch.setattr(security, "MARGIN", 0)
    stick = Stick([unit], faults=[f"{fault},cdb=850A06......................F4"])
    bus = Bus(stick)
    with open_on(bus) as disk, pytest.raises(error) as failure:
        security_erase(disk.unit)
    assert stick.faults.fired
    if error is scsiusb.DeviceGone:
        assert "--remove scsiusb" in failure.value.remedy
    else:
        assert ata.security.password is None


@pytest.mark.parametrize(
    ("word", "message"),
    [(0x0000, "no ATA security"), (0x0001, "no enhanced erase")],
)
def test_what_the_disk_cannot_do_is_said_before_anything_is_sent(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, word: int, message: str
) -> None:
    monkeypatch.setattr(Security, "word", word)
    with pytest.raises(scsiusb.DeviceUnsupported, match=message):
        security_erase(disk.unit, enhanced=True)


def test_other_units_have_none() -> None:
    with scsiusb.open("virtual:") as disk, pytest.raises(scsiusb.UnsupportedOpcode):
        read_security(disk.unit)
    with scsiusb.open("virtual:?profile=cd-rw") as disk, pytest.raises(scsiusb.DeviceUnsupported):
        security_erase(disk.unit)


def test_a_password_that_is_too_long(disk: Disk) -> None:
    with pytest.raises(ValueError, match="32 bytes at most, not 33"):
        remove_password(disk.unit, "x" * 33)


@pytest.mark.parametrize(
    ("word", "minutes"), [(0, None), (1, 2), (254, 508), (255, None), (0x8001, 2), (0x8100, 512), (0xFFFF, None)]
)
def test_the_time_that_an_erase_takes(word: int, minutes: int | None) -> None:
    data = bytearray(512)
    data[178:180] = word.to_bytes(2, "little")
    assert SecurityState.parse(bytes(data)).minutes == minutes


def test_short_data_are_no_identification() -> None:
    with pytest.raises(scsiusb.MalformedReply):
        SecurityState.parse(bytes(511))
