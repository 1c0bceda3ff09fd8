"""CDBs and replies, byte by byte, as the standards define them."""

from __future__ import annotations

import types
from typing import Any

import pytest
from construct import BitStruct, Int8ub, Padding, Struct

from scsiusb import MalformedReply
from scsiusb.scsi.command import Command, opcode
from scsiusb.scsi.commands import mmc as multimedia
from scsiusb.scsi.commands import sbc as block
from scsiusb.scsi.commands import spc as primary
from scsiusb.scsi.commands import spc_parameters as parameters
from scsiusb.scsi.pages import inquiry, mode, vpd
from scsiusb.scsi.pages.vpd_designators import parse_designators
from scsiusb.scsi.pages.vpd_fields import find_layout
from scsiusb.transport.base import Direction

CDBS: list[tuple[Command[Any], str]] = [
    (primary.TestUnitReady(), "00 00 00 00 00 00"),
    (primary.RequestSense(), "03 00 00 00 12 00"),
    (primary.RequestSense(descriptor=True, length=252), "03 01 00 00 fc 00"),
    (primary.Inquiry(), "12 00 00 00 24 00"),
    (primary.Inquiry(length=0x1234), "12 00 00 12 34 00"),
    (primary.InquiryVpdBytes(0x83), "12 01 83 00 fc 00"),
    (primary.ModeSense6(), "1a 00 3f 00 c0 00"),
    (primary.ModeSense6(page=8, page_control=2, disable_block_descriptors=True, subpage=1), "1a 08 88 01 c0 00"),
    (primary.ModeSense10(), "5a 00 3f 00 00 00 00 00 c0 00"),
    (primary.ModeSense10(long_lba_accepted=True, length=0x1234), "5a 10 3f 00 00 00 00 12 34 00"),
    (primary.ReportLuns(), "a0 00 00 00 00 00 00 00 08 08 00 00"),
    (primary.PreventAllow(prevent=1), "1e 00 00 00 01 00"),
    (block.ReadCapacity10(), "25 00 00 00 00 00 00 00 00 00"),
    (block.ReadCapacity16(), "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00"),
    (block.Read10(0x12345678, 0x9ABC, block_size=512), "28 00 12 34 56 78 00 9a bc 00"),
    (block.Read10(1, 1, block_size=512, fua=True), "28 08 00 00 00 01 00 00 01 00"),
    (block.Read10(1, 1, block_size=512, dpo=True), "28 10 00 00 00 01 00 00 01 00"),
    (block.Read16(0x123456789A, 0xBCDEF0, block_size=512), "88 00 00 00 00 12 34 56 78 9a 00 bc de f0 00 00"),
    (block.Write10(2, 3, block_size=512), "2a 00 00 00 00 02 00 00 03 00"),
    (block.Write16(2, 3, block_size=512), "8a 00 00 00 00 00 00 00 00 02 00 00 00 03 00 00"),
    (block.Verify10(2, 3), "2f 00 00 00 00 02 00 00 03 00"),
    (block.SynchronizeCache10(), "35 00 00 00 00 00 00 00 00 00"),
    (block.SynchronizeCache10(immediate=True), "35 02 00 00 00 00 00 00 00 00"),
    (block.Unmap(2, 3), "42 00 00 00 00 00 00 00 18 00"),
    (block.StartStopUnit(start=True), "1b 00 00 00 01 00"),
    (block.StartStopUnit(load_eject=True), "1b 00 00 00 02 00"),
    (parameters.ModeSelect6(bytes(20)), "15 10 00 00 18 00"),
    (parameters.ModeSelect6(bytes(20), save=True), "15 11 00 00 18 00"),
    (parameters.ModeSelect10(bytes(20), save=True), "55 11 00 00 00 00 00 00 1c 00"),
    (parameters.LogSense(0x0D), "4d 00 4d 00 00 00 00 10 00 00"),
    (parameters.LogSense(0x19, 0x20, pointer=3, length=252), "4d 00 59 20 00 00 03 00 fc 00"),
    (multimedia.GetMediaEvent(), "4a 01 00 00 10 00 00 00 08 00"),
    (block.StartStopUnit(power_condition=3, immediate=True), "1b 01 00 00 30 00"),
]


