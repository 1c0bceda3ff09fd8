"""Vital product data and INQUIRY data with random contents, decoded by us and by sg_vpd and sg_inq.

Where they differ, and who is right:

- 80h: sg_vpd prints the spaces around a number; they are padding, not a part of it (SPC-4 7.8.18).
- 89h: sg_vpd prints the spaces around model and serial number; they are padding (ACS-3 7.12.7).
- B0h: sg_vpd prints -1 where all bits of a limit of UNMAP are set, and says that there is none; we show the number.
- INQUIRY: sg_inq ends the version descriptors at the first 0; SPC-4 6.6.2 does not say that 0 is the end. It also
  takes data of version 0 to 2 with another data format than 2 for a page; the version here is 3 or more.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from scsiusb.cli.pages import identification_in
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.pages.vpd import (
    AnyPage,
    BlockLimits,
    DeviceIdentification,
    FieldsPage,
    LogicalBlockProvisioning,
    SupportedPages,
    UnitSerialNumber,
    parse_page,
)
from scsiusb.scsi.pages.vpd_designators import Designator
from tests.programs import needs
from tests.scsi.vpd_makers import COPIES, MAKERS, UNLIMITED, WHOLE, letters, made

PAGES_EACH = 500
UNITS = ("Gigawatts", "Megawatts", "Kilowatts", "Watts", "Milliwatts", "Microwatts")
POLICIES = ("shared", "per target port", "per initiator port", "per I_T nexus")
Fields = dict[str, Any]


def expected(page: AnyPage) -> Iterator[str]:
    """Yield what sg_vpd must print, in order."""
    match page:
        case SupportedPages():
            yield from (f"  {number:#04x}" for number in page.pages)
        case UnitSerialNumber():
            yield page.serial
        case DeviceIdentification():
            for association in (0, 1, 2):
                for each in page.designators:
                    if each.association == association:
                        yield from expected_designator(each)
        case BlockLimits():
            yield from expected_limits(page.fields)
        case LogicalBlockProvisioning():
            yield from expected_provisioning(page.fields)
            yield from (phrase for each in page.provisioning_group for phrase in expected_designator(each))
        case FieldsPage():
            yield from expected_fields(page)


PROTOCOLS = {5: "Internet SCSI (iSCSI)", 6: "Serial Attached SCSI", 9: "USB Attached SCSI"}
PART_NAMES = {
    "vendor_specific_identifier_a": "NAA 2, vendor specific identifier A: {:#x}",
    "vendor_specific_identifier_b": "vendor specific identifier B: {:#x}",
    "vendor_specific_identifier": "Vendor Specific Identifier: {:#x}",
    "vendor_specific_identifier_extension": "Vendor Specific Identifier Extension: {:#x}",
    "vendor_specific_extension_identifier": "Vendor Specific Extension Identifier: {:#x}",
    "ieee_company_id": "IEEE Company_id: {:#x}",
    "identifier_extension": "Identifier extension: {:#x}",
    "directory_id": "Directory ID: {:#x}",
    "relative_target_port_identifier": "Relative target port: {:#x}",
    "target_port_group": "Target port group: {:#x}",
    "logical_unit_group": "Logical unit group: {:#x}",
    "uuid": "UUID: {}",
}


def expected_designator(found: Designator) -> Iterator[str]:
    yield f"code set: {('Reserved', 'Binary', 'ASCII', 'UTF-8')[found.code_set]}"
    if found.protocol in PROTOCOLS:
        yield f"transport: {PROTOCOLS[found.protocol]}"
    yield from (PART_NAMES[name].format(value) for name, value in found.fields.items() if name in PART_NAMES)
    if found.kind == 0x1:
        yield f"vendor id: {found.text[:8]}"
        yield f"vendor specific: {found.text[8:]}"
    if found.kind == 0x7:
        yield f"{found.value[:8].hex(' ')}  {found.value[8:].hex(' ')}"
    if found.kind == 0x8:
        yield found.text


LIMITS = {
    "wsnz": "Write same non-zero (WSNZ): {}",
    "maximum_compare_and_write_length": "Maximum compare and write length: {}",
    "optimal_transfer_length_granularity": "Optimal transfer length granularity: {}",
    "maximum_transfer_length": "Maximum transfer length: {}",
    "optimal_transfer_length": "Optimal transfer length: {}",
    "maximum_prefetch_length": "Maximum prefetch transfer length: {}",
    "maximum_unmap_lba_count": "Maximum unmap LBA count: {}",
    "maximum_unmap_block_descriptor_count": "Maximum unmap block descriptor count: {}",
    "optimal_unmap_granularity": "Optimal unmap granularity: {}",
    "ugavalid": "Unmap granularity alignment valid: {}",
    "unmap_granularity_alignment": "Unmap granularity alignment: {}",
    "maximum_write_same_length": "Maximum write same length: {:#x}",
    "maximum_atomic_transfer_length": "Maximum atomic transfer length: {}",
    "atomic_alignment": "Atomic alignment: {}",
    "atomic_transfer_length_granularity": "Atomic transfer length granularity: {}",
    "maximum_atomic_transfer_length_with_atomic_boundary": "Maximum atomic transfer length with atomic boundary: {}",
    "maximum_atomic_boundary_size": "Maximum atomic boundary size: {}",
}


def expected_limits(fields: dict[str, int]) -> Iterator[str]:
    assert fields.keys() == LIMITS.keys()
    for name, value in fields.items():
        words: dict[str, object] = {"ugavalid": ("false", "true")[value & 1]}  # of a flag
        if name.startswith("maximum_unmap") and value == UNLIMITED:
            words[name] = "-1 [unbounded]"
        yield LIMITS[name].format(words.get(name, value))


PROVISIONING = {
    "lbpu": "(LBPU): {}",
    "lbpws": "(LBPWS): {}",
    "lbpws10": "(LBPWS10): {}",
    "lbprz": "(LBPRZ): {}",
    "anc_sup": "(ANC_SUP): {}",
    "threshold_exponent": "Threshold exponent: {}",
    "dp": "Descriptor present (DP): {}",
    "minimum_percentage": "Minimum percentage: {}",
    "provisioning_type": "Provisioning type: {}",
    "threshold_percentage": "Threshold percentage: {}",
}


def expected_provisioning(fields: dict[str, int]) -> Iterator[str]:
    assert fields.keys() == PROVISIONING.keys()
    yield from (phrase.format(fields[name]) for name, phrase in PROVISIONING.items())


CARDS = (
    "Not specified",
    "CFast",
    "CompactFlash",
    "MemoryStick",
    "MultiMediaCard",
    "Secure Digital",
    "XQD",
    "Universal",
)
FORMS = (" not reported", ": 5.25", ": 3.5", ": 2.5", ": 1.8", ": less then 1.8")


def expected_characteristics(fields: Fields) -> Iterator[str]:
    rates = {0: "rotation rate is not reported", 1: "Non-rotating medium"}
    yield rates.get(fields["rotation_rate"], f"Nominal rotation rate: {fields['rotation_rate']} rpm")
    card = fields["product_type"]
    yield f"Product type: {CARDS[card] if card < len(CARDS) else ('Reserved', 'Vendor specific')[card >= 0xF0]}"
    yield f"WABEREQ={fields['wabereq']}"
    yield f"WACEREQ={fields['wacereq']}"
    form = fields["form_factor"]
    yield f"Nominal form factor{FORMS[form] if form < len(FORMS) else ': reserved'}"
    yield from (f"{name.upper()}={fields[name]}" for name in ("zoned", "rbwz", "bocs", "fuab", "vbuls"))
    yield f"DEPOPULATION_TIME={fields['depopulation_time']} "


def expected_fields(found: FieldsPage) -> Iterator[str]:
    page, fields, entries = found.page, found.fields, found.entries
    match page:
        case 0x89:
            yield f"SAT Vendor identification: {fields['sat_vendor']}"
            yield f"SAT Product identification: {fields['sat_product']}"
            yield f"SAT Product revision level: {fields['sat_revision']}"
            yield f"Command code: {fields['command_code']:#x}"
            disk = identification_in(found)
            assert disk is not None
            yield from (f"model: {disk.model}", f"serial number: {disk.serial}", f"firmware revision: {disk.firmware}")
        case 0xB1:
            yield from expected_characteristics(fields)
        case 0x86:
            left_out = ("maximum_sense_length", "extended_self_test_minutes")
            yield from (f"{name.upper()}={value}" for name, value in fields.items() if name not in left_out)
        case 0x8A:
            flags = ("standby_y", "standby_z", "idle_c", "idle_b", "idle_a")
            yield " ".join(f"{name.capitalize()}={fields[name]}" for name in flags)
            for name in ("stopped", "standby_z", "standby_y", "idle_a", "idle_b", "idle_c"):
                yield f"{name.capitalize()} condition recovery time (ms) {fields[f'{name}_recovery']}"
        case 0xB3:
            yield f"User data segment size: {fields['segment_size']}"
            yield f"User data segment multiplier: {fields['segment_multiplier']}"
        case 0xB5:
            yield f"[{fields['utilization_type']:#x}]"
            yield f"[{fields['utilization_units']:#x}]"
            yield f"[{fields['utilization_interval']:#x}]"
            yield f"Utilization B: {fields['utilization_b']}"
            yield f"Utilization A: {fields['utilization_a']}"
        case 0xB7:
            yield f"Maximum number of streams: {fields['maximum_streams']}"
            yield f"Optimal stream write size: {fields['optimal_stream_write_size']} blocks"
            yield f"Stream granularity size: {fields['stream_granularity_size']}"
    for entry in entries:
        yield from expected_entry(page, entry)


def expected_entry(page: int, entry: Fields) -> Iterator[str]:
    match page:
        case 0x85:
            yield entry["address"]
        case 0x8F:
            yield from expected_copying(int(entry["descriptor_type"]), bytes.fromhex(entry["data"]))
        case 0x87:
            yield f"Policy page code: {entry['policy_page_code']:#x}"
            if entry["policy_subpage_code"]:
                yield f"subpage code: {entry['policy_subpage_code']:#x}"
            yield f"MLUS={entry['mlus']},  Policy: {POLICIES[entry['policy']]}"
        case 0x88:
            yield f"Relative port={entry['relative_port']}"
            yield f"0x{entry['target_port_designators'][8:]}"
        case 0x8D:
            yield f"identifier: {entry['power_consumption_id']:#x}"
            yield f"Maximum power consumption: {entry['value']} {UNITS[entry['units']]}"
        case 0xB8:
            yield f"Preset identifier: {entry['preset_identifier']:#x}"
            yield f"schema type: {entry['schema_type']}"
            yield f"exponent type: {entry['lb_per_pb_exponent']}"
            yield f"logical block length: {entry['block_length']}"
            yield f"last LBA: {entry['last_lba']:#x}"
            yield f"FMPT_INFO: {entry['fmtpinfo']}"
            yield f"protection field usage: {entry['protection_field_usage']}"
        case 0xB9:
            yield f"LBA range number: {entry['range_number']}"
            yield f"storage elements: {entry['storage_elements']}"
            yield f"starting LBA: {entry['lowest_lba']:#x}"
            yield f"number of LBAs: {entry['blocks']:#x}"


def expected_copying(kind: int, data: bytes) -> Iterator[str]:
    if kind == 1:
        yield "Supported commands:"
        yield from (f"  {name}\n" for command, name in COPIES.items() if command in data)
        return
    yield f"Maximum CSCD descriptor count: {int.from_bytes(data[4:6], 'big')}"
    yield f"Maximum segment descriptor count: {int.from_bytes(data[6:8], 'big')}"
    yield f"Maximum descriptor list length: {int.from_bytes(data[8:12], 'big')}"
    yield f"Maximum inline data length: {int.from_bytes(data[12:16], 'big')}"


LONG = (0x00, 0x83, 0xB2)  # pages of which sg_vpd prints numbers only if asked for more


def sg_vpd(path: Path, page: int) -> str:
    words = ["sg_vpd", f"--inhex={path}", f"--page={page:#x}", *(["--long"] if page in LONG else [])]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.slow
@needs("sg_vpd")
@pytest.mark.parametrize("page", [*MAKERS, *WHOLE], ids="{:02X}h".format)
def test_sg_vpd_reads_what_we_read(page: int, tmp_path: Path) -> None:
    random, path = Random(page), tmp_path / "page"
    for _ in range(PAGES_EACH):
        data = made(page, random)
        path.write_text(data.hex(" "))
        ours = parse_page(data, page)
        theirs, at = sg_vpd(path, page), 0
        for phrase in expected(ours):
            place = re.compile(re.escape(phrase) + r"(?!\w)").search(theirs, at)
            assert place is not None, (phrase, data.hex(), theirs)
            at = place.end()


@pytest.mark.parametrize("page", MAKERS, ids="{:02X}h".format)
def test_of_a_page_that_ends_anywhere_what_is_there_is_shown(page: int) -> None:
    data = made(page, Random(page))
    whole = parse_page(data, page)
    assert isinstance(whole, FieldsPage)
    assert whole.fields or whole.entries
    clean = 0
    for end in range(4, len(data)):
        cut = parse_page(data[:2] + (end - 4).to_bytes(2, "big") + data[4:end], page)
        assert isinstance(cut, FieldsPage)
        assert cut.fields.items() <= whole.fields.items()
        assert len(cut.entries) <= len(whole.entries)
        assert cut.entries[:-1] == whole.entries[: max(len(cut.entries) - 1, 0)]
        clean += end >= 4 + MAKERS[page][0] and not cut.problems
    assert whole.problems == ()
    assert clean == (len(whole.entries) or len(data) - 4), "only between entries"


INQUIRY_FLAGS = {  # our name, by sg_inq's
    "PQual": "peripheral_qualifier",
    "PDT": "peripheral_device_type",
    "RMB": "removable",
    "LU_CONG": "lu_cong",
    "hot_pluggable": "hot_pluggable",
    "version": "version",
    "NormACA": "normaca",
    "HiSUP": "hisup",
    "Resp_data_format": "response_data_format",
    "SCCS": "sccs",
    "ACC": "acc",
    "TPGS": "tpgs",
    "3PC": "third_party_copy",
    "Protect": "protect",
    "EncServ": "encserv",
    "MultiP": "multip",
    "Addr16": "addr16",
    "CmdQue": "cmdque",
}
UNKNOWN_STANDARD = re.compile(r"unrecognised version descriptor code: 0x([0-9a-f]+)")


@pytest.mark.slow
@needs("sg_inq")
def test_sg_inq_reads_what_we_read(tmp_path: Path) -> None:
    random, path = Random(12), tmp_path / "inquiry"
    for _ in range(PAGES_EACH):
        standards = [random.randrange(0x3000, 0x10000) for _ in range(random.randrange(9))]  # none that T10 has given
        claims = b"".join(code.to_bytes(2, "big") for code in standards).ljust(16, b"\0")
        names = letters(random, 8) + letters(random, 16) + letters(random, 4)
        head = random.randbytes(2) + bytes((random.randrange(3, 256), *random.randbytes(1), 69)) + random.randbytes(3)
        data = head + names + random.randbytes(20) + bytes(2) + claims
        path.write_text(data.hex(" "))
        words = ["sg_inq", "--descriptors", f"--inhex={path}"]
        theirs = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, errors="replace").stdout
        ours = InquiryData.parse(data)
        for name, attribute in INQUIRY_FLAGS.items():
            found = re.search(rf"[ \[]{name}=(\w+)", theirs)
            assert found is not None, (name, theirs)
            assert int(found[1], 0) == getattr(ours, attribute), (name, data.hex(), theirs)
        assert f"length={ours.additional_length + 5} " in theirs
        assert f"Vendor identification: {ours.vendor}\n" in theirs
        assert f"Product identification: {ours.product}\n" in theirs
        assert f"Product revision level: {ours.revision}\n" in theirs
        assert [int(code, 16) for code in UNKNOWN_STANDARD.findall(theirs)] == list(ours.version_descriptors)
