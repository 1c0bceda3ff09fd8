"""Commands for the health of a device: smart, health."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show, show_json, show_record, show_table, size_text
from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DeviceClosed,
    DeviceGone,
    DeviceUnsupported,
    IllegalRequest,
    MalformedReply,
    TransportError,
    UnsupportedOpcode,
)

if TYPE_CHECKING:
    from scsiusb.ata.smart import Smart
    from scsiusb.disk.disk import Disk

COLUMNS: Final = ("ID", "attribute", "value", "worst", "threshold", "raw", "kind")
WIDTH: Final = 80
WORDS: Final = {"good": "GOOD", "worn": "WORN", "failing": "FAILING", "unknown": "UNKNOWN"}


@click.command("smart", short_help="Show the SMART data of a disk.")
@device_argument
@global_options
def smart_command(device: str | None, lun: int | None) -> None:
    """Show what a SATA disk or SSD says of its health, through a bridge that
    translates ATA commands (SAT).

    Sticks and card readers have no SMART: exit status 9, or 5.

    \b
    Examples:
      scsiusb smart 2-1
      scsiusb smart virtual:?profile=sat-ssd --json
    """
    from scsiusb.ata.smart import read_smart

    with opened(device, lun) as disk:
        found = read_smart(disk.unit)
        device_of = device_record(disk)
    if settings().json:
        show_json({**_record(found), "device": device_of})
        return
    show_record(_identity(found))
    rows = [
        (
            each.id,
            each.name,
            each.value,
            each.worst,
            each.threshold,
            each.raw,
            "pre-failure" if each.pre_failure else "age",
        )
        for each in found.attributes
    ]
    if rows:
        show("")
        show_table(COLUMNS, rows, optional=("kind",))
    for problem in found.problems:
        say(f"scsiusb: warning: {problem}")


def _record(found: Smart) -> dict[str, Any]:
    attributes = {
        str(each.id): {
            "name": each.name,
            "value": each.value,
            "worst": each.worst,
            "threshold": each.threshold,
            "raw": each.raw,
            "pre_failure": each.pre_failure,
            "failed": each.has_failed,
        }
        for each in found.attributes
    }
    return {
        "via": found.via,
        "kind": "ata",
        "model": found.identity.model,
        "serial": found.identity.serial,
        "firmware": found.identity.firmware,
        "bytes": found.identity.size,
        "rotation_rate": found.identity.rotation_rate,
        "passed": found.passed,
        "temperature": found.temperature,
        "attributes": attributes,
        "problems": found.problems,
    }


def _identity(found: Smart) -> dict[str, Any]:
    identity = found.identity
    turns = {0: None, 1: "does not rotate"}.get(identity.rotation_rate, f"{identity.rotation_rate} rotations a minute")
    return {
        "model": identity.model,
        "serial": identity.serial,
        "firmware": identity.firmware,
        "size": size_text(identity.size),
        "rotation": turns,
        "SMART": {True: "passed", False: "FAILING", None: "does not say"}[found.passed],
        "temperature": None if found.temperature is None else f"{found.temperature} °C",
        "through": found.via,
    }


@click.command("health", short_help="Say whether a device is well, and why.")
@device_argument
@global_options
def health_command(device: str | None, lun: int | None) -> None:
    """Say whether a device is well, and why: good, worn, failing or unknown.

    The verdict comes from SMART, where the device has it. Nothing is written.

    \b
    Examples:
      scsiusb health 2-1
      scsiusb health virtual:?profile=sat-ssd&health=worn --json
    """
    from scsiusb.ata.health import judge

    with opened(device, lun) as disk:
        smart, without = _smart_of(disk)
        protected = _protected(disk)
        unit = disk.inquiry()
        info = disk.unit.transport.info
        device_of = device_record(disk)
    found = judge(smart, write_protected=protected, without=without)
    if settings().json:
        record: dict[str, Any] = {"verdict": found.verdict, "reasons": found.reasons}
        record |= {"temperature": smart and smart.temperature, "write_protected": protected, "speed": info.speed}
        show_json({**record, "smart": smart and _record(smart), "device": device_of})
        return
    name = smart.identity.model if smart is not None else f"{unit.vendor} {unit.product}"
    show(f"{WORDS[found.verdict]}: {name}, {info.address}")
    for reason in found.reasons:
        show(fill(reason, WIDTH, initial_indent="  - ", subsequent_indent="    "))
    if smart is not None and smart.temperature is not None:
        show(f"  {smart.temperature} °C")


def _smart_of(disk: Disk) -> tuple[Smart | None, str]:
    """Return the SMART data, or None and the reason: there is none, or the device did not answer."""
    from scsiusb.ata.health import NO_SMART
    from scsiusb.ata.smart import read_smart

    try:
        return read_smart(disk.unit), ""
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (UnsupportedOpcode, IllegalRequest, MalformedReply, DeviceUnsupported):
        return None, NO_SMART
    except (CheckCondition, TransportError) as error:
        return None, f"{NO_SMART}: {error.what}"


def _protected(disk: Disk) -> bool | None:
    """Return whether the medium is write protected; None if the unit does not tell."""
    try:
        return disk.write_protected
    except CheckCondition:
        return None