@pytest.mark.parametrize(("command", "wire"), CDBS, ids=lambda value: str(value))
def test_a_cdb_has_the_bytes_of_the_standard(command: Command[Any], wire: str) -> None:
    assert command.cdb().hex(" ") == wire


def test_a_number_of_blocks_beyond_its_field_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks=65536 does not fit"):
        block.Read10(0, 0x10000, block_size=512).cdb()


def test_directions_and_lengths_of_the_data_phase() -> None:
    read = block.Read10(0, 3, block_size=4096)
    write = block.Write16(0, 1, block_size=2, data=b"ab")
    assert (read.direction, read.length) == (Direction.IN, 3 * 4096)
    assert (write.direction, write.length, write.payload) == (Direction.OUT, 2, b"ab")
    assert (primary.TestUnitReady().direction, primary.TestUnitReady().length) == (Direction.NONE, 0)


def test_unmap_sends_its_range() -> None:
    command = block.Unmap(0x123456789A, 0xBCDEF0)
    assert command.payload.hex(" ", 4) == "00160010 00000000 00000012 3456789a 00bcdef0 00000000"
    assert (command.direction, command.length) == (Direction.OUT, len(command.payload))
    assert str(command) == "UNMAP of 12377840 blocks at LBA 78187493530"


def test_the_text_of_a_command_has_its_name_and_its_blocks() -> None:
    assert str(block.Read10(7, 1, block_size=512)) == "READ(10) of 1 block at LBA 7"
    assert str(block.Write16(7, 2, block_size=512)) == "WRITE(16) of 2 blocks at LBA 7"
    assert str(primary.InquiryVpdBytes(0xB0)) == "INQUIRY of VPD page B0h"


INQUIRY = bytes.fromhex("00800502 1f000000") + b"Vendor  Product         1.0 "


def test_inquiry_data_is_typed() -> None:
    data = primary.Inquiry().reply(INQUIRY)
    assert data == inquiry.InquiryData(0, 0, True, 5, 2, "Vendor", "Product", "1.0")
    assert data.type_text == "disk"
    assert data.is_present


INQUIRY_BITS = {  # by byte and bit (SPC-4 6.6.2)
    "lu_cong": (1, 6),
    "normaca": (3, 5),
    "hisup": (3, 4),
    "sccs": (5, 7),
    "acc": (5, 6),
    "third_party_copy": (5, 3),
    "protect": (5, 0),
    "encserv": (6, 6),
    "multip": (6, 4),
    "addr16": (6, 0),
    "cmdque": (7, 1),
}


@pytest.mark.parametrize("name", INQUIRY_BITS)
def test_each_flag_of_inquiry_data_has_its_bit(name: str) -> None:
    byte, bit = INQUIRY_BITS[name]
    data = bytearray(INQUIRY)
    data[byte] |= 1 << bit
    found = inquiry.InquiryData.parse(bytes(data))
    assert [each for each in INQUIRY_BITS if getattr(found, each)] == [name]


def test_version_descriptors_end_where_the_data_do() -> None:
    data = INQUIRY[:4] + bytes((57,)) + INQUIRY[5:] + bytes(22) + bytes.fromhex("0460 04c0 0600")
    assert inquiry.InquiryData.parse(data).version_descriptors == (0x0460, 0x04C0)
    assert inquiry.InquiryData.parse(data[:61]).version_descriptors == (0x0460,)


@pytest.mark.parametrize("length", range(5, 36))
def test_fields_missing_from_short_inquiry_data_are_empty(length: int) -> None:
    data = inquiry.InquiryData.parse(INQUIRY[:length])
    assert data.version == 5
    assert "Vendor".startswith(data.vendor)


@pytest.mark.parametrize("length", range(5))
def test_inquiry_data_without_a_header_are_malformed(length: int) -> None:
    with pytest.raises(MalformedReply):
        inquiry.InquiryData.parse(INQUIRY[:length])


