"""The command buffer: the echo test, and the download of firmware (READ BUFFER, WRITE BUFFER)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from scsiusb.cli.ask import confirm, require_terminal
from scsiusb.cli.device import device_argument, device_record, opened
from scsiusb.cli.failure import Refused
from scsiusb.cli.files import read_whole, refuse_own_file
from scsiusb.cli.jobs import name
from scsiusb.cli.options import global_options, settings
from scsiusb.cli.output import counted, say, show_json, size_text
from scsiusb.errors import MalformedReply, Miscompare
from scsiusb.scsi.commands.spc_buffer import (
    DOWNLOAD_OFFSETS_SAVE,
    DOWNLOAD_SAVE,
    ECHO,
    ECHO_DESCRIPTOR,
    EchoDescriptor,
    ReadBuffer,
    WriteBuffer,
)
from scsiusb.scsi.sense import MISCOMPARE

if TYPE_CHECKING:
    from scsiusb.disk.disk import Disk

LARGEST: Final = 15 * 1024 * 1024  # bytes; the field has 24 bits
LARGEST_ECHO: Final = 4096


@click.command("buffer", short_help="Test the echo buffer, or download firmware.")
@device_argument
@click.option("--download", metavar="FILE", type=click.Path(), help="Send FILE to the device as its firmware.")
@click.option("--pieces", metavar="BYTES", type=click.IntRange(512, LARGEST), help="Send it in pieces (mode 07h).")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@global_options
def buffer_command(device: str | None, lun: int | None, download: str | None, pieces: int | None, yes: bool) -> None:
    """Write random bytes to the echo buffer of the device, and compare.

    With --download, send a firmware. Only the maker of the device knows which one
    is right, and in which way it wants it. A wrong one destroys the device.

    \b
    Examples:
      scsiusb buffer 2-1
      scsiusb buffer 2-1 --download firmware.bin
      scsiusb buffer 2-1 --download firmware.bin --pieces 65536 --yes
    """
    if pieces is not None and download is None:
        raise click.UsageError("--pieces is for --download")
    refuse_own_file(device, download)
    if download is not None and not yes:
        require_terminal("the download")
    image = None if download is None else read_whole(download, LARGEST)
    if image is not None and not image:
        raise Refused(f"{download} is empty", "give the file that has the firmware")
    with opened(device, lun) as disk:
        if image is None:
            record, said = _echo(disk)
        else:
            if not yes:
                confirm(f"Replace the firmware of {name(disk)} by {download} ({size_text(len(image))})?")
            record, said = _download(disk, image, pieces)
        device_of = device_record(disk)
    if settings().json:
        show_json({"done": True, **record, "device": device_of})
    else:
        say(said)


def _echo(disk: Disk) -> tuple[dict[str, Any], str]:
    """Write random bytes to the echo buffer and read them back. Raise Miscompare if they differ."""
    found = EchoDescriptor.parse(disk.execute(ReadBuffer(ECHO_DESCRIPTOR, 4)))
    size = min(found.capacity, LARGEST_ECHO) // 4 * 4
    if not size:
        raise MalformedReply(f"the device says that its echo buffer has {counted(found.capacity, 'byte')}")
    data = os.urandom(size)
    disk.execute(WriteBuffer(data, ECHO))
    back = disk.execute(ReadBuffer(ECHO, size))
    if back != data:
        what = f"the echo buffer returned other bytes than were written to it, {counted(len(back), 'byte')} of {size}"
        raise Miscompare(what, MISCOMPARE, "try another cable or port")
    return {
        "echo_buffer": found.capacity,
        "compared": size,
    }, f"echo buffer: {counted(size, 'byte')} came back unchanged"


def _download(disk: Disk, image: bytes, pieces: int | None) -> tuple[dict[str, Any], str]:
    mode = DOWNLOAD_SAVE if pieces is None else DOWNLOAD_OFFSETS_SAVE
    step = pieces or len(image)
    for at in range(0, len(image), step):
        disk.execute(WriteBuffer(image[at : at + step], mode, offset=at))
    return {"downloaded": len(image)}, f"sent {size_text(len(image))}; the device may have to be plugged in again"
