"""Re-plug: waits until disks were unplugged and plugged in again, so that what is then read was kept without power."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from scsiusb.disk.disk import Disk
from scsiusb.errors import (
    AccessDenied,
    Cancelled,
    CheckCondition,
    DeviceBusy,
    DeviceClosed,
    DeviceGone,
    DeviceMismatch,
    DeviceNotUnique,
    DeviceTimeout,
    TransportError,
)
from scsiusb.imaging.events import PLUG_IN, REPLUG, UNPLUG, OnProgress, TargetsProgress
from scsiusb.imaging.presence import ask
from scsiusb.imaging.target import Target

Replug = Callable[[Disk], Disk]
"""Opens the device of a disk again, which was unplugged. Raises a TransportError while it is not there."""

WAIT: Final = 60.0  # seconds for all of it
POLL: Final = 0.25  # seconds between two looks at the devices
SAID: Final = (AccessDenied, DeviceBusy, DeviceNotUnique)  # errors that say why a device that is there is not opened
THEN: Final = "resume the job, or compare the disk later"


def await_replug(targets: Sequence[Target], replug: Replug, wait: float, progress: OnProgress) -> None:
    """Return when each target that is written is back, or has failed: by the wait's end, or by another device.

    What can be found wrong is the target's error; what `progress` raises is raised.
    """
    deadline = time.monotonic() + wait
    written = [target for target in targets if target.error is None]
    for target in written:
        target.phase, target.at = UNPLUG, 0
    while written:
        waiting = [target for target in written if target.error is None and target.phase in (UNPLUG, PLUG_IN)]
        done = len(written) - len(waiting)
        progress(TargetsProgress(REPLUG, done, len(written), tuple(target.progress for target in targets)))
        if not waiting:
            return
        for target in waiting:
            try:
                _look(target, replug, wait if time.monotonic() >= deadline else None)
            except Exception as error:  # noqa: BLE001 - it is in the result
                target.error = error.with_traceback(None)
        time.sleep(POLL)


def _look(target: Target, replug: Replug, waited: float | None) -> None:
    """Find out whether the device has left, or is back. `waited`: the seconds of the wait, if it is over."""
    if target.phase == UNPLUG and _has_left(target.disk):
        target.phase = PLUG_IN
    if target.phase == PLUG_IN:
        _come_back(target, replug, waited)
    elif waited is not None:
        raise DeviceTimeout(f"{target.info} was not unplugged within {waited:g} seconds", THEN)


def _has_left(disk: Disk) -> bool:
    try:
        ask(disk.unit)
    except DeviceGone:
        return True
    except (DeviceClosed, Cancelled):
        raise
    except TransportError:  # as of a plug that is half out
        return False
    return False


def _come_back(target: Target, replug: Replug, waited: float | None) -> None:
    """Go on with the target's device, if it can be opened. Raise at the end of the wait, DeviceMismatch at once."""
    try:
        target.adopt(replug(target.disk))
    except (TransportError, CheckCondition, OSError) as error:
        if waited is None:
            return
        if isinstance(error, SAID):
            raise
        raise DeviceGone(f"{target.info} was not plugged in again within {waited:g} seconds", THEN) from error
    except DeviceMismatch as error:
        error.remedy = f"plug in {target.info}, then {THEN}"
        raise
