"""Cancelling a call or a stream without the other commands of its client."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Final, Protocol, TypeVar

from scsiusb.base.copying import Uncopyable
from scsiusb.errors import Cancelled, DeviceGone, TransportError

R = TypeVar("R")


class Client(Protocol):
    """What a scope needs of its client."""

    is_over: bool
    """Whether no command can be sent any more."""

    def check(self, cause: BaseException | None = None) -> None:
        """Raise the error that says why it is over, if it is."""

    def note(self, error: TransportError) -> None:
        """Take note that a command failed; raise an error that says more, if there is one."""

    def refresh(self) -> None:
        """Refresh the client's scopes, and end their command if one has the turn and is over."""


class Scope(Uncopyable):
    """The commands of one call, or of one stream. It is the user of their turns. See `transport.base.Scope`."""

    is_over: bool
    """Whether it, or what it is a part of, was cancelled or closed. Plain, as it is read before each command."""

    def __init__(self, client: Client, outer: Scope | None) -> None:
        """`outer`: the scope of the client that it is a part of, if any."""
        self.client = client
        self._outer = outer
        self._is_cancelled = False
        self.refresh()

    def refresh(self) -> None:
        """Determine whether it is over."""
        self.is_over = self.client.is_over or self._was_cancelled()

    def _was_cancelled(self) -> bool:
        return self._is_cancelled or (self._outer is not None and self._outer._was_cancelled())

    def run(self, function: Callable[..., R], *arguments: object) -> R:
        """See `transport.base.Scope.run`."""
        # Context.run restores the context before Python looks for signals: Ctrl-C cannot leave this scope set.
        return copy_context().run(self._run, function, *arguments)

    def _run(self, function: Callable[..., R], *arguments: object) -> R:
        CURRENT.set((self, *CURRENT.get()))
        return function(*arguments)

    def cancel(self) -> None:
        """See `transport.base.Scope.cancel`."""
        self._is_cancelled = True
        self.client.refresh()

    def check(self, cause: BaseException | None = None) -> None:
        """Raise DeviceGone, DeviceClosed or Cancelled, from `cause`, if no command can be sent."""
        (self._outer or self.client).check(cause)
        if self._is_cancelled:
            raise Cancelled(f"a command to {self.client} was cancelled") from cause

    def note(self, error: TransportError) -> None:
        """See `User.note`."""
        (self._outer or self.client).note(error)
        if not isinstance(error, DeviceGone):
            self.check(error)


CURRENT: Final[ContextVar[tuple[Scope, ...]]] = ContextVar("scsiusb.scopes", default=())
"""The scopes that this thread is in, of all clients, the innermost first."""


def current(client: Client) -> Scope | None:
    """Return the innermost scope of the client that this thread is in, if any."""
    return next((scope for scope in CURRENT.get() if scope.client is client), None)
