"""One logical unit: executes commands, fetches the sense of one that fails, and retries if that can help."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, cast

from scsiusb.base.copying import Uncopyable
from scsiusb.errors import (
    CheckCondition,
    IllegalRequest,
    MalformedReply,
    MediumChanged,
    NotReady,
    TransportError,
    UnitAttention,
)
from scsiusb.quirks import cures
from scsiusb.quirks.model import Quirk
from scsiusb.scsi.advice import advise
from scsiusb.scsi.attentions import Attentions, Bound
from scsiusb.scsi.auto_sense import REQUEST_SENSE, ask_after_loss, fetch_flush_sense, fetch_sense, sense_length
from scsiusb.scsi.capacity import capacity_story
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import (
    Capacity,
    ReadCapacity10,
    StartStopUnit,
)
from scsiusb.scsi.commands.spc import (
    SENSE_LENGTH,
    VPD_LENGTH,
    Inquiry,
    InquiryVpdBytes,
    ModeSense6,
    RequestSense,
    TestUnitReady,
)
from scsiusb.scsi.flushing import synchronize_cache
from scsiusb.scsi.pages.inquiry import ADDITIONAL_LENGTH, DISK, STANDARD_LENGTH, InquiryData
from scsiusb.scsi.pages.mode import ModeParameters
from scsiusb.scsi.pages.vpd import AnyPage, page_length, parse_page
from scsiusb.scsi.retry import USUAL, RetryPolicy, RetryState
from scsiusb.scsi.sense import MEDIUM_CHANGED, RECOVERED_ERROR, Sense, error_for
from scsiusb.transport.base import FAILED, GOOD, Call, Completion, Direction, Enter, Story, Transport, leaving

NOT_ASKED: Final = InquiryData(0, DISK, True, 0, 0, "", "", "")  # for a device that cannot take INQUIRY
LARGEST_PAGE: Final = 0xFFFF  # the allocation length's field

MOST_VERIFIED: Final = 5  # looks at the medium before one command
NEVER_STILL: Final = "the unit was reset, or lost what it said, again and again: its medium may be another one"
SYNCHRONIZE_CACHE_10: Final = b"\x35"  # operation code
NO_DATA: Final = memoryview(b"")
NOT_SENT: Final = Completion(FAILED, 0, 0)
CommandResult = tuple[Completion, Sense | None]  # the result of a command; the sense, unless its status was GOOD

R = TypeVar("R")
log = logging.getLogger(__name__)


class LogicalUnit(Uncopyable):
    """Executes commands on one LUN of a transport. Holds nothing that must be closed."""

    def __init__(
        self, transport: Transport, lun: int = 0, *, retry: RetryPolicy = USUAL, timeout: float | None = None
    ) -> None:
        self.transport = transport
        self.lun = lun
        self.retry = retry
        self.timeout = timeout
        """Seconds for every command; None: as the command is declared."""
        self.attentions: Attentions = transport.shared.setdefault(
            lun, Attentions(transport.losses, transport.doubts, transport.resets)
        )
        """What the unit reported, and what is known of its medium; shared by all users of the transport."""
        self._losses = transport.losses
        self._doubts = transport.doubts

    def __repr__(self) -> str:
        return f"<LogicalUnit {self.lun} of {self.transport}>"

    @property
    def medium_changes(self) -> int:
        """How often the unit said, to any user of the transport, that its medium may have changed."""
        return self.attentions.medium_changes

    @property
    def doubts(self) -> int:
        """How often something happened that may have hidden a change of the medium: a reset, or a lost exchange."""
        return self._doubts.count

    @property
    def resets(self) -> int:
        """How often the unit was reset, or said so, to any user of the transport: its cache may be lost."""
        return self.attentions.resets + self.attentions.port_resets.count

    @property
    def cache_losses(self) -> int:
        """How often the unit was reset, or its medium may have been exchanged: what its cache held may be lost."""
        attentions = self.attentions
        return attentions.resets + attentions.port_resets.count + attentions.medium_changes

    def cure(self, symptom: cures.Symptom) -> str:
        """Return the remedy for a symptom of the device that a quirk explains; "" if that quirk applies already."""
        info = self.transport.info
        return cures.remedy(symptom, info.vid, info.pid, self.transport.quirks)

    def execute(self, command: Command[R], *, retry: RetryPolicy | None = None, timeout: float | None = None) -> R:
        """Run the command to its end and return its typed reply. `timeout` in seconds, for this time only.

        Raise a CheckCondition by sense key if the unit refuses, TransportError if the exchange fails.
        """
        return self.transport.drive(self.story(command, retry=retry, timeout=timeout))

    def story(self, command: Command[R], *, retry: RetryPolicy | None = None, timeout: float | None = None) -> Story[R]:
        """Story of `execute`."""
        command = self._within_quirks(command)
        limit = timeout or self.timeout or command.timeout
        with self.transport.memory.lend(max(command.length, 1)) as whole, whole[: command.length] as buffer:
            if command.direction is Direction.OUT:
                _fill(buffer, command)
            is_last = not command.repeatable
            while True:
                state = partial(self.retry_state, command, retry=retry, timeout=timeout, began=time.monotonic())
                received = yield from self.transfer(command.cdb(), command.direction, buffer, limit, state)
                try:
                    reply = command.reply(bytes(buffer[:received]) if command.direction is Direction.IN else b"")
                except MalformedReply as error:
                    if is_last:
                        raise
                    log.info("LUN %d: %s; trying again", self.lun, error.what)
                    is_last = True
                    continue
                if isinstance(reply, Sense):
                    self.attentions.note(reply)
                return reply

    def retry_state(
        self,
        command: Command[R],
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        confirm: Callable[[], Story[None]] | None = None,
        began: float | None = None,
        kind: type[RetryState[R]] = RetryState,
    ) -> RetryState[R]:
        """Return the bookkeeping of a command's retries, of a `kind`; it was first sent at `began`, or is now.

        `confirm` lets a command that may be carried out twice only on the same device, such as a write, be sent again:
        its story runs before, and raises if the device may be another one.
        """
        return kind(retry or self.retry, timeout or self.timeout, command, confirm, began or time.monotonic())

    def transfer(  # noqa: C901 - a command and its retries, on one page
        self,
        cdb: bytes,
        direction: Direction,
        buffer: memoryview,
        timeout: float,
        make_state: Callable[[], RetryState[Any]],
        medium: Bound | None = None,
        verify: Callable[[Any], Story[None]] | None = None,
    ) -> Story[int]:
        """Send a command, with its data phase in `buffer`, until it is done; return the bytes processed.

        `make_state` gives the retries' bookkeeping, which a command that succeeds at once does not need. `medium`: what
        its block addresses mean; after a change of it, the command is not sent (MediumChanged). `verify` is given if
        the medium can be another one after a reset or a lost exchange: its story finds out whether it is still the
        same, and records that (`settle`), or raises. Raise as `execute`.
        """
        transport, attentions = self.transport, self.attentions
        state: RetryState[Any] | None = None
        sense: Sense | None
        verified = 0
        while True:
            completion, sense = NOT_SENT, None
            turn = transport.turn()
            try:
                try:  # one turn for the command and its sense, which another command would clear
                    if not turn.try_enter():
                        yield Enter(turn)
                    if self._losses.count != attentions.losses_seen:
                        yield from ask_after_loss(self, timeout)
                    is_doubtful = verify is not None and self._doubts.count != attentions.settled
                    if medium is not None and medium.changes != attentions.medium_changes:
                        transport.check()  # a device that has gone says so, whatever was counted when it went
                        sense = MEDIUM_CHANGED
                    elif not is_doubtful:
                        completion = yield from transport.exchange(self.lun, cdb, direction, buffer, timeout)
                        if completion == (GOOD, 0, len(buffer)):
                            return len(buffer)
                        sense = None if completion[0] == GOOD else (yield from self._fetch_sense(state, cdb, timeout))
                except BaseException:
                    if completion[0] == FAILED and completion is not NOT_SENT and sense is None:
                        attentions.count_loss()  # interrupted before all that the unit said was counted
                    if cdb[0] == REQUEST_SENSE and completion is NOT_SENT:
                        attentions.count_reset()  # what it took from the unit is lost with it
                    raise
                finally:
                    try:  # as `leaving` does, which would cost each command two calls more
                        turn.leave()
                    except BaseException:
                        turn.leave()
                        raise
                if is_doubtful and sense is None and verify is not None:
                    verified += 1
                    if verified > MOST_VERIFIED:
                        raise MediumChanged(NEVER_STILL, MEDIUM_CHANGED)
                    yield from verify(medium)
                    continue
                state = state or make_state()
                if sense is None:
                    return self._processed(state.command, completion, buffer)
            except TransportError as failure:
                state = state or make_state()
                if not state.may_repeat(failure):
                    advise(self, state.command, failure, medium)
                    raise
                yield from self._confirm(state)
                continue
            if sense.key == RECOVERED_ERROR and not sense.deferred:
                log.warning("LUN %d: %s succeeded after recovery: %s", self.lun, state.command, sense)
                return self._processed(state.command, completion, buffer)
            yield from self._pause_or_raise(state, sense, medium)

    def _pause_or_raise(self, state: RetryState[Any], sense: Sense, medium: Bound | None) -> Story[None]:
        """Wait until the command may be sent again, given its sense, or raise the error that the sense stands for."""
        if state.may_start(sense):
            yield from self._start(state, sense)
            return
        try:
            raise error_for(sense, str(state.command))
        except CheckCondition as error:
            pause = state.pause_before_retry(error)
            if pause is None:
                advise(self, state.command, error, medium)
                raise
            log.info("LUN %d: %s; trying again", self.lun, error.what)
        if pause:
            yield Call(partial(time.sleep, pause))
        if not sense.is_becoming_ready:  # then the command was not begun, and nothing was lost
            yield from self._confirm(state)

    def _start(self, state: RetryState[Any], sense: Sense) -> Story[None]:
        """Start a unit that has stopped, and did not begin the command. Raise the command's error if it refuses."""
        log.info("LUN %d: %s: %s; starting the unit", self.lun, state.command, sense)
        try:
            yield from self.story(StartStopUnit(start=True), timeout=state.timeout)
        except IllegalRequest as refusal:
            raise error_for(sense, str(state.command)) from refusal
        state.note_start()

    def _confirm(self, state: RetryState[Any]) -> Story[None]:
        """Raise if the command must not be sent again; a failed exchange is one of its failures, too."""
        while state.confirm is not None:
            try:
                yield from state.confirm()
            except TransportError as error:
                if not state.may_repeat(error):
                    raise
            else:
                return

    def send(self, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> CommandResult:
        """Send a command once; return how it ended, and its sense if it failed. Raise TransportError."""
        return self.transport.drive(self._sending(cdb, direction, buffer, timeout))

    def _sending(self, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Story[CommandResult]:
        turn = self.transport.turn()
        with leaving(turn):
            yield Enter(turn)
            completion = yield from self.transport.exchange(self.lun, cdb, direction, buffer, timeout)
            return completion, None if completion.status == GOOD else (yield from self._fetch_sense(None))

    def _fetch_sense(
        self, state: RetryState[Any] | None, cdb: bytes = b"", timeout: float = 0.0
    ) -> Story[Sense | None]:
        """Story that fetches the sense of a failed command; with `cdb` given, it may be sent again for a reason."""
        limit = self.timeout if state is None else state.timeout
        is_worn = not self.retry.unit_attentions if state is None else state.is_worn
        if cdb[:1] == SYNCHRONIZE_CACHE_10:
            again = partial(self.transport.exchange, self.lun, cdb, Direction.NONE, NO_DATA, timeout)
            return fetch_flush_sense(self, again, limit, is_worn=is_worn)
        return fetch_sense(self, limit, is_worn=is_worn)

    def inquiry(self) -> InquiryData:
        """Return the standard INQUIRY data (SPC-4 6.6); a plain disk's if the device cannot take INQUIRY."""
        return NOT_ASKED if Quirk.NO_INQUIRY in self.transport.quirks else self.execute(Inquiry())

    def vpd(self, page: int, *, timeout: float | None = None) -> AnyPage:
        """Return a vital product data page (SPC-4 7.8). Some sticks hang on any page: check the INQUIRY version first.

        Raise IllegalRequest if the unit does not have the page, MalformedReply for nonsense.
        """
        return parse_page(self.vpd_bytes(page, timeout=timeout), page)

    def vpd_bytes(self, page: int, *, timeout: float | None = None) -> bytes:
        """Return the bytes of a vital product data page, its header too, as far as it goes. Raise as `vpd`."""
        data = self.execute(InquiryVpdBytes(page), timeout=timeout)
        needed = min(page_length(data, page), LARGEST_PAGE)
        if needed > len(data) == VPD_LENGTH:
            data = self.execute(InquiryVpdBytes(page, length=needed), timeout=timeout)
        return data[:needed]

    def test_unit_ready(self, *, retry: RetryPolicy | None = None) -> None:
        """Return when the unit is ready; raise NotReady, NoMedium or another CheckCondition if it is not."""
        if Quirk.NO_TEST_UNIT_READY not in self.transport.quirks:
            self.execute(TestUnitReady(), retry=retry)

    def request_sense(self) -> Sense:
        """Return the sense data that is pending (REQUEST SENSE, SPC-4 6.39), which clears it."""
        return self.execute(RequestSense(length=sense_length(self)))

    def synchronize_cache(self, *, timeout: float | None = None) -> None:
        """Return when the device's cache is on the medium (SYNCHRONIZE CACHE(10), SBC-3 5.26), or if it has none.

        A unit that refuses the command, or fails it twice without a reason, has no cache to flush. It is not asked
        again, nor is a unit that has never answered the command. `timeout` in seconds; 30 for a unit that has not
        answered the command before. Raise a CheckCondition or a TransportError.
        """
        synchronize_cache(self, self.attentions, timeout)

    def make_ready(self) -> None:
        """Return when the unit is ready; start a unit that waits for that. Raise as `test_unit_ready`.

        Return also if TEST UNIT READY is refused, or fails without a reason or with unit attentions without an
        end, as with some card readers: the next command shows what the unit can do.
        """
        self.transport.drive(self.ready_story())

    def ready_story(self) -> Story[None]:
        """Story of `make_ready`."""
        if Quirk.NO_TEST_UNIT_READY in self.transport.quirks:
            return
        try:
            yield from self.story(TestUnitReady())
        except NotReady as error:
            if not error.sense.needs_start:
                raise
            yield from self.story(StartStopUnit(start=True))
            yield from self.story(TestUnitReady())
        except CheckCondition as error:
            if not (error.sense.is_refusal or isinstance(error, UnitAttention)):
                raise
            log.info("LUN %d: %s; going on", self.lun, error.what)

    def read_capacity(self, *, retry: RetryPolicy | None = None) -> Capacity:
        """Send READ CAPACITY(10), and (16) if the medium is too large for it. Raise MalformedReply for nonsense.

        A block size of 0 is taken for 512, as other systems do: the device then has what they have written on it. Of an
        optical unit 0, 2340 and 2352 are taken for 2048, the part of a sector that READ(10) reads.
        """
        return self.transport.drive(self.capacity_story(retry))

    def capacity_story(self, retry: RetryPolicy | None = None) -> Story[Capacity]:
        """Story of `read_capacity`."""
        return capacity_story(self, self.attentions, retry)

    def mode_sense(self) -> ModeParameters:
        """Return all mode pages (MODE SENSE(6), SPC-4 6.13)."""
        return self.execute(ModeSense6())

    def _processed(self, command: Command[R], completion: Completion, buffer: memoryview) -> int:
        """Return the bytes that count; raise MalformedReply for a good status with less data than there must be."""
        length = len(buffer)
        processed = completion.processed(length)
        if processed == length:
            return processed
        is_whole = completion.status == GOOD and completion.transferred == length
        if is_whole and _is_fixed(command, buffer):
            log.info(
                "LUN %d: %s: all data came, and a residue beside it; residues are ignored from now on",
                self.lun,
                command,
            )
            self.transport.ignore_residue = True
            return completion.transferred
        if command.exact or command.direction is Direction.OUT:
            remedy = self.cure(cures.Symptom.FALSE_RESIDUE) if is_whole else ""
            raise _repeatable(MalformedReply(f"good status for only {processed} of {length} bytes", remedy or None))
        return processed

    def _within_quirks(self, command: Command[R]) -> Command[R]:
        """Return the command, shortened to what the device supports."""
        if not isinstance(command, RequestSense) or Quirk.BAD_SENSE not in self.transport.quirks:
            return command
        return cast("Command[R]", replace(command, length=min(command.length, SENSE_LENGTH)))


def _repeatable(error: TransportError) -> TransportError:
    error.may_repeat = True
    return error


def _fill(buffer: memoryview, command: Command[R]) -> None:
    with memoryview(command.payload) as payload, payload.cast("B") as data:
        if len(data) != len(buffer):
            raise ValueError(f"{command}: {len(data)} bytes of data for a command of {len(buffer)}")
        buffer[:] = data


def _is_fixed(command: Command[R], buffer: memoryview) -> bool:
    """Return whether the command's reply always fills the requested length.

    If so, a nonzero residue is wrong when all the data was received.
    """
    if isinstance(command, Inquiry):
        return command.length == STANDARD_LENGTH <= buffer[ADDITIONAL_LENGTH] + ADDITIONAL_LENGTH + 1
    return isinstance(command, ReadCapacity10)
