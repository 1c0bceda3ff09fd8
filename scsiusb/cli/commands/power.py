"""Commands that ask whether a unit is ready, start, stop, lock and flush it."""

from __future__ import annotations

from collections.abc import Callable

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show_json
from scsiusb.disk.disk import Disk
from scsiusb.scsi.commands.sbc import StartStopUnit, SynchronizeCache10
from scsiusb.scsi.commands.spc import PreventAllow
from scsiusb.scsi.retry import NO_WAIT

LOCKED = 1  # of PREVENT ALLOW MEDIUM REMOVAL (SBC-3 table 61)


def _do(device: str | None, lun: int | None, action: Callable[[Disk], object], said: str) -> None:
    """Open the device, do something with it, and say that it is done."""
    with opened(device, lun) as disk:
        action(disk)
        device_of = device_record(disk)
    if settings().json:
        show_json({"done": True, "device": device_of})
    else:
        say(said)


@click.command("ready", short_help="Ask whether the unit is ready.")
@device_argument
@global_options
def ready_command(device: str | None, lun: int | None) -> None:
    """Ask whether the unit is ready (TEST UNIT READY): exit status 0, or 2 if not.

    The error says why: no medium, stopped, becoming ready. It does not wait.

    \b
    Examples:
      scsiusb ready 2-1
      scsiusb ready 2-1 --lun 1 && scsiusb dump 2-1 --lun 1 card.img
    """
    _do(device, lun, lambda disk: disk.unit.test_unit_ready(retry=NO_WAIT), "ready")


@click.command("start", short_help="Start the unit.")
@device_argument
@global_options
def start_command(device: str | None, lun: int | None) -> None:
    """Start the unit: a disk spins up (START STOP UNIT).

    \b
    Examples:
      scsiusb start 2-1
      scsiusb start 2-1 --timeout 60
    """
    _do(device, lun, lambda disk: disk.execute(StartStopUnit(start=True)), "started")


@click.command("stop", short_help="Stop the unit.")
@device_argument
@global_options
def stop_command(device: str | None, lun: int | None) -> None:
    """Write the cache to the medium, and stop the unit: a disk spins down.

    It starts again by `scsiusb start`, or when the operating system uses it.

    \b
    Examples:
      scsiusb stop 2-1
      scsiusb stop 2-1 --lun 1
    """
    _do(device, lun, _stop, "stopped")


def _stop(disk: Disk) -> None:
    disk.unit.synchronize_cache()
    disk.execute(StartStopUnit(start=False))


@click.command("load", short_help="Load the medium, or close the tray.")
@device_argument
@global_options
def load_command(device: str | None, lun: int | None) -> None:
    """Load the medium, or close the tray, and start the unit (START STOP UNIT).

    \b
    Examples:
      scsiusb load 2-1
      scsiusb load 2-1 --lun 1
    """
    _do(device, lun, lambda disk: disk.execute(StartStopUnit(load_eject=True, start=True)), "loaded")


@click.command("lock", short_help="Prevent the removal of the medium.")
@device_argument
@global_options
def lock_command(device: str | None, lun: int | None) -> None:
    """Prevent the removal of the medium, until `unlock`, a reset, or power off.

    \b
    Examples:
      scsiusb lock 2-1
      scsiusb lock 2-1 --lun 1
    """
    _do(device, lun, lambda disk: disk.execute(PreventAllow(LOCKED)), "locked")


@click.command("unlock", short_help="Allow the removal of the medium.")
@device_argument
@global_options
def unlock_command(device: str | None, lun: int | None) -> None:
    """Allow the removal of the medium (PREVENT ALLOW MEDIUM REMOVAL).

    \b
    Examples:
      scsiusb unlock 2-1
      scsiusb unlock 2-1 --lun 1
    """
    _do(device, lun, lambda disk: disk.execute(PreventAllow()), "unlocked")


@click.command("sync", short_help="Write the device's cache to the medium.")
@device_argument
@global_options
def sync_command(device: str | None, lun: int | None) -> None:
    """Write the cache of the device to its medium (SYNCHRONIZE CACHE).

    A device without a cache refuses the command: exit status 9.

    \b
    Examples:
      scsiusb sync 2-1
      scsiusb sync 2-1 --timeout 120
    """
    _do(device, lun, lambda disk: disk.execute(SynchronizeCache10()), "all is on the medium")
