"""The commands of `command_rows`: their bytes, against three independent sources, and their replies."""

from __future__ import annotations

from typing import Any

import pytest

from scsiusb import MalformedReply
from scsiusb.ata import DECLARING
from scsiusb.scsi import catalog
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import (
    mmc_burn,
    mmc_disc,
    mmc_drive,
    sbc_media,
    sbc_transfer,
    spc_buffer,
    spc_reserve,
    spc_security,
    spc_support,
)
from scsiusb.transport.base import Direction
from tests.scsi.command_rows import FULL_TOC, LEVEL_0, ROWS, Row
from tests.scsi.recorded import SG3, last_cdbs
from tests.scsi.test_commands import CDBS


def reply_of(name: str, at: int = 0) -> Any:
    """Return the typed reply for the example of a row."""
    row = next(row for row in ROWS if type(row.command).__name__ == name and row.replies)
    return row.command.reply(bytes.fromhex(row.replies[at]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row.command).__name__)
def test_a_cdb_has_the_bytes_of_the_standards_table(row: Row) -> None:
    assert row.command.cdb().hex(" ") == row.cdb


@pytest.mark.parametrize("row", [row for row in ROWS if row.replies], ids=lambda row: type(row.command).__name__)
def test_a_reply_is_typed_or_malformed_wherever_it_is_cut(row: Row) -> None:
    whole = bytes.fromhex(row.replies[0])
    assert row.command.reply(whole) is not None
    for end in range(len(whole)):
        try:
            row.command.reply(whole[:end])
        except MalformedReply:
            continue


def test_every_declared_command_has_a_row() -> None:
    tested = {type(row.command) for row in ROWS} | {type(command) for command, _ in CDBS}
    assert [each.kind.__name__ for each in catalog.declared() if each.kind not in tested] == []


def test_there_are_a_hundred_commands_and_each_names_its_section() -> None:
    declared = catalog.declared()
    assert len({(each.opcode, each.service, each.name) for each in declared}) >= 100
    assert [each.kind.__name__ for each in declared if not each.section] == []


@pytest.mark.parametrize(("line", "command"), SG3, ids=[line for line, _ in SG3])
def test_a_cdb_is_what_sg3_utils_sends(line: str, command: Command[Any]) -> None:
    assert command.cdb().hex(" ") == last_cdbs()[line]


def test_opcodes_that_differ_by_device_type_are_looked_up_with_it() -> None:
    disk, tape, optical = 0x00, 0x01, 0x05
    for opcode, kind, name in (
        (0xA1, optical, "BLANK"),
        (0xA3, optical, "SEND KEY"),
        (0xA4, optical, "REPORT KEY"),
        (0x2B, disk, "SEEK(10)"),
        (0x2B, tape, "LOCATE(10)"),
        (0x01, disk, "REZERO UNIT"),
        (0x01, tape, "REWIND"),
        (0x05, tape, "READ BLOCK LIMITS"),
        (0x42, disk, "UNMAP"),
        (0x42, optical, "READ SUB-CHANNEL"),
        (0xC5, disk, "vendor specific C5h"),
    ):
        assert catalog.name_of(opcode, device_type=kind) == name
    assert catalog.name_of(0xA3, 0x0F) == "REPORT TIMESTAMP"
    assert catalog.lookup(b"") is None


@pytest.mark.parametrize(
    ("cdb", "kind", "name"),
    [
        ("5e00" + "00" * 8, 0, "PERSISTENT RESERVE IN, READ KEYS"),
        ("5e01" + "00" * 8, 0, "PERSISTENT RESERVE IN, READ RESERVATION"),
        ("5e02" + "00" * 8, 0, "PERSISTENT RESERVE IN, REPORT CAPABILITIES"),
        ("4802" + "00" * 8, 0, "SANITIZE, BLOCK ERASE"),
        ("4804" + "00" * 8, 0, "SANITIZE"),
        ("9e12" + "00" * 14, 0, "GET LBA STATUS"),
        ("a1" + "00" * 11, 0, "ATA PASS-THROUGH(12)"),
        ("a1" + "00" * 11, 5, "BLANK"),
        ("a180" + "00" * 10, 0, "JMicron NVMe"),
        ("a182" + "00" * 10, 5, "BLANK"),
        ("8508" + "00" * 14, 0, "ATA PASS-THROUGH(16)"),
        ("e606" + "00" * 14, 0, "ASMedia NVMe"),
        ("e4000206" + "00" * 12, 0, "Realtek NVMe"),
        ("df100002" + "00" * 8, 0, "JMicron ATA"),
        ("df1000010072" + "0f" + "000000" + "00fd", 0, "JMicron READ REGISTER"),
        ("2424" + "00be01" + "00" * 11, 0, "Cypress ATACB"),
        ("2400" + "00" * 8, 0, "unknown 24h"),
        ("c5" + "00" * 9, 0, "vendor specific C5h"),
    ],
)
def test_a_command_is_named_by_its_whole_cdb(cdb: str, kind: int, name: str) -> None:
    assert catalog.name_of_cdb(bytes.fromhex(cdb), kind, DECLARING) == name


