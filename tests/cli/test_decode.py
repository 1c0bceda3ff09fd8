"""decode and logs: bytes as typed values, the same as sg3_utils' programs read; nothing that came is hidden."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from scsiusb.scsi import catalog
from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.programs import run

PARAMETRIC = (0x40, 0x41, 0x42, 0x4D, 0x70)  # ASCs whose ASCQ is a number in the text
NEWER = {(0x00, 0x23), (0x38, 0x09), (0x67, 0x0E)}  # than sg3_utils 1.46; T10's list of 2024 has them
KINDS = ("inquiry", "vpd", "mode", "log", "sense", "cdb")


def decode(cli: Cli, kind: str, text: str) -> dict[str, Any]:
    found = cli("decode", kind, text, "--json")
    assert found.status == 0, found.err
    record = found.json
    assert isinstance(record, dict)
    return record


def test_sense(cli: Cli) -> None:
    found = decode(cli, "sense", "f0 00 03 00 00 12 34 0a 00 00 00 00 11 00 00 00 00 00")
    assert (found["key"], found["asc"], found["ascq"], found["information"]) == (3, 0x11, 0, 0x1234)
    assert "Unrecovered read error" in cli("decode", "sense", "700003", "00000000", "0a", "00000000", "1100").text
    assert cli("decode", "sense", "12 34").failed(97, "not sense data")
    twice = cli("decode", "sense", "72 04 0000 000000 08 0302 0009 0302 000a").text
    assert "field replaceable unit    code 9\nfield replaceable unit 2  code 10" in twice


def test_inquiry(cli: Cli) -> None:
    data = bytes((0, 0x80, 6, 2, 31, 0, 0, 0)) + b"VENDOR  " + b"A product       " + b"1.00"
    found = decode(cli, "inquiry", data.hex())
    assert (found["vendor"], found["product"], found["revision"], found["problems"]) == (
        "VENDOR",
        "A product",
        "1.00",
        [],
    )
    found = decode(cli, "inquiry", data[:20].hex(" "))
    assert (found["vendor"], found["product"]) == ("VENDOR", "A pr")
    assert found["problems"] == ["the data are of 36 bytes, of which 20 are here: missing texts are empty"]
    assert decode(cli, "inquiry", (data + b"more").hex())["more"] == b"more".hex()
    assert cli("decode", "inquiry", "00 80").failed(97, "only 2 bytes")


def test_vpd_pages(cli: Cli) -> None:
    found = decode(cli, "vpd", "00 b1 00 06 1c 20 00 02 00 00")
    assert found["fields"]["rotation_rate"] == 7200
    assert found["fields"]["form_factor"] == 2
    found = decode(cli, "vpd", "00 80 00 08 41 42")
    assert (found["serial"], found["problems"]) == (
        "AB",
        ["the page says that 8 bytes follow its header, and 2 are here"],
    )
    assert decode(cli, "vpd", "00 d5 00 01 ff")["body"] == "ff"
    found = decode(cli, "vpd", "00 85 00 06 01 00 00 20 41 42")
    assert found["entries"][0]["address"] == "AB"
    assert found["problems"] == ["entry 0 is cut: it ends after 6 bytes: 01 00 00 20 41 42, of 36"]
    assert found["body"] == "010000204142"
    ended = cli("decode", "vpd", "00 b0")
    assert ended.failed(97, "at least 4 bytes", "give all of the bytes")
    assert "device" not in ended.err, "there is none"
    assert decode(cli, "vpd", "00 b0 00 01 ff")["body"] == "ff", "too short for its layout"


def test_mode_pages(cli: Cli) -> None:
    page = bytes((0x88, 0x12, 0x04, *bytes(17)))
    for header in (bytes((0x17, 0, 0x90, 0)), bytes((0, 0x1A, 0, 0x90, 0, 0, 0, 0))):
        found = decode(cli, "mode", (header + page).hex())
        (shown,) = found["pages"]
        assert (found["write_protected"], shown["name"], shown["fields"]["WCE"]) == (True, "caching", 1)
        assert found["problems"] == []
    found = decode(cli, "mode", (bytes((0x17, 0, 0, 0)) + page[:10]).hex())
    assert found["pages"] == []
    assert len(found["problems"]) == 2


def test_log_pages(cli: Cli) -> None:
    found = decode(cli, "log", "0d 00 00 0c 00 00 03 02 00 1f 00 01 03 02 00 46")
    first, second = found["parameters"]
    assert (first["name"], first["celsius"], second["name"], second["celsius"]) == ("current", 31, "reference", 70)
    found = decode(cli, "log", "02 00 00 0c 00 03 00 08 00 00")
    assert (found["parameters"], len(found["problems"])) == ([], 2)
    found = decode(cli, "log", "40 ff 00 04 00 00 0d 01")
    assert [(row["page"], row["subpage"]) for row in found["pages"]] == [(0, 0), (0x0D, 1)]
    assert cli("decode", "log", "02").failed(97, "only 1 bytes")


def test_cdbs(cli: Cli) -> None:
    found = decode(cli, "cdb", "28 00 00 00 10 00 00 00 08 00")
    assert (found["name"], found["lba"], found["blocks"]) == ("READ(10)", 4096, 8)
    assert decode(cli, "cdb", "08 1f ff ff 00 00")["blocks"] == 256
    assert decode(cli, "cdb", "9e 10" + "00" * 14)["name"] == "READ CAPACITY(16)"
    assert decode(cli, "cdb", "a3 0c" + "00" * 10)["name"] == "REPORT SUPPORTED OPERATION CODES"
    assert decode(cli, "cdb", "c1 e2" + "00" * 8)["name"] == "vendor specific C1h"
    assert decode(cli, "cdb", "28 00")["problems"] == ["a CDB with this operation code has 10 bytes, and 2 are here"]


@pytest.mark.parametrize(
    ("cdb", "words", "name", "fields"),
    [
        (
            "4881" + "00" * 5 + "000800",
            [],
            "SANITIZE, OVERWRITE",
            {"service_action": 1, "immediate": True, "length": 8},
        ),
        ("8508" + "0e" + "00" * 11 + "ec00", [], "ATA PASS-THROUGH(16)", {"protocol": 4, "command": 0xEC}),
        ("9404" + "00" * 12 + "0100", [], "RESET WRITE POINTER", {"service_action": 4, "all_zones": True}),
        ("9500" + "00" * 11 + "408200", [], "REPORT ZONES", {"length": 64, "partial": True, "options": 2}),
        ("951f" + "00" * 14, [], "ZBC IN", {"service_action": 0x1F}),
        ("01" + "00" * 5, ["--type", "tape"], "REWIND", {"immediate": False}),
        ("01" + "00" * 5, [], "REZERO UNIT", {}),
        ("05" + "00" * 5, ["--type", "1"], "READ BLOCK LIMITS", {}),
        ("2b00" + "0000000700" + "000000", ["--type", "tape"], "LOCATE(10)", {}),
        ("2b00" + "00000007" + "00000000", [], "SEEK(10)", {"lba": 7}),
        ("4202" + "4001" + "000000" + "001000", ["--type", "cd"], "READ SUB-CHANNEL", {"as_time": True, "length": 16}),
        ("4200" + "0000000000" + "001800", [], "UNMAP", {"length": 24}),
        ("a111" + "00" * 10, ["--type", "cd"], "BLANK", {"immediate": True, "kind": 1}),
        ("a1080e0001000000" + "00ec0000", [], "ATA PASS-THROUGH(12)", {"command": 0xEC}),
        ("a300" + "00" * 6 + "00080600", ["--type", "0x05"], "SEND KEY", {"format": 6, "length": 8}),
        ("a30f" + "00" * 4 + "0000000c0000", [], "REPORT TIMESTAMP", {"service_action": 15, "length": 12}),
        ("a400" + "00" * 6 + "00080800", ["--type", "cd"], "REPORT KEY", {"format": 8}),
        ("a406" + "00" * 10, [], "SET IDENTIFYING INFORMATION", {"service_action": 6}),
        ("e606" + "00" * 14, [], "ASMedia NVMe", {"admin": 6}),
    ],
)
def test_the_fields_of_a_cdb_are_those_of_its_declaration(
    cli: Cli, cdb: str, words: list[str], name: str, fields: dict[str, Any]
) -> None:
    ended = cli("decode", "cdb", cdb, *words, "--json")
    record = ended.json
    assert (record["name"], record["problems"]) == (name, [])
    assert {key: record[key] for key in fields} == fields
    shown = dict(re.findall(r"^(\S+(?: \S+)*)  +(\S.*)$", cli("decode", "cdb", cdb, *words).text, re.M))
    for key, value in fields.items():
        text = str(value) if not isinstance(value, bool) else "yes" if value else "no"
        assert shown[key.replace("_", " ")] == text


def test_every_declared_command_is_decoded_by_its_name() -> None:
    """No field has the name of another part of the record."""
    for each in catalog.declared():
        fields = each.fields_of(each.value.to_bytes(each.length, "big"))
        assert not fields.keys() & {"name", "section", "opcode", "service_action", "bytes", "problems"}, each
        assert all(isinstance(value, int) for value in fields.values()), each


def test_a_mode_page_depends_on_the_device_type(cli: Cli) -> None:
    data = bytes((0x3B, 0, 0, 0, 0x05, 0x36, *bytes(54)))
    found = {kind: cli("decode", "mode", data.hex(), "--type", kind, "--json").json for kind in ("disk", "cd")}
    assert {kind: each["pages"][0]["name"] for kind, each in found.items()} == {"disk": "flexible", "cd": "writing"}
    assert cli("decode", "mode", "00", "--type", "nonsense").failed(1, "disk, tape, cd")
    assert cli("decode", "mode", "00", "--type", "32").failed(1, "0 to 31")
    assert cli("decode", "sense", "70", "--type", "cd").failed(1, "--type is for mode and cdb")


def test_a_vendor_s_mode_page_says_that_it_is_one(cli: Cli) -> None:
    text = cli("decode", "mode", bytes((9, 0, 0, 0, 0x30, 4, *bytes(4))).hex()).text
    assert "\nvendor specific 30 (30h)\n" in text


def test_bytes_come_from_arguments_files_and_stdin(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = bytes.fromhex("700003000000000a000000001100")
    text = " 00     70 00 03 00 00 00 00 0a  00 00 00 00 11 00       p.............\n"
    for content in (bare, b"# a comment\n" + text.encode(), b"0x70,0x0,3,0 0 0-0 0a\n00000000\n11 00"):
        path = tmp_path / "file"
        path.write_bytes(content)
        assert decode(cli, "sense", f"@{path}")["asc"] == 0x11, content
        with path.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert decode(cli, "sense", "-")["asc"] == 0x11
    assert cli("decode", "sense", "@missing").failed(15, "missing")
    assert cli("decode", "sense", "xyz").failed(1, "bytes in hex")
    assert cli("decode", "nonsense", "00").failed(1, "inquiry, vpd, mode")
    (tmp_path / "text").write_text("not bytes in hex\n")
    assert cli("decode", "sense", f"@{tmp_path / 'text'}").failed(97, "'not' is not one or more bytes in hex")
    (tmp_path / "empty").write_bytes(b"")
    assert cli("decode", "sense", f"@{tmp_path / 'empty'}").failed(97, "no bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_random_bytes_end_with_0_or_97(cli: Cli, kind: str, tmp_path: Path) -> None:
    random, path = Random(kind), tmp_path / "file"
    for _ in range(40):
        data = bytearray(random.randbytes(random.choice((1, 2, 4, 8, 18, 36, 64, 252))))
        if random.random() < 0.7:
            data[:4] = bytes(
                (random.choice((0x70, 0x72, 0, 8, 0x0D)), random.choice((0, 0x83, 0xB1)), 0, len(data) & 0xFF)
            )
        for words in ([], ["--json"]):
            assert cli("decode", kind, bytes(data).hex(), *words).status in (0, 97), bytes(data).hex()
        path.write_bytes(bytes(byte & 0x7F for byte in data))  # text, sometimes
        assert cli("decode", kind, f"@{path}").status in (0, 97), path.read_bytes()


@pytest.mark.slow
def test_sense_data_are_read_as_sg_decode_sense_reads_them(cli: Cli) -> None:
    random = Random(7)
    for _ in range(2000):
        key, asc, ascq = random.choice((*range(12), 13, 14, 15)), random.randrange(0x80), random.randrange(0x80)
        if random.random() < 0.5:
            data = bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0))
        else:
            data = bytes((0x72, key, asc, ascq, 0, 0, 0, 0))
        theirs = run("sg_decode_sense", *(f"{byte:02x}" for byte in data))
        found = decode(cli, "sense", data.hex())
        assert str(found["key_text"]).lower() in theirs.lower(), (data.hex(), theirs)
        text = str(found["text"])
        if not text.startswith(("Additional", "Vendor")) and asc not in PARAMETRIC and (asc, ascq) not in NEWER:
            assert re.sub(r"\W+", "", text).lower()[:60] in re.sub(r"\W+", "", theirs).lower(), (data.hex(), theirs)


@pytest.mark.slow
def test_pages_are_read_as_sg_vpd_and_sg_inq_read_them(cli: Cli, tmp_path: Path) -> None:
    random = Random(3)
    path = tmp_path / "hex"
    for _ in range(500):
        rate, form = random.choice((1, 5400, 7200)), random.randrange(1, 6)
        data = bytes((0, 0xB1, 0, 0x3C, *rate.to_bytes(2, "big"), 0, form)) + bytes(56)
        path.write_text(data.hex(" "))
        theirs = run("sg_vpd", f"--inhex={path}")
        fields: dict[str, int] = decode(cli, "vpd", data.hex())["fields"]
        said = "Non-rotating medium" if rate == 1 else f"Nominal rotation rate: {fields['rotation_rate']} rpm"
        assert said in theirs
        assert {1: "5.25", 2: "3.5", 3: "2.5", 4: "1.8", 5: "less then 1.8"}[fields["form_factor"]] in theirs
        vendor = bytes(random.choices(b"ABCDEFGH123", k=8))
        data = bytes((random.choice((0, 5)), 0x80, 6, 2, 31, 0, 0, 0)) + vendor + b"Product 12345678" + b"9.87"
        path.write_text(data.hex(" "))
        theirs = run("sg_inq", f"--inhex={path}")
        found = decode(cli, "inquiry", data.hex())
        assert f"Vendor identification: {found['vendor']}" in theirs
        assert f"Product identification: {found['product']}" in theirs


def test_logs_of_a_unit(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 64))]))
    found = cli("logs", "1-1", "--json").record
    assert [row["name"] for row in found["pages"]] == ["supported", "temperature", "self-tests", "exceptions"]
    assert cli("logs", "1-1", "--page", "temperature", "--json").record["parameters"][0]["celsius"] == 31
    assert list(cli("logs", "1-1", "--all", "--json").record) == ["temperature", "self-tests", "exceptions"]
    assert "current: celsius 31" in cli("logs", "1-1", "--page", "d").text
    assert cli("logs", "1-1", "--page", "2").failed(5, "Invalid field in CDB")
    assert cli("logs", "1-1", "--page", "nonsense").failed(1, "no log page")
    assert cli("logs", "1-1", "--page", "d", "--all").failed(1, "together")