def test_hostile_inquiry_texts_cannot_reach_the_terminal() -> None:
    data = inquiry.InquiryData.parse(INQUIRY[:8] + b"\x1b[31mEvil" + b"\xff\x07" + b"\x00tail" * 5)
    assert "\x1b" not in data.vendor
    assert data.product.isprintable()


def test_qualifier_3_means_that_there_is_no_unit() -> None:
    assert not inquiry.InquiryData.parse(b"\x7f" + INQUIRY[1:]).is_present
    assert inquiry.InquiryData.parse(b"\x1f" + INQUIRY[1:]).type_text == "none"
    assert inquiry.InquiryData.parse(b"\x15" + INQUIRY[1:]).type_text == "type 15h"


def test_capacity_is_the_last_lba_plus_one() -> None:
    short = block.ReadCapacity10().reply(bytes.fromhex("0000ffff 00000200"))
    long = block.ReadCapacity16().reply(bytes.fromhex("00000001 7fffffff 00001000") + bytes(20))
    assert (short.blocks, short.block_size) == (0x10000, 512)
    assert (long.blocks, long.block_size) == (0x180000000, 4096)


def test_what_the_longer_capacity_says_of_the_medium() -> None:
    data = bytes.fromhex("00000000 0000ffff 00000200 15 23 c0 07") + bytes(16)
    found = block.ReadCapacity16().reply(data)
    assert found == block.LongCapacity(
        0xFFFF,
        512,
        rc_basis=1,
        p_type=2,
        prot_en=True,
        p_i_exponent=2,
        logical_blocks_per_physical_block_exponent=3,
        lbpme=True,
        lbprz=True,
        lowest_aligned_lba=7,
    )
    assert block.ReadCapacity16().reply(data[:12]) == block.LongCapacity(0xFFFF, 512), "the rest is 0"
    with pytest.raises(MalformedReply):
        block.ReadCapacity16().reply(data[:11])


def test_a_capacity_cut_short_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        block.ReadCapacity10().reply(bytes(7))


def test_report_luns_gives_single_level_luns() -> None:
    entries = ["0000000000000000", "0001000000000000", "4102000000000000"]
    data = bytes.fromhex("00000018 00000000" + "".join(entries))
    assert primary.ReportLuns().reply(data) == (0, 1, 0x102)


def test_report_luns_stops_at_the_end_of_the_data_and_at_the_length_in_its_header() -> None:
    entry = bytes.fromhex("0003000000000000")
    assert primary.ReportLuns().reply(bytes.fromhex("ffffffff 00000000") + entry) == (3,)
    assert primary.ReportLuns().reply(bytes.fromhex("00000008 00000000") + entry * 2) == (3,)


def page(number: int, data: bytes) -> vpd.AnyPage:
    return vpd.parse_page(data, number)


def test_a_vpd_page_cut_short_is_malformed() -> None:
    with pytest.raises(MalformedReply, match="received 10 bytes of 24"):
        page(0x80, bytes.fromhex("00800014") + b"ABCDEF")


def test_vpd_pages_are_typed() -> None:
    assert page(0, bytes.fromhex("00000003 008083")) == vpd.SupportedPages((0, 0x80, 0x83))
    assert page(0x80, bytes.fromhex("00800004") + b" AB\0") == vpd.UnitSerialNumber("AB")
    limits = page(0xB0, bytes.fromhex("00b0003c 0000 0008 00001000 00000800") + bytes(48))
    assert limits == vpd.BlockLimits(8, 0x1000, 0x800)
    limits = page(0xB0, bytes.fromhex("00b0003c 0000 0008 00001000 00000800 00000000 00ffffff 00000010") + bytes(36))
    assert limits == vpd.BlockLimits(8, 0x1000, 0x800, 0xFFFFFF, 16)
    assert page(0xB0, bytes.fromhex("00b0000c 0000 0008 00001000 00000800")) == vpd.BlockLimits(8, 0x1000, 0x800)
    provisioning = page(0xB2, bytes.fromhex("00b20004 00 84 02 00"))
    assert provisioning == vpd.LogicalBlockProvisioning(True, False, False, True, 2)
    assert page(0xB2, bytes.fromhex("00b20004 00 60 00 00")) == vpd.LogicalBlockProvisioning(
        False, True, True, False, 0
    )
    assert page(0xC7, bytes.fromhex("00c70002 abcdee")) == vpd.VpdPage(0xC7, b"\xab\xcd")


