"""A USB stick made of software: the device's side of everything, behind the same seam as libusb."""

from __future__ import annotations

from scsiusb.virtual.backend import Bus
from scsiusb.virtual.bot import DataIn, DataOut, Manners
from scsiusb.virtual.descriptors import Identity, bot_interface, hid_interface, uas_interface
from scsiusb.virtual.faults import KINDS, Fault
from scsiusb.virtual.handle import VirtualHandle
from scsiusb.virtual.media import File, Medium, Memory, Sparse
from scsiusb.virtual.stick import Stick
from scsiusb.virtual.unit import Unit

VirtualBackend = Bus

__all__ = [
    "KINDS",
    "Bus",
    "DataIn",
    "DataOut",
    "Fault",
    "File",
    "Identity",
    "Manners",
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
