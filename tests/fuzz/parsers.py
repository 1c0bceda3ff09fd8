"""Every parser of bytes that come from a device or a file, with valid bytes that mutations start from."""

from __future__ import annotations

import binascii
import io
import json
import pkgutil
import struct
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, partial, reduce
from importlib import import_module
from operator import or_
from typing import Any, Final

import scsiusb
from scsiusb.ata.extended import AtaExtendedRead
from scsiusb.ata.passthrough import AtaPassThrough12, AtaPassThrough16
from scsiusb.ata.smart import parse_attributes
from scsiusb.cli import labels as words
from scsiusb.cli.commands import decode
from scsiusb.cli.output import jsonable
from scsiusb.errors import MalformedReply
from scsiusb.leases import record
from scsiusb.quirks.model import Quirk, letters, parse_letters
from scsiusb.quirks.user import parse_rows
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import sbc as block
from scsiusb.scsi.commands import spc as primary
from scsiusb.scsi.pages import vpd
from scsiusb.transport.base import Direction
from scsiusb.usb.interface import InterfaceInfo, find, matches
from scsiusb.virtual import Memory, Unit
from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.target.ata import AtaDisk
from scsiusb.virtual.target.ata_logs import general_log
from scsiusb.virtual.usbip import wire as usbip_wire
from scsiusb.volume import content
from scsiusb.volume.source import Source
from scsiusb.volume.table import content_of
from scsiusb.volume.table import read as read_table
from scsiusb.volume.types import type_text
from tests.fuzz.devices import Shown, device_of
from tests.fuzz.more_parsers import more_parsers
from tests.fuzz.parser import Parser, Seeds
from tests.scsi.command_rows import ROWS


def _hex(*texts: str) -> Seeds:
    return tuple(bytes.fromhex(text) for text in texts)


