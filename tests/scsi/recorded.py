"""The CDBs that programs of sg3_utils 1.46 sent, as `-vvv` printed them, by their command line.

`sg3_utils.txt` has a `$` line for each. On /dev/null a program prints what it sends before it learns that this is no
device; most send INQUIRY first and end there. These have /dev/sg0, a virtual stick over USB/IP, or /dev/sg1, a virtual
CD drive: tests/kernel/test_recorded_cdbs.py gives them again in the lab, and compares.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from scsiusb.ata.identify import IDENTIFY_DEVICE
from scsiusb.ata.passthrough import AtaPassThrough12, AtaPassThrough16
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import (
    mmc_drive,
    sbc,
    sbc_long,
    sbc_media,
    sbc_transfer,
    spc,
    spc_buffer,
    spc_copy,
    spc_diagnostic,
    spc_parameters,
    spc_reserve,
    spc_support,
    ssc,
    zbc,
)

TEXT = Path(__file__).with_name("sg3_utils.txt")
CDB = re.compile(r"^.*(?:cdb|^\w+\(\d+\)).*?((?:\b[0-9a-f]{2} ){5,15}[0-9a-f]{2}\b).*$", re.MULTILINE)
NODE = re.compile(r"/dev/sg([01])")
LAST_NODE = re.compile(r" /dev/(?:sg[01]|null)$")

SG3: Final[tuple[tuple[str, Command[Any]], ...]] = (
    ("sg_turs", spc.TestUnitReady()),
    ("sg_requests", spc.RequestSense(length=252)),
    ("sg_opcodes --opcode=0x9e,0x10", spc_support.ReportSupportedOperationCode(0x9E, 0x10, options=2, length=0x2000)),
    ("sg_timestamp", spc_support.ReportTimestamp()),
    ("sg_timestamp --milliseconds=1609459200000", spc_support.SetTimestamp(1609459200000)),
    ("sg_ident", spc_support.ReportIdentifyingInformation(length=4)),
    ("sg_rmsn", spc_support.ReadMediaSerialNumber(length=4)),
    ("sg_write_buffer --mode=echo --in=/dev/zero --length=16", spc_buffer.WriteBuffer(bytes(16), mode=0x0A)),
    ("sg_reassign --address=5,0x123", sbc_media.ReassignBlocks((5, 0x123))),
    ("sg_reassign --grown", sbc_media.ReadDefectData10(list_format=4, length=4)),
    ("sg_get_lba_status --lba=0x12345", sbc_media.GetLbaStatus(0x12345, length=24)),
    ("sg_rep_zones --start=0x12345", zbc.ReportZones(0x12345, length=0x2000)),
    ("sg_reset_wp --zone=0x12345", zbc.ResetWritePointer(0x12345)),
    ("sg_zone --open --zone=0x12345", zbc.OpenZone(0x12345)),
    ("sg_zone --finish --zone=0x12345", zbc.FinishZone(0x12345)),
    ("sg_zone --close --zone=0x12345", zbc.CloseZone(0x12345)),
    ("sg_sync --16 --lba=5 --count=3", sbc_transfer.SynchronizeCache16(5, 3)),
    ("sg_verify --16 --lba=5 --count=3", sbc_transfer.Verify16(5, 3)),
    ("sg_verify --lba=5 --count=3", sbc.Verify10(5, 3)),
    ("sg_write_same --10 --lba=5 --num=2 --xferlen=512 --in=/dev/zero", sbc_transfer.WriteSame10(5, 2)),
    (
        "sg_write_same --16 --lba=5 --num=2 --xferlen=512 --unmap --in=/dev/zero",
        sbc_transfer.WriteSame16(5, 2, unmap=True),
    ),
    ("sg_write_same --16 --lba=5 --num=2 --ndob", sbc_transfer.WriteSame16(5, 2, no_data=True)),
    (
        "sg_compare_and_write --lba=5 --num=1 --xferlen=1024 --in=/dev/zero",
        sbc_transfer.CompareAndWrite(5, 1, block_size=512),
    ),
    ("sg_write_verify --lba=5 --num=1 --ilen=512 --in=/dev/zero", sbc_transfer.WriteAndVerify10(5, 1, block_size=512)),
    (
        "sg_write_verify --16 --lba=5 --num=1 --ilen=512 --in=/dev/zero",
        sbc_transfer.WriteAndVerify16(5, 1, block_size=512),
    ),
    ("sg_prevent", spc.PreventAllow(prevent=1)),
    ("sg_start", sbc.StartStopUnit(start=True)),
    ("sg_unmap --lba=5 --num=1 --force", sbc.Unmap(5, 1)),
    ("sg_luns", spc.ReportLuns(length=0x2000)),
    ("sg_readcap --long", sbc.ReadCapacity16()),
    ("sg_readcap", sbc.ReadCapacity10()),
    ("sg_seek --10 --lba=5", sbc_transfer.Seek10(5)),
    ("sg_seek --pre-fetch --lba=5 --num-blocks=3", sbc_transfer.PreFetch16(5, 3)),
    ("sg_get_elem_status", sbc_media.GetPhysicalElementStatus(length=32)),
    ("sg_read_long --lba=0x12345 --xfer_len=520", sbc_long.ReadLong10(0x12345, 520)),
    ("sg_read_long --16 --lba=0x12345 --xfer_len=520", sbc_long.ReadLong16(0x12345, 520)),
    ("sg_write_long --lba=0x12345 --wr_uncor", sbc_long.WriteLong10(0x12345, uncorrectable=True)),
    ("sg_write_long --16 --lba=0x12345 --wr_uncor", sbc_long.WriteLong16(0x12345, uncorrectable=True)),
    ("sg_copy_results --params", spc_copy.ReceiveCopyParameters(length=520)),
    ("sg_read_buffer --mode=desc", spc_buffer.ReadBuffer(mode=3, length=0)),
    ("sg_inq --len=36", spc.Inquiry()),
    ("sg_vpd --page=0x83 --maxlen=252", spc.InquiryVpdBytes(0x83)),
    ("sg_modes --six --page=8", spc.ModeSense6(8, length=252)),
    ("sg_modes --page=8,1 --control=1", spc.ModeSense10(8, 1, page_control=1, length=4096)),
    (
        "sg_modes --llbaa --dbd --maxlen=4096",
        spc.ModeSense10(disable_block_descriptors=True, long_lba_accepted=True, length=4096),
    ),
    ("sg_wr_mode --six --dbd --page=8 --contents=8,12,4 --mask=0,0,4", spc_parameters.ModeSelect6(bytes(20))),
    (
        "sg_wr_mode --dbd --save --page=8 --contents=8,12,4 --mask=0,0,4",
        spc_parameters.ModeSelect10(bytes(20), save=True),
    ),
    ("sg_senddiag --test", spc_diagnostic.SendDiagnostic(default_test=True)),
    ("sg_senddiag --selftest=1", spc_diagnostic.SendDiagnostic(spc_diagnostic.BACKGROUND_SHORT)),
    ("sg_senddiag --pf --raw=a,0,0,0", spc_diagnostic.SendDiagnostic(page=bytes((0x0A, 0, 0, 0)))),
    ("sg_senddiag --page=2", spc_diagnostic.ReceiveDiagnosticResults(2)),
    ("sg_ses --page=1", spc_diagnostic.ReceiveDiagnosticResults(1, length=0xFFFC)),
    (
        "sg_dd verbose=3 if=/dev/sg0 of=/dev/null bs=512 skip=5 count=3 cdbsz=6",
        sbc_transfer.Read6(5, 3, block_size=512),
    ),
    ("sg_dd verbose=3 if=/dev/sg0 of=/dev/null bs=512 skip=5 count=3 cdbsz=10", sbc.Read10(5, 3, block_size=512)),
    (
        "sg_dd verbose=3 if=/dev/sg0 of=/dev/null bs=512 skip=5 count=3 cdbsz=10 iflag=dpo,fua",
        sbc.Read10(5, 3, block_size=512, dpo=True, fua=True),
    ),
    (
        "sg_dd verbose=3 if=/dev/sg0 of=/dev/null bs=512 skip=5 count=3 cdbsz=12",
        sbc_transfer.Read12(5, 3, block_size=512),
    ),
    (
        "sg_dd verbose=3 if=/dev/sg0 of=/dev/null bs=512 skip=5 count=3 cdbsz=16 iflag=fua",
        sbc.Read16(5, 3, block_size=512, fua=True),
    ),
    (
        "sg_dd verbose=3 if=/dev/zero of=/dev/sg0 bs=512 seek=5 count=3 cdbsz=6",
        sbc_transfer.Write6(5, 3, block_size=512),
    ),
    (
        "sg_dd verbose=3 if=/dev/zero of=/dev/sg0 bs=512 seek=5 count=3 cdbsz=10 oflag=fua",
        sbc.Write10(5, 3, block_size=512, fua=True),
    ),
    (
        "sg_dd verbose=3 if=/dev/zero of=/dev/sg0 bs=512 seek=5 count=3 cdbsz=12 oflag=dpo",
        sbc_transfer.Write12(5, 3, block_size=512, dpo=True),
    ),
    ("sg_dd verbose=3 if=/dev/zero of=/dev/sg0 bs=512 seek=5 count=3 cdbsz=16", sbc.Write16(5, 3, block_size=512)),
    (
        "sg_dd verbose=3 --verify if=/dev/zero of=/dev/sg0 bs=512 seek=5 count=3 cdbsz=10",
        sbc_transfer.VerifyCompare10(5, 3, bytes(1536), byte_check=1),
    ),
    (
        "sg_dd verbose=3 --verify if=/dev/zero of=/dev/sg0 bs=512 seek=5 count=3 cdbsz=16",
        sbc_transfer.Verify16(5, 3, bytes(1536), byte_check=1),
    ),
    ("sg_seek --pre-fetch --10 --lba=5 --num-blocks=3", sbc_transfer.PreFetch10(5, 3)),
    ("sg_sync --lba=5 --count=3 --immed", sbc.SynchronizeCache10(5, 3, immediate=True)),
    ("sg_logs --page=0xd,0x1 --maxlen=252", spc_parameters.LogSense(0x0D, 1, length=252)),
    ("sg_logs --reset --select --page=0xd", spc_diagnostic.LogSelect(0x0D, reset=True)),
    ("sg_persist --in --read-keys --alloc-length=0x2000", spc_reserve.PersistentReserveReadKeys()),
    ("sg_persist --in --read-reservation --alloc-length=18", spc_reserve.PersistentReserveReadReservation()),
    ("sg_persist --in --report-capabilities --alloc-length=8", spc_reserve.PersistentReserveCapabilities()),
    ("sg_persist --in --read-full-status --alloc-length=0x2000", spc_reserve.PersistentReserveFullStatus()),
    ("sg_persist --out --register --param-sark=0x123abc", spc_reserve.PersistentReserveOut(spc_reserve.REGISTER)),
    (
        "sg_persist --out --reserve --param-rk=0x123abc --prout-type=5",
        spc_reserve.PersistentReserveOut(spc_reserve.RESERVE, kind=5),
    ),
    (
        "sg_persist --out --preempt --param-rk=0x123abc --param-sark=0x123abc --prout-type=5",
        spc_reserve.PersistentReserveOut(spc_reserve.PREEMPT, kind=5),
    ),
    (
        "sg_persist --out --release --param-rk=0x123abc --prout-type=5",
        spc_reserve.PersistentReserveOut(spc_reserve.RELEASE, kind=5),
    ),
    ("sg_persist --out --clear --param-rk=0x123abc", spc_reserve.PersistentReserveOut(spc_reserve.CLEAR)),
    ("sg_write_x --or --in=/dev/zero --lba=5 --num=2 --bs=512", sbc_transfer.OrWrite16(5, 2, block_size=512)),
    (
        "sg_write_x --atomic=0x102 --in=/dev/zero --lba=5 --num=2 --bs=512",
        sbc_transfer.WriteAtomic16(5, 2, block_size=512, boundary=0x102),
    ),
    ("sg_write_x --normal --fua --in=/dev/zero --lba=5 --num=2 --bs=512", sbc.Write16(5, 2, block_size=512, fua=True)),
    ("sg_opcodes --tmf", spc_support.ReportSupportedTaskManagement()),
    ("sg_opcodes --rctd", spc_support.ReportSupportedOperationCodes(timeouts=True, length=0x2000)),
    ("printf stick | sg_ident --set", spc_support.SetIdentifyingInformation(b"stick")),
    ("sg_xcopy verbose=3 if=/dev/sg0 of=/dev/sg0 bs=512 skip=0 seek=16 count=8", spc_copy.ExtendedCopy(bytes(0x6C))),
    ("sg_sat_identify --len=16", AtaPassThrough16(IDENTIFY_DEVICE)),
    ("sg_sat_identify --len=12", AtaPassThrough12(IDENTIFY_DEVICE)),
    ("sg_read_block_limits", ssc.ReadBlockLimits()),
    ("sg_format --format --quick --early", sbc_media.FormatUnit(immediate=True, complete_list=True)),
    ("sg_sanitize --block --quick --early", sbc_media.SanitizeBlockErase()),
    ("sg_sanitize --crypto --quick --early --ause", sbc_media.SanitizeCryptoErase(unrestricted=True)),
    ("sg_sanitize --overwrite --zero --quick --ipl=4 --early", sbc_media.SanitizeOverwrite()),
    ("sg_sanitize --fail --quick", sbc_media.SanitizeExitFailure(immediate=True)),
    ("sg_get_config --current", mmc_drive.GetConfiguration(kind=1, length=0x2000)),
)
"""What each sends, by the command line without its device and `-vvv`."""


def lines() -> dict[str, list[str]]:
    """Return the CDBs that each command line printed, in order."""
    found = {}
    for block in TEXT.read_text(encoding="utf-8").split("$ ")[1:]:
        line, _, printed = block.partition("\n")
        found[line] = cdbs(printed)
    return found


def cdbs(printed: str) -> list[str]:
    """Return the CDBs in what a program printed."""
    return [found[1] for found in CDB.finditer(printed)]


def last_cdbs() -> dict[str, str]:
    """Return the last CDB of each command line, by the line without its device and `-vvv`."""
    return {LAST_NODE.sub("", line.replace(" -vvv", "")): sent[-1] for line, sent in lines().items() if sent}
