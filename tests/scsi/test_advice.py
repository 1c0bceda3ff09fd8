"""Errors that a quirk would cure name it, and those that it would not cure do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scsiusb import CheckCondition, DeviceTimeout, Disk, IllegalRequest, LbaOutOfRange, ScsiUsbError
from scsiusb.opening import open_on
from scsiusb.quirks import cures
from scsiusb.quirks.cures import CURES, Symptom
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.spc import PreventAllow
from scsiusb.virtual import Bus, Memory, Stick, Unit
from tests.sticks import OddUnit

BLOCKS, BLOCK = 99, 512
TIMEOUT = 0.1  # seconds for a command that hangs
READ_CAPACITY_10 = 0x25


def failure(
    act: Callable[[Disk], object], *faults: str, quirks: str = "", unit: Unit | None = None, lun: int = 0
) -> ScsiUsbError:
    """Return the error of an action on a device with faults."""
    units = [unit or Unit(Memory(BLOCKS * BLOCK)), Unit(Memory(BLOCK))]
    bus = Bus(Stick(units, faults=faults))
    with pytest.raises(ScsiUsbError) as failed, open_on(bus, quirks=quirks, timeout=TIMEOUT, lun=lun) as disk:
        act(disk)
    bus.close()
    return failed.value


def test_every_symptom_has_a_cure() -> None:
    assert set(CURES) == set(Symptom)
    assert cures.remedy(Symptom.FALSE_RESIDUE, 0x1234, 0xABCD, Quirk.NONE).endswith("use --quirks 1234:abcd:r")


def test_an_option_has_the_quirks_that_apply_already_and_a_quirk_that_applies_is_no_cure() -> None:
    applied = Quirk.FIX_CAPACITY | Quirk.GO_SLOW
    assert cures.remedy(Symptom.FALSE_RESIDUE, 1, 2, applied).endswith("0001:0002:crG")
    assert cures.remedy(Symptom.LAST_BLOCK_MISSING, 1, 2, applied) == ""


def test_the_last_block_out_of_range_is_one_block_too_many() -> None:
    error = failure(lambda disk: disk.read(BLOCKS - 1, 1), f"sense=5/21/00,lba={BLOCKS - 1},times=always")
    assert isinstance(error, LbaOutOfRange)
    assert error.remedy == "if the device reports one block too many, use --quirks 1209:0001:c"


def test_another_block_out_of_range_is_not() -> None:
    error = failure(lambda disk: disk.read(5, 1), "sense=5/21/00,lba=5,times=always")
    assert error.remedy == error.default_remedy


def test_a_last_block_that_hangs_alone_is_one_block_too_many() -> None:
    error = failure(lambda disk: disk.read(BLOCKS - 1, 1), f"nak@data,lba={BLOCKS - 1},times=always")
    assert error.remedy.startswith("try a longer timeout, or, if the device reports one block too many, ")
    assert error.remedy.endswith(":c")


def test_with_the_quirk_the_usual_remedy_is_given() -> None:
    error = failure(lambda disk: disk.read(0, disk.blocks), "capacity=+2", quirks="c")
    assert isinstance(error, LbaOutOfRange)
    assert error.remedy == error.default_remedy


def test_a_short_read_that_hangs_elsewhere_names_no_quirk() -> None:
    error = failure(lambda disk: disk.read(5, 1), "nak@data,lba=5,times=always")
    assert error.remedy == error.default_remedy


def test_a_unit_beside_the_first_that_hangs_may_be_none() -> None:
    error = failure(lambda disk: disk.blocks, "nak@data,lun=1,times=always", lun=1)
    assert isinstance(error, DeviceTimeout)
    assert error.remedy.endswith("if LUN 0 is the device's only unit, use --quirks 1209:0001:s")


def test_a_lock_that_hangs_is_named() -> None:
    error = failure(lambda disk: disk.execute(PreventAllow(1)), "nak@csw,opcode=1e,times=always")
    assert error.remedy.endswith("use --quirks 1209:0001:l")


def test_a_unit_that_refuses_read_capacity_10_may_have_the_other_form() -> None:
    unit = OddUnit()
    unit.answer = lambda cdb: unit.fail(5, 0x20) if cdb[0] == READ_CAPACITY_10 else None
    error = failure(lambda disk: disk.blocks, unit=unit)
    assert isinstance(error, IllegalRequest)
    assert error.remedy.endswith("use --quirks 1209:0001:E")
    with open_on(Bus(Stick([unit])), quirks="1209:0001:E") as disk:
        assert disk.blocks == 2048


def test_a_flush_that_hangs_after_one_that_worked_names_no_quirk() -> None:
    stick = Stick([Unit(Memory(BLOCKS * BLOCK))])
    with open_on(Bus(stick), quirks="", timeout=TIMEOUT) as disk:
        disk.flush()
        stick.faults.add("nak@csw,opcode=35")
        with pytest.raises(DeviceTimeout) as failed:
            disk.flush()
    assert failed.value.remedy == failed.value.default_remedy


def test_an_error_of_the_medium_names_no_quirk() -> None:
    error = failure(lambda disk: disk.read(BLOCKS - 1, 1), "sense=3/11/00,opcode=28,times=always")
    assert isinstance(error, CheckCondition)
    assert error.remedy == error.default_remedy


def test_a_residue_with_less_data_names_no_quirk() -> None:
    error = failure(lambda disk: disk.read(0, 1), "short=12,opcode=28,times=always")
    assert error.remedy == error.default_remedy


# --- what is worked around, and logged ------------------------------------------------------------


@pytest.mark.slow
def test_get_max_lun_that_hangs_is_logged_with_the_quirk(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(Stick([Unit(Memory(BLOCKS * BLOCK))], faults=["max-lun-hangs"]))
    with open_on(bus, quirks="") as disk:
        assert disk.blocks == BLOCKS
    assert "taken as 0; to never send it, use --quirks 1209:0001:s" in caplog.text


@pytest.mark.parametrize("removable", [True, False])
def test_vital_product_data_that_hang_are_asked_for_once_and_a_blank_medium_is_read(
    caplog: pytest.LogCaptureFixture, removable: bool
) -> None:
    unit = OddUnit(removable=removable)
    bus = Bus(Stick([unit], faults=["nak@data,cdb=1201,times=always"]))
    with open_on(bus, quirks="", timeout=TIMEOUT) as disk:
        assert disk.read(0, 1) == bytes(BLOCK)
        assert "use --quirks 1209:0001:V" in caplog.text
        with open_on(bus, quirks="") as other:
            assert other.read(0, 1) == bytes(BLOCK)
    bus.close()
    assert sum(cdb[:2] == b"\x12\x01" for cdb in unit.cdbs) == 1
