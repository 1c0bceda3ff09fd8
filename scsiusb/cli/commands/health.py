"""Commands for the health of a device: smart, health."""

from __future__ import annotations

import time
from dataclasses import asdict
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.disk_logs import LOGS, show_log
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import say, show, show_json, show_record, show_table, size_text
from scsiusb.cli.progress import interruptible, job_progress, percent_bar
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
    from scsiusb.ata.nvme import NvmeSmart
    from scsiusb.ata.self_test import SelfTest
    from scsiusb.ata.smart import Smart
    from scsiusb.disk.disk import Disk

COLUMNS: Final = ("ID", "attribute", "value", "worst", "threshold", "raw", "kind")
WIDTH: Final = 80
TEST_ON: Final = "the self-test goes on in the disk"
TEST_THEN: Final = "`scsiusb smart --wait` shows when it is done"
POLL: Final = 0.5  # seconds between two looks at a self-test
VIA: Final = (  # scsiusb.ata.device.DIALECTS, which would load what only these commands need
    *("sat", "sat,12"),
    *("usbcypress", "usbjmicron", "usbjmicron,0", "usbjmicron,p", "usbprolific", "usbsunplus"),
    *("sntasmedia", "sntjmicron", "sntrealtek"),
)
PROVE: Final = "`scsiusb probe --destructive` proves how much there is; copy what is on it before"
WORDS: Final = {"good": "GOOD", "worn": "WORN", "failing": "FAILING", "unknown": "UNKNOWN"}


via_option = click.option(
    "--via",
    type=click.Choice(VIA),
    metavar="DIALECT",
    help=f"What the bridge speaks; by default its IDs say it. {', '.join(VIA)}.",
)


@click.command("smart", short_help="Show the SMART data of a disk.")
@device_argument
@via_option
@click.option(
    "--test", type=click.Choice(("short", "long", "abort")), help="Begin a self-test of the disk, or abort it."
)
@click.option("--wait", is_flag=True, help="Wait until the self-test has ended, with its progress.")
@click.option("--log", type=click.Choice(LOGS), metavar="LOG", help=f"Show only a log of the disk: {', '.join(LOGS)}.")
@click.option("--power", is_flag=True, help="Say only the power mode, which does not wake a disk that rests.")
@global_options
def smart_command(
    device: str | None, lun: int | None, via: str | None, test: str | None, wait: bool, log: str | None, power: bool
) -> None:
    """Show what a SATA or NVMe disk says of its health, through a bridge that
    translates ATA commands (SAT), or that has commands of its own for them.

    Sticks and card readers have no SMART: exit status 9, or 5. A self-test runs in
    the disk, also after Ctrl-C; --wait follows it again. --power says only whether
    the disk works or rests (`scsiusb stop` lets it rest), and does not wake it.

    --log: errors and self-tests of any disk; the others of ATA disks alone, by
    commands of 48 bits, for which the bridge must speak SAT. With -ext, LBAs have
    48 bits, and there may be more entries; statistics: what the disk counts;
    ncq: the queued command that failed; directory: which logs the disk has.

    \b
    Examples:
      scsiusb smart 2-1
      scsiusb smart 2-1 --power
      scsiusb smart 2-1 --test short --wait
      scsiusb smart 2-1 --log errors
      scsiusb smart 2-1 --log statistics
      scsiusb smart 2-1 --via sntasmedia
      scsiusb smart virtual:?profile=sat-ssd --json
      scsiusb smart virtual:?profile=nvme-bridge
    """
    from scsiusb.ata.device import read_smart
    from scsiusb.ata.nvme import NvmeSmart
    from scsiusb.ata.self_test import begin_self_test

    if sum(map(bool, (power, log, test or wait))) > 1:
        raise click.UsageError("--power and --log ask for nothing else: leave out the other options")
    with opened(device, lun) as disk:
        device_of = device_record(disk)
        if power:
            _show_power(disk, via, device_of)
            return
        if log is not None:
            show_log(disk, via, log, device_of)
            return
        found = read_smart(disk.unit, via)
        if test is not None:
            begin_self_test(disk.unit, test, found.via)
        if wait:
            if not _follow(disk, found.via) and test is None:
                say("no self-test is in progress")
            found = read_smart(disk.unit, via)  # a test may have found something
        tests = _self_test(disk, found.via)
    if settings().json:
        show_json({**_record(found), "self_test": tests and asdict(tests), "device": device_of})
        return
    show_record({**_identity(found), "self-test": _test_text(tests)})
    if isinstance(found, NvmeSmart):
        _show_nvme(found)
    else:
        _show_attributes(found)
    for problem in found.problems:
        say(f"scsiusb: warning: {problem}")


