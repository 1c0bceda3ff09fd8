"""Drive USB mass-storage devices from Python, in user space, and release everything at the end.

    import scsiusb

    with scsiusb.open() as disk:
        print(disk.inquiry().product, disk.blocks, disk.block_size)
        boot_record = disk.read(0, 1)

Importing this package does no I/O and loads no other module: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from scsiusb._version import __version__

if TYPE_CHECKING:
    from scsiusb import imaging as imaging
    from scsiusb import ledger as ledger
    from scsiusb import volume as volume
    from scsiusb.disk.aio import AsyncDisk as AsyncDisk
    from scsiusb.disk.disk import Disk as Disk
    from scsiusb.disk.file import DiskFile as DiskFile
    from scsiusb.disk.multi_read import Chunk as Chunk
    from scsiusb.disk.multi_read import read_many as read_many
    from scsiusb.errors import AbortedCommand as AbortedCommand
    from scsiusb.errors import AccessDenied as AccessDenied
    from scsiusb.errors import BlankCheck as BlankCheck
    from scsiusb.errors import Cancelled as Cancelled
    from scsiusb.errors import CheckCondition as CheckCondition
    from scsiusb.errors import DataProtect as DataProtect
    from scsiusb.errors import DeviceBusy as DeviceBusy
    from scsiusb.errors import DeviceClosed as DeviceClosed
    from scsiusb.errors import DeviceGone as DeviceGone
    from scsiusb.errors import DeviceMismatch as DeviceMismatch
    from scsiusb.errors import DeviceNotFound as DeviceNotFound
    from scsiusb.errors import DeviceNotUnique as DeviceNotUnique
    from scsiusb.errors import DeviceTimeout as DeviceTimeout
    from scsiusb.errors import DeviceUnsupported as DeviceUnsupported
    from scsiusb.errors import EventsLost as EventsLost
    from scsiusb.errors import FileSystemError as FileSystemError
    from scsiusb.errors import HardwareError as HardwareError
    from scsiusb.errors import IllegalRequest as IllegalRequest
    from scsiusb.errors import ImageError as ImageError
    from scsiusb.errors import LbaOutOfRange as LbaOutOfRange
    from scsiusb.errors import MalformedReply as MalformedReply
    from scsiusb.errors import MediumChanged as MediumChanged
    from scsiusb.errors import MediumError as MediumError
    from scsiusb.errors import Miscompare as Miscompare
    from scsiusb.errors import NoMedium as NoMedium
    from scsiusb.errors import NotReady as NotReady
    from scsiusb.errors import OutOfRange as OutOfRange
    from scsiusb.errors import PhaseError as PhaseError
    from scsiusb.errors import ScsiUsbError as ScsiUsbError
    from scsiusb.errors import TransferStalled as TransferStalled
    from scsiusb.errors import TransportError as TransportError
    from scsiusb.errors import UnitAttention as UnitAttention
    from scsiusb.errors import UnsupportedOpcode as UnsupportedOpcode
    from scsiusb.finding import devices as devices
    from scsiusb.manager.events import Event as Event
    from scsiusb.opening import Manager as Manager
    from scsiusb.opening import OpenOptions as OpenOptions
    from scsiusb.opening import aopen as aopen
    from scsiusb.opening import open as open
    from scsiusb.opening import open_on as open_on
    from scsiusb.scsi.command import Command as Command
    from scsiusb.scsi.command import RawCommand as RawCommand
    from scsiusb.scsi.command import opcode as opcode
    from scsiusb.scsi.pages.inquiry import InquiryData as InquiryData
    from scsiusb.scsi.retry import RetryPolicy as RetryPolicy
    from scsiusb.scsi.sense import Sense as Sense
    from scsiusb.scsi.unit import LogicalUnit as LogicalUnit
    from scsiusb.transport.base import Direction as Direction
    from scsiusb.usb.interface import InterfaceInfo as InterfaceInfo

_EXPORTS = {
    "scsiusb.opening": ("Manager", "OpenOptions", "aopen", "open", "open_on"),
    "scsiusb.finding": ("devices",),
    "scsiusb.manager.events": ("Event",),
    "scsiusb.disk.aio": ("AsyncDisk",),
    "scsiusb.disk.disk": ("Disk",),
    "scsiusb.disk.file": ("DiskFile",),
    "scsiusb.errors": (
        "AbortedCommand",
        "AccessDenied",
        "BlankCheck",
        "CheckCondition",
        "DataProtect",
        "DeviceBusy",
        "DeviceClosed",
        "DeviceGone",
        "DeviceMismatch",
        "DeviceNotFound",
        "DeviceNotUnique",
        "DeviceTimeout",
        "Cancelled",
        "DeviceUnsupported",
        "EventsLost",
        "FileSystemError",
        "HardwareError",
        "IllegalRequest",
        "ImageError",
        "LbaOutOfRange",
        "MalformedReply",
        "MediumChanged",
        "MediumError",
        "Miscompare",
        "NoMedium",
        "NotReady",
        "OutOfRange",
        "PhaseError",
        "ScsiUsbError",
        "TransferStalled",
        "TransportError",
        "UnitAttention",
        "UnsupportedOpcode",
    ),
    "scsiusb.scsi.command": ("Command", "RawCommand", "opcode"),
    "scsiusb.scsi.pages.inquiry": ("InquiryData",),
    "scsiusb.scsi.sense": ("Sense",),
    "scsiusb.scsi.retry": ("RetryPolicy",),
    "scsiusb.scsi.unit": ("LogicalUnit",),
    "scsiusb.disk.multi_read": ("Chunk", "read_many"),
    "scsiusb.transport.base": ("Direction",),
    "scsiusb.usb.interface": ("InterfaceInfo",),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}
_MODULES = ("imaging", "ledger", "volume")

__all__ = ["__version__", *sorted((*_HOMES, *_MODULES))]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"scsiusb.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
