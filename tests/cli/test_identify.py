"""list, inquiry, capacity, luns and sense: JSON for scripts, text for users."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scsiusb import finding
from scsiusb.scsi.pages.inquiry import InquiryData
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.usb.backend import BlockDisk, Code
from scsiusb.virtual import Fault, Identity, Memory, Stick, Unit, bot_interface, uas_interface
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.task import Parameters, Task
from tests.cli.conftest import Attached, Cli
from tests.sticks import Answer, OddUnit, Wire, stick


class Refusing(Unit):
    """A unit that fails one command with the same sense data each time."""

    opcode = 0x00
    refusal = Sense(0x4, 0x44, 0x00)

    def execute(self, cdb: bytes) -> Task:
        if cdb[0] == self.opcode:
            self.keep_sense(self.refusal)
            return Task(failed=True)
        return super().execute(cdb)


def test_list_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(stick(), Stick([Unit()], interfaces=[bot_interface(), uas_interface()]))
    ended = cli("list", "--json")
    assert ended.status == 0
    assert ended.err == ""
    assert ended.json[0] == {
        "address": "1-1",
        "vid": "1209",
        "pid": "0001",
        "serial": "0123456789AB",
        "manufacturer": "scsiusb",
        "product": "Virtual Stick",
        "protocol": "bot",
        "speed": "high",
        "driver": "usb-storage",
        "lease": None,
        "disk": None,
        "bytes": None,
        "mounts": [],
        "disks": [],
        "unsupported": None,
    }
    assert ended.json[1]["driver"] == "uas"


def test_json_may_be_given_before_the_command(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("--json", "list").json == cli("list", "--json").json


def test_vid_and_pid_have_four_digits(cli: Cli, attach: Attached) -> None:
    attach(Stick.formatted(identity=Identity(vid=0x1, pid=0xAB)))
    row = cli("list", "--json").json[0]
    assert (row["vid"], row["pid"]) == ("0001", "00ab")


def test_list_without_devices_is_empty(cli: Cli) -> None:
    assert cli("list", "--json").json == []
    ended = cli("list")
    assert (ended.status, ended.out, ended.err) == (0, b"", "no mass-storage device is attached\n")


def test_a_device_without_permission_is_listed(cli: Cli, attach: Attached) -> None:
    locked = stick()
    locked.accessible = locked.has_readable_strings = False
    attach(locked)
    assert cli("list", "--json").json[0]["serial"] is None
    assert cli("inquiry", "1-1").failed(15, "permission denied", "udev")


def test_list_in_a_pipe_is_aligned_columns(cli: Cli, attach: Attached) -> None:
    attach(stick(), Stick.formatted(identity=Identity(serial=None)))
    lines = cli("list").text.splitlines()
    assert lines[0].split() == ["address", "vid:pid", "serial", "device", "disk", "size", "used", "by"]
    assert lines[2].split()[:4] == ["1-2", "1209:0001", "-", "scsiusb"]
    assert len({line.index("scsiusb") for line in lines[1:]}) == 1


def reader() -> Stick:
    """A card reader with two disks, one of them mounted."""
    target = Stick([Unit(Memory(512)), Unit(Memory(1024))])
    mounted = BlockDisk("/dev/sdz", 1, 31_914_983_424, ("/media/user/A long name of a stick", "/mnt"))
    target.disks = (BlockDisk("/dev/sdy", 0, None), mounted)
    return target


def test_list_has_disks_sizes_and_mount_points(cli: Cli, attach: Attached) -> None:
    attach(reader())
    (row,) = cli("list", "--json").json
    assert (row["disk"], row["bytes"]) == ("/dev/sdy", None)
    assert row["mounts"] == ["/media/user/A long name of a stick", "/mnt"]
    assert row["disks"] == [
        {"lun": 0, "disk": "/dev/sdy", "bytes": None, "mounts": []},
        {"lun": 1, "disk": "/dev/sdz", "bytes": 31_914_983_424, "mounts": row["mounts"]},
    ]
    lines = cli("list").text.splitlines()
    assert lines[1].endswith("/dev/sdy  -          usb-storage")
    assert lines[2].strip() == "/dev/sdz  29.72 GiB  /media/user/A long name of a stick, /mnt"


def test_list_fits_80_columns_and_is_records_on_a_narrower_terminal(
    screen: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(reader(), stick(), Stick.formatted(identity=Identity(serial="X" * 60, product="Y" * 60)))
    lines = screen("list").text.splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80
    for words in ("1-1", "0123456789AB", "/dev/sdy", "29.72 GiB", "/dev/sdz", "usb-storage"):
        assert words in "\n".join(lines)
    monkeypatch.setenv("COLUMNS", "240")
    assert "X" * 60 in screen("list").text
    monkeypatch.setenv("COLUMNS", "50")
    text = screen("list").text
    assert "address  1-1\n" in text
    assert "\n\naddress  1-2\n" in text
    assert "…" not in text


def test_an_interface_that_cannot_be_opened_is_listed_and_says_why(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512))], interfaces=[replace(bot_interface(), protocol=0x00)]), stick())
    ended = cli("list")
    assert "not supported" in ended.text
    assert ended.err == "1-1 cannot be opened: it speaks CBI (Control/Bulk/Interrupt), the protocol of floppy drives\n"
    row = cli("list", "--json").json[0]
    assert (row["protocol"], row["unsupported"][:13]) == ("cbi", "it speaks CBI")
    assert cli("inquiry", "1-1").failed(15, "is not supported: it speaks CBI")
    assert cli("inquiry", "--json").record["vendor"] == "scsiusb", "the other one is the only device that can be opened"


def test_a_disk_node_selects_the_logical_unit(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(reader(), stick())
    assert cli("capacity", "/dev/sdz", "--json").json["blocks"] == 2
    assert cli("capacity", "/dev/sdz", "--json").json["device"]["lun"] == 1
    assert cli("capacity", "/dev/sdz", "--lun", "0").failed(1, "/dev/sdz is LUN 1")
    assert cli("capacity", "/dev/sdx").failed(15, "no attached device matches")
    monkeypatch.setattr(finding, "ON_LINUX", False)
    assert cli("capacity", "/dev/disk4").failed(15, "on Linux only; give an address such as 2-1")


def test_control_characters_in_device_names_do_not_reach_the_terminal(screen: Cli, attach: Attached) -> None:
    attach(Stick.formatted(identity=Identity(product="\x1b[2Jx", serial="a\nb")))
    assert "\x1b" not in screen("list").text


def test_inquiry_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("inquiry", "1-1", "--json").record == {
        "peripheral_qualifier": 0,
        "peripheral_device_type": 0,
        "removable": True,
        "version": 6,
        "response_data_format": 2,
        "vendor": "scsiusb",
        "product": "Virtual Stick",
        "revision": "1.00",
        "additional_length": 31,
        **dict.fromkeys(("lu_cong", "normaca", "hisup", "sccs", "acc", "third_party_copy", "protect"), False),
        **dict.fromkeys(("encserv", "multip", "addr16", "cmdque"), False),
        "tpgs": 0,
        "hot_pluggable": 0,
        "version_descriptors": [],
    }


@pytest.mark.parametrize("name", ["1-1", "1209:0001", "serial=0123456789AB", "1-1:1.0"])
def test_every_way_to_name_a_device(cli: Cli, attach: Attached, name: str) -> None:
    attach(stick())
    assert cli("inquiry", name).status == 0
    assert cli("inquiry").status == 0, "DEVICE may be omitted if there is only one"


def test_inquiry_as_text(cli: Cli, attach: Attached) -> None:
    attach(stick(version=4), Stick([Unit.cd_rom()]), stick(version=0x55))
    assert cli("inquiry", "1-1").text == (
        "vendor       scsiusb\n"
        "product      Virtual Stick\n"
        "revision     1.00\n"
        "type         disk (00h)\n"
        "removable    yes\n"
        "standard     SPC-2 (04h)\n"
        "qualifier    0\n"
        "data format  2\n"
    )
    assert "type         CD/DVD (05h)\n" in cli("inquiry", "1-2").text
    assert "standard     55h\n" in cli("inquiry", "1-3").text


@pytest.mark.parametrize("name", ["sv", "SV", "supported", "0", "00", "0x00", "00h"])
def test_supported_pages_are_hex_with_names(cli: Cli, attach: Attached, name: str) -> None:
    attach(stick())
    assert cli("inquiry", "--page", name).text.splitlines()[1:] == [
        "00h   supported pages",
        "80h   unit serial number",
        "83h   device identification",
        "B0h   block limits",
    ]
    assert cli("inquiry", "--page", name, "--json").record == {"page": 0, "pages": [0, 0x80, 0x83, 0xB0]}


def test_designators_are_a_table(cli: Cli, attach: Attached) -> None:
    attach(stick())
    name = f"scsiusb Virtual Stick   {Identity().serial}"
    assert cli("inquiry", "--page", "di").text.splitlines() == [
        "of            kind           value",
        f"logical unit  T10 vendor ID  {name}",
    ]
    assert cli("inquiry", "--page", "83", "--json").record == {
        "page": 0x83,
        "designators": [
            {
                "association": 0,
                "kind": 1,
                "value": name.encode().hex(),
                "text": name,
                "code_set": 2,
                "protocol": None,
                "fields": {},
            }
        ],
        "problems": [],
        "body": bytes((2, 1, 0, len(name))).hex() + name.encode().hex(),
    }


def test_a_designator_that_is_cut_is_a_warning(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    from scsiusb.virtual.target import pages

    data = bytes.fromhex("00 83 00 12 61940004 00000002 01030008 5000c5001234")
    monkeypatch.setattr(pages, "vpd", lambda unit, page: data)
    attach(stick())
    shown = cli("inquiry", "--page", "83")
    assert "protocol                         SAS\nrelative target port identifier  2\n" in shown.text
    assert shown.err == (
        "scsiusb: warning: page 83h: designator 1 is cut: it ends after 10 bytes: "
        "01 03 00 08 50 00 c5 00 12 34, of 12\n"
    )
    record = cli("inquiry", "--page", "83", "--json").record
    assert len(record["designators"]) == len(record["problems"]) == 1
    assert record["body"] == data[4:].hex()


def test_block_limits_have_units(cli: Cli, attach: Attached) -> None:
    attach(stick(maximum_transfer=240), stick(maximum_transfer=1))
    text = cli("inquiry", "1-1", "--page", "bl").text
    assert text.startswith(
        "optimal granularity  not reported\nmax transfer         240 blocks\n"
        "optimal transfer     not reported\nmax unmap            not reported\n\nfield "
    )
    row = next(line for line in text.splitlines() if line.startswith("maximum_compare_and_write_length"))
    assert row.split() == ["maximum_compare_and_write_length", "128", "blocks"]
    assert "1 block\n" in cli("inquiry", "1-2", "--page", "bl").text


def test_what_a_thin_unit_says_of_unmap(cli: Cli, attach: Attached) -> None:
    attach(stick(thin=True, thin_zeros=False), stick())
    assert "max unmap            65536 blocks\n" in cli("inquiry", "1-1", "--page", "bl").text
    assert cli("inquiry", "1-1", "--page", "lbpv").text.startswith(
        "UNMAP           yes\nWRITE SAME(16)  yes\nWRITE SAME(10)  yes\nreads zeros     no\nkind            thin\n\n"
        "field                 value  meaning\nthreshold_exponent    0 "
    )
    limits = cli("inquiry", "1-1", "--page", "bl", "--json").record
    assert limits["max_unmap_blocks"] == limits["fields"]["maximum_unmap_lba_count"] == 65536
    assert len(limits["fields"]) == 17
    assert limits["body"].startswith("0080")
    provisioning = cli("inquiry", "1-1", "--page", "lbpv", "--json").record
    assert (provisioning["unmap"], provisioning["fields"]["lbpws10"], provisioning["problems"]) == (True, 1, [])
    assert cli("inquiry", "1-2", "--page", "lbpv").failed(5)


def test_all_that_a_unit_says_of_itself(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(Stick([Unit(Memory(512 * 64), serial="S1"), Unit.cd_rom(Memory(2048 * 4, 2048))]))
    text = cli("inquiry", "1-1", "--all").text
    assert text.startswith("vendor ")
    for part in (
        "\npage 00h supported pages\n",
        "\npage 80h unit serial number\nserial  S1\n",
        "\npage B0h block limits\n",
    ):
        assert part in text
    record = cli("inquiry", "1-1", "--all", "--json").record
    assert record["vendor"] == "scsiusb"
    assert record["pages"]["80"] == {"page": 0x80, "serial": "S1"}
    assert set(record["pages"]) == {"00", "80", "83", "b0"}
    assert cli("inquiry", "1-1", "--all", "--page", "80").failed(1, "together")
    from scsiusb.virtual.target import pages

    before = pages.vpd
    monkeypatch.setattr(pages, "vpd", lambda unit, page: b"\0\0\0\0" if page == 0x83 else before(unit, page))
    assert "the device sent page 00h" in cli("inquiry", "1-1", "--all").text
    assert "sent page 00h" in cli("inquiry", "1-1", "--all", "--json").record["pages"]["83"]["error"]
    assert "serial  S1" in cli("inquiry", "1-1", "--all").text, "the others are shown"


def test_all_has_the_standards_that_a_unit_claims(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Unit(Memory(512 * 64))
    before = unit.inquiry()
    long = before[:4] + bytes((69, 0x19, 0x50, 0x02)) + before[8:] + bytes(22) + bytes.fromhex("0460 0000 04c0")
    monkeypatch.setattr(unit, "inquiry", lambda: long.ljust(74, b"\0"))
    attach(Stick([unit]))
    assert cli("inquiry", "1-1", "--json").record["version_descriptors"] == [], "not in the first 36 bytes"
    record = cli("inquiry", "1-1", "--all", "--json").record
    assert record["version_descriptors"] == [0x0460, 0x04C0]
    assert (record["tpgs"], record["third_party_copy"], record["protect"]) == (1, True, True)
    text = cli("inquiry", "1-1", "--all").text
    assert "\nfeatures     3PC, PROTECT, ENCSERV, MULTIP, CMDQUE, TPGS 1\nclaims       0460h, 04C0h\n" in text


def test_the_bytes_of_what_a_unit_says(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(512 * 64), serial="S1")]))
    shown = cli("inquiry", "1-1", "--hex").text
    assert shown.startswith("00000000  00 80 06 02 ")
    assert "|Virtual Stick   |" in shown
    data = cli("inquiry", "1-1", "--hex", "--json").record["hex"]
    assert data.startswith("00800602")
    assert len(data) == 2 * (int(data[8:10], 16) + 5), "as many as it says"
    assert cli("inquiry", "1-1", "--page", "80", "--hex", "--json").record["hex"] == "008000025331"
    assert cli("inquiry", "1-1", "--page", "80", "--hex").text == (
        "00000000  00 80 00 02 53 31                                 |....S1|\n"
    )
    assert cli("inquiry", "1-1", "--all", "--hex", "--json").record["pages"]["80"] == {
        "page": 0x80,
        "hex": "008000025331",
    }


def test_the_serial_number_page(cli: Cli, attach: Attached) -> None:
    attach(stick(serial="S1"))
    assert cli("inquiry", "--page", "sn").text == "serial  S1\n"
    assert cli("inquiry", "--page", "80", "--json").record == {"page": 0x80, "serial": "S1"}


@pytest.mark.parametrize(
    ("body", "dump"),
    [(b"\x0a\x0b", "\n00000000  0a 0b                                             |..|"), (b"", "")],
)
def test_an_unknown_page_is_a_hex_dump(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch, body: bytes, dump: str
) -> None:
    from scsiusb.virtual.target import pages

    monkeypatch.setattr(pages, "vpd", lambda unit, page: bytes((0, page, 0, len(body))) + body)
    attach(stick())
    assert cli("inquiry", "--page", "84").text == f"page 84h software interface identification{dump}\n"
    assert cli("inquiry", "--page", "c5").text == f"page C5h vendor specific{dump}\n"
    assert cli("inquiry", "--page", "0x9a", "--json").record == {"page": 0x9A, "body": body.hex()}


def test_a_page_that_the_device_does_not_have(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("inquiry", "--page", "b1").failed(5, "VPD page B1h")


@pytest.mark.parametrize("page", ["", "zz", "100", "-1", "1_0", " 80", "٨٠", "0x", "h"])
def test_an_invalid_page(cli: Cli, attach: Attached, page: str) -> None:
    bus = attach(stick())
    assert cli("inquiry", "--page", page).failed(1, "--page")
    assert bus.wire.log == []


def test_capacity_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(stick(blocks=2048), stick(blocks=3, block_size=4096))
    assert cli("capacity", "1-1", "--json").record == {"blocks": 2048, "block_size": 512, "bytes": 1048576}
    assert cli("capacity", "1-2", "--json").record == {"blocks": 3, "block_size": 4096, "bytes": 12288}
    assert cli("capacity", "1-1").text == "blocks      2048\nblock size  512\nbytes       1048576 (1 MiB)\n"


def test_luns_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(1024)), Unit.cd_rom(), Unit(Memory(1024), becoming_ready=1000)]))
    rows = cli("luns", "--json").json
    assert rows[0] == {
        "lun": 0,
        "vendor": "scsiusb",
        "product": "Virtual Stick",
        "peripheral_device_type": 0,
        "ready": True,
        "error": None,
        "address": "1-1",
    }
    assert [(row["lun"], row["peripheral_device_type"], row["ready"]) for row in rows[1:]] == [
        (1, 5, False),
        (2, 0, False),
    ]


def test_luns_as_text(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(Memory(1024)), Unit.cd_rom()]))
    assert cli("luns").text.splitlines() == [
        "LUN  vendor   product         type    ready",
        "0    scsiusb  Virtual Stick   disk    yes",
        "1    scsiusb  Virtual CD-ROM  CD/DVD  no: not ready: Medium not present (2/3A/00)",
    ]


def test_a_failing_unit_does_not_hide_the_others(cli: Cli, attach: Attached) -> None:
    attach(Stick([Refusing(), Unit(Memory(1024))]))
    assert [row["ready"] for row in cli("luns", "--json").json] == [False, True]


@pytest.mark.parametrize(
    "sense",
    [Sense(0, 0, 0), Sense(4, 0x44, 0), Sense(5, 0x24, 0), Sense(0xB, 0, 0)],
    ids=lambda sense: f"{sense.key:x}",
)
def test_a_unit_that_fails_inquiry_has_a_row_with_the_reason(cli: Cli, attach: Attached, sense: Sense) -> None:
    odd = Refusing()
    odd.opcode, odd.refusal = 0x12, sense
    attach(Stick([Unit(Memory(512)), Unit(Memory(512)), odd, Unit(Memory(512))]))
    ended = cli("luns", "--json")
    assert ended.status == 0
    assert [(row["lun"], row["ready"]) for row in ended.json] == [(0, True), (1, True), (2, False), (3, True)]
    assert f"({sense.key:X}/{sense.asc:02X}/00)" in ended.json[2]["error"]
    assert ended.json[2]["vendor"] is None
    assert cli("luns").text.splitlines()[3].startswith("2    -        -              -     no: ")


def test_a_unit_that_does_not_answer_has_a_row_and_costs_one_short_timeout(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Fault.parse("nak@csw,opcode=12,lun=1,times=always")
    target = Stick([Unit(Memory(512)) for _ in range(3)], faults=[silent])
    attach(target)
    rows = cli("luns", "--json", "--timeout", "0.2").json
    assert [(row["lun"], row["ready"]) for row in rows] == [(0, True), (1, False), (2, True)]
    assert "did not answer in time" in rows[1]["error"]
    assert len(target.faults.fired) == 1
    seen: list[float | None] = []
    original = LogicalUnit.inquiry

    def inquiry(unit: LogicalUnit) -> InquiryData:
        seen.append(unit.timeout)
        return original(unit)

    monkeypatch.setattr(LogicalUnit, "inquiry", inquiry)
    attach(Stick([Unit(Memory(512)), Unit(Memory(512))]))
    assert cli("luns", "1-2").status == 0
    assert seen == [3.0, 3.0]


def test_a_lun_without_a_unit_is_left_out(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, refusing = Unit(), Refusing()
    monkeypatch.setattr(absent, "inquiry", lambda: b"\x7f\0\x06\x02" + bytes(32))
    refusing.opcode, refusing.refusal = 0x12, Sense(0x5, 0x25, 0x00)
    attach(Stick([Unit(), absent, refusing]))
    assert [row["lun"] for row in cli("luns", "--json").json] == [0]


def test_sense_has_the_contracts_keys(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("sense", "--json").record == {
        "key": 6,
        "key_text": "Unit attention",
        "asc": 0x29,
        "ascq": 0,
        "text": "Power on, reset, or bus device reset occurred",
        "information": None,
        "deferred": False,
        "raw": "70000600000000" + "0a00000000" + "290000000000",
        "details": [],
    }
    assert cli("sense", "--json").json["key"] == 0, "it is reported once"


def test_sense_as_text(cli: Cli, attach: Attached) -> None:
    attach(stick())
    lines = cli("sense").text.splitlines()
    assert lines[:2] == [
        "key          6h Unit attention",
        "asc/ascq     29h/00h Power on, reset, or bus device reset occurred",
    ]
    assert lines[4] == "raw          70 00 06 00 00 00 00 0a 00 00 00 00 29 00 00 00 00 00"


def test_sense_shows_what_the_data_say_besides_their_codes(cli: Cli, attach: Attached) -> None:
    data = bytes.fromhex("70 00 05 00000000 0a 00000000 24 00 09 cd 00 02")
    unit = OddUnit()
    unit.answer = lambda cdb: Parameters(data, cdb[4]) if cdb[0] == 0x03 else None
    attach(Stick([unit]))
    lines = cli("sense").text.splitlines()
    assert lines[4:6] == ["field replaceable unit  code 9", "field pointer           in CDB, byte 2, bit 5"]
    assert cli("sense", "--json").json["details"][1] == {"name": "field pointer", "in": "CDB", "byte": 2, "bit": 5}


def test_an_error_names_the_field_that_the_unit_refused(
    cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON, it has the details, too."""
    data = bytes.fromhex("70 00 05 00000000 0a 00000000 24 00 00 cd 00 02")
    monkeypatch.setattr(Sense, "fixed", lambda sense: data)
    attach(stick())
    assert cli("inquiry", "1-1", "--page", "c0").failed(5, "Invalid field in CDB (5/24/00), CDB byte 2, bit 5; ")
    error = json.loads(cli("inquiry", "1-1", "--page", "c0", "--json").err)["error"]
    assert error["sense"]["details"] == [{"name": "field pointer", "in": "CDB", "byte": 2, "bit": 5}]