def test_block_limits_have_all_fields_by_the_standards_names() -> None:
    body = bytes(range(1, 61))
    limits = vpd.BlockLimits.parse(body)
    assert limits.body == body
    assert list(limits.fields.items()) == [
        ("wsnz", 1),
        ("maximum_compare_and_write_length", 0x02),
        ("optimal_transfer_length_granularity", 0x0304),
        ("maximum_transfer_length", 0x05060708),
        ("optimal_transfer_length", 0x090A0B0C),
        ("maximum_prefetch_length", 0x0D0E0F10),
        ("maximum_unmap_lba_count", 0x11121314),
        ("maximum_unmap_block_descriptor_count", 0x15161718),
        ("optimal_unmap_granularity", 0x191A1B1C),
        ("ugavalid", 0),
        ("unmap_granularity_alignment", 0x1D1E1F20),
        ("maximum_write_same_length", 0x2122232425262728),
        ("maximum_atomic_transfer_length", 0x292A2B2C),
        ("atomic_alignment", 0x2D2E2F30),
        ("atomic_transfer_length_granularity", 0x31323334),
        ("maximum_atomic_transfer_length_with_atomic_boundary", 0x35363738),
        ("maximum_atomic_boundary_size", 0x393A3B3C),
    ]
    assert list(vpd.BlockLimits.parse(body[:12]).fields)[-1] == "optimal_transfer_length"


def test_the_product_types_of_page_b1_have_the_numbers_of_sbc_4() -> None:
    """They were off by one; sg_vpd has the standard's."""
    layout = find_layout(0xB1)
    assert layout is not None
    (text,) = [each.text for each in layout.fields if each.name == "PRODUCT_TYPE"]
    assert text == "1: CFast, 2: CompactFlash, 3: MemoryStick, 4: MultiMediaCard, 5: SD, 6: XQD, 7: UFS"


def test_logical_block_provisioning_with_a_group() -> None:
    group = bytes.fromhex("0103 0008 5000c500 12345678")
    page = vpd.LogicalBlockProvisioning.parse(bytes.fromhex("0a 8b 1a 32") + group)
    assert page.fields == {
        "threshold_exponent": 10,
        "lbpu": 1,
        "lbpws": 0,
        "lbpws10": 0,
        "lbprz": 2,
        "anc_sup": 1,
        "dp": 1,
        "minimum_percentage": 3,
        "provisioning_type": 2,
        "threshold_percentage": 50,
    }
    assert (page.unmap, page.zeros, page.kind, page.problems) == (True, False, 2, ()), "2: a pattern, not zeros"
    assert [each.text for each in page.provisioning_group] == ["5000c50012345678"]
    cut = vpd.LogicalBlockProvisioning.parse(page.body[:10])
    assert cut.provisioning_group == ()
    assert "designator 0 is cut" in cut.problems[0]


def test_device_identification_lists_its_designators() -> None:
    names = page(0x83, bytes.fromhex("0083 0018 0103 0008 5000c500 12345678 0201 0008") + b"Vendor X")
    assert isinstance(names, vpd.DeviceIdentification)
    assert [(d.kind_text, d.text) for d in names.designators] == [
        ("NAA", "5000c50012345678"),
        ("T10 vendor ID", "Vendor X"),
    ]