INQUIRY: Final = bytes.fromhex("00800602 1f000000") + b"scsiusb Virtual Stick   1.00"
SENSE: Final = _hex(
    "70 00 05 00000000 0a 00000000 24 00 00 000000",
    "f0 00 03 00001234 0a 00000000 11 00 00 000000",
    "71 00 01 00000000 0a 00000000 17 01 00 000000",
    "72 06 29 00 00000000",
    "72 03 11 00 00000010 000a8000 0000000012345678 05020020",
    "70 00 06",
    "00",
)
PAGES: Final = {
    0x00: _hex("00 00 0004 00 80 83 b0", "00000000"),
    0x80: (bytes.fromhex("0080000c") + b"000000000001", bytes.fromhex("00800000")),
    0x83: (
        bytes.fromhex("00830024 02010010") + b"scsiusb 12345678" + bytes.fromhex("0103000c 500605b0 00000000 00000001"),
        bytes.fromhex("0083000c 61930008 5000c500a1b2c3d4"),
    ),
    0xB0: _hex("00b0 003c 0000 0001 00000080 00000040" + "00" * 52),
    0x85: (bytes.fromhex("0085001c 21000017") + b"http://192.168.0.1/disk" + bytes(1),),
    0x87: _hex("00870008 3fff0000 08008200"),
    0x88: _hex("00880018 0000 0001 0000 0000 0000 000c 61930008 5000c500a1b2c3d4"),
    0x8D: _hex("008d0008 0003000a 010401f4"),
    0x8F: _hex("008f0010 0000 0004 00010002 8001 0004 00000010"),
    0xB5: _hex("00b5007c 00 01 02 0a 000000b4 00000226" + "00" * 112),
    0xB8: _hex("00b80040 00000001 02 0000 03 00000200 00000000 0000000000ffffff" + "00" * 40),
    0xB9: _hex(
        "00b9007c"
        + "00" * 60
        + "00 01 0000 00000000 0000000000000000 0000000000800000"
        + "00" * 8
        + "01 01 0000 00000000 0000000000800000 0000000000800000"
        + "00" * 8
    ),
    0x86: _hex("0086003c 4501 07" + "00" * 57),
    0x89: (bytes.fromhex("00890238 00000000") + b"VENDOR  A product       1.00" + bytes(20) + b"\xec" + bytes(515),),
    0x8A: _hex("008a000e 0300 0001 0002 0003 0004 0005 0006"),
    0xB1: _hex("00b1003c 0001 00 02" + "00" * 56),
    0xB3: _hex("00b30030 00000000 00000100 00000004" + "00" * 36),
    0xB6: _hex("00b6003c 00000000 00000004 00000004" + "00" * 48),
    0xB7: _hex("00b70010 0000 0010 0020 00000001" + "00" * 6),
    0xB2: _hex("00b20004 00840200", "00b20004 ffffffff"),
    0xC1: _hex("00c10003 010203"),
}
LOGS: Final = _hex(
    "00 00 0003 00 0d 2f",
    "40 ff 0004 0000 0d01",
    "0d 00 000c 0000 03 02 001f 0001 03 02 0046",
    "02 00 000c 0003 00 08 0000000000001234",
    "10 00 0018 0001 03 14 20 00 0123 00000000000000ff 03 11 00 00",
    "2f 00 0008 0000 03 04 5d 10 28 00",
)
MODE_PAGES: Final = "08 0a" + "00" * 10 + "1c 0a" + "00" * 10 + "4a 01 0004 01020304"
REPLIES: Final[dict[str, Seeds]] = {  # by the name of the command's class
    "ReadCapacity10": _hex("000007ff 00000200", "ffffffff 00000200"),
    "ReadCapacity16": _hex("0000000180000000 00001000" + "00" * 20),
    "Read10": (bytes(512), b"USBS" + bytes(508)),
    "Read16": (bytes(512),),
    "RequestSense": SENSE,
    "Inquiry": (INQUIRY, INQUIRY[:5], INQUIRY + bytes(60)),
    "InquiryVpdBytes": PAGES[0x83],
    "ModeSense6": _hex("23 00 80 00" + MODE_PAGES, "2b 00 00 08 0000080000000200" + MODE_PAGES, "03000000"),
    "ModeSense10": _hex("0026 00 80 00000000" + MODE_PAGES, "002e 00 00 0000 0008 0000080000000200" + MODE_PAGES),
    "ReportLuns": _hex("00000010 00000000 0000000000000000 0001000000000000", "00000008 00000000 4001000000000000"),
    "LogSense": LOGS,
    "AtaPassThrough16": (AtaDisk().smart_data(),),
    "AtaPassThrough12": (AtaDisk().thresholds(),),
    "AtaExtendedRead": (general_log(AtaDisk(), 0x03),),
    "GetMediaEvent": _hex("0006045e 00020000", "0006045e 04000000", "00028000 00000000"),
}
ARGUMENTS: Final[dict[str, Command[Any]]] = {  # for commands that need arguments
    "Read10": block.Read10(0, 1, block_size=512),
    "Read16": block.Read16(0, 1, block_size=512),
    "InquiryVpdBytes": primary.InquiryVpdBytes(0x83),
    "AtaPassThrough16": AtaPassThrough16(0xB0, 0xD0),
    "AtaPassThrough12": AtaPassThrough12(0xB0, 0xD1),
    "AtaExtendedRead": AtaExtendedRead(0x2F),
}
LEASE: Final = (
    b'{"in_command": 0, "pid": 5, "started": 7, "boot": "0c15-ab", "command": "python x.py",'
    b' "since": "2026-01-02T03:04:05+00:00", "address": "2-1", "name": "2-1:1.0", "bus": 2, "number": 7,'
    b' "interface": 0, "vendor_id": 1921, "product_id": 21889, "serial": "0123", "driver": "usb-storage",'
    b' "bulk_in": 129, "bulk_out": 2, "uid": 1000}\n'
)
DEVICE: Final = bytes.fromhex("01 00 02 0781 5581 0100 04 02 01 01") + (
    bytes.fromhex("00 00 08 06 50 02 81020002 02020002") + b"\x040123\x04ACME\x05Stick"
)
TWO_INTERFACES: Final = bytes.fromhex("02 00 03 09 1209 0001 0100 03 04 01 03") + (
    bytes.fromhex("00 00 08 06 50 02 81020004 02020004  00 01 08 06 62 04 81020004 02020004 83020004 04020004")
    + bytes.fromhex("01 00 08 05 50 02 85020004 06020004")
    + b"\x02\x1b[\x00\x03\xff\xfe\xfd"
)


