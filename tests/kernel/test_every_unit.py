"""Every unit of the zoo: what it says of itself is the same by scsiusb and by sg3_utils and sdparm, field by field.

What a unit refuses must be refused to both. Over USB/IP the same is asked of every device that the virtual stick plays,
which have more pages than those of the zoo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

import pytest

import scsiusb
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.pages.vpd import VpdPage, parse_page
from scsiusb.virtual.address import open_stick
from scsiusb.virtual.profiles import PROFILES
from tests.scsi.test_log_oracles import LENGTHS
from tests.scsi.test_log_oracles import expected as phrases_of_parameter
from tests.scsi.test_mode_oracles import NOT_SDPARMS
from tests.scsi.test_page_oracles import INQUIRY_FLAGS
from tests.scsi.test_page_oracles import expected as phrases_of_page

from . import oracles
from .machine import Unit, units
from .pages_of import Ours, Theirs, ours, theirs
from .served import serving

LONG_CAPACITY = {  # our name, by sg_readcap's
    "Last LBA": "last_lba",
    "Number of logical blocks": "blocks",
    "prot_en": "prot_en",
    "p_type": "p_type",
    "p_i_exponent": "p_i_exponent",
    "lbpme": "lbpme",
    "lbprz": "lbprz",
    "Logical blocks per physical block exponent": "logical_blocks_per_physical_block_exponent",
    "Lowest aligned LBA": "lowest_aligned_lba",
}


SELF_TESTS = 0x10  # the log page, of which sg_logs leaves out the tests that there were not
CUT = ("floppy",)
"""Profiles for which Linux's driver cuts the answer to MODE SENSE(10) at 8 bytes (usb_stor_ufi_command)."""


def compare(seen: Theirs, found: Ours, *, cut: bool = False) -> None:
    compare_inquiry(seen, found)
    compare_vpd(seen, found)
    compare_logs(seen, found)
    compare_modes(seen, found, cut)
    compare_fields(seen, found)
    compare_capacity(seen, found)
    assert found.opcodes == seen.opcodes
    assert found.luns == seen.luns


def compare_inquiry(seen: Theirs, found: Ours) -> None:
    assert found.inquiry == seen.inquiry
    data, text = InquiryData.parse(found.inquiry), seen.inquiry_text
    for name, attribute in {**INQUIRY_FLAGS, "length": ""}.items():
        number = re.search(rf"[ \[]{name}=(\w+)", text)
        assert number is not None, name
        assert int(number[1], 0) == (getattr(data, attribute) if attribute else data.additional_length + 5), name
    named = oracles.named(text)
    assert data.vendor == named["Vendor identification"]
    assert data.product == named["Product identification"]
    assert data.revision == named["Product revision level"]


def compare_vpd(seen: Theirs, found: Ours) -> None:
    assert found.vpd == seen.vpd
    for number, data in found.vpd.items():
        if data is not None:
            page = parse_page(data, number)
            if not isinstance(page, VpdPage):
                in_order(phrases_of_page(page), seen.vpd_texts[number])


def compare_logs(seen: Theirs, found: Ours) -> None:
    assert {number: page and page.data for number, page in found.logs.items()} == seen.logs
    for number, page in found.logs.items():
        if page is not None and number in LENGTHS:
            parameters = [each for each in page.parameters if number != SELF_TESTS or any(each.data)]
            phrases = [phrase for each in parameters for phrase in phrases_of_parameter(number, each)]
            in_order(phrases, seen.log_texts[number])


def compare_modes(seen: Theirs, found: Ours, cut: bool) -> None:
    if seen.modes is None or found.modes is None:
        assert (seen.modes, found.modes) == (None, None)
        return
    fields = seen.modes.fields
    assert found.modes.write_protected == bool(fields.get("WP", fields.get("specific param", 0) >> 7))
    pages = {page.code: page.current for page in found.pages if not (page.subpage or cut)}
    assert {code: data[1:] for code, data in pages.items()} == {
        code: data[1:] for code, data in seen.modes.pages.items()
    }


def compare_fields(seen: Theirs, found: Ours) -> int:
    """Compare each field of a mode page that sdparm prints, and return how many those are."""
    kind = found.inquiry[0] & 0x1F
    values = {
        (page.layout.acronym, name): (field, next(each for each in page.layout.fields if each.name == name).bits)
        for page in found.pages
        if page.layout is not None
        for name, field in page.fields.items()
    }
    assert {page for page, _ in seen.fields} <= {page for page, _ in values}, kind
    compared = 0
    for place, theirs_ in seen.fields.items():
        if place in values and place not in NOT_SDPARMS:
            field, bits = values[place]
            assert field.current == theirs_.current % (1 << bits), place
            assert field.changeable == theirs_.can_change, place
            for one, other in ((field.default, theirs_.default), (field.saved, theirs_.saved)):
                assert other is None or one == other % (1 << bits), place
            compared += 1
    return compared


def compare_capacity(seen: Theirs, found: Ours) -> None:
    if seen.capacity is None or found.capacity is None:
        assert (seen.capacity, found.capacity) == (None, None)
    else:
        assert (found.capacity.blocks, found.capacity.block_size) == seen.capacity
    if seen.long_capacity is None or found.long_capacity is None:
        assert (seen.long_capacity, found.long_capacity) == (None, None)
    else:
        for name, attribute in LONG_CAPACITY.items():
            assert getattr(found.long_capacity, attribute) == seen.long_capacity[name], name


def in_order(phrases: Iterable[str], text: str) -> None:
    at = 0
    for phrase in phrases:
        place = text.find(phrase, at)
        assert place >= 0, (phrase, text)
        at = place + len(phrase)


@pytest.mark.parametrize("unit", units(), ids=str)
def test_a_unit_says_the_same_by_both(unit: Unit) -> None:
    unit.device.wait()
    seen = theirs(unit.sg)
    with scsiusb.open(unit.device.address, lun=unit.lun) as disk:
        found = ours(disk.unit, seen)
    unit.device.wait()
    compare(seen, found)


@pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")
@pytest.mark.parametrize("profile", PROFILES)
def test_a_device_that_the_virtual_stick_plays_says_the_same_by_both(profile: str) -> None:
    with serving(open_stick(f"virtual:?profile={profile}")) as there:
        with suppress(oracles.OracleError):  # of a drive, or a floppy, which have no self-tests
            oracles.tool("sg_senddiag", "--selftest=5", there.sg)
        seen = theirs(there.sg)
        with scsiusb.open(there.address) as disk:
            found = ours(disk.unit, seen)
        there.wait()
        compare(seen, found, cut=profile in CUT)
