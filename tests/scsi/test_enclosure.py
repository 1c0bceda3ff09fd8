"""Diagnostic pages of an enclosure, as sg_ses reads them; cut anywhere, they are a page or the documented error."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from scsiusb import MalformedReply
from scsiusb.scsi.pages.enclosure import Configuration, EnclosureStatus, supported_pages
from tests.programs import needs

IDENTIFIER = bytes.fromhex("3000000000000001")
DESCRIPTOR = b"\x11\x00\x02\x24" + IDENTIFIER + b"WD      " + b"SES Device      " + b"1042"
TYPES = b"\x17\x02\x00\x04" + b"\x04\x01\x00\x06"
BODY = bytes.fromhex("0000002a") + DESCRIPTOR + TYPES + b"Slot" + b"Sensor"
CONFIGURATION = b"\x01\x00" + len(BODY).to_bytes(2, "big") + BODY
ELEMENTS = "00000000 01000000 05000000 00000000 01003700"
STATUS = bytes.fromhex("02 06 0018 0000002a" + ELEMENTS)


def test_a_configuration() -> None:
    found = Configuration.parse(CONFIGURATION)
    assert found.generation == 42
    (only,) = found.enclosures
    assert (only.identifier, only.vendor, only.product, only.revision) == (IDENTIFIER, "WD", "SES Device", "1042")
    assert [(each.name, each.elements, each.text) for each in found.types] == [
        ("array device slot", 2, "Slot"),
        ("temperature sensor", 1, "Sensor"),
    ]


def test_a_status() -> None:
    found = EnclosureStatus.parse(STATUS, Configuration.parse(CONFIGURATION))
    assert (found.critical, found.not_critical, found.unrecoverable, found.information) == (True, True, False, False)
    assert [(each.kind.text, each.number, each.status_text) for each in found.elements] == [
        ("Slot", None, "unsupported"),
        ("Slot", 0, "OK"),
        ("Slot", 1, "not installed"),
        ("Sensor", None, "unsupported"),
        ("Sensor", 0, "OK"),
    ]
    other = bytearray(STATUS)
    other[7] += 1
    assert EnclosureStatus.parse(bytes(other), Configuration.parse(CONFIGURATION)).elements == ()


def test_supported_pages() -> None:
    assert supported_pages(bytes.fromhex("00 00 0004 00010207")) == (0, 1, 2, 7)
    assert supported_pages(bytes.fromhex("00 00 0009 00010207")) == (0, 1, 2, 7)
    with pytest.raises(MalformedReply):
        supported_pages(bytes.fromhex("01 00 0000"))


def test_pages_cut_or_changed_anywhere() -> None:
    configuration = Configuration.parse(CONFIGURATION)
    for page in (CONFIGURATION, STATUS):
        for at in range(len(page)):
            for data in (page[:at], page[:at] + b"\xff" + page[at + 1 :], page[:at] + b"\0" + page[at + 1 :]):
                with suppress(MalformedReply):
                    Configuration.parse(data)
                with suppress(MalformedReply):
                    EnclosureStatus.parse(data, configuration)


@needs("sg_ses")
def test_sg_ses_reads_what_we_read(tmp_path: Path) -> None:
    path = tmp_path / "page"
    path.write_text(CONFIGURATION.hex(" "))
    words = ["sg_ses", f"--inhex={path}", "--status", "--page=cf"]
    text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    found = Configuration.parse(CONFIGURATION)
    assert f"generation code: {found.generation:#x}" in text
    assert f"vendor: {found.enclosures[0].vendor}" in text
    assert f"product: {found.enclosures[0].product}" in text
    for each in found.types:
        assert f"Element type: {each.name.capitalize()}" in text
        assert f"number of possible elements: {each.elements}" in text
        assert f"text: {each.text}" in text
