"""A row for each command of `scsiusb.scsi.commands` beside the first ones: its bytes, and replies that devices send.

The bytes are written from the tables of the standards, not from the declarations, with another value in each field.
The replies are the examples that fuzzing starts from; the first is a whole one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from scsiusb.ata import dialects, nvme_bridges
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import (
    mmc_audio,
    mmc_burn,
    mmc_disc,
    mmc_drive,
    sbc_long,
    sbc_media,
    sbc_transfer,
    spc_buffer,
    spc_copy,
    spc_diagnostic,
    spc_reserve,
    spc_security,
    spc_support,
    ssc,
    zbc,
)


class Row(NamedTuple):
    """A command, its CDB in hex, and replies in hex if it has data-in."""

    command: Command[Any]
    cdb: str
    replies: tuple[str, ...] = ()


LBA_16: Final = 0x0102030405060708
ONE_BLOCK: Final = bytes(512)
TRACKS: Final = "0012 01 01  00 14 01 00 00000000  00 14 aa 00 00004e20"
FULL_TOC: Final = (
    "002e 01 01"
    + "0110 00a0 000000 00 010000"
    + "0110 00a1 000000 00 020000"
    + "0110 00a2 000000 00 031e00"
    + "0110 0001 000000 00 000200"
)
LEVEL_0: Final = (
    "00000050 0000 0001 0000000000000000" + "00" * 32 + "0001 10 0c 11" + "00" * 11 + "0002 10 0c 0f" + "00" * 11
)
CONFIGURATION: Final = "00000020 0000 0008  0000 03 08 0008 01 00 0009 00 00  0001 07 04 00000007  0108 03 04 31323334"
KEYS: Final = "00000003 00000010 0000000000123abc 1111111122222222"
FULL_STATUS: Final = "00000003 00000020 0000000000123abc 00000000 01 05 00000000 0001 00000008 4500000000000000"
COPY: Final = "0000002c 00000000 0002 0001 00000400 01000000 00000000 00000000 00000000 0000 0001 01 09 00 00 000000 00"
DISC: Final = "0020 0e 01 01 01 01 20 00 00 00 00 00000000 ffffffff ffffffff 0000000000000000 00 00"
TRACK: Final = "0022 01 01 00 04 01 01 00000000 00000100 00000200 00000000 00004e20 00000000 00 00 0000"
ZONES: Final = (
    "00000040 00000000 000000000007ffff"
    + "00" * 48
    + "02 10 000000000000 0000000000080000 0000000000000000 0000000000000100"
    + "00" * 32
)

ROWS: Final[tuple[Row, ...]] = (
    # SPC-4
    Row(
        spc_support.ReportSupportedOperationCodes(timeouts=True, length=0x12345),
        "a3 0c 80 00 00 00 00 01 23 45 00 00",
        (
            "0000001c 12 00 0000 00 02 0006 000a0000 0000001e 0000003c  9e 00 0010 00 01 0010",
            "00000008 00 00 0000 00 00 0006",
        ),
    ),
    Row(
        spc_support.ReportSupportedOperationCode(0x9E, 0x10, options=2),
        "a3 0c 02 9e 00 10 00 00 00 40 00 00",
        ("0003 0010 9e 10 0000000000000000 ffffffff 00 00", "0001 0000"),
    ),
    Row(
        spc_support.ReportSupportedTaskManagement(), "a3 0d 00 00 00 00 00 00 00 04 00 00", ("f8 07 00 00", "80000000")
    ),
    Row(spc_support.ReportTimestamp(), "a3 0f 00 00 00 00 00 00 00 0c 00 00", ("000a 02 00 0176bb3e7000 0000",)),
    Row(spc_support.SetTimestamp(1), "a4 0f 00 00 00 00 00 00 00 0c 00 00"),
    Row(
        spc_support.ReportIdentifyingInformation(kind=4),
        "a3 05 00 00 00 00 00 00 02 00 04 00",
        ("0000 0004 55534231", "0000 0000"),
    ),
    Row(spc_support.SetIdentifyingInformation(b"USB1", kind=4), "a4 06 00 00 00 00 00 00 00 04 04 00"),
    Row(spc_support.ReadMediaSerialNumber(), "ab 01 00 00 00 00 00 00 01 00 00 00", ("00000004 41424344",)),
    Row(
        spc_buffer.ReadBuffer(mode=0x0B, length=0x112233, buffer=0x44, offset=0x556677, specific=1),
        "3c 2b 44 55 66 77 11 22 33 00",
        ("00 00 01 00",),
    ),
    Row(
        spc_buffer.WriteBuffer(b"abc", mode=0x0A, buffer=1, offset=0x020304, specific=2),
        "3b 4a 01 02 03 04 00 00 03 00",
    ),
    Row(spc_reserve.PersistentReserveReadKeys(), "5e 00 00 00 00 00 00 20 00 00", (KEYS, "00000000 00000000")),
    Row(
        spc_reserve.PersistentReserveReadReservation(),
        "5e 01 00 00 00 00 00 00 18 00",
        ("00000003 00000010 0000000000123abc 00000000 00 05 0000", "00000003 00000000"),
    ),
    Row(
        spc_reserve.PersistentReserveCapabilities(),
        "5e 02 00 00 00 00 00 00 08 00",
        ("0008 1d 81 ea01 0000", "0008 00 00 0000 0000"),
    ),
    Row(spc_reserve.PersistentReserveFullStatus(), "5e 03 00 00 00 00 00 20 00 00", (FULL_STATUS, "0000000300000000")),
    Row(spc_reserve.PersistentReserveOut(spc_reserve.RESERVE, key=1, kind=5), "5f 01 05 00 00 00 00 00 18 00"),
    Row(spc_reserve.Reserve6(), "16 00 00 00 00 00"),
    Row(spc_reserve.Release6(), "17 00 00 00 00 00"),
    Row(spc_reserve.Reserve10(), "56 00 00 00 00 00 00 00 00 00"),
    Row(spc_reserve.Release10(), "57 00 00 00 00 00 00 00 00 00"),
    Row(
        spc_security.SecurityProtocolIn(0xEE, 0x1234, length=0x56789A),
        "a2 ee 12 34 00 00 00 56 78 9a 00 00",
        ("0000000000000002 0001",),
    ),
    Row(spc_security.SecurityProtocols(), "a2 00 00 00 00 00 00 00 02 00 00 00", ("000000000000 0003 00 01 ee",)),
    Row(spc_security.TcgLevel0Discovery(), "a2 01 00 01 00 00 00 00 08 00 00 00", (LEVEL_0, "0000002c" + "00" * 44)),
    Row(spc_security.SecurityProtocolOut(0x02, 0x0102, b"abcd"), "b5 02 01 02 00 00 00 00 00 04 00 00"),
    Row(spc_copy.ReceiveCopyParameters(), "84 03 00 00 00 00 00 00 00 00 00 00 00 ff 00 00", (COPY,)),
    Row(spc_copy.ExtendedCopy(b"abcd"), "83 00 00 00 00 00 00 00 00 00 00 00 00 04 00 00"),
    # SBC: transfers
    Row(sbc_transfer.Read6(0x1F2345, 0x67, block_size=512), "08 1f 23 45 67 00", ("00" * 16,)),
    Row(sbc_transfer.Write6(0x1F2345, 0x67, block_size=512), "0a 1f 23 45 67 00"),
    Row(
        sbc_transfer.Read12(0x12345678, 0x9ABCDE, block_size=1, fua=True),
        "a8 08 12 34 56 78 00 9a bc de 00 00",
        ("00",),
    ),
    Row(sbc_transfer.Write12(0x12345678, 2, block_size=1, dpo=True), "aa 10 12 34 56 78 00 00 00 02 00 00"),
    Row(
        sbc_transfer.WriteAtomic16(LBA_16, 0x1112, block_size=1, boundary=0x0A0B, fua=True),
        "9c 08 01 02 03 04 05 06 07 08 0a 0b 11 12 00 00",
    ),
    Row(sbc_transfer.WriteAndVerify10(0x01020304, 0x0506, block_size=1, byte_check=1), "2e 02 01 02 03 04 00 05 06 00"),
    Row(sbc_transfer.WriteAndVerify12(0x01020304, 5, block_size=1, dpo=True), "ae 10 01 02 03 04 00 00 00 05 00 00"),
    Row(sbc_transfer.WriteAndVerify16(LBA_16, 9, block_size=1), "8e 00 01 02 03 04 05 06 07 08 00 00 00 09 00 00"),
    Row(sbc_transfer.VerifyCompare10(1, 2, ONE_BLOCK, byte_check=3), "2f 06 00 00 00 01 00 00 02 00"),
    Row(sbc_transfer.Verify12(1, 2, dpo=True), "af 10 00 00 00 01 00 00 00 02 00 00"),
    Row(sbc_transfer.Verify16(LBA_16, 2, ONE_BLOCK, byte_check=1), "8f 02 01 02 03 04 05 06 07 08 00 00 00 02 00 00"),
    Row(sbc_transfer.SynchronizeCache16(LBA_16, 9, True), "91 02 01 02 03 04 05 06 07 08 00 00 00 09 00 00"),
    Row(sbc_transfer.PreFetch10(0x01020304, 0x0506, True), "34 02 01 02 03 04 00 05 06 00"),
    Row(sbc_transfer.PreFetch16(LBA_16, 9), "90 00 01 02 03 04 05 06 07 08 00 00 00 09 00 00"),
    Row(sbc_transfer.Seek10(0x01020304), "2b 00 01 02 03 04 00 00 00 00"),
    Row(sbc_transfer.RezeroUnit(), "01 00 00 00 00 00"),
    Row(sbc_transfer.WriteSame10(0x01020304, 0x0506, ONE_BLOCK, unmap=True), "41 08 01 02 03 04 00 05 06 00"),
    Row(
        sbc_transfer.WriteSame16(LBA_16, 9, anchor=True, no_data=True),
        "93 11 01 02 03 04 05 06 07 08 00 00 00 09 00 00",
    ),
    Row(sbc_transfer.OrWrite16(LBA_16, 9, block_size=1, fua=True), "8b 08 01 02 03 04 05 06 07 08 00 00 00 09 00 00"),
    Row(sbc_transfer.CompareAndWrite(LBA_16, 9, block_size=1), "89 00 01 02 03 04 05 06 07 08 00 00 00 09 00 00"),
    Row(sbc_long.ReadLong10(0x01020304, 0x0506, correct=True), "3e 02 01 02 03 04 00 05 06 00", ("00",)),
    Row(sbc_long.ReadLong16(LBA_16, 0x0A0B, physical=True), "9e 11 01 02 03 04 05 06 07 08 00 00 0a 0b 02 00", ("00",)),
    Row(sbc_long.WriteLong10(0x01020304, uncorrectable=True), "3f 40 01 02 03 04 00 00 00 00"),
    Row(
        sbc_long.WriteLong16(LBA_16, b"abc", disable_correction=True), "9f 91 01 02 03 04 05 06 07 08 00 00 00 03 00 00"
    ),
    # SBC: the medium
    Row(sbc_media.FormatUnit(), "04 00 00 00 00 00"),
    Row(sbc_media.FormatUnit(immediate=True, complete_list=True, protection=2), "04 98 00 00 00 00"),
    Row(sbc_media.FormatTrack(0x4F, 1, 2880), "04 17 4f 00 00 00 00 00 0c 00 00 00"),
    Row(sbc_media.SanitizeOverwrite(), "48 81 00 00 00 00 00 00 08 00"),
    Row(sbc_media.SanitizeBlockErase(unrestricted=True), "48 a2 00 00 00 00 00 00 00 00"),
    Row(sbc_media.SanitizeCryptoErase(immediate=False), "48 03 00 00 00 00 00 00 00 00"),
    Row(sbc_media.SanitizeExitFailure(), "48 1f 00 00 00 00 00 00 00 00"),
    Row(sbc_media.ReassignBlocks((1, 2)), "07 00 00 00 00 00"),
    Row(sbc_media.ReassignBlocks((1 << 32,)), "07 02 00 00 00 00"),
    Row(
        sbc_media.ReadDefectData10(primary=True, list_format=5, length=0x1234),
        "37 00 1d 00 00 00 00 12 34 00",
        ("00 1d 0008 000102 03 00000004", "00 08 0000", "00 08 0004 00000005"),
    ),
    Row(
        sbc_media.ReadDefectData12(index=7, length=0x12345),
        "b7 08 00 00 00 07 00 01 23 45 00 00",
        ("00 08 0001 00000008 00000005 00000009",),
    ),
    Row(
        sbc_media.GetLbaStatus(LBA_16, 0x18),
        "9e 12 01 02 03 04 05 06 07 08 00 00 00 18 00 00",
        ("00000024 00000000 0000000000000000 00000008 01 000000 0000000000000008 00000100 00 000000",),
    ),
    Row(
        sbc_media.GetPhysicalElementStatus(0x01020304, 1, length=0x40),
        "9e 17 00 00 00 00 01 02 03 04 00 00 00 40 40 00",
        (
            "00000001 00000001 00000000"
            + "00" * 20
            + "00000000 00000001 000000000000 01 32 0000000000100000"
            + "00" * 8,
        ),
    ),
    Row(
        sbc_media.ReadFormatCapacities(),
        "23 00 00 00 00 00 00 00 fc 00",
        ("000000 10 00000b40 02 000200 000005a0 00 000200",),
    ),
    # ZBC
    Row(zbc.ReportZones(LBA_16, 1, True, 0x1234), "95 00 01 02 03 04 05 06 07 08 00 00 12 34 81 00", (ZONES,)),
    Row(zbc.CloseZone(LBA_16), "94 01 01 02 03 04 05 06 07 08 00 00 00 00 00 00"),
    Row(zbc.FinishZone(LBA_16), "94 02 01 02 03 04 05 06 07 08 00 00 00 00 00 00"),
    Row(zbc.OpenZone(LBA_16), "94 03 01 02 03 04 05 06 07 08 00 00 00 00 00 00"),
    Row(zbc.ResetWritePointer(all_zones=True), "94 04 00 00 00 00 00 00 00 00 00 00 00 00 01 00"),
    # SSC-3
    Row(ssc.ReadBlockLimits(), "05 00 00 00 00 00", ("00 ffffff 0001",)),
    Row(ssc.Rewind(immediate=True), "01 01 00 00 00 00"),
    Row(ssc.Locate10(0x01020304, 5, True, True), "2b 03 00 01 02 03 04 00 05 00"),
    Row(ssc.Space6(-1, code=1), "11 01 ff ff ff 00"),
    Row(ssc.WriteFilemarks6(0x010203, immediate=True), "10 01 01 02 03 00"),
    Row(ssc.LoadUnload(load=True, retension=True), "1b 00 00 00 03 00"),
    Row(ssc.ReadPosition(), "34 00 00 00 00 00 00 00 00 00", ("80 00 0000 00000000 00000000 00000000 00000000",)),
    # MMC-6: the disc
    Row(mmc_disc.ReadToc(track=3, as_time=True), "43 02 00 00 00 00 03 10 00 00", (TRACKS,)),
    Row(mmc_disc.ReadSessions(), "43 00 01 00 00 00 00 00 0c 00", ("000a 01 02 00 14 05 00 00002be2",)),
    Row(mmc_disc.ReadFullToc(session=2), "43 02 02 00 00 00 02 10 00 00", (FULL_TOC,)),
    Row(mmc_disc.ReadTocBytes(5, as_time=False), "43 00 05 00 00 00 00 10 00 00", ("0002 00 00",)),
    Row(mmc_disc.ReadDiscInformation(), "51 00 00 00 00 00 00 00 22 00", (DISC,)),
    Row(mmc_disc.ReadTrackInformation(0x01020304, 2), "52 02 01 02 03 04 00 00 24 00", (TRACK,)),
    Row(
        mmc_disc.ReadDiscStructure(format=4, medium=1, layer=2, address=0x01020304, agid=3),
        "ad 01 01 02 03 04 02 04 10 00 c0 00",
        ("0006 0000 01020304",),
    ),
    # MMC-6: the drive
    Row(mmc_drive.GetConfiguration(2, 0x0108), "46 02 01 08 00 00 00 20 00 00", (CONFIGURATION,)),
    Row(
        mmc_drive.MechanismStatus(),
        "bd 00 00 00 00 00 00 00 00 08 00 00",
        ("00 10 000000 00 0000", "80f0000001020004 80000000"),
    ),
    Row(mmc_drive.LoadUnloadMedium(slot=4, immediate=True), "a6 01 00 00 03 00 00 00 04 00 00 00"),
    Row(mmc_drive.SetCdSpeed(0x0102, 0x0304, 1), "bb 01 01 02 03 04 00 00 00 00 00 00"),
    Row(mmc_drive.SetStreaming(), "b6 00 00 00 00 00 00 00 00 00 1c 00"),
    Row(mmc_drive.ReadBufferCapacity(True), "5c 01 00 00 00 00 00 00 0c 00", ("000a 00 00 00200000 00100000",)),
    Row(
        mmc_drive.GetPerformance(0x10, 0x01020304, 5),
        "ac 10 01 02 03 04 00 00 00 05 00 00",
        ("00000014 00000000 00000000 00000b00 00057e3f 00001b90",),
    ),
    # MMC-6: audio and raw sectors
    Row(
        mmc_audio.ReadSubChannel(as_time=True),
        "42 02 40 01 00 00 00 00 10 00",
        ("00 11 000c 01 10 02 01 00001000 00000010",),
    ),
    Row(mmc_audio.PlayAudio10(0x01020304, 0x0506), "45 00 01 02 03 04 00 05 06 00"),
    Row(mmc_audio.PlayAudioMsf(0x010203, 0x040506), "47 00 00 01 02 03 04 05 06 00"),
    Row(mmc_audio.PauseResume(resume=True), "4b 00 00 00 00 00 00 00 01 00"),
    Row(mmc_audio.StopPlayScan(), "4e 00 00 00 00 00 00 00 00 00"),
    Row(
        mmc_audio.ReadCd(2352, 1, True, True, 3, True, True, 1, 2, 0x01020304, 0x050607),
        "be 06 01 02 03 04 05 06 07 fa 02 00",
        ("00" * 16,),
    ),
    Row(
        mmc_audio.ReadCdMsf(2352, expected=5, start=0x010203, end=0x040506),
        "b9 14 00 01 02 03 04 05 06 10 00 00",
        ("00" * 16,),
    ),
    # MMC-6: burning and keys
    Row(mmc_burn.Blank(2, 0x01020304, True), "a1 12 01 02 03 04 00 00 00 00 00 00"),
    Row(mmc_burn.CloseTrackSession(1, 0x0203, True), "5b 01 01 00 02 03 00 00 00 00"),
    Row(mmc_burn.ReserveTrack(0x01020304), "53 00 00 00 00 01 02 03 04 00"),
    Row(mmc_burn.RepairTrack(0x0102, True), "58 01 00 00 01 02 00 00 00 00"),
    Row(mmc_burn.SendOpc(True, 2), "54 01 02 00 00 00 00 00 00 00"),
    Row(mmc_burn.SendCueSheet(bytes(16)), "5d 00 00 00 00 00 00 00 10 00"),
    Row(
        mmc_burn.ReportKey(key_class=2, agid=1, lba=0x01020304),
        "a4 00 01 02 03 04 00 02 00 08 48 00",
        ("0006 0000 64 fd 01 00",),
    ),
    Row(mmc_burn.SendKey(0x06, bytes(8), agid=1), "a3 00 00 00 00 00 00 00 00 08 46 00"),
    # SPC-4: diagnostics and logs
    Row(spc_diagnostic.SendDiagnostic(2), "1d 40 00 00 00 00"),
    Row(spc_diagnostic.SendDiagnostic(default_test=True), "1d 04 00 00 00 00"),
    Row(spc_diagnostic.SendDiagnostic(page=bytes(12)), "1d 10 00 00 0c 00"),
    Row(spc_diagnostic.ReceiveDiagnosticResults(2, length=0x102), "1c 01 02 01 02 00", ("02 00 0004 00000001",)),
    Row(spc_diagnostic.LogSelect(0x02, reset=True), "4c 02 42 00 00 00 00 00 00 00"),
    Row(spc_diagnostic.LogSelect(0x18, 1, save=True, parameters=bytes(8)), "4c 01 58 01 00 00 00 00 08 00"),
    # bridges' own, as smartmontools sends them (lib/scsiata.cpp, lib/scsinvme.cpp)
    Row(
        dialects.CypressAta(0xB0, 0xD0, 1, 0xC24F00),
        "24 24 00 be 01 00 d0 01 00 4f c2 00 b0 00 00 00",
        ("00" * 512,),
    ),
    Row(dialects.JmicronAta(0xB0, 0xD0, 1, 0xC24F00, 0xB0), "df 10 00 02 00 d0 01 00 4f c2 b0 b0", ("00" * 512,)),
    Row(dialects.Pl3507Ata(0xEC, 0, 1, 0, 0xA0), "df 10 00 02 00 00 01 00 00 00 a0 ec 06 7b", ("00" * 512,)),
    Row(dialects.JmicronRegister(0x720F), "df 10 00 00 01 00 72 0f 00 00 00 fd", ("40",)),
    Row(
        dialects.ProlificAta(0xB0, 0xD0, 1, 0xC24F01, 0xA0),
        "d8 15 00 d0 06 7b 00 00 02 00 01 01 4f c2 a0 b0",
        ("00" * 512,),
    ),
    Row(
        dialects.ProlificRegisters(),
        "d7 00 00 00 06 7b 00 00 00 00 00 00 00 00 00 00",
        ("50000000 00014f00 c200a0da 00b00050",),
    ),
    Row(dialects.SunplusAta(0xEC, 0, 1, 0, 0xA0), "f8 00 22 10 01 00 01 00 00 00 a0 ec", ("00" * 512,)),
    Row(dialects.SunplusRegisters(), "f8 00 21 00 00 00 00 00 00 00 00 00", ("0000 00 004fc2 a0 50",)),
    Row(nvme_bridges.AsmediaNvme(), "e6 06 00 01 00 00 00 00 00 00 00 00 00 00 00 00", ("00" * 4096,)),
    Row(nvme_bridges.RealtekNvme(2, 2, 512), "e4 00 02 02 02 00 00 00 00 00 00 00 00 00 00 00", ("00" * 512,)),
    Row(nvme_bridges.JmicronNvme(2, 4096), "a1 82 00 00 10 00 00 00 00 00 00 00", ("00" * 4096,)),
    Row(nvme_bridges.JmicronNvmeCommand(), "a1 80 00 00 02 00 00 00 00 00 00 00"),
)
