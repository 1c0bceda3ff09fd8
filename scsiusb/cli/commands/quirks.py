"""The quirks command: show which quirks apply to a device, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import click

from scsiusb.cli.device import attached, check_quirks, complete_device, sized
from scsiusb.cli.failure import Refused
from scsiusb.cli.options import global_options, quoted, settings
from scsiusb.cli.output import say, show_json, show_table
from scsiusb.finding import VIRTUAL, resolve, select
from scsiusb.quirks.lookup import quirks_for
from scsiusb.quirks.model import BY_QUIRK, MEANINGS, Meaning, Quirks
from scsiusb.usb.interface import VID_PID, InterfaceInfo, find, matches

PAIR: Final = re.compile(r"(0[xX])?[0-9a-fA-F]+:(0[xX])?[0-9a-fA-F]+")


@click.command("quirks", short_help="Show which quirks apply to a device, and why.")
@click.argument("device", required=False, shell_complete=complete_device)
@click.option("--list", "letters", is_flag=True, help="List all quirks with their letters.")
@global_options
def quirks_command(device: str | None, letters: bool) -> None:
    """Show which quirks apply to the attached devices, or to DEVICE, and why.

    A quirk is a workaround for a fault of a device. Quirks are taken from the
    first of these that lists the device: the option --quirks, the variable
    SCSIUSB_QUIRKS, your quirks file, the table in scsiusb. Each has the format
    VID:PID:LETTERS; without letters, the device has no quirks. DEVICE may also
    be the VID:PID of a device that is not attached.

    \b
    Examples:
      scsiusb quirks
      scsiusb quirks 152d:2329 --json
      scsiusb quirks --list
      scsiusb read 2-1 --quirks 152d:2329:rm -o first-block.img
    """
    if letters:
        _show_letters()
        return
    check_quirks()
    rows = [row for address, vid, pid, quirks in _matching(device) for row in _rows(address, vid, pid, quirks)]
    if settings().json:
        show_json(rows)
    elif rows:
        cells = [{**row, "device": row["address"] or f"{row['vid']}:{row['pid']}"} for row in rows]
        columns = ("device", "letter", "quirk", "effect", "source", "why")
        show_table(columns, [[row[column] for column in columns] for row in cells])
    else:
        say("no quirks apply")


def _matching(words: str | None) -> Iterator[tuple[str | None, int, int, Quirks]]:
    """Yield address, VID, PID and quirks of each device that DEVICE refers to."""
    if words is not None and words.startswith(VIRTUAL):
        yield _of(_virtual(words))
        return
    found = attached()
    wanted = resolve(words)
    meant = [info for info in found if wanted is None or matches(info, wanted)]
    identity = None if words is None else VID_PID.fullmatch(words)
    if not meant and identity is not None:
        vid, pid = (int(number, 16) for number in identity.groups())
        yield None, vid, pid, quirks_for(vid, pid, given=settings().quirks)
        return
    if not meant and words is not None:
        if PAIR.fullmatch(words):
            raise Refused(f"{quoted(words)} is not VID:PID with four hex digits each", "write 0123 for 123")
        select(found, words)  # raises the right error
    for info in meant:
        yield _of(info)


def _of(info: InterfaceInfo) -> tuple[str, int, int, Quirks]:
    return info.address, info.vid, info.pid, quirks_for(info.vid, info.pid, info.device.release, settings().quirks)


def _virtual(words: str) -> InterfaceInfo:
    """Return the interface of a virtual stick without opening it, which a quirk may forbid."""
    from scsiusb.virtual.address import open_stick
    from scsiusb.virtual.bus.backend import Bus

    with sized(words), closing(Bus(open_stick(words))) as bus:
        return find(bus)[0]


def _rows(address: str | None, vid: int, pid: int, quirks: Quirks) -> Iterator[dict[str, Any]]:
    for each in quirks.applied:
        meaning = BY_QUIRK[each.quirk]
        yield {
            "address": address,
            "vid": f"{vid:04x}",
            "pid": f"{pid:04x}",
            "quirk": each.quirk.title,
            "letter": meaning.letter,
            "effect": _effect(meaning),
            "source": each.source,
            "why": each.why or None,
        }


def _effect(meaning: Meaning) -> str:
    return f"none here ({meaning.effect}): {meaning.unused}" if meaning.unused else meaning.effect


def _show_letters() -> None:
    if settings().json:
        rows = [{"letter": each.letter, "quirk": each.quirk.title, "effect": _effect(each)} for each in MEANINGS]
        show_json([{**row, "linux": each.is_linux} for row, each in zip(rows, MEANINGS, strict=True)])
        return
    columns = ("letter", "quirk", "origin", "effect")
    show_table(
        columns,
        [[e.letter, e.quirk.title, "Linux" if e.is_linux else "scsiusb", _effect(e)] for e in MEANINGS],
        wrapped=("effect",),
    )
