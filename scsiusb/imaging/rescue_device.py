"""The device of a rescue: reads it once, recovers it, and waits for it when it is not ready or has left the bus."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from scsiusb.base.copying import Uncopyable
from scsiusb.disk.disk import Disk
from scsiusb.disk.medium import Medium, find_medium
from scsiusb.disk.narrowing import is_of_blocks
from scsiusb.disk.single_read import read_once
from scsiusb.disk.witness import is_distinct
from scsiusb.errors import (
    Cancelled,
    CheckCondition,
    DeviceClosed,
    DeviceGone,
    DeviceMismatch,
    IllegalRequest,
    MediumChanged,
    NotReady,
    ScsiUsbError,
    TransportError,
)
from scsiusb.imaging.identity import DiskIdentity
from scsiusb.imaging.presence import ask
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction

Known = Callable[[], Iterator[tuple[int, bytes]]]
"""Yields blocks that were rescued, as LBA and bytes, those with distinct contents first."""
Reopen = Callable[[], Disk]
"""Opens the device again after it has left the bus; raises a TransportError while it is not there."""

POLL: Final = 0.25  # seconds between two looks at a device that is waited for
MOST_ATTEMPTS: Final = 5  # to send one read that the unit has not begun
MOST_DIFFERING: Final = 3  # so many blocks must match for each that differs
ATTACH: Final = "attach the one that the rescue began with"

log = logging.getLogger(__name__)


class RescueDevice(Uncopyable):
    """The device that a rescue reads; after it has left the bus, another disk from `reopen`. Close it."""

    def __init__(
        self, disk: Disk, identity: DiskIdentity, known: Known, *, reopen: Reopen | None, wait: float, timeout: float
    ) -> None:
        """`wait`: seconds for a device that is not ready, or has left the bus; `timeout`: for a look at a block."""
        self._identity = identity
        self._known = known
        self._reopen = reopen
        self._wait = wait
        self._timeout = timeout
        self._first = disk
        self.returns = 0
        """How often the device has come back."""
        self._use(disk)

    def _use(self, disk: Disk) -> None:
        self._disk = disk
        self._unit: LogicalUnit = disk.unit
        self._medium: Medium = disk.medium()
        self.max_blocks = disk.max_blocks
        self._settled = self._unit.doubts

    @property
    def waits(self) -> bool:
        """Whether `come_back` waits for it."""
        return self._reopen is not None

    @property
    def alone_from(self) -> int:
        """From this LBA on, each block is read by a separate command."""
        return self._medium.alone_from

    def close(self) -> None:
        """Close the disk if it came from `reopen`; the first one is the caller's."""
        if self._disk is not self._first:
            self._disk.close()

    # --- reading ----------------------------------------------------------------------------------

    def read(self, lba: int, blocks: int, timeout: float) -> bytes | None:
        """Return blocks, or None if they cannot be read by one command within `timeout` seconds.

        A device that did not answer, or broke the protocol, was recovered then, if necessary by a reset of its port.
        Raise DeviceGone if it has left the bus or does not answer at all, NotReady if it is not ready after the wait,
        DeviceMismatch if another medium is in it, and other errors that reading other blocks would not avoid.
        """
        last: ScsiUsbError | None = None
        for _ in range(MOST_ATTEMPTS):
            try:
                self._settle()
                data = read_once(self._unit, self._medium, lba, blocks, timeout=timeout)
                self._settle()  # after a reset in the course of the command, the data could be another medium's
            except (MediumChanged, NotReady) as error:
                self._await_medium(error)
                last = error
            except CheckCondition as error:
                if is_of_blocks(error.sense, Direction.IN):
                    log.info("LBA %d, %d blocks: %s", lba, blocks, error.what)
                    return None
                if isinstance(error, IllegalRequest):
                    raise
                last = error  # of an earlier command, or a unit attention
            except (DeviceGone, DeviceClosed, Cancelled):
                raise
            except TransportError as error:
                log.info("LBA %d, %d blocks: %s", lba, blocks, error.what)
                self._require_answer(error)
                return None
            else:
                return data
        assert last is not None
        raise last

    def _require_answer(self, error: TransportError) -> None:
        """Return if the device answers, after another reset of its port if necessary; else raise DeviceGone.

        Without this, a device that is dead would have all its blocks marked as failed.
        """
        try:
            ask(self._unit)
        except (DeviceGone, DeviceClosed, Cancelled):
            raise
        except TransportError:
            try:
                self._unit.transport.reset_port()
                ask(self._unit)
            except (DeviceGone, DeviceClosed, Cancelled):
                raise
            except TransportError as failure:
                raise _silent(self._unit, error) from failure

    # --- whether it is still the same -------------------------------------------------------------

    def recognize(self, *, is_thorough: bool, needs_proof: bool) -> None:
        """Raise DeviceMismatch if blocks that were rescued are not what they were; with `needs_proof`, if none is.

        Unless `is_thorough`, one block with distinct contents is enough. Some may differ: a desktop that mounts the
        disk between two runs writes to it. Raise NotReady, DeviceGone.
        """
        settled, readable, matching, differing = self._unit.doubts, 0, 0, list[int]()
        has_any = False
        for lba, wanted in self._known():
            has_any = True
            doubts = self._unit.doubts
            data = self._look(lba)
            if data is None:
                continue
            settled, readable = doubts, readable + 1
            if data != wanted:
                differing.append(lba)
            elif is_distinct(data):
                matching += 1
            if not is_thorough and matching > MOST_DIFFERING * len(differing):
                break
        if differing and matching < MOST_DIFFERING * len(differing):
            what = f"{len(differing)} of {readable} blocks do not have what was rescued from them, such as LBA"
            raise DeviceMismatch(f"{what} {differing[0]}: it is another device, or was overwritten", ATTACH)
        if has_any and needs_proof and not readable:
            raise DeviceMismatch("no block that was rescued can be read: it may be another device", ATTACH)
        if differing:
            log.warning("LBA %s: changed since it was rescued; the image has what it had before", differing[0])
        self._settled = settled if readable else self._unit.doubts

    def _look(self, lba: int) -> bytes | None:
        """Return a block that was rescued before; None if it cannot be read now."""
        try:
            return read_once(self._unit, self._medium, lba, 1, timeout=self._timeout)
        except (DeviceGone, DeviceClosed, Cancelled, MediumChanged, NotReady):
            raise
        except (CheckCondition, TransportError) as error:
            log.info("LBA %d was rescued, and cannot be read now: %s", lba, error.what)
            return None

    def _settle(self) -> None:
        """After something that may have hidden a change of a removable medium, find out whether it is the same."""
        if self._medium.is_removable and self._unit.doubts != self._settled:
            self._unit.transport.check_identity()
            self.recognize(is_thorough=False, needs_proof=True)

    def _await_medium(self, error: CheckCondition) -> None:
        """Return when the unit is ready, with the same medium; raise `error` after the wait, DeviceMismatch."""
        log.info("%s; waiting up to %g seconds", error.what, self._wait)
        deadline = time.monotonic() + self._wait
        while True:
            try:
                medium = find_medium(self._unit)
                self._check_size(medium)
                self._medium = medium
                self.recognize(is_thorough=True, needs_proof=True)
                return
            except (NotReady, MediumChanged) as failure:
                if time.monotonic() >= deadline:
                    raise error from failure
            except (DeviceGone, DeviceClosed, Cancelled):
                raise
            except TransportError as failure:
                raise _silent(self._unit, failure) from failure
            time.sleep(POLL)

    def _check_size(self, medium: Medium) -> None:
        identity = self._identity
        if (medium.blocks, medium.block_size) != (identity.blocks, identity.block_size):
            now, then = medium.blocks * medium.block_size, identity.blocks * identity.block_size
            raise DeviceMismatch(f"another medium is in the device: it has {now} bytes, not {then}", ATTACH)

    # --- waiting for it ---------------------------------------------------------------------------

    def come_back(self, error: DeviceGone) -> None:
        """Return when the device is open again; raise `error` after the wait, DeviceMismatch for another device."""
        if self._reopen is None:
            raise error
        log.info("%s; waiting up to %g seconds for it", error.what, self._wait)
        with suppress(ScsiUsbError):
            self._disk.close()  # a device that is attached, and does not answer, must not be shared
        deadline = time.monotonic() + self._wait
        while True:
            try:
                self._adopt(self._reopen())
                self.returns += 1
                return
            except (TransportError, CheckCondition, OSError) as failure:  # OSError: the file of a virtual stick
                if isinstance(failure, (DeviceClosed, Cancelled)) or time.monotonic() >= deadline:
                    raise error from failure
            time.sleep(POLL)

    def _adopt(self, disk: Disk) -> None:
        """Go on with `disk`, if it is the same device; else close it and raise."""
        try:
            DiskIdentity.of(disk).check(self._identity.record())
            self._use(disk)
            self.recognize(is_thorough=True, needs_proof=self._identity.serial is None)
        except BaseException:
            disk.close()
            raise


def _silent(unit: LogicalUnit, error: TransportError) -> DeviceGone:
    """Return the error for a device that is attached, and does not answer any command."""
    what = f"{unit.transport.info} does not answer, also after a reset of its port: {error.what}"
    return DeviceGone(what, "unplug it, plug it in again, and go on with the same image and map file")
