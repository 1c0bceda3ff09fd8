"""One user of an attachment: a transport that is closed independently of the other users.

A command after that raises an error that says why it is closed.
"""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakSet

from scsiusb import ledger
from scsiusb.base.copying import Uncopyable
from scsiusb.base.finalizing import run_aside
from scsiusb.errors import DeviceBusy, DeviceClosed, DeviceGone, TransportError
from scsiusb.manager.scope import CURRENT, Scope, current
from scsiusb.quirks.model import Quirk
from scsiusb.transport.port_transport import PortTransport
from scsiusb.transport.turns import Turn, User
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.usb.port import Port

OnGone = Callable[[InterfaceInfo], object] | Callable[[], object]

log = logging.getLogger(__name__)


class State(Enum):
    """The state of a client."""

    OPEN = "open"
    CLOSED = "closed"
    GONE = "gone"
    FOREIGN = "foreign"  # the copy in a fork's child, which must not be used


class Holder(Protocol):
    """What a client needs of the attachment that it uses."""

    @property
    def info(self) -> InterfaceInfo:
        """The interface as it was found."""

    @property
    def transport(self) -> PortTransport:
        """The transport that all clients share."""

    def leave(self, client: Client) -> None:
        """Remove the client; the last one gives the device back."""

    def leave_later(self, client: Client) -> None:
        """Remove the client, and give the device back from another thread: this one must not wait."""

    def note_gone(self) -> None:
        """Record that a command found the device gone."""