def test_sense_shows_the_bytes_of_sense_data_that_cannot_be_read(cli: Cli, attach: Attached) -> None:
    unit = OddUnit()
    unit.answer = lambda cdb: Parameters(b"\0\0\2", cdb[4]) if cdb[0] == 0x03 else None
    attach(Stick([unit]))
    assert cli("sense").text.splitlines() == [
        "key  none: the bytes are not sense data (SPC-4 4.5.1)",
        "raw  00 00 02",
    ]
    assert cli("sense", "--json").json["raw"] == "000002"


def test_verbose_logs_retries_before_and_after_the_command(cli: Cli, attach: Attached) -> None:
    attach(stick())
    assert cli("capacity").err == ""
    for words in (["-v", "capacity"], ["capacity", "-v"], ["-v", "capacity", "-v"]):
        attach.bus.unplug(attach.devices()[0].device)
        attach(stick())
        assert "scsiusb: info: LUN 0: TEST UNIT READY failed: unit attention" in cli(*words).err


def test_the_timeout_reaches_the_device(cli: Cli, attach: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = attach(stick())
    seen: list[float | None] = []
    opener = attach.open

    def spy(device: str | None, *, timeout: float | None, **rest: Any) -> object:
        seen.append(timeout)
        return opener(device, timeout=timeout, **rest)

    monkeypatch.setattr("scsiusb.cli.device.open_disk", spy)
    cli("--timeout", "5", "inquiry")
    cli("inquiry", "--timeout", "0.5")
    cli("inquiry")
    assert seen == [5.0, 0.5, None]
    assert bus.wire.log


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e300", "soon"])
def test_an_invalid_timeout(cli: Cli, attach: Attached, value: str) -> None:
    bus = attach(stick())
    assert cli("inquiry", "--timeout", value).failed(1, "--timeout")
    assert cli(f"--timeout={value}", "inquiry").failed(1, "--timeout")
    assert bus.wire.log == []


def test_a_failure_prints_no_json(cli: Cli, attach: Attached) -> None:
    """A failure must not print a partial result."""

    def gone(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        return Code.NO_DEVICE, 0

    attach(stick()).wire.intercept = gone
    assert cli("inquiry", "--json").failed(35, "gone")


def test_json_is_ascii_and_parses_with_any_device_name(cli: Cli, attach: Attached) -> None:
    attach(Stick.formatted(identity=replace(Identity(), product="Stück “7”")))
    ended = cli("list", "--json")
    assert ended.out.isascii()
    assert json.loads(ended.out)[0]["product"] == "Stück “7”"


def test_an_empty_slot_of_a_reader_names_the_slot_that_has_a_card(cli: Cli, attach: Attached) -> None:
    attach(Stick([Unit(), Unit(), Unit(Memory(512 * 8))]))
    assert cli("capacity").failed(2, "no medium", "unit 2 has a medium: use lun=2 (--lun 2)")
    assert cli("capacity", "--lun", "2", "--json").record["blocks"] == 8
