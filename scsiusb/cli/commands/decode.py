"""The command decode: reads what a device sent, or is sent, without a device."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import click

from scsiusb.cli import labels
from scsiusb.cli.commands.logs import log_record, show_log
from scsiusb.cli.files import STANDARD, binary, read_whole
from scsiusb.cli.options import NUMBER, global_options, number, quoted, settings
from scsiusb.cli.output import (
    hex_dump,
    say,
    sense_record,
    sense_words,
    show,
    show_json,
    show_record,
    show_table,
)
from scsiusb.cli.pages import page_record, problems_in, show_page
from scsiusb.errors import MalformedReply
from scsiusb.scsi import catalog
from scsiusb.scsi.opcodes import CD_ROM, CHANGER, TAPE, ZONED
from scsiusb.scsi.pages.fields import Field
from scsiusb.scsi.pages.inquiry import STANDARD_LENGTH, InquiryData
from scsiusb.scsi.pages.log import LogPage
from scsiusb.scsi.pages.mode import ModePage, ModeParameters
from scsiusb.scsi.pages.mode_pages import find_layout, page_name
from scsiusb.scsi.pages.vpd import (
    HEADER_LENGTH,
    AnyPage,
    VpdPage,
    parse_page,
)
from scsiusb.scsi.sense import Sense

MOST: Final = 1 << 20  # bytes
WORD: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,2}|(?:[0-9a-fA-F]{2})+)")
OFFSET: Final = re.compile(r"^\s*(?:[0-9a-fA-F]{2,}:|0x[0-9a-fA-F]+:|[0-9a-fA-F]{3,8}\s{2,}|[0-9a-fA-F]{2}\s{4,})\s*")
TEXT: Final = re.compile(r"\s{3,}\S.*$|\s\|.*$")  # after the bytes of a line, as hex dumps have it
GROUPS: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # bytes of a CDB, by the opcode's upper three bits (SPC-4 4.2.5.1)
WITH_SERVICE_ACTION: Final = (0x48, 0x5E, 0x5F, 0x83, 0x84, 0x94, 0x95, 0x9E, 0x9F, 0xA3, 0xA4, 0xAB)
WITH_256_BLOCKS: Final = (0x08, 0x0A)  # READ(6), WRITE(6): 0 blocks mean 256
TYPES: Final = {"disk": 0x00, "tape": TAPE, "cd": CD_ROM, "changer": CHANGER, "zoned": ZONED}
MOST_TYPES: Final = 0x20  # PERIPHERAL DEVICE TYPE has 5 bits

PCAPNG: Final = "pcapng"


class Decoded(NamedTuple):
    """What was read: for JSON, and how to print it."""

    record: dict[str, Any]
    show: Callable[[], None]
    problems: tuple[str, ...] = ()


def _device_type(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse a peripheral device type: a name or a number. Raise BadParameter."""
    if value is None or value.lower() in TYPES:
        return None if value is None else TYPES[value.lower()]
    found = number(context, parameter, value) if NUMBER.fullmatch(value) else None
    if found is None or found >= MOST_TYPES:
        raise click.BadParameter(f"{quoted(value)} is not one of {', '.join(TYPES)}, and not 0 to {MOST_TYPES - 1}")
    return found


@click.command("decode", short_help="Read INQUIRY, pages, sense data or a CDB without a device.")
@click.argument("kind", metavar="KIND")
@click.argument("words", nargs=-1, required=True, metavar="HEX...|@FILE|-")
@click.option(
    "--type",
    "device_type",
    metavar="TYPE",
    callback=_device_type,
    help=f"Of the device: {', '.join(TYPES)} or a number.",
)
@global_options
def decode_command(kind: str, words: tuple[str, ...], device_type: int | None) -> None:
    """Read bytes in hex, without a device: KIND is inquiry, vpd, mode, log, sense,
    cdb or identify. With KIND pcapng, @FILE has USB packets that Linux's usbmon,
    Wireshark or --trace recorded, and each command is shown.

    @FILE is a file with bytes in hex, or with the bytes themselves; - is stdin.
    The offsets and the text of a hex dump, and what follows a #, are skipped.
    Data that are cut or too long are shown as far as they go. Some CDBs and mode
    pages mean different things to a disk (the default) and to others: give --type.

    \b
    Examples:
      scsiusb decode sense 70 00 03 00 00 10 00 0a 00 00 00 00 11 00
      scsiusb decode vpd @page83.hex --json
      scsiusb decode cdb a1 11 00 00 00 00 00 00 00 00 00 00 --type cd
      sg_inq -HH /dev/sg0 | scsiusb decode inquiry -
      scsiusb decode pcapng @trace.pcapng
    """
    if device_type is not None and kind not in BY_TYPE:
        raise click.UsageError(f"--type is for {' and '.join(BY_TYPE)}")
    if kind == PCAPNG:
        _show_packets(words)
        return
    if kind not in KINDS:
        raise click.UsageError(f"{quoted(kind)} is not a KIND; use one of: {', '.join((*KINDS, PCAPNG))}")
    data = _data(words)
    if not data:
        raise MalformedReply("there are no bytes to decode", "give bytes in hex")
    try:
        found = KINDS[kind](data, device_type) if kind in BY_TYPE else KINDS[kind](data)
    except MalformedReply as error:
        error.remedy = "give all of the bytes, and the KIND that they are"
        raise
    if settings().json:
        show_json({**found.record, "problems": list(found.problems)})
        return
    found.show()
    for problem in found.problems:
        say(f"scsiusb: warning: {problem}")