def _show_power(disk: Disk, via: str | None, device_of: dict[str, Any]) -> None:
    from scsiusb.ata.power import is_resting, power_mode

    mode = power_mode(disk.unit, via)
    if settings().json:
        show_json({"power_mode": mode, "resting": is_resting(mode), "device": device_of})
    else:
        show(mode)


def _follow(disk: Disk, via: str) -> bool:
    """Return when no self-test runs any more, and whether one did; show its progress on a terminal."""
    from scsiusb.ata.self_test import read_self_test

    with interruptible(lambda: TEST_ON, TEST_THEN), percent_bar("self-test") as show_part:
        was_running = False
        while (now := read_self_test(disk.unit, via)).running:
            was_running = True
            show_part(None if now.percent is None else now.percent / 100)
            time.sleep(POLL)
    return was_running


def _self_test(disk: Disk, via: str) -> SelfTest | None:
    """Return the state of the self-tests; None if the disk does not say."""
    from scsiusb.ata.self_test import read_self_test

    try:
        return read_self_test(disk.unit, via)
    except (CheckCondition, MalformedReply, DeviceUnsupported):
        return None


def _test_text(found: SelfTest | None) -> str | None:
    if found is None:
        return None
    return f"running, {found.percent} % done" if found.running else found.result


def _show_attributes(found: Smart) -> None:
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


def _show_nvme(found: NvmeSmart) -> None:
    health = found.health
    if health is None:
        return
    show("")
    show_record(
        {
            "warnings": ", ".join(what for _, what in health.warnings) or None,
            "spare blocks": f"{health.available_spare} % (warns at {health.spare_threshold} %)",
            "used": f"{health.percentage_used} % of the writes that it was made for",
            "read": size_text(health.bytes_read),
            "written": size_text(health.bytes_written),
            "power on": f"{health.power_on_hours} hours, {health.power_cycles} times",
            "unsafe shutdowns": health.unsafe_shutdowns,
            "errors not corrected": health.media_errors,
            "error log": f"{health.error_log_entries} entries",
            "sensors": ", ".join(f"{value} °C" for value in health.sensors) or None,
        }
    )


def _record(found: Smart | NvmeSmart) -> dict[str, Any]:
    from scsiusb.ata.smart import Smart

    record: dict[str, Any] = {
        "via": found.via,
        "model": found.identity.model,
        "serial": found.identity.serial,
        "firmware": found.identity.firmware,
        "bytes": found.identity.size,
        "passed": found.passed,
        "temperature": found.temperature,
        "problems": found.problems,
    }
    return record | (_ata_record(found) if isinstance(found, Smart) else _nvme_record(found))


def _nvme_record(found: NvmeSmart) -> dict[str, Any]:
    health = None if found.health is None else asdict(found.health)
    return {"kind": "nvme", "namespaces": found.identity.namespaces, "health": health}


def _ata_record(found: Smart) -> dict[str, Any]:
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
    return {"kind": "ata", "rotation_rate": found.identity.rotation_rate, "attributes": attributes}


