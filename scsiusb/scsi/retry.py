"""How often and how long a command is repeated, and what makes it worth repeating."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import (
    AbortedCommand,
    CheckCondition,
    DeviceTimeout,
    HardwareError,
    MediumChanged,
    TransportError,
    UnitAttention,
)
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import SynchronizeCache10
from scsiusb.scsi.sense import NO_SENSE, RECOVERED_ERROR, Sense
from scsiusb.transport.base import Direction, Story

R = TypeVar("R")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a command is repeated: one that was not begun, or one that may be carried out twice."""

    unit_attentions: int = 4
    """A unit may have several queued: power on, reset, medium changed."""
    becoming_ready: float = 30.0
    """Seconds to wait for a unit that says it is becoming ready."""
    interval: float = 0.25
    failures: int = 3
    """How often a failed exchange, an aborted command or a failure without a reason is tried again."""
    timeouts: int | None = None
    """How often among these one that was not answered in time; None: once, but not where a timeout was given."""
    failing: float = 90.0
    """Seconds, or the timeout that was given, after which a command that fails is not tried again."""

    def __post_init__(self) -> None:
        """TypeError, ValueError: not in the middle of a recovery."""
        for name, value in vars(self).items():
            if value is not None and not value >= 0:
                raise ValueError(f"{name}={value}: it cannot be negative")


USUAL: Final = RetryPolicy()
NO_RETRY: Final = RetryPolicy(unit_attentions=0, becoming_ready=0, failures=0)
NO_WAIT: Final = RetryPolicy(becoming_ready=0)


class RetryState(Generic[R]):
    """Counts one command's repetitions against the policy."""

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
        self._deadline = began + min(policy.becoming_ready, timeout or policy.becoming_ready)
        self._end = began + (min(policy.failing, timeout) if timeout and is_bound else policy.failing)

    @property
    def is_worn(self) -> bool:
        """Was the command repeated before? Some call a unit attention "logical unit not supported"; once is enough."""
        return self._attentions > 0 or not self._policy.unit_attentions

    def pause_before_retry(self, error: CheckCondition) -> float | None:
        """Return the seconds to wait before the command may be sent again, or None if it must not be."""
        command = self.command
        if isinstance(error, MediumChanged) and (command.accesses_medium or command.direction is Direction.OUT):
            return None
        if isinstance(error, UnitAttention) or self._may_hide_one(error.sense):
            self._attentions += 1
            allowed = self._attentions <= self._policy.unit_attentions and time.monotonic() < self._end
            return 0.0 if allowed else None
        if error.sense.is_becoming_ready and time.monotonic() < self._deadline:
            return self._policy.interval
        if not _is_transient(error) or isinstance(command, SynchronizeCache10):
            return None
        if self._allows_failure():
            return 0.0
        error.what += self._times
        return None

    def _may_hide_one(self, sense: Sense) -> bool:
        """Neither says that the command was begun: a false "not supported", a recovered error of an earlier command."""
        deferred = sense.deferred and sense.key == RECOVERED_ERROR
        return deferred or (sense.is_unit_not_supported and not self.is_worn)

    def may_repeat(self, error: TransportError) -> bool:
        """May the command be sent again after a failed exchange? If not, the error tells what was tried."""
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


def _is_transient(error: CheckCondition) -> bool:
    """A failure that says nothing of the command or the medium, or nothing at all: it may not come again.

    One of an earlier command will not be told a second time, and a second flush would say that all is well.
    """
    is_empty = error.sense.key == NO_SENSE
    return not error.sense.deferred and (isinstance(error, (AbortedCommand, HardwareError)) or is_empty)