FAT: Final = bytes.fromhex("eb3c90 4d53444f53352e30 0002 01 0100 02 0002 4000 f8 0400").ljust(510, b"\0") + b"\x55\xaa"


def mbr_disk() -> bytes:
    """Return a disk with a primary partition and two logical drives."""
    records = {0: [(0x0C, 1, 1), (0x05, 3, 4)], 3: [(0x83, 1, 1), (0x05, 2, 2)], 5: [(0x83, 1, 1)]}
    blocks = [b"" if rows is None else record_of(rows) for rows in map(records.get, range(8))]
    return b"".join(block.ljust(512, b"\0") for block in blocks)


def record_of(rows: list[tuple[int, int, int]]) -> bytes:
    """Return a boot record with entries of these types, first blocks and numbers of blocks."""
    entries = b"".join(struct.pack("<4xB3xII", *row) for row in rows)
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"


def gpt_disk() -> bytes:
    """Return a disk with the first copy of a GPT, of four entries, at its place."""
    linux, name = bytes.fromhex("af3dc60f838472478e793d69d8477de4"), "Ä".encode("utf-16-le")
    array = (linux + linux + struct.pack("<QQQ", 4, 6, 4) + name).ljust(512, b"\0")

    def header(crc: int) -> bytes:
        head = struct.pack("<8sIIIIQQQQ", b"EFI PART", 0x10000, 92, crc, 0, 1, 7, 3, 6)
        return head + struct.pack("<16sQIII", linux, 2, 4, 128, binascii.crc32(array))

    blocks = [record_of([(0xEE, 1, 7)]), header(binascii.crc32(header(0))), array, *[b""] * 5]
    return b"".join(block.ljust(512, b"\0") for block in blocks)


FAULTS: Final = (
    b"stall=512@data,opcode=28,times=always",
    b"delay=0.5@csw,lba=3-9,over=100",
    b"sense=5/24/00,cdb=28..00,lun=0",
    b"signature=55534255@csw,command=7",
    b"capacity=-1",
    b"descriptor=garbage:7",
)
USBIP: Final = _hex(
    "00000001 00000007 00010002 00000001 00000001 00000000 0000000d 00000000 00000000 00000000 0000000000000000",
    "00000002 00000008 00010002 00000000 00000000 00000007" + "00" * 24,
)