def test_a_vendor_s_operation_code_alone_says_not_whose_it_is() -> None:
    assert catalog.name_of(0xE6) == "vendor specific E6h"


def test_supported_commands_have_their_timeouts() -> None:
    first, second = reply_of("ReportSupportedOperationCodes").commands
    assert (first.opcode, first.service, first.nominal, first.recommended) == (0x12, None, 30, 60)
    assert (second.opcode, second.service, second.cdb_length, second.nominal) == (0x9E, 0x10, 16, None)
    one = reply_of("ReportSupportedOperationCode")
    assert (one.is_supported, len(one.usage)) == (True, 16)
    assert reply_of("ReportSupportedOperationCode", 1).text == "not supported"


def test_a_list_that_was_cut_says_how_much_is_missing() -> None:
    data = bytes.fromhex("00000018" + "0000000000000006" * 2)
    found = spc_support.ReportSupportedOperationCodes().reply(data)
    assert (len(found.commands), found.missing) == (2, 8)


def test_a_timestamp_is_in_milliseconds() -> None:
    stamp = reply_of("ReportTimestamp")
    assert (stamp.milliseconds, stamp.text) == (1609459200000, "set by SET TIMESTAMP")
    sent = spc_support.SetTimestamp(1609459200000)
    assert sent.payload.hex() == "00000000" + "0176bb3e7000" + "0000"
    with pytest.raises(ValueError, match="does not fit"):
        _ = spc_support.SetTimestamp(1 << 48).payload


def test_reservations_are_typed() -> None:
    assert reply_of("PersistentReserveReadKeys").keys == (0x123ABC, 0x1111111122222222)
    held = reply_of("PersistentReserveReadReservation")
    assert (held.key, held.kind, spc_reserve.type_text(held.kind)) == (0x123ABC, 5, "write exclusive, registrants only")
    assert reply_of("PersistentReserveReadReservation", 1).key is None
    able = reply_of("PersistentReserveCapabilities")
    assert able.kinds == (1, 3, 5, 6, 7, 8)
    assert (able.compatible, able.persists, able.persisting) == (True, True, True)
    (host,) = reply_of("PersistentReserveFullStatus")
    assert (host.is_holder, host.port, host.transport_id.hex()) == (True, 1, "4500000000000000")
    out = spc_reserve.PersistentReserveOut(spc_reserve.REGISTER, key=1, new_key=2, persist=True)
    assert out.payload.hex() == "0000000000000001" + "0000000000000002" + "00000000" + "01" + "000000"


def test_tcg_discovery_says_whether_the_device_is_locked() -> None:
    found = spc_security.TcgLevel0Discovery().reply(bytes.fromhex(LEVEL_0))
    assert [feature.name for feature in found.features] == ["TPer", "locking"]
    assert (found.locked, found.locking_enabled, found.revision) == (True, True, "0.1")
    assert reply_of("SecurityProtocols") == (0, 1, 0xEE)
    assert [spc_security.protocol_text(code) for code in (0x01, 0xEE, 0xF1, 0x30)] == [
        "TCG",
        "IEEE 1667",
        "vendor specific",
        "reserved",
    ]


def test_buffers_are_described() -> None:
    assert spc_buffer.EchoDescriptor.parse(bytes.fromhex("01001000")) == spc_buffer.EchoDescriptor(True, 0x1000)
    assert spc_buffer.BufferDescriptor.parse(bytes.fromhex("09010000")) == spc_buffer.BufferDescriptor(9, 0x10000)


def test_defects_are_places_of_the_format_that_the_device_chose() -> None:
    sectors = reply_of("ReadDefectData10")
    assert sectors.defects == (sbc_media.Defect(None, 0x000102, 3, 4),)
    assert reply_of("ReadDefectData10", 2).defects == (sbc_media.Defect(5),)
    assert [defect.lba for defect in reply_of("ReadDefectData12").defects] == [5, 9]


def test_lba_status_lists_ranges() -> None:
    assert [(row.lba, row.blocks, row.text) for row in reply_of("GetLbaStatus")] == [
        (0, 8, "deallocated"),
        (8, 256, "mapped, or not known"),
    ]


def test_the_state_of_elements_zones_and_capacities_is_typed() -> None:
    (element,) = reply_of("GetPhysicalElementStatus")
    assert (element.element, element.health, element.blocks) == (1, 0x32, 0x100000)
    (zone,) = reply_of("ReportZones").zones
    assert (zone.kind, zone.condition, zone.blocks, zone.write_pointer) == (2, 1, 0x80000, 0x100)
    assert [(row.blocks, row.kind, row.block_size) for row in reply_of("ReadFormatCapacities")] == [
        (2880, 2, 512),
        (1440, 0, 512),
    ]


