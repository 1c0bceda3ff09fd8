"""DEVICE on the command line: the argument, its completion, and opening the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.base.logs import COMMANDS
from scsiusb.cli.failure import wrong_quirks, wrong_size
from scsiusb.cli.files import refuse_own_file
from scsiusb.cli.options import F, completions, number, settings
from scsiusb.cli.output import say
from scsiusb.errors import DeviceMismatch, DeviceNotFound, DeviceNotUnique, DeviceUnsupported
from scsiusb.finding import VIRTUAL, devices

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from scsiusb.disk.disk import Disk
    from scsiusb.usb.interface import InterfaceInfo


MAX_LUN: Final = 15  # as in the transport, which takes too long to import for a constant


def open_disk(
    device: str | None,
    *,
    lun: int,
    timeout: float | None,
    trace: str | None,
    quirks: str | None = None,
    transport: str = "auto",
) -> Disk:
    """Open a device as `scsiusb.open` does; that module is loaded here because other commands do not need it."""
    from scsiusb.opening import open

    logging.getLogger(COMMANDS).setLevel(logging.DEBUG if settings().verbosity else logging.INFO)
    return open(device, lun=lun, timeout=timeout, trace=trace, quirks=quirks, transport=transport)


def opened(device: str | None, lun: int | None, protocol: str | None = None) -> Disk:
    """Return an open disk, to be used in a `with` statement; `protocol`: the only one that will do, if so."""
    given = settings()
    refuse_own_file(device, None)
    if device is None or not device.startswith(VIRTUAL):
        _recover()  # even if no device matches
    check_quirks()
    with sized(device):
        unit = _default_lun(device) if lun is None else lun
        disk = open_disk(
            device,
            lun=unit,
            timeout=given.timeout,
            trace=given.trace,
            quirks=given.quirks,
            transport=protocol or given.transport,
        )
    _warn_unused_quirks(disk.unit.transport.info)
    return disk


def reopener(disk: Disk, device: str | None) -> Callable[[], Disk]:
    """Return a function that opens the device of `disk` again, which it finds by its IDs and its serial number.

    The function raises DeviceNotFound, DeviceNotUnique, and the errors of opening. It does not record a trace.
    """
    given, info, lun = settings(), disk.unit.transport.info, disk.unit.lun

    def reopen() -> Disk:
        is_virtual = device is not None and device.startswith(VIRTUAL)
        word = device if is_virtual else _same_device(info).name
        return open_disk(
            word, lun=lun, timeout=given.timeout, trace=None, quirks=given.quirks, transport=given.transport
        )

    return reopen


def replugger(disks: Sequence[Disk], words: Sequence[str | None]) -> Callable[[Disk], Disk]:
    """Return a function that opens the device of one of the disks after it was plugged in again.

    It raises DeviceMismatch if a device that was not attached now is where the disk was; else as `reopener`'s.
    """
    before = {_identity(each) for each in seen()}
    ways = {id(disk): reopener(disk, word) for disk, word in zip(disks, words, strict=True)}

    def reopen(disk: Disk) -> Disk:
        try:
            return ways[id(disk)]()
        except DeviceNotFound:
            address = disk.unit.transport.info.address
            others = (each for each in seen() if each.address == address and _identity(each) not in before)
            if (other := next(others, None)) is not None:
                what = f"another device, with serial number {other.serial}, was plugged in at {address}"
                raise DeviceMismatch(what) from None
            raise

    return reopen


def _identity(info: InterfaceInfo) -> tuple[object, ...]:
    return info.vid, info.pid, info.serial, info.interface


def _same_device(info: InterfaceInfo) -> InterfaceInfo:
    """Return the attached interface that has the IDs and the serial number, at another address if need be."""
    found = [each for each in seen() if _identity(each) == _identity(info)]
    found = [each for each in found if each.address == info.address] or found
    if not found:
        raise DeviceNotFound(f"{info} is not attached")
    if len(found) > 1:
        raise DeviceNotUnique(f"{info} has left, and {len(found)} devices like it are attached")
    return found[0]


def _default_lun(device: str | None) -> int:
    """Return the LUN of a disk's node; 0 for every other DEVICE."""
    if device is None or not device.startswith("/"):
        return 0
    from scsiusb.finding import lun_of

    return next((lun for info in seen() if (lun := lun_of(info, device)) is not None), 0)


