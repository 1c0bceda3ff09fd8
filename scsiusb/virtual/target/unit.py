"""A logical unit: its state, and the decoding of its commands."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from scsiusb.virtual.target import block, pages, primary
from scsiusb.virtual.target.media import Medium
from scsiusb.virtual.target.primary import INQUIRY, REPORT_LUNS, REQUEST_SENSE
from scsiusb.virtual.target.sense import (
    BECOMING_READY,
    INITIALIZING_COMMAND_REQUIRED,
    INVALID_COMMAND,
    INVALID_FIELD_IN_CDB,
    MEDIUM_CHANGED,
    MEDIUM_NOT_PRESENT,
    NO_SENSE,
    POWER_ON,
    Check,
    Sense,
)
from scsiusb.virtual.target.task import Task

_CDB_LENGTH: Mapping[int, int] = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # by GROUP CODE (SPC-4 4.2.5.1)
SERIAL = "000000000001"  # of a unit in a device that has no serial number
_NACA = 0x04  # of the CONTROL byte (SAM-5 5.2)


class Unit:
    """A logical unit with its medium, or without one.

    `becoming_ready` counts the commands that are still answered with LOGICAL UNIT IS IN PROCESS OF BECOMING READY.
    `serial`, for the vital product data; None: that of the stick's `Identity`.
    """

    def __init__(
        self,
        medium: Medium | None = None,
        *,
        device_type: int = pages.DISK,
        removable: bool = True,
        write_protected: bool = False,
        becoming_ready: int = 0,
        vendor: str = "scsiusb",
        product: str = "Virtual Stick",
        revision: str = "1.00",
        serial: str | None = None,
        version: int = 0x06,
        maximum_transfer: int = 0,
    ) -> None:
        if device_type not in block.COMMANDS:
            raise ValueError(f"no commands for peripheral device type {device_type:#04x}")
        self.device_type = device_type
        self.removable = removable
        self.write_protected = write_protected
        self.becoming_ready = becoming_ready
        self.vendor, self.product, self.revision = vendor, product, revision
        self.serial, self.device_serial = serial, SERIAL  # the latter is the stick's to set
        self.version = version  # of the standard INQUIRY data: 06h is SPC-4
        self.maximum_transfer = maximum_transfer  # in blocks; 0: no limit
        self.medium = medium
        self.units = 1  # how many the target has
        self.prevented = self.stopped = False
        self._tray: Medium | None = None  # ejected, but still there to be loaded
        self._sense = NO_SENSE
        self._attentions = [POWER_ON]
        self._lock = threading.RLock()
        self._commands = {**primary.COMMANDS, **block.COMMANDS[device_type]}

    @classmethod
    def cd_rom(cls, medium: Medium | None = None, *, product: str = "Virtual CD-ROM") -> Unit:
        if medium is not None:
            medium.read_only = True
        return cls(medium, device_type=pages.CD_ROM, product=product)

    # --- what the user does with it -------------------------------------------------------------

    def insert(self, medium: Medium) -> None:
        """Puts a medium in, in place of one that is there; the host sees UNIT ATTENTION 28h/00h."""
        with self._lock:
            self.medium, self._tray = medium, None
            self._changed()

    def remove(self) -> Medium | None:
        """Pulls the medium out, which PREVENT ALLOW MEDIUM REMOVAL cannot stop on a card reader."""
        with self._lock:
            medium, self.medium, self._tray = self.medium or self._tray, None, None
            return medium

    def power_on(self) -> None:
        """As after power-on or a reset of the port: UNIT ATTENTION 29h/00h is pending."""
        with self._lock:
            self._attentions = [POWER_ON]
            self._sense = NO_SENSE
            self.prevented = self.stopped = False

    def close(self) -> None:
        for medium in (self.medium, self._tray):
            if medium is not None:
                medium.close()

    # --- what the commands do with it -----------------------------------------------------------

    @property
    def is_write_protected(self) -> bool:
        return self.write_protected or (self.medium is not None and self.medium.read_only)

    def execute(self, cdb: bytes) -> Task:
        """Decodes and begins a command; a task that has failed already is one that moves no data."""
        with self._lock:
            if cdb[0] != REQUEST_SENSE:
                self._sense = NO_SENSE  # kept only until the next command (SPC-4 4.5.1)
            try:
                self._report_attention(cdb[0])
                return self._decode(cdb)
            except Check as check:
                self.keep_sense(check.sense)
                return Task(failed=True)

    def _report_attention(self, opcode: int) -> None:
        if self._attentions and opcode not in (INQUIRY, REQUEST_SENSE, REPORT_LUNS):
            raise Check(self._attentions.pop(0))

    def _decode(self, cdb: bytes) -> Task:
        command = self._commands.get(cdb[0])
        if command is None:
            raise Check(INVALID_COMMAND)
        length = _CDB_LENGTH[cdb[0] >> 5]
        if len(cdb) < length or cdb[length - 1] & _NACA:
            raise Check(INVALID_FIELD_IN_CDB)
        return command(self, cdb)

    def ready_medium(self) -> Medium:
        """The medium, if the unit is ready for a command that needs it."""
        if self.becoming_ready > 0:
            self.becoming_ready -= 1
            raise Check(BECOMING_READY)
        if self.medium is None:
            raise Check(MEDIUM_NOT_PRESENT)
        if self.stopped:
            raise Check(INITIALIZING_COMMAND_REQUIRED)
        return self.medium

    def inquiry(self) -> bytes:
        return pages.inquiry(
            self.device_type,
            removable=self.removable,
            version=self.version,
            vendor=self.vendor,
            product=self.product,
            revision=self.revision,
        )

    def keep_sense(self, sense: Sense) -> None:
        with self._lock:
            self._sense = sense

    def take_sense(self) -> Sense:
        """The sense that is kept, else a pending unit attention; either is reported once (SPC-4 6.39)."""
        sense, self._sense = self._sense, NO_SENSE
        if sense == NO_SENSE and self._attentions:
            return self._attentions.pop(0)
        return sense

    def eject(self) -> None:
        if self.medium is not None:
            self.medium, self._tray = None, self.medium

    def load(self) -> None:
        if self._tray is not None:
            self.medium, self._tray = self._tray, None
            self._changed()
        if self.medium is None:
            raise Check(MEDIUM_NOT_PRESENT)
        self.stopped = False

    def queue_attentions(self, attentions: int) -> None:
        """So many times UNIT ATTENTION 29h/00h, in place of those that are pending."""
        with self._lock:
            self._attentions = [POWER_ON] * attentions

    def _changed(self) -> None:
        self.stopped = False
        if MEDIUM_CHANGED not in self._attentions:
            self._attentions.append(MEDIUM_CHANGED)