def test_lists_to_send() -> None:
    assert sbc_media.ReassignBlocks((5, 0x123)).payload.hex() == "00000008" + "00000005" + "00000123"
    assert sbc_media.ReassignBlocks((1 << 32,)).payload.hex() == "00000008" + "0000000100000000"
    assert sbc_media.SanitizeOverwrite(pattern=b"\x55", passes=3, invert=True).payload.hex() == "83000001" + "55"
    plain, immediate = sbc_media.FormatUnit(), sbc_media.FormatUnit(immediate=True)
    assert (plain.direction, plain.length, immediate.direction) == (Direction.NONE, 0, Direction.OUT)
    assert immediate.payload.hex() == "00020000"
    assert sbc_media.FormatTrack(1, 1, 2880).payload.hex() == "00b10008" + "00000b40" + "00000200"
    assert mmc_drive.SetStreaming(1, 2, 3, 4, restore=True).payload.hex() == (
        "04000000" + "00000001" + "00000002" + "00000003" + "000003e8" + "00000004" + "000003e8"
    )
    compare = sbc_transfer.CompareAndWrite(1, 2, block_size=512, data=bytes(2048))
    assert (compare.length, len(compare.payload)) == (2048, 2048)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks=0 means 256"):
        sbc_transfer.Read6(0, 0, block_size=512).cdb()
    with pytest.raises(ValueError, match="passes=32"):
        _ = sbc_media.SanitizeOverwrite(passes=32).payload


def test_the_toc_of_a_data_disc() -> None:
    toc = reply_of("ReadToc")
    assert [(track.track, track.start, track.is_data) for track in toc.tracks] == [(1, 0, True), (0xAA, 20000, True)]


AUDIO = "0032 01 05" + "00100100 00000000 00100200 00003a84 00100300 00008ca0 00100400 0000e0d8 00100500 00013880"
AUDIO += "0010aa00 00018a9c"


def test_the_toc_of_an_audio_disc() -> None:
    toc = mmc_disc.ReadToc().reply(bytes.fromhex(AUDIO))
    assert (toc.first, toc.last, len(toc.tracks), toc.missing) == (1, 5, 6, 0)
    assert not any(track.is_data for track in toc.tracks)
    assert [track.start for track in toc.tracks][:2] == [0, 14980]


# A CD Extra, as its format is described in the Blue Book: audio in the first session, data in the second one.
MULTI = "008b 01 02" + "0110 00a0 000000 00 010000" + "0110 00a1 000000 00 020000" + "0110 00a2 000000 00 283200"
MULTI += "0110 0001 000000 00 000200" + "0110 0002 000000 00 140000" + "0150 00b0 2b1400 02 4f3b4a"
MULTI += "0214 00a0 000000 00 032000" + "0214 00a1 000000 00 030000" + "0214 00a2 000000 00 320000"
MULTI += "0214 0003 000000 00 2b1600" + "0214 0003 000000 00 2b1600" * 2


def test_the_full_toc_of_a_disc_with_two_sessions() -> None:
    toc = mmc_disc.ReadFullToc().reply(bytes.fromhex(MULTI))
    starts = {(entry.session, entry.point): entry.lba for entry in toc.entries if entry.point < 0x64}
    assert (toc.first, toc.last) == (1, 2)
    assert starts == {(1, 1): 0, (1, 2): (20 * 60) * 75 - 150, (2, 3): (43 * 60 + 22) * 75 - 150}
    assert [entry.point for entry in mmc_disc.ReadFullToc().reply(bytes.fromhex(FULL_TOC)).entries] == [
        0xA0,
        0xA1,
        0xA2,
        1,
    ]


def test_the_state_of_disc_drive_and_region() -> None:
    disc = reply_of("ReadDiscInformation")
    assert (disc.text, disc.session, disc.erasable, disc.sessions) == ("complete", 3, False, 1)
    track = reply_of("ReadTrackInformation")
    assert (track.track, track.blocks, track.next_writable) == (1, 20000, 0x100)
    drive = reply_of("GetConfiguration")
    assert (mmc_drive.profile_text(drive.profile), drive.profiles) == ("CD-ROM", (8, 9))
    assert [feature.name for feature in drive.features] == ["profile list", "core", "drive serial number"]
    assert reply_of("MechanismStatus").door_open
    assert reply_of("MechanismStatus", 1).discs == (True,)
    region = mmc_burn.RegionState.parse(bytes.fromhex("0006 0000 64 fd 01 00"))
    assert (region.kind, region.changes, region.regions) == (1, 4, (2,))