def _show_packets(words: tuple[str, ...]) -> None:
    """Print the commands in a file of packets, as they are read; under --json a list of them."""
    from scsiusb.ata import DECLARING
    from scsiusb.scsi.telling import Teller
    from scsiusb.trace.reading import read_commands

    if len(words) != 1 or not _is_file(words[0]):
        raise click.UsageError("packets are read from a file; give @FILE, or - for stdin")
    tellers: dict[tuple[int, int], Teller] = {}
    records: list[dict[str, Any]] = []
    count = 0
    with binary(words[0].removeprefix("@")) as file:
        for bus, device, exchange in read_commands(file):
            count += 1
            line = tellers.setdefault((bus, device), Teller(DECLARING)).line(exchange)
            if not settings().json:
                show(f"{bus}.{device}: {line}")
                continue
            record = {"bus": bus, "device": device, "lun": exchange.lun, "cdb": exchange.cdb.hex(), "text": line}
            record |= {"bytes": exchange.moved, "status": exchange.status, "residue": exchange.residue}
            record["sense"] = exchange.sense or None
            records.append({**record, "seconds": round(exchange.seconds, 6)})
    if settings().json:
        show_json(records)
    if not count:
        say("scsiusb: warning: no commands found")


def _is_file(word: str) -> bool:
    return word == STANDARD or word.startswith("@")


def _data(words: tuple[str, ...]) -> bytes:
    """Return the bytes that the words are, or name."""
    if len(words) == 1 and _is_file(words[0]):
        content = read_whole(words[0].removeprefix("@"), MOST)
        if len(content) > MOST:
            raise click.UsageError(f"there are more than {MOST} bytes")
        try:
            return _hex(content.decode("ascii"))
        except (UnicodeDecodeError, click.UsageError) as error:
            if content and all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in content):
                raise MalformedReply(str(error), "give a file with bytes in hex, or the bytes themselves") from error
            return content  # the bytes themselves
    return _hex(" ".join(words))


def _hex(text: str) -> bytes:
    data = bytearray()
    for line in text.splitlines():
        bare = TEXT.sub("", OFFSET.sub("", line.partition("#")[0]).strip())
        for word in bare.replace(",", " ").replace("-", " ").split():
            match = WORD.fullmatch(word)
            if match is None:
                raise click.UsageError(f"{quoted(word)} is not one or more bytes in hex, such as 0a or 0a1b")
            data += bytes.fromhex(match[1] if len(match[1]) > 1 else f"0{match[1]}")
    return bytes(data)


def _sense(data: bytes) -> Decoded:
    sense = Sense.parse(data)
    if sense.is_unreadable:
        raise MalformedReply(f"the bytes {data[:18].hex(' ')} are not sense data", "the first byte is 70 to 73 in hex")
    return Decoded(sense_record(sense), lambda: show_record(sense_words(sense)))


def _inquiry(data: bytes) -> Decoded:
    found = InquiryData.parse(data)
    whole = data[4] + 5
    problems = []
    if len(data) < min(whole, STANDARD_LENGTH):
        problems.append(f"the data are of {whole} bytes, of which {len(data)} are here: missing texts are empty")
    if len(data) > whole:
        problems.append(f"{len(data) - whole} bytes are after the end of the data")
    record = {**asdict(found), "more": data[STANDARD_LENGTH:]}
    return Decoded(record, lambda: show_record(labels.inquiry_words(found)), tuple(problems))


def _vpd(data: bytes) -> Decoded:
    if len(data) < HEADER_LENGTH:
        raise MalformedReply(f"a VPD page has at least {HEADER_LENGTH} bytes, and {len(data)} are here")
    length, here = int.from_bytes(data[2:4], "big"), len(data) - HEADER_LENGTH
    problems = []
    if length != here:
        problems.append(f"the page says that {length} bytes follow its header, and {here} are here")
    body = data[HEADER_LENGTH:][:length]
    page = _lenient(data[1], bytes([*data[:2], *len(body).to_bytes(2, "big")]) + body, problems)
    problems += problems_in(page)
    return Decoded(page_record(data[1], page), lambda: show_page(data[1], page), tuple(problems))


def _lenient(number: int, data: bytes, problems: list[str]) -> AnyPage:
    """Return the page; its bytes alone where they do not have its layout."""
    try:
        return parse_page(data, number)
    except MalformedReply as error:
        problems.append(error.what)
        return VpdPage(number, data[HEADER_LENGTH:])


