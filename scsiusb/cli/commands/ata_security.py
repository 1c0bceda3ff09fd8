"""The command for the ATA security of a disk: its state, its erase, and its password."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.jobs import contents_of, name
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show_json, show_record
from scsiusb.cli.progress import interruptible

if TYPE_CHECKING:
    from scsiusb.ata.security import SecurityState
    from scsiusb.disk.disk import Disk

ON = "the disk may go on by itself; leave it connected"
THEN = "then see with `scsiusb ata-security` whether it still has a password"


@click.command("ata-security", short_help="Show a disk's ATA security, or erase all of it.")
@device_argument
@click.option("--erase", type=click.Choice(("normal", "enhanced")), help="Have the disk erase all of its blocks.")
@click.option("--remove", metavar="PASSWORD", help="Unlock the disk with its user password, and take that away.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def ata_security_command(device: str | None, lun: int | None, erase: str | None, remove: str | None, yes: bool) -> None:
    """Show whether a SATA disk behind a bridge is locked or frozen; erase it.

    The erase is done by the disk itself, in one command that takes minutes to
    hours; not every bridge waits that long. Meanwhile the disk has the password
    "scsiusb"; if the power is lost, --remove scsiusb unlocks it. A disk that is
    frozen must be unplugged and plugged in again first.

    \b
    Examples:
      scsiusb ata-security 2-1
      scsiusb ata-security 2-1 --erase enhanced
      scsiusb ata-security virtual:?profile=sat-ssd --erase normal --yes
      scsiusb ata-security 2-1 --remove scsiusb
    """
    from scsiusb.ata.security import read_security, remove_password

    if erase is not None and remove is not None:
        raise click.UsageError("--erase and --remove exclude each other: first take the password away")
    if erase is not None and not yes:
        require_terminal("the erase")
    with opened(device, lun) as disk:
        if erase is not None:
            _erase(disk, enhanced=erase == "enhanced", asks=not yes)
        elif remove is not None:
            remove_password(disk.unit, remove)
        state = read_security(disk.unit)
        device_of = device_record(disk)
    if settings().json:
        done = {"done": True} if erase or remove is not None else {}
        show_json({**done, **asdict(state), "device": device_of})
        return
    if erase is not None:
        say("erased")
    elif remove is not None:
        say("the password was taken away")
    else:
        _show(state)


def _erase(disk: Disk, *, enhanced: bool, asks: bool) -> None:
    from scsiusb.ata.security import check_erasable, read_security, security_erase

    state = read_security(disk.unit)
    check_erasable(state, enhanced=enhanced)
    if asks:
        confirm(f"Erase {name(disk)}, {contents_of(disk)}? All data on it will be lost.")
    minutes = state.enhanced_minutes if enhanced else state.minutes
    told = "it does not say how long that takes" if minutes is None else f"it says that this takes {minutes} minutes"
    say(f"the disk erases itself; {told}. Do not unplug it.")
    with interruptible(lambda: ON, THEN):
        security_erase(disk.unit, enhanced=enhanced)


def _show(state: SecurityState) -> None:
    def minutes(count: int | None) -> str | None:
        return None if count is None else f"{count} minutes"

    show_record(
        {
            "supported": state.supported,
            "has a password": state.enabled,
            "locked": state.locked,
            "frozen": state.frozen,
            "too many tries": state.count_expired,
            "erase": minutes(state.minutes),
            "enhanced erase": (minutes(state.enhanced_minutes) or True) if state.enhanced_supported else False,
        }
    )