def _identity(found: Smart | NvmeSmart) -> dict[str, Any]:
    from scsiusb.ata.smart import Smart

    identity, turns = found.identity, None
    if isinstance(found, Smart):
        rate = found.identity.rotation_rate
        turns = {0: None, 1: "does not rotate"}.get(rate, f"{rate} rotations a minute")
    return {
        "model": identity.model,
        "serial": identity.serial,
        "firmware": identity.firmware,
        "size": None if identity.size is None else size_text(identity.size),
        "rotation": turns,
        "SMART": {True: "passed", False: "FAILING", None: "does not say"}[found.passed],
        "temperature": None if found.temperature is None else f"{found.temperature} °C",
        "through": found.via,
    }


@click.command("health", short_help="Say whether a device is well, and why.")
@device_argument
@via_option
@global_options
def health_command(device: str | None, lun: int | None, via: str | None) -> None:
    """Say whether a device is well, and why: good, worn, failing or unknown; then
    its wear, write protection, cache, links and quirks, where they are known.

    The verdict comes from SMART, where the device has it. Of a stick or a card,
    a hundred blocks are read: whether they can be, and whether they repeat those
    before, as on a counterfeit. Nothing is written.

    \b
    Examples:
      scsiusb health 2-1
      scsiusb health virtual:?profile=sat-ssd&health=worn --json
      scsiusb health virtual:?profile=counterfeit
    """
    from scsiusb.ata.health import judge
    from scsiusb.cli.condition import Condition, condition_record, show_condition
    from scsiusb.scsi.protection import mode_parameters

    with opened(device, lun) as disk:
        smart, without = _smart_of(disk, via)
        modes = mode_parameters(disk.unit)
        wrong, seen = _seen_of(disk) if smart is None else ([], [])
        unit = disk.inquiry()
        transport = disk.unit.transport
        state = Condition(smart, modes, transport.info, transport.quirks)
        device_of = device_record(disk)
    found = judge(smart, write_protected=state.write_protected, without=without, wrong=wrong, seen=seen)
    if settings().json:
        record: dict[str, Any] = {"verdict": found.verdict, "reasons": found.reasons}
        record |= {"temperature": smart and smart.temperature, **condition_record(state)}
        show_json({**record, "smart": smart and _record(smart), "device": device_of})
        return
    name = smart.identity.model if smart is not None else f"{unit.vendor} {unit.product}"
    show(f"{WORDS[found.verdict]}: {name}, {state.info.address}")
    for reason in found.reasons:
        show(fill(reason, WIDTH, initial_indent="  - ", subsequent_indent="    "))
    show_condition(state)


def _smart_of(disk: Disk, via: str | None) -> tuple[Smart | NvmeSmart | None, str]:
    """Return the SMART data, or None and the reason: there is none, or the device did not answer."""
    from scsiusb.ata.device import read_smart
    from scsiusb.ata.health import NO_SMART

    try:
        return read_smart(disk.unit, via), ""
    except (DeviceGone, DeviceClosed, Cancelled):
        raise
    except (UnsupportedOpcode, IllegalRequest, MalformedReply, DeviceUnsupported):
        return None, NO_SMART
    except (CheckCondition, TransportError) as error:
        return None, f"{NO_SMART}: {error.what}"


def _seen_of(disk: Disk) -> tuple[list[str], list[str]]:
    """Read some blocks; return what no sound device has, and what else was seen."""
    from scsiusb.imaging.looking import glance

    try:
        with job_progress() as progress:
            found = glance(disk, progress)
    except CheckCondition as error:
        return [], [f"no block was read: {error.what}"]
    if found.repeats_after is not None:
        real = size_text(found.repeats_after * found.block_size)
        told = size_text(found.announced_blocks * found.block_size)
        return [f"it seems to be a counterfeit: it says {told}, and repeats itself after {real}", PROVE], []
    findings = list(found.findings) or ["blocks in all parts of it were read without an error"]
    return (findings, []) if found.kind == "damaged" else ([], findings)
