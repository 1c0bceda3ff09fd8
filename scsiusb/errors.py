"""The one tree of exceptions: the transport's errors and the command's errors are two branches that never mix."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scsiusb.scsi.sense import Sense


class ScsiUsbError(Exception):
    """The root. `what` says what happened to what, `remedy` what to do about it (or is empty)."""

    default_remedy = ""
    lba: int | None = None
    """Where blocks were read or written: the first that was not, or may not be; those before it were."""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = self.default_remedy if remedy is None else remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class OutOfRange(ScsiUsbError, ValueError):
    """Blocks were asked for that the medium does not have; nothing was sent."""


class EventsLost(ScsiUsbError):
    """A reader of events was so slow that some had to be dropped."""

    default_remedy = "read faster, or look at `Manager.devices` for what is attached now"


# --- Did the transfer work? ---------------------------------------------------------------------


class TransportError(ScsiUsbError):
    """The exchange with the device failed; what became of the command is not known."""

    default_remedy = "unplug the device and plug it in again if this goes on"
    tried: tuple[str, ...] = ()
    """The rungs of the recovery that came after it, in order: "class reset", "port reset"."""
    may_repeat = False
    """An exchange failed and the device is in step again: a command that may be sent twice can be."""


class DeviceNotFound(TransportError):
    """No attached device, or no logical unit in it, matches what was asked for."""

    default_remedy = "run `scsiusb list` to see what is attached"


class DeviceNotUnique(TransportError):
    """More than one attached device matches what was asked for."""

    default_remedy = "name one of them by its address"


class DeviceUnsupported(TransportError):
    """The device is there but speaks nothing that scsiusb can drive."""

    default_remedy = "use the kernel's driver for it"


class DeviceGone(TransportError, OSError):
    """The device was unplugged (also an OSError with ENODEV)."""

    default_remedy = "plug it in and open it again"

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what, remedy)
        self.errno = errno.ENODEV


class DeviceClosed(TransportError, ValueError):
    """This program closed the device (also a ValueError, as with a closed file)."""

    default_remedy = "open it again"


class Cancelled(TransportError):
    """The command was ended by this program."""

    default_remedy = ""


class DeviceBusy(TransportError):
    """Somebody else uses the device: a mounted file system, another program."""

    default_remedy = "close whatever uses it and try again"


class DeviceTimeout(TransportError, TimeoutError):
    """The device did not answer in time."""

    default_remedy = "try a longer timeout, or unplug the device and plug it in again"


class AccessDenied(TransportError, PermissionError):
    """The operating system does not let this user open the device."""

    default_remedy = "run `scsiusb doctor`, which has the udev rule for it, or run as root"


class TransferStalled(TransportError):
    """An endpoint answered STALL where the protocol has no meaning for it."""


class PhaseError(TransportError):
    """The device and the host disagree about the data phase (BOT 6.7); the transport was reset."""


class MalformedReply(TransportError):
    """The device answered bytes that the specification does not allow."""

    default_remedy = "this is the device's fault; try again, or report it with a trace"


# --- Did the command work? ----------------------------------------------------------------------


class CheckCondition(ScsiUsbError):
    """The device carried the command to its end and says that it failed; `sense` tells why (SPC-4 4.5)."""

    def __init__(self, what: str, sense: Sense, remedy: str | None = None) -> None:
        super().__init__(what, remedy)
        self.sense = sense


class NotReady(CheckCondition):
    """NOT READY (2h)."""

    default_remedy = "wait and try again"


class NoMedium(NotReady):
    """NOT READY, MEDIUM NOT PRESENT (2h, 3Ah)."""

    default_remedy = "insert a medium"


class MediumError(CheckCondition):
    """MEDIUM ERROR (3h)."""

    default_remedy = "read around the bad blocks; the medium is failing"


class HardwareError(CheckCondition):
    """HARDWARE ERROR (4h)."""

    default_remedy = "the device is failing; save what can be read"


class IllegalRequest(CheckCondition):
    """ILLEGAL REQUEST (5h)."""

    default_remedy = "the device does not take this command or one of its fields"


class UnsupportedOpcode(IllegalRequest):
    """ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE (5h, 20h/00h)."""

    default_remedy = "the device does not have this command"


class LbaOutOfRange(IllegalRequest):
    """ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE (5h, 21h/00h)."""

    default_remedy = "run `scsiusb capacity` to see how large the medium is"


class UnitAttention(CheckCondition):
    """UNIT ATTENTION (6h)."""

    default_remedy = "the unit's state changed; try again"


class MediumChanged(UnitAttention):
    """UNIT ATTENTION, NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED (6h, 28h)."""

    default_remedy = "look what medium is in the unit now, then try again"


class DataProtect(CheckCondition):
    """DATA PROTECT (7h)."""

    default_remedy = "the medium is write protected; look for a switch on it"


class BlankCheck(CheckCondition):
    """BLANK CHECK (8h)."""


class AbortedCommand(CheckCondition):
    """ABORTED COMMAND (Bh)."""

    default_remedy = "try again"


class Miscompare(CheckCondition):
    """MISCOMPARE (Eh)."""

    default_remedy = "the medium does not hold the data that was expected"