def _mode(data: bytes, device_type: int | None = None) -> Decoded:
    """Read a header of MODE SENSE(6) or (10), whichever the MODE DATA LENGTH fits, and pages."""
    is_long = not (len(data) >= 4 and data[0] + 1 == len(data)) and (data[0] == 0 or len(data) < 4)
    whole = int.from_bytes(data[: 2 if is_long else 1], "big") + (2 if is_long else 1)
    problems = []
    if whole != len(data):
        problems.append(f"the header says {whole} bytes, and {len(data)} are here")
    found = ModeParameters.parse(data, long_header=is_long)
    if found.leftover:
        problems.append(f"the last {len(found.leftover)} bytes are no whole page: {found.leftover.hex(' ')}")
    record = {
        "medium_type": found.medium_type,
        "write_protected": found.write_protected,
        "dpo_fua": found.dpo_fua,
        "block_descriptors": found.block_descriptors,
        "pages": [_mode_record(page, device_type) for page in found.pages],
    }
    return Decoded(record, lambda: _show_modes(found, device_type), tuple(problems))


def _mode_fields(page: ModePage, device_type: int | None) -> tuple[str, list[tuple[Field, int]]]:
    layout = find_layout(page.code, page.subpage, device_type)
    whole = bytes(4 if page.subpage else 2) + page.body
    values = ((field, field.value(whole)) for field in (layout.fields if layout else ()))
    name = page_name(page.code, page.subpage, device_type)
    return name, [(field, value) for field, value in values if value is not None]


def _mode_record(page: ModePage, device_type: int | None) -> dict[str, Any]:
    name, fields = _mode_fields(page, device_type)
    values = {field.name: value for field, value in fields}
    return {"page": page.code, "subpage": page.subpage, "name": name, "fields": values, "body": page.body}


def _show_modes(found: ModeParameters, device_type: int | None) -> None:
    show_record({"write protected": found.write_protected, "DPO and FUA": found.dpo_fua})
    for page in found.pages:
        name, fields = _mode_fields(page, device_type)
        show(f"\n{name} ({page.code:02X}h)")
        if fields:
            show_table(("field", "value", "meaning"), [(field.name, value, field.text) for field, value in fields])
        else:
            show(hex_dump(page.body))


def _log(data: bytes) -> Decoded:
    found = LogPage.parse(data)
    record = {name: value for name, value in log_record(found).items() if name != "problems"}
    return Decoded(record, lambda: show_log(found), found.problems)


def _cdb(data: bytes, device_type: int | None = None) -> Decoded:
    from scsiusb.ata import DECLARING

    opcode, found = data[0], catalog.find(data, device_type or 0, DECLARING)
    action = data[1] & 0x1F if opcode in WITH_SERVICE_ACTION and len(data) > 1 else None
    length = GROUPS.get(opcode >> 5)
    record: dict[str, Any] = {"opcode": opcode, "name": catalog.name_of_cdb(data, device_type or 0, DECLARING)}
    if found is not None:
        action, length = found.service, found.length
        record |= {"section": found.section} if found.section else {}
    if action is not None:
        record["service_action"] = action
    if found is not None and len(data) >= found.length:
        record |= found.fields_of(data)
    if opcode in WITH_256_BLOCKS and record.get("blocks") == 0:
        record["blocks"] = 256
    problems = []
    if length is not None and len(data) != length:
        problems.append(f"a CDB with this operation code has {length} bytes, and {len(data)} are here")
    shown = {name.replace("_", " "): value for name, value in record.items()}
    shown["opcode"] = f"{opcode:02X}h"
    return Decoded({**record, "bytes": data}, lambda: show_record(shown), tuple(problems))


def _identify(data: bytes) -> Decoded:
    from scsiusb.ata.identify import IdentifyData
    from scsiusb.ata.nvme import IDENTIFY_LENGTH, NvmeIdentity
    from scsiusb.ata.packet import PacketIdentity, is_packet_device

    found: IdentifyData | PacketIdentity | NvmeIdentity
    problems: tuple[str, ...] = ()
    if len(data) == IDENTIFY_LENGTH:
        found = NvmeIdentity.parse(data)
    else:
        found = PacketIdentity.parse(data) if is_packet_device(data) else IdentifyData.parse(data)
        problems = ("the checksum is wrong",) if found.checksum_fits is False else ()
    record = asdict(found)
    shown = {name.replace("_", " "): value for name, value in record.items()}
    return Decoded(record, lambda: show_record(shown), problems)


KINDS: Final[dict[str, Callable[..., Decoded]]] = {
    "inquiry": _inquiry,
    "vpd": _vpd,
    "mode": _mode,
    "log": _log,
    "sense": _sense,
    "cdb": _cdb,
    "identify": _identify,
}
BY_TYPE: Final = ("mode", "cdb")
"""Those that depend on the peripheral device type, which they take, too."""
