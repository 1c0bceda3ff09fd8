"""Sense data: formats, texts and exceptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scsiusb
from scsiusb import CheckCondition, Sense
from scsiusb.scsi.sense import error_for

FIXED = bytes.fromhex("f0 00 03 12345678 0a 00000000 11 00 00 000000")
DESCRIPTOR = bytes.fromhex("72 03 11 00 000000 10 00 0a 80 00 0000000123456789 05 02 00 20")


def test_fixed_format() -> None:
    sense = Sense.parse(FIXED)
    assert (sense.key, sense.asc, sense.ascq, sense.information) == (3, 0x11, 0, 0x12345678)
    assert not sense.deferred
    assert not sense.ili


def test_the_information_field_is_used_only_if_it_is_valid() -> None:
    assert Sense.parse(b"\x70" + FIXED[1:]).information is None


def test_descriptor_format() -> None:
    sense = Sense.parse(DESCRIPTOR)
    assert (sense.key, sense.asc, sense.ascq, sense.information) == (3, 0x11, 0, 0x123456789)
    assert sense.ili


@pytest.mark.parametrize("code", [0x71, 0x73, 0xF1])
def test_a_deferred_error_belongs_to_an_earlier_command(code: int) -> None:
    body = DESCRIPTOR if code & 0x7F == 0x73 else FIXED
    assert Sense.parse(bytes([code]) + body[1:]).deferred


def test_the_incorrect_length_indicator_is_parsed() -> None:
    assert Sense.parse(b"\x70\0\x25" + FIXED[3:]).ili


@pytest.mark.parametrize("data", [b"", bytes(18)])
def test_no_bytes_or_only_zeros_are_no_sense(data: bytes) -> None:
    assert Sense.parse(data).is_empty


@pytest.mark.parametrize("data", [b"\x01", b"\x7f" + bytes(17), b"\x70", b"\xf1\0", b"\x72", b"\0\0\2" + bytes(15)])
def test_bytes_of_no_format_are_no_sense_and_are_kept(data: bytes) -> None:
    sense = Sense.parse(data)
    assert sense.is_empty
    assert sense.is_unreadable
    assert sense.is_cut  # a change of medium may have been lost
    assert sense.raw == data
    assert data.hex(" ") in str(error_for(sense, "READ(10)"))


@pytest.mark.parametrize("sense", [Sense(0, 0, 0), Sense.parse(b""), Sense.parse(bytes(18)), Sense.parse(FIXED)])
def test_other_sense_is_readable(sense: Sense) -> None:
    assert not sense.is_unreadable


@pytest.mark.parametrize("length", [4, 5, 6, 7])
def test_descriptor_sense_may_end_after_ascq(length: int) -> None:
    sense = Sense.parse(bytes.fromhex("72 02 3a 01 00 00 00 00")[:length])
    assert (sense.key, sense.asc, sense.ascq) == (2, 0x3A, 1)
    assert not sense.is_cut


def test_descriptor_sense_may_end_after_the_key() -> None:
    sense = Sense.parse(b"\x73\x05")
    assert (sense.key, sense.asc, sense.deferred, sense.is_cut) == (5, 0, True, True)


def test_fixed_sense_may_end_after_the_key() -> None:
    assert Sense.parse(FIXED[:3]).key == 3
    assert Sense.parse(FIXED[:13]).asc == 0x11


def test_fixed_sense_that_ends_before_asc_has_no_additional_sense_code() -> None:
    sense = Sense.parse(bytes.fromhex("70000200003a"))
    assert (sense.key, sense.asc, sense.ascq) == (2, 0, 0)


def test_an_invalid_descriptor_does_not_hide_the_other_fields() -> None:
    sense = Sense.parse(bytes.fromhex("72 02 3a 00 00000004 00 00 05 00"))
    assert (sense.key, sense.asc, sense.information) == (2, 0x3A, None)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_sense(data: bytes) -> None:
    sense = Sense.parse(data)
    assert sense.raw == data
    assert str(sense)
    assert isinstance(error_for(sense, "a command"), CheckCondition)


@pytest.mark.parametrize(
    ("asc", "ascq", "text"),
    [
        (0x3A, 0x00, "Medium not present"),
        (0x04, 0x01, "Logical unit is in process of becoming ready"),
        (0x40, 0x85, "Diagnostic failure on component 85h"),
        (0x40, 0x00, "RAM failure (should use 40 nn)"),
        (0x40, 0x11, "RAM failure 11h"),
        (0x4D, 0x00, "Tagged overlapped commands 00h"),
        (0x30, 0x0D, "WORM medium - integrity check"),
        (0x7F, 0x12, "Additional sense 7Fh/12h"),
        (0x80, 0x12, "Vendor specific additional sense 80h/12h"),
        (0x74, 0x81, "Vendor specific additional sense 74h/81h"),
    ],
)
def test_the_text_is_from_the_t10_list_or_has_the_numbers(asc: int, ascq: int, text: str) -> None:
    assert Sense(2, asc, ascq).text == text


@pytest.mark.parametrize(
    ("key", "asc", "ascq", "error"),
    [
        (0x2, 0x3A, 0x01, "NoMedium"),
        (0x2, 0x04, 0x01, "NotReady"),
        (0x3, 0x11, 0x00, "MediumError"),
        (0x4, 0x44, 0x00, "HardwareError"),
        (0x5, 0x20, 0x00, "UnsupportedOpcode"),
        (0x5, 0x21, 0x00, "LbaOutOfRange"),
        (0x5, 0x24, 0x00, "IllegalRequest"),
        (0x6, 0x28, 0x00, "MediumChanged"),
        (0x6, 0x29, 0x00, "UnitAttention"),
        (0x6, 0x3A, 0x00, "NoMedium"),
        (0x7, 0x27, 0x00, "DataProtect"),
        (0x8, 0x00, 0x00, "BlankCheck"),
        (0x9, 0x80, 0x00, "CheckCondition"),
        (0xB, 0x00, 0x00, "AbortedCommand"),
        (0xE, 0x1D, 0x00, "Miscompare"),
        (0x0, 0x00, 0x00, "CheckCondition"),
    ],
)
def test_the_most_specific_error_is_raised(key: int, asc: int, ascq: int, error: str) -> None:
    raised = error_for(Sense(key, asc, ascq), "READ(10)")
    assert type(raised) is getattr(scsiusb, error)
    assert raised.sense.key == key
    assert str(raised).startswith("READ(10) failed")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("70 00 05 00000000 0a 00000000 24 00 00 cd 00 02", "(5/24/00), CDB byte 2, bit 5"),
        ("70 00 05 00000000 0a 00000000 24 00 00 c0 00 07", "(5/24/00), CDB byte 7"),
        ("70 00 05 00000000 0a 00000000 26 00 00 80 00 0b", "(5/26/00), parameters byte 11"),
        ("72 05 24 00 000000 08 0206 0000 cf000300", "(5/24/00), CDB byte 3, bit 7"),
        ("70 00 02 00000000 0a 00000000 04 04 00 80 40 00", "(2/04/04), progress 25.0 %"),
        ("70 00 05 00000000 0a 00000000 24 00 00 4d 00 02", "(5/24/00)"),  # not valid
        ("70 00 05 00000000 0a 00000000 24 00 00 cd 00", "(5/24/00)"),  # cut
        ("70 00 05 00000000 09 00000000 24 00 00 cd 00 02", "(5/24/00)"),  # after the end
        ("72 05 24 00 000000 04 0202 0000", "(5/24/00)"),
        ("70 00 03 00000000 0a 00000000 11 00 00 80 00 02", "(3/11/00)"),  # retries
    ],
)
def test_an_error_says_which_field_was_refused_and_how_far_an_operation_is(data: str, text: str) -> None:
    error = error_for(Sense.parse(bytes.fromhex(data)), "INQUIRY")
    assert str(error.what).endswith(text)


def test_an_error_without_sense_says_so() -> None:
    assert "the device gave no reason" in str(error_for(Sense(0, 0, 0), "READ(10)"))


def test_the_two_branches_of_errors_never_mix() -> None:
    kinds = [getattr(scsiusb, name) for name in scsiusb.__all__]
    errors = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, scsiusb.ScsiUsbError)]
    assert len(errors) > 20
    assert not [e for e in errors if issubclass(e, scsiusb.TransportError) and issubclass(e, CheckCondition)]
