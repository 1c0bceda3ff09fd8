"""Commands about optical drives and their discs: toc, features, disc."""

from __future__ import annotations

from dataclasses import asdict
from itertools import zip_longest
from typing import Any, Final

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show, show_json, show_record, show_table
from scsiusb.disk.disk import Disk
from scsiusb.errors import IllegalRequest, MalformedReply
from scsiusb.scsi.commands.mmc_disc import (
    CD_FRAMES,
    DATA_TRACK,
    DISC_TYPES,
    FIRST_LEAD_IN,
    FIRST_TRACK,
    LAST_TRACK,
    LEAD_OUT,
    NEXT_SESSION,
    PREGAP,
    SESSION_LEAD_OUT,
    SESSION_STATES,
    FullToc,
    FullTocEntry,
    ReadDiscInformation,
    ReadFullToc,
    ReadToc,
    Toc,
)
from scsiusb.scsi.commands.mmc_drive import GetConfiguration, profile_text

POINTS: Final = {
    FIRST_TRACK: "first track",
    LAST_TRACK: "last track",
    SESSION_LEAD_OUT: "lead-out",
    NEXT_SESSION: "next session",
    FIRST_LEAD_IN: "first lead-in",
}


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
        device_of = device_record(disk)
        if full:
            _show_full(disk.execute(ReadFullToc()), device_of)
            return
        found, lead_ins = disk.execute(ReadToc()), _lead_ins(disk)
    rows = track_rows(found, lead_ins)
    if settings().json:
        show_json({"first_track": found.first, "last_track": found.last, "tracks": rows, "device": device_of})
    else:
        columns = ("session", "track", "kind", "LBA", "time", "blocks")
        show_table(columns, [(r["session"], r["track"], r["kind"], r["lba"], r["time"], r["blocks"]) for r in rows])
    _say_missing(found.missing)


def _lead_ins(disk: Disk) -> FullToc | None:
    """Read the entries of all lead-ins; return None if the drive refuses, as for a DVD."""
    try:
        return disk.execute(ReadFullToc())
    except (IllegalRequest, MalformedReply):
        return None


def _say_missing(missing: int) -> None:
    if missing:
        say(f"the drive cut its answer: {missing} bytes of it are missing")


def track_rows(toc: Toc, lead_ins: FullToc | None = None) -> list[dict[str, Any]]:
    """Return the tracks and the lead-out. The blocks of a track reach to the next one, or to its session's lead-out."""
    sessions = lead_ins.sessions if lead_ins else {}
    lead_outs = lead_ins.lead_outs if lead_ins else {}
    rows = []
    for track, following in zip_longest(toc.tracks, toc.tracks[1:]):
        is_last = track.track == LEAD_OUT
        kind = "lead-out" if is_last else "data" if track.is_data else "audio"
        session = sessions.get(track.track)
        ends = [lead_outs[session]] if session in lead_outs else []
        ends += [following.start] if following else []
        blocks = min(ends) - track.start if ends and not is_last and min(ends) >= track.start else None
        number = "lead-out" if is_last else track.track
        row = {"track": number, "kind": kind, "lba": track.start, "time": _time(track.start), "blocks": blocks}
        rows.append({**row, "session": session, "control": track.control, "adr": track.adr})
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
    columns = ("session", "point", "what", "control", "time", "LBA")
    show_table(columns, [_full_row(entry) for entry in toc.entries])
    _say_missing(toc.missing)


def _full_row(entry: FullTocEntry) -> tuple[Any, ...]:
    time: str | None = f"{entry.p_minute:02}:{entry.p_second:02}:{entry.p_frame:02}"
    lba: int | None = entry.lba
    what = POINTS.get(entry.point, "")
    if entry.is_track:
        what = "data track" if entry.control & DATA_TRACK else "audio track"
    elif entry.point in (FIRST_TRACK, LAST_TRACK):  # a number of a track is in the place of the minutes
        what, time, lba = f"{what}: {entry.p_minute}", None, None
    elif entry.point == NEXT_SESSION:
        what = f"{what} from {entry.minute:02}:{entry.second:02}:{entry.frame:02}, last lead-out"
    return entry.session, f"{entry.point:02X}h", what, f"{entry.control:X}h", time, lba


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
