"""The parsers that no command's reply reaches: logs of disks, enclosures, traces, and the fields of a command line."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import scsiusb
from scsiusb.ata import general_logs, log_directory, self_test, smart_logs, statistics
from scsiusb.ata.identify import IdentifyData
from scsiusb.ata.nvme import NvmeHealth, NvmeIdentity
from scsiusb.ata.packet import PacketIdentity
from scsiusb.ata.security import SecurityState
from scsiusb.cli.commands import command
from scsiusb.scsi.catalog import declared
from scsiusb.scsi.pages import enclosure
from scsiusb.scsi.pages.vpd_designators import parse_designators
from scsiusb.scsi.telling import Teller
from scsiusb.trace.reading import read_commands
from scsiusb.trace.uas_conversation import pipes_in
from scsiusb.virtual import Memory, Unit
from scsiusb.virtual.target import ata_packet
from scsiusb.virtual.target.ata import AtaDisk
from scsiusb.virtual.target.ata_logs import general_log
from scsiusb.virtual.target.nvme import NvmeDisk
from tests.fuzz.parser import Parser, Seeds
from tests.scsi import test_enclosure

LARGEST_TRACE: Final = 3000  # bytes of a seed
UNIT: Final = Unit(Memory(512 * 100))


class Row(NamedTuple):
    """A function that parses `length` bytes, or any number of them."""

    parse: Callable[[bytes], Any]
    seeds: Seeds
    length: int | None = None


def _ended(disk: AtaDisk | NvmeDisk) -> Any:
    """Return the disk after a self-test."""
    disk.execute(1) if isinstance(disk, AtaDisk) else disk.begin_self_test(1)
    for _ in range(10):
        disk.smart_data() if isinstance(disk, AtaDisk) else disk.self_test_log()
    return disk


ATA: Final = tuple(_ended(AtaDisk("sat-hdd", health)) for health in ("good", "failing"))
NVME: Final = tuple(_ended(NvmeDisk(health)) for health in ("good", "failing"))
ROWS: Final = (
    Row(IdentifyData.parse, (ATA[0].identify(UNIT),), 512),
    Row(SecurityState.parse, (ATA[0].identify(UNIT),), 512),
    Row(self_test.parse_data, tuple(disk.smart_data() for disk in ATA), 512),
    Row(smart_logs.parse_errors, tuple(disk.error_log() for disk in ATA), 512),
    Row(smart_logs.parse_tests, tuple(disk.self_test_log() for disk in ATA), 512),
    Row(PacketIdentity.parse, (ata_packet.identify(UNIT),), 512),
    Row(log_directory.parse_directory, (general_log(ATA[0], 0x00),), 512),
    Row(general_logs.parse_extended_errors, tuple(general_log(disk, 0x03) for disk in ATA), 512),
    Row(general_logs.parse_extended_tests, tuple(general_log(disk, 0x07) for disk in ATA), 512),
    Row(general_logs.parse_queue_error, tuple(general_log(disk, 0x10) for disk in ATA), 512),
    Row(statistics.parse_page_list, (general_log(ATA[0], 0x04)[:512],), 512),
    Row(
        statistics.parse_statistics,
        tuple(general_log(ATA[0], 0x04)[512 * page : 512 * (page + 1)] for page in (1, 3, 4, 5, 6)),
        512,
    ),
    Row(NvmeIdentity.parse, (NVME[0].identify(UNIT),), 4096),
    Row(NvmeHealth.parse, tuple(disk.health() for disk in NVME), 512),
    Row(self_test.parse_log, tuple(disk.self_test_log() for disk in NVME)),
    Row(smart_logs.parse_nvme_errors, tuple(disk.error_log() for disk in NVME)),
    Row(smart_logs.parse_nvme_tests, tuple(disk.self_test_log() for disk in NVME)),
    Row(enclosure.Configuration.parse, (test_enclosure.CONFIGURATION,)),
    Row(enclosure.supported_pages, (bytes.fromhex("00 00 0004 00010207"),)),
    Row(
        parse_designators,
        (
            bytes.fromhex("0103 0008 5000c500 12345678 0201 0008") + b"Vendor X",
            bytes.fromhex("010a 0012 1000 0123456789abcdef0123456789abcdef 6193 0004 00000102"),
        ),
    ),
)
PIPES: Final = bytes.fromhex("0705 81 02 0002 00 0424 03 00 0705 02 02 0002 00 0424 04 00")
NAMED: Final = [command.Named(each.kind) for each in declared()]
SAMPLES: Final = {"N": "1", "yes|no": "yes", "HEX": "00", "N,N": "1,0x2"}
COMMANDS: Final = (
    b"verify-16 lba=0 blocks=0x10",
    b"READ(10) lba=1 blocks=2 fua=yes",
    b"reassign-blocks lbas=1,0x2",
    b"write-buffer data=55aa mode=10",
)


def more_parsers() -> Iterator[Parser]:
    """Yield the parsers."""
    for row in ROWS:
        yield Parser(name_of(row.parse), partial(_of_length, row), row.seeds)
    yield Parser("enclosure status", enclosure_status, (test_enclosure.CONFIGURATION + test_enclosure.STATUS,))
    yield Parser("packets", packets, (_trace("bot"), _trace("uas")))
    yield Parser(
        "UAS pipes", pipes, (bytes.fromhex("0705 81 02 0002 00 0424 03 00 0705 02 02 0002 00 0424 04 00"),), ()
    )
    yield Parser("command line", command_line, COMMANDS, (click.UsageError,))
    yield Parser("command fields", command_fields, tuple(map(_values, range(len(NAMED)))), (click.UsageError,))


def name_of(parse: Callable[..., Any]) -> str:
    """Return the name of a parser."""
    return f"{parse.__module__.rpartition('.')[2]} {parse.__qualname__}"


def _of_length(row: Row, data: bytes) -> object:
    """Parse the bytes; most have the right length, as others are refused before anything is read of them."""
    return row.parse(data if row.length is None or len(data) < 16 else data.ljust(row.length, b"\0")[: row.length])


def enclosure_status(data: bytes) -> object:
    """Parse a configuration page and the status page after it, both of which can be damaged."""
    end = 4 + int.from_bytes(data[2:4], "big")
    return enclosure.EnclosureStatus.parse(data[end:], enclosure.Configuration.parse(data[:end]))


def packets(data: bytes) -> object:
    """Return what `scsiusb decode pcapng` shows."""
    teller = Teller()
    return [(bus, device, teller.line(exchange)) for bus, device, exchange in read_commands(io.BytesIO(data))]


def pipes(data: bytes) -> object:
    """Return the pipes that a configuration descriptor names."""
    return sorted(pipes_in(data).items())


def command_line(data: bytes) -> object:
    """Return the command that the words of `scsiusb command` make."""
    _, named, values = command._split(data.decode("utf-8", "replace").split())
    made = named.make(values, 512)
    return str(made), made.cdb().hex(" ")


def command_fields(data: bytes) -> object:
    """Return the command that the first byte chooses, made of the words after it, one for each field in order."""
    named = NAMED[data[0] % len(NAMED) if data else 0]
    words = data[1:].decode("utf-8", "replace").split(" ")
    given = [f"{name}={word}" for name, word in zip(named.fields, words, strict=False)]
    made = named.make(named.parse(given), 512)
    return str(made), made.cdb().hex(" ")


def _values(number: int) -> bytes:
    """Return the bytes that `command_fields` makes a command of."""
    kinds = [command.PARSERS[str(each.type)][0] for each in NAMED[number].fields.values()]
    return bytes((number,)) + " ".join(map(SAMPLES.__getitem__, kinds)).encode()


def _trace(protocol: str) -> bytes:
    """Return the first blocks of the trace of a read from a virtual stick."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pcapng")
        with scsiusb.open(f"virtual:?protocol={protocol}", trace=str(path)) as disk:
            disk.read(0, 1)
        data = path.read_bytes()
    end = 0
    while (after := end + struct.unpack_from("<I", data, end + 4)[0]) <= LARGEST_TRACE:
        end = after
    return data[:end]