NAMES = {  # a designation descriptor, and the parts of its designator
    "0103 0008 2123456789abcdef": {
        "naa": 2,
        "vendor_specific_identifier_a": 0x123,
        "ieee_company_id": 0x456789,
        "vendor_specific_identifier_b": 0xABCDEF,
    },
    "0103 0008 3123456789abcdef": {"naa": 3, "locally_administered_value": 0x123456789ABCDEF},
    "0103 0008 5000c50012345678": {"naa": 5, "ieee_company_id": 0x000C50, "vendor_specific_identifier": 0x012345678},
    "0103 0010 6123456789abcdef 0123456789abcdef": {
        "naa": 6,
        "ieee_company_id": 0x123456,
        "vendor_specific_identifier": 0x789ABCDEF,
        "vendor_specific_identifier_extension": 0x0123456789ABCDEF,
    },
    "0103 0004 5000c500": {"naa": 5, "ieee_company_id": 0x000C50},
    "0103 0000": {},
    "0103 0008 7000000000000000": {},
    "0102 0008 0123456789abcdef": {
        "ieee_company_id": 0x012345,
        "vendor_specific_extension_identifier": 0x6789ABCDEF,
    },
    "0102 000c 0123456789abcdef 00000007": {
        "ieee_company_id": 0x012345,
        "vendor_specific_extension_identifier": 0x6789ABCDEF,
        "directory_id": 7,
    },
    "0102 0010 0000000000000009 0123456789abcdef": {
        "identifier_extension": 9,
        "ieee_company_id": 0x012345,
        "vendor_specific_extension_identifier": 0x6789ABCDEF,
    },
    "0114 0004 00000102": {"relative_target_port_identifier": 0x102},
    "0115 0004 00000103": {"target_port_group": 0x103},
    "0106 0004 00000104": {"logical_unit_group": 0x104},
    "010a 0012 1000 0123456789abcdef0123456789abcdef": {
        "uuid_type": 1,
        "uuid": "01234567-89ab-cdef-0123-456789abcdef",
    },
    "010a 0010 1000 0123456789abcdef0123456789ab": {"uuid_type": 1},
}


@pytest.mark.parametrize("data", NAMES)
def test_an_identifier_has_its_parts(data: str) -> None:
    (name,), problems = parse_designators(bytes.fromhex(data))
    assert (name.fields, problems) == (NAMES[data], ())
    assert name.text == name.value.hex()


@pytest.mark.parametrize(
    ("data", "protocol"),
    [("6193 0000", "SAS"), ("91a3 0000", "USB Attached SCSI"), ("c193 0000", "protocol Ch"), ("6113 0000", None)],
)
def test_the_protocol_counts_only_where_it_is_valid_and_of_a_port_or_device(data: str, protocol: str | None) -> None:
    (name,), _ = parse_designators(bytes.fromhex(data))
    assert name.protocol_text == protocol
    (name,), _ = parse_designators(bytes((*bytes.fromhex(data[:2]), 0x83, 0, 0)))
    assert name.protocol is None, "of the logical unit"


def test_a_designator_in_utf_8() -> None:
    (name,), _ = parse_designators(bytes.fromhex("0308 0004 c3a90000"))
    assert name.text == "\u00e9"


