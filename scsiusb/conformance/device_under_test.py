"""The device on the device: what a check asks of it, and how it is brought back into step between two checks."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from scsiusb.base.dataclass import dataclass
from scsiusb.conformance.exchange import Exchange, ExchangeResult, Request
from scsiusb.conformance.outcome import NotApplicable, Violation
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
from scsiusb.scsi.commands.spc import Inquiry, RequestSense, TestUnitReady
from scsiusb.scsi.pages.inquiry import CD_ROM, InquiryData
from scsiusb.scsi.sense import NOT_READY, UNIT_ATTENTION, Sense
from scsiusb.transport.base import FAILED
from scsiusb.usb.interface import InterfaceInfo

MOST_ATTENTIONS: Final = 32
PATIENCE: Final = 30.0  # seconds for a unit to become ready, once
INTERVAL: Final = 0.25
LARGEST_BLOCK: Final = 0x10000
MOST_BLOCKS: Final = 1 << 55  # 2 to the 64 bytes
INVALID_OPCODE: Final = (0x5, 0x20, 0x00)
INVALID_FIELD: Final = (0x5, 0x24, 0x00)
LBA_OUT_OF_RANGE: Final = (0x5, 0x21, 0x00)
MEDIUM_CHANGED: Final = 0x28  # ASC: the medium may have changed


@dataclass(frozen=True)
class Area:
    """The blocks that may be overwritten."""

    lba: int
    blocks: int


class DeviceUnderTest:
    """One logical unit under test."""

    def __init__(self, exchange: Exchange, max_lun: int, area: Area | None = None) -> None:
        self.exchange = exchange
        self.max_lun = max_lun
        self.area = area
        self.is_ready = False
        self.recovers = True  # by class reset and cleared halts
        self.medium_changed = False  # since the first check began
        self._is_reset = False
        self._lies_about_tags = False
        self._standard: InquiryData | None = None
        self._capacity: LongCapacity | None = None

    @property
    def info(self) -> InterfaceInfo:
        return self.exchange.port.info

    @property
    def lun(self) -> int:
        return self.exchange.lun

    # --- commands -------------------------------------------------------------------------------

    def run(
        self, request: Request, length: int | None = None, payload: bytes | None = None, **fields: int | None
    ) -> ExchangeResult:
        """A command whose exchange must come to its end, whatever its status."""
        return self.exchange.command(request, length, None, payload, **fields).require_csw()

    def good(self, request: Request, length: int | None = None, payload: bytes | None = None) -> ExchangeResult:
        """A command that must succeed; a unit attention may come before. MediumChanged where a range is named."""
        ended, sense = self._attempt(request, length, payload)
        if sense is not None:
            raise Violation(ended.asked, f"{ended.words}, sense {sense.codes}", "status 0")
        ended.require(ended.is_good, "status 0")
        return ended

    def optional(self, request: Request, length: int | None = None) -> ExchangeResult:
        """A command that a device need not have."""
        ended, sense = self._attempt(request, length)
        if sense is not None:
            raise NotApplicable(f"{request} is refused with sense {sense.codes}")
        ended.require(ended.is_good, "status 0 or 1")
        return ended

    def flush(self) -> None:
        """What was written is on the medium then; a device without a cache need not know the command."""
        if Quirk.NO_SYNCHRONIZE_CACHE in self.exchange.port.quirks:
            return
        ended, sense = self._attempt(SynchronizeCache10())
        if sense is not None and (sense.key, sense.asc, sense.ascq) not in (INVALID_OPCODE, INVALID_FIELD):
            raise Violation(ended.asked, f"{ended.words}, sense {sense.codes}", "status 0, or sense 5/20/00")
        ended.require(ended.status <= FAILED, "status 0 or 1")

    def _attempt(
        self, request: Request, length: int | None = None, payload: bytes | None = None
    ) -> tuple[ExchangeResult, Sense | None]:
        """Again while there are unit attentions; the sense is that of a failure."""
        for _ in range(MOST_ATTENTIONS):
            ended = self.run(request, length, payload)
            sense = self.sense_of(ended) if ended.is_failed else None
            if sense is None or sense.key != UNIT_ATTENTION:
                return ended, sense
            self.require_same_medium()
        raise ended.wrong("an end of the unit attentions")

    def refused(self, request: Request, *rights: tuple[int, int, int], length: int | None = None) -> str:
        """A command that must fail with one of these senses."""
        ended = self.run(request, length)
        right = " or ".join(f"{key:X}/{asc:02X}/{ascq:02X}" for key, asc, ascq in rights)
        ended.require(ended.is_failed, f"status 1 with sense {right}")
        sense = self.sense_of(ended)
        is_not_ready = sense.key == NOT_READY and not self.is_ready  # which of two errors is told is the unit's choice
        if (sense.key, sense.asc, sense.ascq) not in rights and not is_not_ready:
            raise Violation(ended.asked, f"status 1 with sense {sense.codes}", f"sense {right}")
        return f"{request}: {sense.codes}"

    def sense_of(self, ended: ExchangeResult) -> Sense:
        """REQUEST SENSE behind a command that failed."""
        ended.require(ended.is_failed, "status 1")
        return self.sense()

    def sense(self) -> Sense:
        reply = self.run(RequestSense())
        reply.require(reply.is_good, "status 0: REQUEST SENSE does not fail (SPC-4 6.39)")
        try:
            sense = Sense.parse(reply.data)
        except MalformedReply as error:
            raise Violation(reply.asked, error.what, "sense data in fixed format (SPC-4 4.5.3)") from error
        if (sense.key, sense.asc) == (UNIT_ATTENTION, MEDIUM_CHANGED) and not self._is_reset:
            self.medium_changed = True
        return sense

    # --- what it is -----------------------------------------------------------------------------

    @property
    def standard(self) -> InquiryData:
        """Its INQUIRY data."""
        if self._standard is None:
            try:
                self._standard = InquiryData.parse(self.good(Inquiry()).data)
            except MalformedReply as error:
                raise NotApplicable(error.what) from error
            except Violation as violation:
                raise NotApplicable(f"INQUIRY does not work: {violation}") from violation
        return self._standard

    @property
    def is_cd_rom(self) -> bool:
        return self.standard.peripheral_device_type == CD_ROM

    @property
    def capacity(self) -> LongCapacity:
        if self._capacity is None:
            reply = self.good(ReadCapacity10())
            found = _parsed(bytes(4) + reply.data)  # its LBA has half the width
            if found.last_lba == TOO_LARGE_FOR_10:
                found = _parsed(self.good(ReadCapacity16()).data)
            if not 0 < found.block_size <= LARGEST_BLOCK or found.block_size % 4:
                raise NotApplicable(f"a block size of {found.block_size} bytes cannot be")
            if found.last_lba >= MOST_BLOCKS:
                raise NotApplicable(f"a last LBA of {found.last_lba} cannot be")
            self._capacity = found
        return self._capacity

    @property
    def block_size(self) -> int:
        return self.capacity.block_size

    def read(self, lba: int, blocks: int) -> bytes:
        """Blocks that must come in full."""
        ended = self.good(self.reading(lba, blocks))
        ended.require(ended.moved == ended.length, f"{ended.length} bytes of data")
        return ended.data

    def reading(self, lba: int, blocks: int) -> Read10 | Read16:
        if blocks > self.capacity.blocks:
            raise NotApplicable(f"the medium has fewer than {blocks} blocks")
        kind = Read10 if lba + blocks - 1 < TOO_LARGE_FOR_10 else Read16
        return kind(lba, blocks, block_size=self.block_size)

    def area_of(self, blocks: int) -> int:
        """The first LBA of a range that may be overwritten. MediumChanged: it was one of another medium."""
        self.require_same_medium()
        area = self.area
        if area is None or area.blocks < blocks or area.lba + blocks > self.capacity.blocks:
            raise NotApplicable(f"needs a range of {blocks} blocks that may be overwritten")
        return area.lba

    def require_same_medium(self) -> None:
        if self.medium_changed and self.area is not None:
            raise MediumChanged("the medium was changed, and the range was named for the old one")

    # --- in step --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Before the first check: is it alive, does it recover, does it become ready?"""
        if not self._recovered_and_settled():
            self.recovers = False
            self.revive()
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready and self._is_becoming_ready and time.monotonic() < deadline:
            time.sleep(INTERVAL)
            self.settle()
        self.medium_changed = False

    def reset_port(self) -> None:
        """For a check; many a device calls its medium changed then, until it has settled."""
        self._is_reset = True
        self.exchange.port.reset()

    def revive(self) -> str:
        """In step again after a check; returns what is to be said of how it came there. DeviceDead if not at all."""
        self.note_failure()
        if self.recovers and self._recovered_and_settled():
            return ""
        self.exchange.port.reset()
        if not self.settle():
            raise DeviceDead("the device does not answer any more, not even after a port reset")
        return "afterwards the device answered only when its port was reset" if self.recovers else ""

    def _recovered_and_settled(self) -> bool:
        try:
            self.exchange.reset_recovery()
        except DeviceGone:
            raise
        except TransportError:
            return False
        return self.settle()

    def settle(self) -> bool:
        """Takes away pending unit attentions; False: it does not answer."""
        try:
            return self._settle()
        finally:
            self._is_reset = False

    def _settle(self) -> bool:
        self.is_ready = self._is_becoming_ready = False
        for _ in range(MOST_ATTENTIONS):
            try:
                ended = self.exchange.command(TestUnitReady())
            except DeviceGone:
                raise
            except TransportError:
                return False
            if ended.has_csw and ended.fields[1] != ended.tag and not self._catch_up(ended):
                return True
            if not ended.is_failed:
                self.is_ready = ended.is_good
                return ended.is_answered
            sense = self._sense_or_none()
            if sense is None or sense.key != UNIT_ATTENTION:
                self._is_becoming_ready = sense is not None and sense.is_becoming_ready
                return True
        return True

    def _catch_up(self, ended: ExchangeResult) -> bool:
        """A CSW from before the recovery came first: takes the right one; False: the device only lies about tags."""
        if self._lies_about_tags:
            return True
        again = self.exchange.status(ended)
        self._lies_about_tags = not again.has_csw
        return self._lies_about_tags

    def note_failure(self) -> None:
        """The sense of the last command, which nobody asked for, may be that the medium was changed."""
        last = self.exchange.last
        if self.area is not None and last is not None and last.is_failed:
            self._sense_or_none()

    def _sense_or_none(self) -> Sense | None:
        """For a device that answers, but may do so wrongly."""
        try:
            return self.sense()
        except DeviceGone:
            raise
        except (Violation, TransportError):
            with suppress(TransferStalled, DeviceTimeout):
                self.exchange.reset_recovery()
            return None


class DeviceDead(Exception):
    """Nothing that can be done from here brings the device back."""


class NotPutBack(Exception):
    """Blocks that a check wrote to do not have their old content again."""


class MediumChanged(Exception):
    """Another medium is in the device than the one whose blocks may be overwritten."""


def _parsed(data: bytes) -> LongCapacity:
    try:
        return LongCapacity.parse(data)
    except MalformedReply as error:
        raise NotApplicable(error.what) from error
