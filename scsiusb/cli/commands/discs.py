"""Commands for CD, DVD and BD drives: toc, features, disc."""

from __future__ import annotations

from dataclasses import asdict

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show_json, show_record, show_table
from scsiusb.scsi.commands.mmc_discs import LEAD_OUT, PROFILES, GetConfiguration, ReadDiscInformation, ReadToc


@click.command("toc", short_help="Show the tracks of a disc.")
@device_argument
@global_options
def toc_command(device: str | None, lun: int | None) -> None:
    """Show the table of contents of a disc: its tracks, audio or data (READ TOC).

    \b
    Examples:
      scsiusb toc 2-1
      scsiusb toc 2-1 --lun 2 --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(ReadToc())
        device_of = device_record(disk)
    if settings().json:
        tracks = [{**asdict(each), "data": each.is_data} for each in found.tracks]
        record = {"first_track": found.first_track, "last_track": found.last_track, "tracks": tracks}
        show_json({**record, "device": device_of})
        return
    ends = [each.lba for each in found.tracks[1:]]
    rows = [
        (each.number, each.lba, end - each.lba, "data" if each.is_data else "audio")
        for each, end in zip(found.tracks, ends, strict=False)
        if each.number != LEAD_OUT
    ]
    show_table(("track", "LBA", "blocks", "kind"), rows)


@click.command("features", short_help="Show what an optical drive can do.")
@device_argument
@global_options
def features_command(device: str | None, lun: int | None) -> None:
    """Show the features of an optical drive, and the profile of the disc in it
    (GET CONFIGURATION).

    \b
    Examples:
      scsiusb features 2-1
      scsiusb features 2-1 --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(GetConfiguration())
        device_of = device_record(disk)
    profile = PROFILES.get(found.profile, f"{found.profile:04x}") if found.profile else None
    if settings().json:
        features = [asdict(each) for each in found.features]
        record = {"profile": found.profile, "profile_text": profile, "features": features}
        show_json({**record, "device": device_of})
        return
    rows = [(f"{each.code:04X}h", each.name, each.version, each.persistent, each.current) for each in found.features]
    show_table(("code", "name", "version", "persistent", "current"), rows)
    say(f"profile: {profile or 'no medium'}")


@click.command("disc", short_help="Show the state of a disc.")
@device_argument
@global_options
def disc_command(device: str | None, lun: int | None) -> None:
    """Show whether a disc is empty, can be continued, or is complete
    (READ DISC INFORMATION).

    \b
    Examples:
      scsiusb disc 2-1
      scsiusb disc 2-1 --json
    """
    with opened(device, lun) as disk:
        found = disk.execute(ReadDiscInformation())
        device_of = device_record(disk)
    record = asdict(found)
    if settings().json:
        show_json({**record, "device": device_of})
    else:
        show_record({name.replace("_", " "): value for name, value in record.items()})
