"""The device under test: commands with requirements on how they end, and recovery between two checks."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.conformance.exchange import Exchange, ExchangeResult, Request
from scsiusb.conformance.outcome import NotApplicable, Violation
from scsiusb.conformance.synchronization import Synchronizer
from scsiusb.errors import DeviceGone, DeviceTimeout, MalformedReply, TransferStalled, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.commands.sbc import (
    TOO_LARGE_FOR_10,
    LongCapacity,
    Read10,
    Read16,
    ReadCapacity10,
    ReadCapacity16,
    SynchronizeCache10,
)
from scsiusb.scsi.commands.spc import Inquiry, RequestSense
from scsiusb.scsi.pages.inquiry import CD_ROM, InquiryData
from scsiusb.scsi.sense import ILLEGAL_REQUEST, NOT_READY, UNIT_ATTENTION, Sense
from scsiusb.transport.base import FAILED
from scsiusb.transport.bot.formats import STATUS_PHASE_ERROR
from scsiusb.usb.interface import InterfaceInfo

MAX_ATTENTIONS: Final = 32
READY_TIMEOUT: Final = 30.0  # seconds to wait before the first check for a unit that is becoming ready
INTERVAL: Final = 0.25  # seconds between two polls meanwhile
LARGEST_BLOCK: Final = 0x10000  # bytes; a larger block size is not believed
MOST_BLOCKS: Final = 1 << 55  # 2^64 bytes in blocks of 512; a larger capacity is not believed
INVALID_OPCODE: Final = (0x5, 0x20, 0x00)
INVALID_FIELD: Final = (0x5, 0x24, 0x00)
LBA_OUT_OF_RANGE: Final = (0x5, 0x21, 0x00)
BAD_LBA: Final = 0x21  # ASC: the command is supported, its LBA is not
MEDIUM_CHANGED: Final = 0x28  # ASC: the medium may have changed


@dataclass(frozen=True)
class Area:
    """The range of blocks that checks may overwrite."""

    lba: int
    blocks: int


class DeviceUnderTest:
    """One logical unit under test.

    The methods that run commands raise Violation if the device breaks a rule, TransportError if it fails to respond,
    and DeviceGone if it is unplugged.
    """

    def __init__(self, exchange: Exchange, max_lun: int, area: Area | None = None) -> None:
        self.exchange = exchange
        self.max_lun = max_lun
        self.area = area
        self.not_ready = "TEST UNIT READY was not sent"  # why the unit is not ready; empty if it may be
        self.recovers = True  # reset recovery works (class reset, both halts cleared)
        self.medium_changed = False  # since the first check began
        self._step = Synchronizer(exchange)
        self._is_reset = False
        self._is_becoming_ready = False
        self._was_ready = False  # before the check
        self._standard: InquiryData | None = None
        self._capacity: LongCapacity | None = None

    @property
    def info(self) -> InterfaceInfo:
        """The USB interface of the device."""
        return self.exchange.port.info

    @property
    def lun(self) -> int:
        """The number of the logical unit."""
        return self.exchange.lun

    @property
    def is_ready(self) -> bool:
        """Whether the unit is ready: True unless TEST UNIT READY failed with sense data that gives a reason."""
        return not self.not_ready

    # --- commands -------------------------------------------------------------------------------

    def run(
        self, request: Request, length: int | None = None, payload: bytes | None = None, **fields: int | None
    ) -> ExchangeResult:
        """Run a command that must end with a valid CSW; any status is allowed. Raises Violation."""
        return self.exchange.command(request, length, None, payload, **fields).require_csw()

    def good(self, request: Request, length: int | None = None, payload: bytes | None = None) -> ExchangeResult:
        """Run a command that must succeed, and retry it after a unit attention.

        Raises Violation if it fails, and MediumChanged if the medium changed while there is a range to overwrite.
        """
        result, sense = self._attempt(request, length, payload)
        if sense is not None:
            raise Violation(result.asked, f"{result.description}, sense {sense.codes}", "status 0")
        result.require(result.is_good, "status 0")
        return result

    def optional(self, request: Request, length: int | None = None) -> ExchangeResult:
        """Run an optional command. NotApplicable if the unit refuses it or is not ready; Violation if it fails."""
        result, sense = self._attempt(request, length)
        if sense is None:
            result.require(result.is_good, "status 0 or 1")
            return result
        if sense.key == ILLEGAL_REQUEST and sense.asc != BAD_LBA:
            raise NotApplicable(f"{request} is not supported: sense {sense.codes}")
        if sense.key == NOT_READY and not self.is_ready:
            raise NotApplicable(f"{request}: the unit is not ready, sense {sense.codes}")
        expected = "status 0, or sense 5/20/00 if it is not supported"
        raise Violation(result.asked, f"{result.description}, sense {sense.codes}", expected)

    def works(self, request: Request) -> bool:
        """Run a command and return whether it succeeds, for checks of something else that need it."""
        result, sense = self._attempt(request)
        return sense is None and result.is_good

    def flush(self) -> None:
        """Send SYNCHRONIZE CACHE(10), so that written data is on the medium. A device without a cache may refuse it."""
        if Quirk.NO_SYNCHRONIZE_CACHE in self.exchange.port.quirks:
            return
        result, sense = self._attempt(SynchronizeCache10())
        if sense is not None and (sense.key, sense.asc, sense.ascq) not in (INVALID_OPCODE, INVALID_FIELD):
            raise Violation(result.asked, f"{result.description}, sense {sense.codes}", "status 0, or sense 5/20/00")
        result.require(result.status <= FAILED, "status 0 or 1")

    def _attempt(
        self, request: Request, length: int | None = None, payload: bytes | None = None
    ) -> tuple[ExchangeResult, Sense | None]:
        """Run a command, and retry it after a unit attention. Also return the sense data if it failed."""
        for _ in range(MAX_ATTENTIONS):
            result = self.run(request, length, payload)
            sense = self.sense_of(result) if result.is_failed else None
            if sense is None or sense.key != UNIT_ATTENTION:
                return result, sense
            self.require_same_medium()
        raise result.wrong(f"at most {MAX_ATTENTIONS} unit attentions in a row")

    def refused(self, request: Request, *expected: tuple[int, int, int], length: int | None = None) -> str:
        """Run a command that must fail with one of the `expected` sense codes; return a text with the code."""
        result = self.run(request, length)
        codes = " or ".join(f"{key:X}/{asc:02X}/{ascq:02X}" for key, asc, ascq in expected)
        result.require(result.is_failed, f"status 1 with sense {codes}")
        sense = self.sense_of(result)
        # Of two errors, the unit may report either: that it is not ready, or what is wrong with the command.
        is_not_ready = sense.key == NOT_READY and not self.is_ready
        if (sense.key, sense.asc, sense.ascq) not in expected and not is_not_ready:
            raise Violation(result.asked, f"status 1 with sense {sense.codes}", f"sense {codes}")
        return f"{request}: {sense.codes}"

    def sense_of(self, result: ExchangeResult) -> Sense:
        """Send REQUEST SENSE after a command that must have failed."""
        result.require(result.is_failed, "status 1")
        return self.sense()

    def sense(self) -> Sense:
        """Send REQUEST SENSE and return the sense data; note a medium change."""
        reply = self.run(RequestSense())
        reply.require(reply.is_good, "status 0: REQUEST SENSE must not fail (SPC-4 6.39)")
        sense = Sense.parse(reply.data)
        if sense.is_unreadable:
            raise Violation(reply.asked, str(sense), "sense data in fixed format (SPC-4 4.5.3)")
        if (sense.key, sense.asc) == (UNIT_ATTENTION, MEDIUM_CHANGED) and not self._is_reset:
            self.medium_changed = True
        return sense

    # --- identity and capacity -----------------------------------------------------------------------------

    @property
    def standard(self) -> InquiryData:
        """The standard INQUIRY data, read once. Raises NotApplicable if it cannot be read."""
        if self._standard is None:
            try:
                self._standard = InquiryData.parse(self.good(Inquiry()).data)
            except MalformedReply as error:
                raise NotApplicable(error.what) from error
            except Violation as violation:
                raise NotApplicable(f"INQUIRY fails: {violation}") from violation
        return self._standard

    @property
    def is_cd_rom(self) -> bool:
        """Whether INQUIRY reports a CD-ROM drive."""
        return self.standard.peripheral_device_type == CD_ROM

    @property
    def capacity(self) -> LongCapacity:
        """The capacity, read once. Raises NotApplicable if it is not plausible."""
        if self._capacity is None:
            reply = self.good(ReadCapacity10())
            found = _parsed(bytes(4) + reply.data)  # READ CAPACITY(10) has an LBA of 4 bytes instead of 8
            if found.last_lba == TOO_LARGE_FOR_10:
                found = _parsed(self.good(ReadCapacity16()).data)
            if not 0 < found.block_size <= LARGEST_BLOCK or found.block_size % 4:
                raise NotApplicable(f"the block size of {found.block_size} bytes is not plausible")
            if found.last_lba >= MOST_BLOCKS:
                raise NotApplicable(f"the last LBA {found.last_lba} is not plausible")
            self._capacity = found
        return self._capacity

    @property
    def block_size(self) -> int:
        """Bytes in a block."""
        return self.capacity.block_size

    def read(self, lba: int, blocks: int) -> bytes:
        """Return the content of blocks; the device must return all of it."""
        result = self.good(self.reading(lba, blocks))
        result.require(result.moved == result.length, f"{result.length} bytes of data")
        return result.data

    def reading(self, lba: int, blocks: int) -> Read10 | Read16:
        """Return a READ(10), or READ(16) where the LBA needs it. NotApplicable if the medium has fewer blocks."""
        if blocks > self.capacity.blocks:
            raise NotApplicable(f"the medium has fewer than {blocks} blocks")
        kind = Read10 if lba + blocks - 1 < TOO_LARGE_FOR_10 else Read16
        return kind(lba, blocks, block_size=self.block_size)

    def area_of(self, blocks: int) -> int:
        """Return the first LBA of a range that may be overwritten. Raises MediumChanged, NotApplicable."""
        self.require_same_medium()
        area = self.area
        if area is None or area.blocks < blocks or area.lba + blocks > self.capacity.blocks:
            raise NotApplicable(f"needs a range of at least {blocks} blocks that may be overwritten")
        if self._step.accepts_any:
            raise NotApplicable("nothing is written: the device did not send a correct CSW before the first check")
        return area.lba

    def require_same_medium(self) -> None:
        """Raise MediumChanged if the medium has changed and there is a range to overwrite."""
        if self.medium_changed and self.area is not None:
            raise MediumChanged("the medium was changed, and the range to overwrite was given for the old medium")

    # --- recovery --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Recover the device before the first check, and wait for a unit that is becoming ready."""
        if not self._recovered_and_settled():
            self.recovers = False
            self.exchange.port.reset()
            if not self.settle():
                self._step.accepts_any = True  # a device that never sends a correct CSW can be tested
                if not self.settle():
                    raise DeviceDead(f"the device does not respond, not even after a port reset: {self.problem}")
        self._wait_until_ready()
        self.medium_changed = False
        self._was_ready = self.is_ready

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not self.is_ready and self._is_becoming_ready and time.monotonic() < deadline:
            time.sleep(INTERVAL)
            self.settle()

    def reset_port(self) -> None:
        """Reset the port for a check.

        Many devices report a medium change after a reset; until `settle`, it is not taken for one.
        """
        self._is_reset = True
        self.exchange.port.reset()

    @property
    def stale(self) -> int:
        """How many bytes of the check's commands were still in bulk-in after the last reset recovery."""
        return self._step.stale

    def revive(self) -> str:
        """Recover the device after a check; return what to add to its result. Raises DeviceDead if nothing helps."""
        self.note_failure()
        self._step.stale = 0
        note = ""
        if not (self.recovers and self._recovered_and_settled()):
            self.exchange.port.reset()
            if not self.settle():
                raise DeviceDead(f"the device does not get into step again, not even by a port reset: {self.problem}")
            note = "after the check, the device responded only after a port reset" if self.recovers else ""
        self._wait_until_ready()
        was_ready, self._was_ready = self._was_ready, self.is_ready
        if was_ready and not self.is_ready:
            note += f"{'; ' * bool(note)}after the check, the unit was not ready any more: {self.not_ready}"
        return note

    @property
    def problem(self) -> str:
        """What TEST UNIT READY got instead of its CSW, the last time."""
        return self._step.problem

    def _recovered_and_settled(self) -> bool:
        try:
            self.exchange.reset_recovery()
        except DeviceGone:
            raise
        except TransportError as error:
            self._step.problem = error.what
            return False
        return self.settle()

    def settle(self) -> bool:
        """Get into step and clear pending unit attentions. Return False, with a `problem`, if the device does not."""
        try:
            return self._settle()
        finally:
            self._is_reset = False

    def _settle(self) -> bool:
        self.not_ready, self._is_becoming_ready = "", False
        for _ in range(MAX_ATTENTIONS):
            result = self._step.synchronize()
            if result is None:
                return False
            if result.has_csw and result.status == STATUS_PHASE_ERROR:  # it waits for a reset recovery
                return self._step_after_recovery()
            if not result.is_failed:
                return True
            sense = self._sense_or_none()
            if sense is None:
                return self._step.synchronize() is not None
            if sense.key != UNIT_ATTENTION:
                # A unit that fails for another reason, or without any, is not skipped: its commands show what is wrong.
                if sense.key in (NOT_READY, ILLEGAL_REQUEST):
                    self.not_ready = f"TEST UNIT READY fails with sense {sense.codes}"
                self._is_becoming_ready = sense.is_becoming_ready
                return True
        return True

    def _step_after_recovery(self) -> bool:
        with suppress(TransferStalled, DeviceTimeout):
            self.exchange.reset_recovery()
        return True

    def note_failure(self) -> None:
        """Fetch the sense data of the last command if the check did not: it may report a medium change."""
        last = self.exchange.last
        if self.area is not None and last is not None and last.is_failed:
            self._sense_or_none()

    def _sense_or_none(self) -> Sense | None:
        """Return the sense data, or None if the reply is wrong."""
        try:
            return self.sense()
        except DeviceGone:
            raise
        except (Violation, TransportError):
            # The failed REQUEST SENSE may have left the device in the middle of an exchange.
            with suppress(TransferStalled, DeviceTimeout):
                self.exchange.reset_recovery()
            return None


class DeviceDead(Exception):
    """The device does not respond, not even after a port reset."""


class NotPutBack(Exception):
    """The old content of blocks that a check overwrote could not be restored."""


class MediumChanged(Exception):
    """The medium in the device is not the one for which the range to overwrite was given."""


def _parsed(data: bytes) -> LongCapacity:
    try:
        return LongCapacity.parse(data)
    except MalformedReply as error:
        raise NotApplicable(error.what) from error
