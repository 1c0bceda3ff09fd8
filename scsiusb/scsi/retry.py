"""Retries of a command: how often, how long, and after which errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from scsiusb.base.arguments import integer, wrong_type
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import (
    AbortedCommand,
    CheckCondition,
    DeviceTimeout,
    HardwareError,
    MediumChanged,
    NoMedium,
    TransportError,
)
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import ReadCapacity10, ReadCapacity16, SynchronizeCache10
from scsiusb.scsi.sense import NO_SENSE, RECOVERED_ERROR, UNIT_ATTENTION, Sense
from scsiusb.transport.base import Direction, Story

R = TypeVar("R")
COUNTS: Final = ("unit_attentions", "failures")
SECONDS: Final = ("becoming_ready", "interval", "failing")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """Limits on the retries of a command.

    A command is retried only if the device did not begin it, or if carrying it out twice does no harm.
    Raises TypeError or ValueError for an invalid limit.
    """

    unit_attentions: int = 4
    """Retries after unit attentions, of which a unit may queue several: power on, reset, medium changed."""
    becoming_ready: float = 30.0
    """Seconds to wait for a unit that is becoming ready, or is busy; with 0, no unit that has stopped is started."""
    interval: float = 0.25
    """Seconds between two attempts while the unit is becoming ready or busy."""
    failures: int = 3
    """Retries after a failed exchange, an aborted command, a hardware error, or an error without a sense key."""
    timeouts: int | None = None
    """How many of these may follow a timeout. None: one, or none if a timeout was given for the command."""
    failing: float = 90.0
    """Seconds after which a failed command is not retried; with `timeouts` None, at most the timeout that was given."""

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError here, rather than in the middle of a recovery."""
        for name in COUNTS:
            integer(name, getattr(self, name))
        if self.timeouts is not None:
            integer("timeouts", self.timeouts)
        for name in SECONDS:
            if not isinstance(getattr(self, name), (int, float)):
                raise wrong_type(name, "a number of seconds", getattr(self, name))
        for name, value in vars(self).items():
            if value is not None and not value >= 0:
                raise ValueError(f"{name}={value} is negative; give 0 or more")


USUAL: Final = RetryPolicy()
NO_RETRY: Final = RetryPolicy(unit_attentions=0, becoming_ready=0, failures=0)
NO_WAIT: Final = RetryPolicy(becoming_ready=0)


class RetryState(Generic[R]):
    """The retries of one command so far, and whether the policy allows another."""

    def __init__(
        self,
        policy: RetryPolicy,
        timeout: float | None,
        command: Command[R],
        confirm: Callable[[], Story[None]] | None,
        began: float,
    ) -> None:
        """`began`: when the command was first sent, by `time.monotonic`."""
        self.timeout = timeout
        self._policy = policy
        self.command = command
        self.confirm = confirm
        """Makes a story that raises where the command must not be sent again; None where it may be sent twice."""
        self._attentions = self._failures = self._timeouts = 0
        is_bound = timeout is not None and policy.timeouts is None
        self._most_timeouts = int(not is_bound) if policy.timeouts is None else policy.timeouts
        self._patience = min(policy.becoming_ready, timeout or policy.becoming_ready)
        self._deadline = began + self._patience
        self._has_started = False
        self._end = began + (min(policy.failing, timeout) if timeout and is_bound else policy.failing)

    @property
    def is_worn(self) -> bool:
        """Whether "logical unit not supported" is to be believed now.

        Some devices report it in place of a unit attention: it is believed only after a retry, if retries are allowed.
        """
        return self._attentions > 0 or not self._policy.unit_attentions

    def may_start(self, sense: Sense) -> bool:
        """Return whether to start the unit and send the command again: once, where the command needs the medium."""
        needs_medium = self.command.accesses_medium or isinstance(self.command, (ReadCapacity10, ReadCapacity16))
        return sense.needs_start and needs_medium and self._patience > 0 and not self._has_started

    def note_start(self) -> None:
        """Take note that the unit was started: from now on it may become ready."""
        self._has_started = True
        self._deadline = time.monotonic() + self._patience

    def pause_before_retry(self, error: CheckCondition) -> float | None:
        """Return the seconds to wait before the command may be sent again, or None if it must not be."""
        command = self.command
        is_change = isinstance(error, (MediumChanged, NoMedium))
        if is_change and (command.accesses_medium or command.direction is Direction.OUT):
            return None
        if error.sense.key == UNIT_ATTENTION or self._may_hide_one(error.sense):
            self._attentions += 1
            allowed = self._attentions <= self._policy.unit_attentions and time.monotonic() < self._end
            return 0.0 if allowed else None
        if error.sense.is_becoming_ready and time.monotonic() < self._deadline:
            return self._policy.interval
        if not is_transient(error) or isinstance(command, SynchronizeCache10):
            return None
        if self._allows_failure():
            return 0.0
        error.what += self._times
        return None

    def _may_hide_one(self, sense: Sense) -> bool:
        """Return whether the sense may stand for a unit attention: the device did not begin the command.

        This may be a false "logical unit not supported", or a recovered error of an earlier command (deferred).
        """
        deferred = sense.deferred and sense.key == RECOVERED_ERROR
        return deferred or (sense.is_unit_not_supported and not self.is_worn)

    def may_repeat(self, error: TransportError) -> bool:
        """Return whether to send the command again after a failed exchange; if not, add what was tried to the error."""
        self._timeouts += isinstance(error, DeviceTimeout)
        allowed = self._allows_failure() and self._timeouts <= self._most_timeouts
        if not (error.may_repeat and allowed):
            error.what = f"{self.command}: {error.what}{self._times}"
            return False
        log.info("%s: %s; trying again", self.command, error.what)
        return True

    def _allows_failure(self) -> bool:
        self._failures += 1
        may_be_sent_twice = self.command.repeatable or self.confirm is not None
        return self._failures <= self._policy.failures and time.monotonic() < self._end and may_be_sent_twice

    @property
    def _times(self) -> str:
        return f", {self._failures} times" if self._failures > 1 else ""


def is_transient(error: CheckCondition) -> bool:
    """Return whether a retry may succeed: the error is not about the command or the medium, or has no sense key.

    A deferred error is about an earlier command, and the device reports it only once: a retried command would succeed,
    although the earlier one failed.
    """
    is_empty = error.sense.key == NO_SENSE
    return not error.sense.deferred and (isinstance(error, (AbortedCommand, HardwareError)) or is_empty)
