"""READ LONG and WRITE LONG, self-tests, and the small reports of the virtual stick, by the declared commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import scsiusb
from scsiusb import DataProtect, IllegalRequest, MediumError
from scsiusb.disk.disk import Disk
from scsiusb.scsi.commands.sbc_long import ReadLong10, ReadLong16, WriteLong10, WriteLong16
from scsiusb.scsi.commands.sbc_media import GetPhysicalElementStatus, PhysicalElement
from scsiusb.scsi.commands.spc_diagnostic import (
    ABORT,
    BACKGROUND_LONG,
    FOREGROUND_SHORT,
    LogSelect,
    ReceiveDiagnosticResults,
    SendDiagnostic,
)
from scsiusb.scsi.commands.spc_parameters import LogSense
from scsiusb.scsi.commands.spc_support import ReadMediaSerialNumber
from scsiusb.virtual import Bus, Memory, Stick, Unit
from scsiusb.virtual.target.long_blocks import correction

BLOCK = bytes(range(256)) * 2


@pytest.fixture
def unit() -> Unit:
    return Unit(Memory(BLOCK * 64))


@pytest.fixture
def disk(unit: Unit) -> Iterator[Disk]:
    with scsiusb.open_on(Bus(Stick([unit]))) as opened:
        yield opened


@pytest.mark.parametrize("command", [ReadLong10(5), ReadLong16(5)])
def test_a_long_block_has_its_correction_bytes(disk: Disk, command: ReadLong10 | ReadLong16) -> None:
    assert disk.execute(command) == BLOCK + correction(BLOCK)


@pytest.mark.parametrize(("length", "difference"), [(512, -8), (528, 8)])
def test_another_length_is_refused_with_the_difference(disk: Disk, length: int, difference: int) -> None:
    with pytest.raises(IllegalRequest) as refused:
        disk.execute(ReadLong10(5, length))
    raw = refused.value.sense.raw
    assert (raw[0], raw[2]) == (0xF0, 0x25), "VALID, ILI"
    assert int.from_bytes(raw[3:7], "big", signed=True) == difference


@pytest.mark.parametrize("kind", [WriteLong10, WriteLong16])
def test_a_block_that_was_marked_cannot_be_read_until_it_is_written(
    disk: Disk, kind: type[WriteLong10 | WriteLong16]
) -> None:
    disk.execute(kind(5, uncorrectable=True))
    with pytest.raises(MediumError) as failed:
        disk.read(0, 64)
    assert failed.value.lba == 5
    assert disk.read(0, 5) + disk.read(6, 58) == BLOCK * 63
    assert disk.execute(ReadLong16(5))[:512] == BLOCK, "without correction it can be read"
    with pytest.raises(MediumError):
        disk.execute(ReadLong10(5, correct=True))
    disk.write(5, BLOCK)
    assert disk.read(0, 64) == BLOCK * 64


def test_wrong_correction_bytes_make_a_block_unreadable(disk: Disk) -> None:
    new = bytes(512)
    disk.execute(WriteLong10(7, new + correction(new)))
    assert disk.read(7, 1) == new
    disk.execute(WriteLong10(7, new + correction(BLOCK)))
    with pytest.raises(MediumError):
        disk.read(7, 1)


def test_write_long_keeps_to_the_ends_and_to_write_protection() -> None:
    with scsiusb.open_on(Bus(Stick([Unit(Memory(BLOCK * 64), write_protected=True)]))) as disk:
        with pytest.raises(DataProtect):
            disk.execute(WriteLong10(5, uncorrectable=True))
        with pytest.raises(IllegalRequest):
            disk.execute(ReadLong10(64))
        assert disk.read(0, 64) == BLOCK * 64


def results(disk: Disk) -> list[tuple[int, int]]:
    found = disk.execute(LogSense(0x10)).parameters
    return [(each.values["kind"], each.values["result"]) for each in found if any(each.data)]


def test_self_tests_are_in_their_log_until_it_is_reset(disk: Disk) -> None:
    assert results(disk) == []
    disk.execute(SendDiagnostic(default_test=True))
    disk.execute(SendDiagnostic(BACKGROUND_LONG))
    disk.execute(SendDiagnostic(FOREGROUND_SHORT))
    assert results(disk) == [(FOREGROUND_SHORT, 0), (BACKGROUND_LONG, 0)]
    disk.execute(LogSelect(0x0D, reset=True))
    assert len(results(disk)) == 2
    disk.execute(LogSelect(0x10, reset=True))
    assert results(disk) == []
    for _ in range(25):
        disk.execute(SendDiagnostic(FOREGROUND_SHORT))
    assert len(results(disk)) == 20


@pytest.mark.parametrize(
    "command",
    [
        *(SendDiagnostic(ABORT), SendDiagnostic(page=bytes((0x0A, 0, 0, 0))), ReceiveDiagnosticResults(2)),
        *(LogSelect(0x33, reset=True), LogSelect(0x10, save=True), LogSelect(parameters=bytes((0x0D, 0, 0, 0)))),
    ],
    ids=str,
)
def test_what_the_unit_does_not_have_is_refused(disk: Disk, command: scsiusb.Command[object]) -> None:
    with pytest.raises(IllegalRequest):
        disk.execute(command)


def test_the_list_of_diagnostic_pages_the_medium_s_number_and_its_element(disk: Disk) -> None:
    disk.execute(SendDiagnostic(page=bytes(4)))
    assert disk.execute(ReceiveDiagnosticResults()) == bytes((0, 0, 0, 1, 0))
    assert disk.execute(ReadMediaSerialNumber()) == "0123456789AB"
    assert disk.execute(GetPhysicalElementStatus()) == (PhysicalElement(1, 1, 0x32, (1 << 64) - 1),)
    assert disk.execute(GetPhysicalElementStatus(failed_only=1)) == ()
