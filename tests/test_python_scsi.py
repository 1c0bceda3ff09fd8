"""python-scsi's own command classes over scsiusb, and its CDBs against those of scsiusb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyscsi.pyscsi.scsi import SCSI
from pyscsi.pyscsi.scsi_cdb_getlbastatus import GetLBAStatus
from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry
from pyscsi.pyscsi.scsi_cdb_modesense6 import ModeSelect6, ModeSense6
from pyscsi.pyscsi.scsi_cdb_modesense10 import ModeSelect10, ModeSense10
from pyscsi.pyscsi.scsi_cdb_preventallow_mediumremoval import PreventAllowMediumRemoval
from pyscsi.pyscsi.scsi_cdb_read10 import Read10
from pyscsi.pyscsi.scsi_cdb_read12 import Read12
from pyscsi.pyscsi.scsi_cdb_read16 import Read16
from pyscsi.pyscsi.scsi_cdb_readcapacity10 import ReadCapacity10
from pyscsi.pyscsi.scsi_cdb_readcapacity16 import ReadCapacity16
from pyscsi.pyscsi.scsi_cdb_readcd import ReadCd
from pyscsi.pyscsi.scsi_cdb_report_luns import ReportLuns
from pyscsi.pyscsi.scsi_cdb_testunitready import TestUnitReady as UnitReady
from pyscsi.pyscsi.scsi_cdb_write10 import Write10
from pyscsi.pyscsi.scsi_cdb_write12 import Write12
from pyscsi.pyscsi.scsi_cdb_write16 import Write16
from pyscsi.pyscsi.scsi_cdb_writesame10 import WriteSame10
from pyscsi.pyscsi.scsi_cdb_writesame16 import WriteSame16
from pyscsi.pyscsi.scsi_enum_command import mmc, sbc
from pyscsi.pyscsi.scsi_sense import SCSICheckCondition
from pyscsi.utils.converter import get_opcode

import scsiusb
from scsiusb.python_scsi import UsbDevice
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import mmc_audio, sbc_media, sbc_transfer, spc, spc_parameters
from scsiusb.scsi.commands import sbc as sbc_commands
from scsiusb.virtual import Bus, Memory, Stick, Unit


@pytest.fixture
def medium() -> Memory:
    return Memory(bytes(range(256)) * 2 * 64)


@pytest.fixture
def device(medium: Memory) -> Iterator[UsbDevice]:
    with scsiusb.open_on(Bus(Stick([Unit(medium, thin=True)]))) as disk, UsbDevice(disk) as device:
        yield device


@pytest.fixture
def scsi(device: UsbDevice) -> Any:
    return SCSI(device, 512)


def test_its_interface_identifies_the_device(scsi: Any) -> None:
    assert scsi.device.devicetype == 0
    assert scsi.inquiry().result["t10_vendor_identification"].strip() == b"scsiusb"
    assert scsi.readcapacity10().result == {"returned_lba": 63, "block_length": 512}
    assert scsi.readcapacity16().result["returned_lba"] == 63
    scsi.testunitready()
    assert len(scsi.reportluns().result["luns"]) == 1


def test_it_reads_and_writes_blocks(scsi: Any, medium: Memory) -> None:
    for read in (scsi.read10, scsi.read12, scsi.read16):
        assert bytes(read(3, 2).datain) == bytes(medium.data[1536:2560])
    for at, write in enumerate((scsi.write10, scsi.write12, scsi.write16)):
        write(at, 1, bytearray(b"\x11" * 512))
    assert bytes(medium.data[:1536]) == b"\x11" * 1536
    scsi.writesame16(8, 4, bytearray(b"\x22" * 512))
    assert bytes(medium.data[8 * 512 : 12 * 512]) == b"\x22" * 2048


def test_it_reads_mode_pages_and_the_state_of_blocks(scsi: Any) -> None:
    assert scsi.modesense6(0x08).result["mode_pages"][0]["page_code"] == 0x08
    assert scsi.getlbastatus(0).result["lbas"][0]["lba"] == 0


def test_a_refused_command_raises_its_exception_with_ours_as_the_cause(scsi: Any) -> None:
    with pytest.raises(SCSICheckCondition) as caught:
        scsi.read10(64, 1)
    assert isinstance(caught.value.__cause__, scsiusb.LbaOutOfRange)


def test_the_device_is_closed_if_it_was_opened_here() -> None:
    device = UsbDevice("virtual:")
    device.open()
    with device:
        SCSI(device, 512).testunitready()
    assert scsiusb.ledger.outstanding() == []


def test_data_in_both_directions_are_refused(device: UsbDevice) -> None:
    command = WriteSame10(sbc.WRITE_SAME_10, 512, 0, 1, bytearray(512))
    command.datain = bytearray(1)
    with pytest.raises(ValueError, match="both directions"):
        device.execute(command)


BLOCK = bytearray(512)
CONTROL = {"mode_pages": [{"ps": 0, "spf": 0, "page_code": 0x0A}]}
NINE_E = next(get_opcode(sbc, "9E"))
SAME: list[tuple[Command[Any], Callable[[], Any]]] = [
    (spc.TestUnitReady(), lambda: UnitReady(sbc.TEST_UNIT_READY)),
    (spc.Inquiry(length=0x1234), lambda: Inquiry(sbc.INQUIRY, alloclen=0x1234)),
    (spc.InquiryVpdBytes(0xB0), lambda: Inquiry(sbc.INQUIRY, 1, 0xB0, 252)),
    (
        spc.ModeSense6(page=8, page_control=2, disable_block_descriptors=True, subpage=1),
        lambda: ModeSense6(sbc.MODE_SENSE_6, 8, 1, 1, 2, 0xC0),
    ),
    (
        spc.ModeSense10(page=8, page_control=1, subpage=3, long_lba_accepted=True, length=0x1234),
        lambda: ModeSense10(sbc.MODE_SENSE_10, 8, 3, 1, 0, 1, 0x1234),
    ),
    (spc_parameters.ModeSelect6(bytes(12), save=True), lambda: ModeSelect6(sbc.MODE_SELECT_6, CONTROL, sp=1)),
    (spc.PreventAllow(prevent=1), lambda: PreventAllowMediumRemoval(sbc.PREVENT_ALLOW_MEDIUM_REMOVAL, prevent=1)),
    (spc.ReportLuns(length=0x12345), lambda: ReportLuns(sbc.REPORT_LUNS, alloclen=0x12345)),
    (sbc_commands.ReadCapacity10(), lambda: ReadCapacity10(sbc.READ_CAPACITY_10)),
    (sbc_commands.ReadCapacity16(), lambda: ReadCapacity16(NINE_E, 32)),
    (
        sbc_commands.Read10(0x01020304, 5, block_size=512, fua=True, dpo=True),
        lambda: Read10(sbc.READ_10, 512, 0x01020304, 5, fua=1, dpo=1),
    ),
    (
        sbc_commands.Write10(0x01020304, 1, block_size=512, fua=True),
        lambda: Write10(sbc.WRITE_10, 512, 0x01020304, 1, BLOCK, fua=1),
    ),
    (
        sbc_commands.Read16(0x0102030405, 5, block_size=512, dpo=True),
        lambda: Read16(sbc.READ_16, 512, 0x0102030405, 5, dpo=1),
    ),
    (
        sbc_commands.Write16(0x0102030405, 1, block_size=512, fua=True),
        lambda: Write16(sbc.WRITE_16, 512, 0x0102030405, 1, BLOCK, fua=1),
    ),
    (
        sbc_transfer.Read12(0x01020304, 5, block_size=512, fua=True),
        lambda: Read12(sbc.READ_12, 512, 0x01020304, 5, fua=1),
    ),
    (
        sbc_transfer.Write12(0x01020304, 1, block_size=512, dpo=True),
        lambda: Write12(sbc.WRITE_12, 512, 0x01020304, 1, BLOCK, dpo=1),
    ),
    (
        sbc_transfer.WriteSame10(0x01020304, 5, bytes(512), unmap=True),
        lambda: WriteSame10(sbc.WRITE_SAME_10, 512, 0x01020304, 5, BLOCK, unmap=1),
    ),
    (
        sbc_transfer.WriteSame16(0x0102030405, 5, anchor=True, no_data=True),
        lambda: WriteSame16(sbc.WRITE_SAME_16, 512, 0x0102030405, 5, BLOCK, anchor=1, ndob=1),
    ),
    (
        sbc_media.GetLbaStatus(0x0102030405, 0x4000),
        lambda: GetLBAStatus(NINE_E, 0x0102030405, alloclen=0x4000),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), SAME, ids=[type(ours).__name__ for ours, _ in SAME])
def test_a_cdb_is_what_python_scsi_sends(ours: Command[Any], theirs: Callable[[], Any]) -> None:
    assert ours.cdb().hex(" ") == bytes(theirs().cdb).hex(" ")


def test_read_cd_differs_because_python_scsi_2_1_puts_its_length_one_byte_early() -> None:
    """MMC-6 READ CD has the TRANSFER LENGTH in bytes 6 to 8."""
    ours = mmc_audio.ReadCd(lba=0x01020304, blocks=2, expected=1, sub_channel=2).cdb()
    theirs = bytes(ReadCd(mmc.READ_CD, 0x01020304, 2, est=1, mcsb=0x02, scsb=2).cdb)
    assert ours[6:9] == bytes((0, 0, 2))
    assert theirs[6:9] == bytes((0, 2, 0))
    assert (ours[:6], ours[9:]) == (theirs[:6], theirs[9:])


def test_mode_select_10_cannot_be_made_with_python_scsi_2_1() -> None:
    """It passes the length of the CDB to a method that no longer takes one; ours is compared with the standard."""
    with pytest.raises(TypeError, match="build_cdb"):
        ModeSelect10(sbc.MODE_SELECT_10, CONTROL)


@pytest.mark.parametrize(
    "raw", ["", "70", "7205240000000000", "ff" * 18], ids=["none", "cut", "descriptor", "nonsense"]
)
def test_any_sense_data_become_its_exception(device: UsbDevice, raw: str) -> None:
    sense = scsiusb.Sense.parse(bytes.fromhex(raw))

    class Refusing:
        def execute(self, command: object) -> None:
            raise scsiusb.CheckCondition("refused", sense, "")

    device.disk = Refusing()  # type: ignore[assignment]
    command = WriteSame10(sbc.WRITE_SAME_10, 512, 0, 1, bytearray(512))
    with pytest.raises(SCSICheckCondition):
        device.execute(command, en_raw_sense=True)
    assert bytes(command.raw_sense_data).hex() == raw
