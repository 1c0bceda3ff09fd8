"""Commands for what is on a disk: partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show, show_json, show_table, size_text

if TYPE_CHECKING:
    from scsiusb.volume import Partition, PartitionTable

COLUMNS: Final = ("number", "LBA", "blocks", "size", "type", "name", "content")


@click.command("partitions", short_help="Show the partition table.")
@device_argument
@global_options
def partitions_command(device: str | None, lun: int | None) -> None:
    """Show the partition table, and what is on each partition.

    Reads an MBR, logical drives included, or a GPT, from its backup if the first
    copy is damaged. What is wrong with the table is a warning. The content is
    recognized by the signatures of file systems; nothing is mounted.

    \b
    Examples:
      scsiusb partitions 2-1
      scsiusb partitions virtual: --json
    """
    from scsiusb.volume import partitions

    with opened(device, lun) as disk:
        table = partitions(disk)
        device_of = device_record(disk)
    if settings().json:
        show_json({**_record(table), "device": device_of})
        return
    if table:
        show_table(COLUMNS, [_cells(each) for each in table], elastic=("name", "type"))
    else:
        show(_without_partitions(table))
    for problem in table.problems:
        say(f"scsiusb: warning: {problem}")


def _without_partitions(table: PartitionTable) -> str:
    if table.kind == "none":
        return f"no partition table; content of the disk: {table.content or 'unknown'}"
    return f"{table.kind.upper()} without partitions"


def _record(table: PartitionTable) -> dict[str, Any]:
    return {
        "table": table.kind,
        "partitions": [_row(each) for each in table],
        "hybrid": [_row(each) for each in table.hybrid],
        "content": table.content,
        "id": f"{table.id:08x}" if isinstance(table.id, int) else table.id and str(table.id),
        "problems": table.problems,
    }


def _row(partition: Partition) -> dict[str, Any]:
    from scsiusb.volume.types import type_code

    return {
        "number": partition.number,
        "lba": partition.lba,
        "blocks": partition.blocks,
        "bytes": partition.size,
        "type": type_code(partition.type),
        "type_text": partition.type_text,
        "name": partition.name,
        "uuid": partition.uuid and str(partition.uuid),
        "bootable": partition.is_bootable,
        "content": partition.content,
    }


def _cells(partition: Partition) -> list[Any]:
    return [
        partition.number,
        partition.lba,
        partition.blocks,
        size_text(partition.size),
        partition.type_text,
        partition.name or None,
        partition.content,
    ]