def check_quirks() -> None:
    """Raise Refused if the quirks that the user gave cannot be parsed, whatever the device."""
    from scsiusb.quirks.user import row_for

    try:
        row_for(-1, -1, settings().quirks)  # no device has these IDs, so all rows are parsed
    except ValueError as error:
        raise wrong_quirks(error) from error


@contextmanager
def sized(device: str | None) -> Iterator[None]:
    """Add a remedy to the error of a virtual file whose size is not a multiple of the block size."""
    try:
        yield
    except ValueError as error:
        if device is None or not device.startswith(VIRTUAL):
            raise
        said = error if str(error).startswith(VIRTUAL) else ValueError(f"{device}: {error}")
        raise wrong_size(said, *_file_of(device)) from error


def _file_of(device: str) -> tuple[str, int]:
    """Return the path and the block size of a virtual stick."""
    from scsiusb.virtual.address import parse, split

    try:
        address = parse(device)
    except ValueError:
        return split(device)[0], 0
    return address.path, address.block_size


def _warn_unused_quirks(info: InterfaceInfo) -> None:
    if not settings().quirks:
        return
    from scsiusb.quirks.model import letters
    from scsiusb.quirks.user import GIVEN, parse_rows

    for row in parse_rows(settings().quirks or "", GIVEN):
        if (row.vid, row.pid) != (info.vid, info.pid):
            text = f"{row.vid:04x}:{row.pid:04x}:{letters(row.quirks)}"
            say(f"scsiusb: warning: {GIVEN} {text} does not match the opened device")


def attached() -> list[InterfaceInfo]:
    """Return the attached mass-storage interfaces, after recovery of devices that other processes did not give back."""
    _recover()
    return devices()


def _recover() -> None:
    from scsiusb.leases.orphans import recover

    recover()


def seen() -> list[InterfaceInfo]:
    """Return the attached mass-storage interfaces, without recovery."""
    return devices()


def refuse_optical(disk: Disk, command: str) -> None:
    """Raise DeviceUnsupported for an optical drive, to which the operation code of `command` means something else."""
    from scsiusb.scsi.pages.inquiry import CD_ROM

    data = disk.inquiry()
    if data.peripheral_device_type == CD_ROM:
        what = f"{command} is not for a unit of type {data.type_text}, which has another command of the same code"
        raise DeviceUnsupported(what, "name a unit that is a disk (--lun)")


def device_record(disk: Disk) -> dict[str, Any]:
    """Return the device of a disk as names and values for JSON."""
    info = disk.unit.transport.info
    ids = {"address": info.address, "vid": f"{info.vid:04x}", "pid": f"{info.pid:04x}"}
    return {**ids, "serial": info.serial, "lun": disk.unit.lun}


def name_of(device: str | None) -> str:
    """Return the name of the device for a question, also if the command line omits it."""
    if device is not None:
        return device
    found = attached()
    return found[0].address if len(found) == 1 else "the only device attached"


def complete_attached(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the address of an attached device."""
    from scsiusb.errors import ScsiUsbError

    try:
        found = [(info.address, str(info)) for info in seen()]
    except ScsiUsbError:
        found = []
    return completions(found, incomplete)


def complete_device(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the address of an attached device, or virtual:."""
    own = completions([(VIRTUAL, "a small stick in memory")], incomplete)
    return complete_attached(context, parameter, incomplete) + own


def parse_lun(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse a logical unit number. Raise BadParameter for one that no device can have."""
    lun = number(context, parameter, value)
    if lun is not None and lun > MAX_LUN:
        raise click.BadParameter(f"{lun} is not from 0 to {MAX_LUN}")
    return lun


def lun_option(function: F) -> F:
    """Add --lun."""
    option = click.option(
        "--lun", metavar="N", callback=parse_lun, help="Logical unit (default 0, or that of /dev/sdX)."
    )
    return option(function)


def device_argument(function: F) -> F:
    """Add DEVICE and --lun."""
    return click.argument("device", required=False, shell_complete=complete_device)(lun_option(function))