class Client(Uncopyable):
    """A `Transport` for one user of an attachment. `close` it, or use it in a `with`.

    `on_gone` is called once, from a thread of scsiusb, after the device was unplugged and everything is released:
    with the InterfaceInfo, or without an argument if it takes none.
    """

    def __init__(self, holder: Holder, on_gone: OnGone | None) -> None:
        self._holder = holder
        self._on_gone = on_gone
        self._changing = threading.RLock()
        self._state = State.OPEN
        self.is_over = False
        """Whether no command can be sent any more. A plain attribute, as it is read before each command."""
        self._has_scopes = False
        self._scopes: WeakSet[Scope] = WeakSet()
        self._has_left = False
        self._transport = transport = holder.transport
        self._turns = transport.turns
        # Not methods that would pass each call on: a command goes through all of these.
        self.memory = transport.memory
        self.resets = transport.resets
        self.losses = transport.losses
        self.doubts = transport.doubts
        self.exchange = transport.exchange
        self.exchange_many = transport.exchange_many
        self.drive = transport.drive
        self.poll = transport.poll
        self._entry = ledger.entry("client", f"of {holder.info.name}")
        self._entry.hold()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_entry", None) is None or self._has_left or self._state is State.FOREIGN:
            return
        what = f"a client of {self.info} was not closed; opened at {self.place}"
        try:
            if self._state is not State.CLOSED:  # else Ctrl-C interrupted `close`
                warnings.warn(what, ResourceWarning, stacklevel=2, source=self)
        finally:
            if self.is_here:  # the garbage collector runs inside another client's command
                self._holder.leave_later(self)
                self._entry.release()
            elif not run_aside(self.close):
                self.close()

    def __repr__(self) -> str:
        return f"<Client of {self}, {self._state.value}>"

    def __str__(self) -> str:
        return str(self.info)

    @property
    def info(self) -> InterfaceInfo:
        """The interface as it was found."""
        return self._holder.info

    @property
    def place(self) -> str:
        """Where in the program it was opened: "bench.py:12"."""
        return self._entry.place

    def close(self) -> None:
        """End this client's command if one is running, and leave; the last client to leave gives the device back.

        May be called again, from any thread; after an unplug nothing is left to do. Raise DeviceBusy when called
        from a signal handler that interrupted a command of this thread.
        """
        if self._has_left or self._state is State.FOREIGN:
            return
        if self.is_here:
            raise DeviceBusy(*self._transport.turns.busy_here())
        try:
            self._leave()
        except BaseException:  # Ctrl-C may have come before anything was done
            self._leave()
            raise

    def _leave(self) -> None:
        self._become(State.CLOSED)
        self._on_gone = None
        self.refresh()
        self._holder.leave(self)
        self._entry.release()
        self._has_left = True

    def lose(self) -> None:
        """Record that the device has gone: every command fails from now on."""
        with self._changing:
            if self._state is State.OPEN:
                self._become(State.GONE)

    def disown(self) -> None:
        """Mark this as the copy in a fork's child; without a lock, which a thread of the parent may hold."""
        self._state = State.FOREIGN
        self.is_over = True

    def _become(self, state: State) -> None:
        with self._changing:
            self._state = state
            self.is_over = state is not State.OPEN
            self._refresh_scopes()

    def _refresh_scopes(self) -> None:
        for scope in list(self._scopes):
            scope.refresh()

    def notify_gone(self) -> None:
        """Call `on_gone`, the first time only."""
        callback, self._on_gone = self._on_gone, None
        if callback is None or self._state is not State.GONE:
            return
        try:
            _call(callback, self.info)
        except BaseException:  # even sys.exit() must not end the thread that serves all devices
            log.exception("on_gone of %s failed", self.info)

    # --- Transport ------------------------------------------------------------------------------

    @property
    def is_here(self) -> bool:
        """See `Transport.is_here`."""
        return self._transport.turns.is_here

    @property
    def max_lun(self) -> int:
        """See `Transport.max_lun`."""
        return self._transport.max_lun

    @property
    def depth(self) -> int:
        """See `Transport.depth`; it may become 1."""
        return self._transport.depth

    @property
    def max_transfer(self) -> int:
        """See `Transport.max_transfer`."""
        return self._transport.max_transfer

    @property
    def shared(self) -> dict[int, Any]:
        """See `Transport.shared`."""
        return self._transport.shared

    @property
    def quirks(self) -> Quirk:
        """The quirks that apply, those learned included."""
        learned = Quirk.IGNORE_RESIDUE if self._transport.ignore_residue else Quirk.NONE
        return self._transport.quirks | learned

    @property
    def ignore_residue(self) -> bool:
        """See `Transport.ignore_residue`."""
        return self._transport.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        self._transport.ignore_residue = ignored

    def turn(self) -> Turn:
        """See `Transport.turn`."""
        return Turn(self._turns, self._user() if self._has_scopes and CURRENT.get() else self)

    def _user(self) -> User:
        """Return who sends this thread's commands: a scope, or the client itself."""
        return current(self) or self

    @property
    def descriptor(self) -> int | None:
        """See `Transport.descriptor`."""
        return self._transport.descriptor

    def note(self, error: TransportError) -> None:
        """Take note of a command's error; raise one that says more, if the client's state has one."""
        if isinstance(error, DeviceGone):
            self._holder.note_gone()
        else:
            self.check(error)

    def check_identity(self) -> None:
        """See `Transport.check_identity`."""
        user = self._user()
        user.check()
        try:
            self._transport.check_identity(user)
        except DeviceGone:
            self._holder.note_gone()
            raise

    def reset_port(self) -> None:
        """See `Transport.reset_port`."""
        user = self._user()
        user.check()
        try:
            self._transport.reset_port(user)
        except DeviceGone:
            self._holder.note_gone()
            raise

    @contextmanager
    def probing(self) -> Iterator[Port]:
        """See `Transport.probing`."""
        user = self._user()
        user.check()
        with self._transport.probing(user) as port:
            yield port

    # --- cancelling -----------------------------------------------------------------------------

    def scope(self) -> Scope:
        """See `Transport.scope`."""
        with self._changing:
            scope = Scope(self, current(self))
            self._scopes.add(scope)
            self._has_scopes = True
        return scope

    def refresh(self) -> None:
        """Refresh the client's scopes, and end their command if one has the turn and is over."""
        with self._changing:
            self._refresh_scopes()
        self._turns.interrupt()

    def check(self, cause: BaseException | None = None) -> None:
        """Raise DeviceGone or DeviceClosed, from `cause`, if no command can be sent."""
        if not self.is_over:
            return
        if self._state is State.GONE:
            raise DeviceGone(f"{self.info} was unplugged") from cause
        if self._state is State.FOREIGN:
            raise DeviceClosed(
                f"{self.info} was opened by the process that forked this one", "open it in this process instead"
            ) from cause
        raise DeviceClosed(f"{self.info} was closed") from cause


def _call(callback: Callable[..., object], info: InterfaceInfo) -> None:
    try:
        inspect.signature(callback).bind(info)
    except TypeError:
        callback()
    except ValueError:  # a builtin without a signature
        callback(info)
    else:
        callback(info)
