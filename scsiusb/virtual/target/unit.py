"""A logical unit: its state, and how it decodes commands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from scsiusb.virtual.target import block, optical, pages, primary, support, third_party_copy
from scsiusb.virtual.target.ata import PASS_THROUGH_12, PASS_THROUGH_16, AtaDisk
from scsiusb.virtual.target.burning import Disc
from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.media import Medium
from scsiusb.virtual.target.modes import DISK_PAGES, OPTICAL_PAGES, ModePages
from scsiusb.virtual.target.nvme import NvmeDisk
from scsiusb.virtual.target.primary import INQUIRY, REPORT_LUNS, REQUEST_SENSE
from scsiusb.virtual.target.reservations import Reservations
from scsiusb.virtual.target.sense import (
    BECOMING_READY,
    INITIALIZING_COMMAND_REQUIRED,
    INVALID_COMMAND,
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETERS,
    MEDIUM_CHANGED,
    MEDIUM_NOT_PRESENT,
    NO_SENSE,
    POWER_ON,
    CommandFailed,
    Sense,
)
from scsiusb.virtual.target.task import Parameters, Task
from scsiusb.virtual.target.whole_medium import Operation
from scsiusb.virtual.target.zoned import Zoned

_CDB_LENGTH: Mapping[int, int] = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # by GROUP CODE (SPC-4 4.2.5.1)
UNMAP = 0x42
Decode = Callable[["Unit", bytes], Task]
SERIAL = "000000000001"  # used when neither the unit nor the stick has a serial number
_NACA = 0x04  # in the CONTROL byte (SAM-5 5.2)


class Unit:
    """A logical unit with its medium, if any.

    `becoming_ready` is the number of commands that still fail with LOGICAL UNIT IS IN PROCESS OF BECOMING READY.
    `serial` is for the vital product data; None: the serial number of the stick's `Identity`.
    `version` is of the standard INQUIRY data: 06h is SPC-4. `maximum_transfer` is in blocks, 0: no limit.
    `thin`: UNMAP is supported; with `thin_zeros` the blocks read as zeros after it.
    `ata`: the ATA disk of which the unit is made, if any.
    `physical_exponent`: a physical block has so many logical ones, as a power of two.
    `copies`: EXTENDED COPY is supported, within the unit.

    Raises ValueError for a device type other than 00h (disk) and 05h (CD-ROM).
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
        thin: bool = False,
        thin_zeros: bool = True,
        ata: AtaDisk | None = None,
        physical_exponent: int = 0,
        copies: bool = False,
    ) -> None:
        if device_type not in block.COMMANDS:
            raise ValueError(f"peripheral device type {device_type:#04x} is not supported; use 0x00 or 0x05")
        self.device_type = device_type
        self.removable = removable
        self.write_protected = write_protected
        self.becoming_ready = becoming_ready
        self.vendor, self.product, self.revision = vendor, product, revision
        self.serial, self.device_serial = serial, SERIAL  # the stick sets `device_serial`
        self.version = version
        self.maximum_transfer = maximum_transfer
        self.thin, self.thin_zeros = thin, thin_zeros
        self.ata = ata
        self.physical_exponent = physical_exponent
        self.nvme: NvmeDisk | None = None
        self.modes = ModePages(DISK_PAGES if device_type == pages.DISK else OPTICAL_PAGES)
        self.medium = medium
        self.units = 1  # number of units of the target, which sets it
        self.prevented = self.stopped = False
        self._tray: Medium | None = None  # the ejected medium, which can be loaded again
        self._sense = NO_SENSE
        self._attentions = [POWER_ON]
        self._lock = threading.RLock()
        self.kept = support.Kept()
        self.reservations = Reservations()
        self.grown: list[int] = []  # reassigned blocks
        self.operation: Operation | None = None  # a format or sanitize in progress
        more = support.COMMANDS if device_type == pages.DISK else optical.COMMANDS
        self._commands = {**primary.COMMANDS, **block.COMMANDS[device_type], **more}
        self.services: dict[int, Mapping[int, Decode]] = dict(support.SERVICES)
        """By operation code, the commands of each service action."""
        self.has_vpd = True
        self.zones: Zoned | None = None
        """The medium of a unit with zones."""
        self.disc: Disc | None = None
        """The disc of a drive that can write it."""
        self.copies: third_party_copy.Copies | None = None
        """The results of EXTENDED COPY, where that is supported."""
        self._added: dict[int, Decode] = {}
        if copies:
            third_party_copy.furnish(self)

    @classmethod
    def cd_rom(cls, medium: Medium | None = None, *, product: str = "Virtual CD-ROM") -> Unit:
        """Return a CD-ROM drive; its medium becomes read-only."""
        if medium is not None:
            medium.read_only = True
        return cls(medium, device_type=pages.CD_ROM, product=product)

    # --- actions of the user --------------------------------------------------------------------

    def insert(self, medium: Medium) -> None:
        """Insert a medium, replacing the present one if any; the host gets UNIT ATTENTION 28h/00h."""
        with self._lock:
            self.medium, self._tray = medium, None
            self._changed()

    def remove(self) -> Medium | None:
        """Remove the medium and return it, if any; as in a card reader, even if the host prevents medium removal."""
        with self._lock:
            medium, self.medium, self._tray = self.medium or self._tray, None, None
            return medium

    def power_on(self) -> None:
        """Enter the state after power-on or a port reset: UNIT ATTENTION 29h/00h is pending."""
        with self._lock:
            self._attentions = [POWER_ON]
            self._sense = NO_SENSE
            self.prevented = self.stopped = False
            self.modes.power_on()
            if self.ata is not None:
                self.ata.power_on()
            for medium in (self.medium, self._tray):
                if medium is not None:
                    medium.power_on()

    def close(self) -> None:
        """Close the medium; may be called again."""
        for medium in (self.medium, self._tray):
            if medium is not None:
                medium.close()

    def add_data_in(self, opcode: int, reply: Callable[[bytes], bytes]) -> None:
        """Add a vendor's command with data-in: `reply` gets the CDB and returns the data.

        A ValueError that it raises is reported as INVALID FIELD IN CDB.
        """
        self.add(opcode, lambda unit, cdb: _reply(reply, cdb))

    def add_data_out(self, opcode: int, act: Callable[[bytes, bytes], None], length: Callable[[bytes], int]) -> None:
        """Add a vendor's command with data-out: `act` gets the CDB and the data, of `length(cdb)` bytes.

        A ValueError that `act` raises is reported as INVALID FIELD IN PARAMETER LIST.
        """
        self.add(opcode, lambda unit, cdb: act_on(unit, length(cdb), lambda data: _take(act, cdb, data)))

    def add(self, opcode: int, decode: Decode) -> None:
        """Add a vendor's command, or replace one: `decode` gets the unit and the CDB, whose bytes are all its own."""
        self._added[opcode] = decode

    def withdraw(self, *opcodes: int) -> None:
        """Support these commands no more."""
        for opcode in opcodes:
            self._commands.pop(opcode, None)

    # --- commands -------------------------------------------------------------------------------

    @property
    def is_write_protected(self) -> bool:
        """Whether the unit or its medium is write protected, or the host has protected it."""
        return (
            self.write_protected or self.modes.is_write_protected or (self.medium is not None and self.medium.read_only)
        )

    def execute(self, cdb: bytes) -> Task:
        """Decode and start a command; for one that fails at once, return a task that has failed and moves no data."""
        with self._lock:
            if cdb[0] != REQUEST_SENSE:
                self._sense = NO_SENSE  # kept only until the next command (SPC-4 4.5.1)
            try:
                if self.ata is not None:
                    self.ata.note(cdb[0])
                self._report_attention(cdb[0])
                self._report_operation(cdb[0])
                return self._decode(cdb)
            except CommandFailed as failure:
                self.keep_sense(failure.sense)
                return Task(failed=True)

    def _report_attention(self, opcode: int) -> None:
        if self._attentions and opcode not in (INQUIRY, REQUEST_SENSE, REPORT_LUNS):
            raise CommandFailed(self._attentions.pop(0))

    def _report_operation(self, opcode: int) -> None:
        if self.operation is not None and opcode not in (INQUIRY, REQUEST_SENSE, REPORT_LUNS):
            sense = self._advance()
            if sense is not None:
                raise CommandFailed(sense)

    def _advance(self) -> Sense | None:
        if self.operation is None:
            return None
        sense = self.operation.advance()
        if self.operation.is_over:
            self.operation = None
        return sense

    @property
    def opcodes(self) -> list[int]:
        """The operation codes of all commands that the unit supports, in order."""
        missing = {UNMAP: not self.thin, PASS_THROUGH_16: self.ata is None, PASS_THROUGH_12: self.ata is None}
        return sorted({code for code in self._commands if not missing.get(code)} | self._added.keys())

    @property
    def translates_ata(self) -> bool:
        """Whether there is an ATA disk whose commands are translated (SAT)."""
        return self.ata is not None and PASS_THROUGH_16 in self._commands

    @staticmethod
    def cdb_length(opcode: int) -> int:
        """Return the bytes of a CDB; 10 for those of groups that have no length in the standard."""
        return _CDB_LENGTH.get(opcode >> 5, _CDB_LENGTH[1])

    def _decode(self, cdb: bytes) -> Task:
        if cdb[0] in self._added:
            return self._decode_added(cdb)
        command = self._commands.get(cdb[0])
        if command is None:
            raise CommandFailed(INVALID_COMMAND)
        length = _CDB_LENGTH.get(cdb[0] >> 5, len(cdb))
        if len(cdb) < length or cdb[length - 1] & _NACA:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return command(self, cdb)

    def serve(self, cdb: bytes) -> Task:
        """Decode a command by its service action, and start it. Raises `CommandFailed`."""
        command = self.services[cdb[0]].get(cdb[1] & 0x1F)
        if command is None:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return command(self, cdb)

    def _decode_added(self, cdb: bytes) -> Task:
        """Run a vendor's command; a CDB that is shorter than what it looks at is refused."""
        try:
            return self._added[cdb[0]](self, cdb)
        except IndexError as error:
            raise CommandFailed(INVALID_FIELD_IN_CDB) from error

    def ready_medium(self) -> Medium:
        """Return the medium for a command that needs it; raises `CommandFailed` if the unit is not ready."""
        if self.becoming_ready > 0:
            self.becoming_ready -= 1
            raise CommandFailed(BECOMING_READY)
        if self.medium is None:
            raise CommandFailed(MEDIUM_NOT_PRESENT)
        if self.stopped:
            raise CommandFailed(INITIALIZING_COMMAND_REQUIRED)
        return self.medium

    def inquiry(self) -> bytes:
        """Return the standard INQUIRY data."""
        return pages.inquiry(
            self.device_type,
            removable=self.removable,
            version=self.version,
            vendor=self.vendor,
            product=self.product,
            revision=self.revision,
        )

    def keep_sense(self, sense: Sense) -> None:
        """Keep the sense of a command that failed, until the next command."""
        with self._lock:
            self._sense = sense

    def take_sense(self) -> Sense:
        """Return the kept sense, or else a pending unit attention; each is reported once (SPC-4 6.39)."""
        sense, self._sense = self._sense, NO_SENSE
        if sense == NO_SENSE and self.operation is not None:
            return self._advance() or NO_SENSE
        if sense == NO_SENSE and self._attentions:
            return self._attentions.pop(0)
        return sense

    def eject(self) -> None:
        """Eject the medium, if any; it can be loaded again."""
        if self.medium is not None:
            self.medium, self._tray = None, self.medium

    def load(self) -> None:
        """Load the ejected medium, if any, and start the unit; raises `CommandFailed` if there is no medium."""
        if self._tray is not None:
            self.medium, self._tray = self._tray, None
            self._changed()
        if self.medium is None:
            raise CommandFailed(MEDIUM_NOT_PRESENT)
        self.stopped = False

    def queue_attentions(self, attentions: int) -> None:
        """Replace the pending unit attentions by `attentions` times POWER ON (29h/00h)."""
        with self._lock:
            self._attentions = [POWER_ON] * attentions

    def _changed(self) -> None:
        self.stopped = False
        if MEDIUM_CHANGED not in self._attentions:
            self._attentions.append(MEDIUM_CHANGED)


def _reply(reply: Callable[[bytes], bytes], cdb: bytes) -> Task:
    try:
        data = reply(cdb)
    except ValueError as error:
        raise CommandFailed(INVALID_FIELD_IN_CDB) from error
    return Parameters(data, len(data))


def _take(act: Callable[[bytes, bytes], None], cdb: bytes, data: bytes) -> None:
    try:
        act(cdb, data)
    except ValueError as error:
        raise CommandFailed(INVALID_FIELD_IN_PARAMETERS) from error
