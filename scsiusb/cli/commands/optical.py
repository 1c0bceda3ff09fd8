"""Commands about optical drives and their discs: toc, features, disc."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import show, show_json, show_record, show_table
from scsiusb.scsi.commands.mmc_disc import (
    CD_FRAMES,
    DISC_TYPES,
    LEAD_OUT,
    PREGAP,
    SESSION_STATES,
    FullToc,
    ReadDiscInformation,
    ReadFullToc,
    ReadToc,
    Toc,
)
from scsiusb.scsi.commands.mmc_drive import GetConfiguration, profile_text


@click.command("toc", short_help="Show the table of contents of a disc.")
@device_argument
@click.option("--full", is_flag=True, help="Show the entries of the lead-ins of all sessions.")
@global_options
def toc_command(device: str | None, lun: int | None, full: bool) -> None:
    """Show the table of contents of a CD, DVD or BD: its tracks, audio or data.

    \b
    Examples:
      scsiusb toc 2-1
      scsiusb toc 2-1 --full --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(ReadFullToc()) if full else disk.execute(ReadToc())
        device_of = device_record(disk)
    if isinstance(found, FullToc):
        _show_full(found, device_of)
        return
    rows = track_rows(found)
    if settings().json:
        show_json({"first_track": found.first, "last_track": found.last, "tracks": rows, "device": device_of})
    else:
        columns = ("track", "kind", "LBA", "time", "blocks")
        show_table(columns, [(r["track"], r["kind"], r["lba"], r["time"], r["blocks"]) for r in rows])


def track_rows(toc: Toc) -> list[dict[str, Any]]:
    """Return the tracks and the lead-out; the blocks of a track reach to the start of the next one."""
    ends = [track.start for track in toc.tracks[1:]]
    rows = []
    for at, track in enumerate(toc.tracks):
        is_last = track.track == LEAD_OUT
        kind = "lead-out" if is_last else "data" if track.is_data else "audio"
        blocks = ends[at] - track.start if at < len(ends) and not is_last and ends[at] >= track.start else None
        number = "lead-out" if is_last else track.track
        row = {"track": number, "kind": kind, "lba": track.start, "time": _time(track.start), "blocks": blocks}
        rows.append({**row, "control": track.control, "adr": track.adr})
    return rows


def _time(lba: int) -> str:
    """Return the time of a block on a CD, as minutes, seconds and frames."""
    seconds, frame = divmod(lba + PREGAP, CD_FRAMES)
    return f"{seconds // 60:02}:{seconds % 60:02}:{frame:02}"


def _show_full(toc: FullToc, device: dict[str, Any]) -> None:
    rows = [{**asdict(entry), "lba": entry.lba} for entry in toc.entries]
    if settings().json:
        show_json({"first_session": toc.first, "last_session": toc.last, "entries": rows, "device": device})
        return
    columns = ("session", "point", "control", "time", "LBA")
    show_table(columns, [_full_row(row) for row in rows])


def _full_row(row: dict[str, Any]) -> tuple[Any, ...]:
    time = f"{row['p_minute']:02}:{row['p_second']:02}:{row['p_frame']:02}"
    return row["session"], f"{row['point']:02X}h", f"{row['control']:X}h", time, row["lba"]


@click.command("features", short_help="Show what an optical drive can do.")
@device_argument
@global_options
def features_command(device: str | None, lun: int | None) -> None:
    """Show the profiles and features of an optical drive (GET CONFIGURATION).

    The current ones can be used with the disc that is in the drive.

    \b
    Examples:
      scsiusb features 2-1
      scsiusb features 2-1 --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(GetConfiguration())
        device_of = device_record(disk)
    rows = [{**asdict(feature), "name": feature.name} for feature in found.features]
    if settings().json:
        profiles = [{"profile": each, "name": profile_text(each)} for each in found.profiles]
        current = {"current_profile": found.profile, "current_profile_name": profile_text(found.profile)}
        show_json({**current, "profiles": profiles, "features": rows, "device": device_of})
        return
    show_record({"disc": profile_text(found.profile), "profiles": ", ".join(map(profile_text, found.profiles))})
    show("")
    columns = ("feature", "name", "current", "data")
    shown = [(f"{r['code']:04X}h", r["name"], r["current"], r["data"]) for r in rows]
    show_table(columns, shown, elastic=("data",))


@click.command("disc", short_help="Show the state of an optical disc.")
@device_argument
@global_options
def disc_command(device: str | None, lun: int | None) -> None:
    """Show whether a disc is blank or complete, and its sessions.

    \b
    Examples:
      scsiusb disc 2-1
      scsiusb disc 2-1 --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(ReadDiscInformation())
        device_of = device_record(disk)
    if settings().json:
        show_json({**asdict(found), "text": found.text, "device": device_of})
        return
    show_record(
        {
            "disc": found.text,
            "type": DISC_TYPES.get(found.disc_type, f"{found.disc_type:02X}h"),
            "erasable": found.erasable,
            "sessions": found.sessions,
            "last session": SESSION_STATES[found.session],
            "its tracks": f"{found.last_session_first_track} to {found.last_session_last_track}",
        }
    )
