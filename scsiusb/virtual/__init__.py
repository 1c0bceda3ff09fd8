"""A virtual USB stick: the device's side of USB mass storage, as a backend that can be used in place of libusb."""

from __future__ import annotations

from scsiusb.virtual.bus.backend import Bus
from scsiusb.virtual.bus.handle import VirtualHandle
from scsiusb.virtual.device.bot import BotOptions, DataIn, DataOut
from scsiusb.virtual.device.descriptors import Identity, bot_interface, hid_interface, uas_interface
from scsiusb.virtual.faults.faults import KINDS, Fault
from scsiusb.virtual.stick import Stick
from scsiusb.virtual.target.flawed import Cached, Fake, Flawed
from scsiusb.virtual.target.media import File, Medium, Memory, Sparse
from scsiusb.virtual.target.unit import Unit

VirtualBackend = Bus

__all__ = [
    "KINDS",
    "BotOptions",
    "Bus",
    "Cached",
    "DataIn",
    "DataOut",
    "Fake",
    "Fault",
    "File",
    "Flawed",
    "Identity",
    "Medium",
    "Memory",
    "Sparse",
    "Stick",
    "Unit",
    "VirtualBackend",
    "VirtualHandle",
    "bot_interface",
    "hid_interface",
    "uas_interface",
]