def test_a_list_of_designators_that_ends_anywhere_says_so() -> None:
    data = bytes.fromhex("0103 0008 5000c500 12345678 0201 0008") + b"Vendor X"
    for end in range(len(data)):
        found = vpd.DeviceIdentification.parse(data[:end])
        assert len(found.designators) == end // 12
        assert bool(found.problems) == (end not in (0, 12))
        assert all(data[12 * (end // 12) : end].hex(" ") in problem for problem in found.problems)
        assert found.body == data[:end]


@pytest.mark.parametrize("data", ["", "0000", "00800000", "05000003008083"], ids=["nothing", "cut", "other page", "ok"])
def test_a_vpd_page_with_another_code_is_malformed(data: str) -> None:
    """Some sticks answer every INQUIRY with the standard data."""
    reply = bytes.fromhex(data)
    if data.startswith("05"):
        assert page(0, reply) == vpd.SupportedPages((0, 0x80, 0x83))
    else:
        with pytest.raises(MalformedReply):
            page(0, reply)


def test_mode_parameters_6_and_10() -> None:
    page = "0812 0400ffff0000ffffffff800000000000 0000"
    short = primary.ModeSense6().reply(bytes.fromhex("1f 00 80 08 00000000 00000200" + page))
    long = primary.ModeSense10().reply(bytes.fromhex("0022 00 10 0000 0008 00000000 00000200" + page))
    assert (short.write_protected, short.dpo_fua) == (True, False)
    assert (long.write_protected, long.dpo_fua) == (False, True)
    assert short.pages == long.pages
    assert [(p.code, p.subpage, len(p.body)) for p in short.pages] == [(8, 0, 18)]
    assert short.block_descriptors.hex() == "0000000000000200"


def test_bytes_after_the_mode_data_are_ignored() -> None:
    data = primary.ModeSense6().reply(bytes.fromhex("07 00 00 00 0a 02 aabb") + bytes(100))
    assert data.pages == (mode.ModePage(0x0A, 0, b"\xaa\xbb"),)
    long = primary.ModeSense10().reply(bytes.fromhex("000a 00 00 0000 0000 0a 02 aabb") + bytes(100))
    assert long.pages == data.pages


def test_a_mode_data_length_of_0_is_ignored() -> None:
    """Some sticks do not fill in the MODE DATA LENGTH field."""
    data = primary.ModeSense6().reply(bytes.fromhex("00 00 80 00"))
    assert data.write_protected


def test_a_mode_subpage_has_a_longer_header() -> None:
    data = primary.ModeSense6().reply(bytes.fromhex("00 00 00 00 4a 01 0002 aabb"))
    assert data.pages == (mode.ModePage(0x0A, 1, b"\xaa\xbb"),)


@pytest.mark.parametrize("data", [b"", b"\x03\x00\x00", b"\x03\x00\x00\x08\x00"])
def test_mode_parameters_without_a_whole_header_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedReply):
        primary.ModeSense6().reply(data)


@pytest.mark.parametrize(
    ("data", "is_valid", "present"),
    [
        ("0006 04 5e 02 02 0000", True, True),
        ("0006 04 5e 03 01 0000", True, False),
        ("0002 80 5e 00 00 0000", False, False),
    ],
)
def test_a_media_event_reports_whether_a_disc_is_present(data: str, is_valid: bool, present: bool) -> None:
    event = multimedia.GetMediaEvent().reply(bytes.fromhex(data))
    assert (not event.no_event, event.present) == (is_valid, present)


def test_a_media_event_cut_short_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        multimedia.GetMediaEvent().reply(bytes(5))


class Declared:
    """The parts of a sound declaration."""

    NAME = "VENDOR"
    CDB = BitStruct(opcode(0xC0), Padding(40))
    direction = Direction.IN
    length = 2

    def reply(self, data: bytes) -> int:
        return len(data)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [("CDB", "has no CDB: such as"), ("reply", "has no reply: a method"), ("NAME", "has no NAME: the text")],
)
def test_an_incomplete_command_is_refused_when_it_is_declared(left_out: str, message: str) -> None:
    parts = {name: value for name, value in vars(Declared).items() if name != left_out and not name.startswith("__")}
    with pytest.raises(TypeError, match=f"the command Vendor {message}"):
        type("Vendor", (Command,), parts)


def test_a_cdb_that_is_no_bit_struct_is_refused_when_it_is_declared() -> None:
    for wrong in (b"\xc0", Struct("opcode" / Int8ub)):
        with pytest.raises(TypeError, match=r"Vendor\.CDB: .*BitStruct"):
            type("Vendor", (Command,), {"NAME": "VENDOR", "CDB": wrong})


def _add_reply(parts: dict[str, Any]) -> None:
    parts["reply"] = Declared.reply


def test_a_base_of_commands_may_be_incomplete_and_what_it_has_is_inherited() -> None:
    base: Any = types.new_class("Base", (Command,), {"abstract": True}, _add_reply)
    whole = type("Whole", (base,), {"NAME": "VENDOR", "CDB": Declared.CDB, "direction": Direction.IN, "length": 2})
    assert whole().cdb() == b"\xc0" + bytes(5)
    with pytest.raises(TypeError, match="has no CDB"):
        type("Vendor", (base,), {"NAME": "VENDOR"})
