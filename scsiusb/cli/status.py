"""Exit statuses, the same as in sg3_utils(8), so that scripts can be reused."""

from __future__ import annotations

from typing import Final

from scsiusb import errors

GOOD: Final = 0
USAGE: Final = 1
CANNOT_OPEN: Final = 15
OTHER: Final = 99
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141  # as a shell reports SIGPIPE
SIGNALLED: Final = 128  # plus the number of the signal, as a shell reports it

STATUSES: Final[tuple[tuple[type[BaseException], int], ...]] = (  # most specific first
    (errors.NotReady, 2),
    (errors.MediumError, 3),
    (errors.HardwareError, 3),
    (errors.UnsupportedOpcode, 9),
    (errors.LbaOutOfRange, 22),
    (errors.OutOfRange, 22),
    (errors.ImageError, CANNOT_OPEN),
    (errors.FileSystemError, CANNOT_OPEN),
    (errors.IllegalRequest, 5),
    (errors.UnitAttention, 6),
    (errors.DataProtect, 7),
    (errors.AbortedCommand, 11),
    (errors.Miscompare, 14),
    (errors.DeviceNotFound, CANNOT_OPEN),
    (errors.DeviceNotUnique, CANNOT_OPEN),
    (errors.DeviceBusy, CANNOT_OPEN),
    (errors.AccessDenied, CANNOT_OPEN),
    (errors.DeviceUnsupported, CANNOT_OPEN),
    (errors.DeviceTimeout, 33),
    (errors.MalformedReply, 97),
    (errors.TransportError, 35),
    (errors.ScsiUsbError, OTHER),
    (OSError, CANNOT_OPEN),
    (ValueError, USAGE),
)


def status_of(error: BaseException) -> int:
    """Return the exit status for an exception."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), OTHER)
