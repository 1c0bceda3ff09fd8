"""The public exceptions: one tree with two main branches.

`TransportError`: the exchange with the device failed, so the command may or may not have been carried out.
`CheckCondition`: the exchange worked, and the device reports by sense data that the command failed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from scsiusb.base.copying import PicklableError

if TYPE_CHECKING:
    from scsiusb.scsi.sense import Sense


class ScsiUsbError(PicklableError):
    """The base class of all errors of scsiusb; catch it to handle any of them.

    `what` says what happened to what; `remedy` says what to do, or is empty. `str` joins the two.
    """

    default_remedy = ""
    """The remedy if none is given."""
    lba: int | None = None
    """If blocks were read or written: the first block that was not, or may not have been; all before it were."""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = self.default_remedy if remedy is None else remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class OutOfRange(ScsiUsbError, ValueError):
    """Raised for blocks that the medium does not have; nothing was sent to the device (also a ValueError).

    Use addresses below `Disk.blocks`.
    """


class ImageError(ScsiUsbError):
    """Raised if an image file, or the journal beside it, does not allow what was asked: damaged, changed, or too large.

    Nothing more is written to the device. Give another file, or begin anew without `resume`.
    """


class FileSystemError(ScsiUsbError):
    """Raised if the files on a partition cannot be used: no known file system, a damaged one, or a missing library.

    A path that is not there is a FileNotFoundError, and so on, as for the operating system's own files.
    """


class DeviceMismatch(ImageError):
    """Raised if a job that was interrupted is to go on with another device, or with other contents than it began with.

    Attach the device that the job began with, or begin anew without `resume`.
    """


class EventsLost(ScsiUsbError):
    """Raised to a reader of a manager's events that is so slow that events were dropped.

    Read events faster; call `Manager.devices` to see what is attached now.
    """

    default_remedy = "read events faster, or call `Manager.devices` to see what is attached now"


# --- Did the transfer work? ---------------------------------------------------------------------


class TransportError(ScsiUsbError):
    """Raised if the exchange with the device failed; it is not known whether the command was carried out.

    The device was recovered, if that was possible: try again. If it fails again, unplug the device and plug it in
    again.
    """

    default_remedy = "unplug the device and plug it in again if this goes on"
    tried: tuple[str, ...] = ()
    """The recovery steps that were taken after the failure, in order: "class reset", "port reset"."""
    may_repeat = False
    """Whether the device was recovered, so that a command that does no harm when sent twice can be sent again."""


class DeviceNotFound(TransportError):
    """Raised if no attached device, or no logical unit of it, matches what was asked for.

    Run `scsiusb list`, or call `scsiusb.devices`, to see what is attached.
    """

    default_remedy = "run `scsiusb list` to see what is attached"


class DeviceNotUnique(TransportError):
    """Raised if more than one attached device matches what was asked for. Name one by its address, such as "2-1"."""

    default_remedy = "name one of them by its address"


class DeviceUnsupported(TransportError):
    """Raised if scsiusb, or this platform, does not support the device, or a quirk says not to open it.

    Use the kernel's driver for the device.
    """

    default_remedy = "use the kernel's driver for it"


class DeviceGone(TransportError, OSError):
    """Raised if the device was unplugged, or left the bus by itself (also an OSError with ENODEV).

    Plug it in and open it again: this object stays unusable even if the device comes back.
    """

    default_remedy = "plug it in and open it again"

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what, remedy)
        self.errno = errno.ENODEV


class DeviceClosed(TransportError, ValueError):
    """Raised if this program has closed the device or the manager (also a ValueError, as for a closed file).

    Open it again.
    """

    default_remedy = "open it again"


class Cancelled(TransportError):
    """Raised from a command that this program has cancelled, as from another thread. Nothing needs to be done."""

    default_remedy = ""


class DeviceBusy(TransportError):
    """Raised if the device is in use: by a mounted file system, by another program, or by this one.

    Close what uses it; the message names it, if it is known.
    """

    default_remedy = "close the program that uses it and try again"


class DeviceTimeout(TransportError, TimeoutError):
    """Raised if the device did not answer within the timeout (also a TimeoutError).

    Try a longer timeout; if that does not help, unplug the device and plug it in again.
    """

    default_remedy = "try a longer timeout, or unplug the device and plug it in again"


class AccessDenied(TransportError, PermissionError):
    """Raised if the operating system does not permit this user to open the device (also a PermissionError).

    Run `scsiusb doctor`, which shows the udev rule for it, or run as root.
    """

    default_remedy = "run `scsiusb doctor`, which has the udev rule for it, or run as root"


class TransferStalled(TransportError):
    """Raised if an endpoint answered STALL where the protocol does not define it.

    The transport was reset: try again.
    """


class PhaseError(TransportError):
    """Raised if device and host disagree about the direction or length of the data phase (BOT 6.7).

    The transport was reset. Check the direction and length of a raw command.
    """


class MalformedReply(TransportError):
    """Raised if the device sent bytes that the specification does not permit.

    The device is faulty: try again, or report it with a trace.
    """

    default_remedy = "this is the device's fault; try again, or report it with a trace"


# --- Did the command work? ----------------------------------------------------------------------


class CheckCondition(ScsiUsbError):
    """Raised if the device reports that the command failed; `sense` has the reason (SPC-4 4.5).

    What to do depends on `sense.key`, for which there are subclasses.
    """

    def __init__(self, what: str, sense: Sense, remedy: str | None = None) -> None:
        super().__init__(what, remedy)
        self.sense = sense


class NotReady(CheckCondition):
    """Raised for NOT READY (2h): the unit is starting, or cannot be used now. Wait and try again."""

    default_remedy = "wait and try again"


class NoMedium(NotReady):
    """Raised for NOT READY or UNIT ATTENTION, MEDIUM NOT PRESENT (2h or 6h, 3Ah). Insert a medium."""

    default_remedy = "insert a medium"


class MediumError(CheckCondition):
    """Raised for MEDIUM ERROR (3h): a block cannot be read or written; `lba` is the block, if `Disk` moved it.

    Some devices report a bad block by another sense key, such as HARDWARE ERROR. Read the other blocks, and replace the
    medium.
    """

    default_remedy = "read around the bad blocks; the medium is failing"


class HardwareError(CheckCondition):
    """Raised for HARDWARE ERROR (4h). The device is failing: copy what can still be read."""

    default_remedy = "the device is failing; save what can be read"


class IllegalRequest(CheckCondition):
    """Raised for ILLEGAL REQUEST (5h): the device does not accept the command or one of its fields.

    Do without the command, or change its fields.
    """

    default_remedy = "the device does not accept this command or one of its fields"


class UnsupportedOpcode(IllegalRequest):
    """Raised for ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE (5h, 20h/00h): the command is not supported.

    Do without the command.
    """

    default_remedy = "the device does not support this command"


class LbaOutOfRange(IllegalRequest):
    """Raised for ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE (5h, 21h/00h).

    Use addresses below the capacity; some devices report one block too many (quirk `c`).
    """

    default_remedy = "run `scsiusb capacity` to see how large the medium is"


class UnitAttention(CheckCondition):
    """Raised for UNIT ATTENTION (6h): the unit's state has changed, for example by a reset. Try again."""

    default_remedy = "the unit's state changed; try again"


class MediumChanged(UnitAttention):
    """Raised for UNIT ATTENTION, NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED (6h, 28h).

    The command was not carried out. Check which medium is in the unit, then try again.
    """

    default_remedy = "check which medium is in the unit now, then try again"


class DataProtect(CheckCondition):
    """Raised for DATA PROTECT (7h), and before the first write if the unit reports that its medium is write protected.

    Look for a switch on it.
    """

    default_remedy = "the medium is write protected; look for a switch on it"


class BlankCheck(CheckCondition):
    """Raised for BLANK CHECK (8h): blank medium was found where data was expected, or the reverse.

    Check the medium, and the address.
    """


class AbortedCommand(CheckCondition):
    """Raised for ABORTED COMMAND (Bh): the device aborted the command. Try again."""

    default_remedy = "try again"


class Miscompare(CheckCondition):
    """Raised for MISCOMPARE (Eh): the data sent does not match the data on the medium. Write it again."""

    default_remedy = "the medium does not hold the data that was expected"