def commands() -> list[type[Command[Any]]]:
    """Return every command declared in scsiusb that has a data-in phase."""
    for module in pkgutil.walk_packages(scsiusb.__path__, "scsiusb."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found = {kind for kind in _below(Command) if kind.__module__.startswith("scsiusb.") and "CDB" in vars(kind)}
    return sorted((kind for kind in found if kind.direction is Direction.IN), key=lambda kind: kind.__name__)


def _below(kind: type[Command[Any]]) -> Iterator[type[Command[Any]]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def command_parser(kind: type[Command[Any]]) -> Parser:
    """Return the parser of a command's reply. KeyError: there is no example of it; TypeError: it needs ARGUMENTS."""
    row = next((row for row in ROWS if type(row.command) is kind and row.replies), None)
    if row is not None:
        return Parser(kind.__name__, row.command.reply, _hex(*row.replies))
    command = ARGUMENTS[kind.__name__] if kind.__name__ in ARGUMENTS else kind()
    return Parser(kind.__name__, command.reply, REPLIES[kind.__name__])


@cache
def all_parsers() -> tuple[Parser, ...]:
    """Return all parsers that need no transport."""
    pages = [Parser(f"VPD page {page:02X}h", partial(_page, page), seeds) for page, seeds in PAGES.items()]
    return (
        *(command_parser(kind) for kind in commands()),
        *pages,
        *more_parsers(),
        *(Parser(f"decode {kind}", partial(_decoded, kind), seeds) for kind, seeds in DECODED.items()),
        Parser("VPD page length", lambda data: vpd.page_length(data, 0x83), PAGES[0x83]),
        Parser("SMART", lambda data: parse_attributes(data, data), (AtaDisk().smart_data(), AtaDisk().thresholds())),
        Parser("interfaces", interfaces, (DEVICE, TWO_INTERFACES), errors=()),
        Parser("lease", lease, (LEASE,), errors=()),
        Parser("quirks", quirks, (b"152d:2329:rG, 0x781:5572:s", b"0781:5572:", b"#"), errors=(ValueError,)),
        Parser("fault", fault, FAULTS, errors=(ValueError,)),
        Parser("partition table", partition_table, (mbr_disk(), gpt_disk(), FAT), errors=()),
        Parser("USB/IP commands", usbip_wire.parse_command, USBIP, errors=(usbip_wire.Malformed, struct.error)),
    )


def _page(asked: int, data: bytes) -> object:
    """Return the page, and what the command line shows of it."""
    page = vpd.parse_page(data, asked)
    if isinstance(page, vpd.DeviceIdentification):
        return page, [words.designator_row(entry) for entry in page.designators]
    if isinstance(page, vpd.SupportedPages):
        return page, words.supported_rows(page)
    if isinstance(page, (vpd.UnitSerialNumber, vpd.BlockLimits, vpd.LogicalBlockProvisioning)):
        return page, [str(word) for word in words.page_words(page).values()]
    return page


DECODED: Final = {
    "inquiry": REPLIES["Inquiry"],
    "vpd": tuple(seed for seeds in PAGES.values() for seed in seeds),
    "mode": (*REPLIES["ModeSense6"], *REPLIES["ModeSense10"]),
    "log": LOGS,
    "sense": SENSE,
    "identify": (AtaDisk().identify(Unit(Memory(512 * 100))),),
    "cdb": _hex("28 00 00001000 00 0008 00", "9e 10 0000000000000000 00000020 00 00", "08 1fffff 00 00", "c1 e2"),
}


def _decoded(kind: str, data: bytes) -> object:
    """Return what `scsiusb decode` shows as JSON."""
    if not data:
        raise MalformedReply("no bytes")
    found = decode.KINDS[kind](data)
    return json.dumps(jsonable({**found.record, "problems": found.problems}))


def interfaces(data: bytes) -> list[InterfaceInfo]:
    """Return the mass-storage interfaces of the device that the bytes describe."""
    device, strings = device_of(data)
    found = find(Shown(device, strings))
    assert len({info.address for info in found}) == len(found)
    for info in found:
        assert matches(info, info.address)
    return found


def partition_table(data: bytes) -> object:
    """Return the partition table of a disk with these bytes, what is wrong with it, and what is on it."""
    size = 512
    source = Source(io.BytesIO(data), size, len(data) // size)
    found = read_table(source)
    rows = [
        (entry.number, entry.lba, entry.blocks, type_text(entry.type), entry.name, content_of(source, entry))
        for entry in (*found.entries, *found.hybrid)
    ]
    return found.kind, rows, tuple(source.problems), content.find(source)


def quirks(data: bytes) -> object:
    """Parse the text as in the user's file, and as letters alone."""
    text = data.decode("utf-8", "replace")
    rows = [(row.vid, row.pid, letters(row.quirks), row.source) for row in parse_rows(text, "test")]
    return rows, letters(parse_letters(letters(reduce(or_, (row.quirks for row in parse_rows(text, "")), Quirk.NONE))))


def fault(data: bytes) -> object:
    """Parse the text; its plain form must parse to the same fault."""
    found = Fault.parse(data.decode("utf-8", "replace"))
    assert Fault.parse(str(found)) == found
    return str(found)


def lease(data: bytes) -> object:
    """Parse a lease."""
    found = record.parse(data)
    return None if found is None else list(asdict(found).values())
