"""One user of an attachment: a transport that ends alone, and says why when it is used after its end."""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scsiusb import ledger
from scsiusb.errors import Cancelled, DeviceBusy, DeviceClosed, DeviceGone, TransportError
from scsiusb.quirks.model import Quirk
from scsiusb.transport.base import Completion, Direction
from scsiusb.usb.interface import InterfaceInfo

if TYPE_CHECKING:
    from scsiusb.manager.attachment import Attachment
    from scsiusb.transport.bot.exchange import Phases
    from scsiusb.usb.backend import AsyncTransfers, Code
    from scsiusb.usb.port import Port

OnGone = Callable[[InterfaceInfo], object] | Callable[[], object]

log = logging.getLogger(__name__)


class State(Enum):
    OPEN = "open"
    CLOSED = "closed"
    GONE = "gone"
    FOREIGN = "foreign"  # a fork's child has a copy, which must not be used


class Client:
    """Implements `Transport` for whoever shares the attachment. `close` it, or use it in a `with`.

    `on_gone` is called once, from a thread of scsiusb's, when the device was unplugged and everything is released:
    with the InterfaceInfo, or without an argument if it takes none.
    """

    def __init__(self, attachment: Attachment, on_gone: OnGone | None) -> None:
        self._attachment = attachment
        self._on_gone = on_gone
        self._changing = threading.RLock()
        self._state = State.OPEN
        self._is_cancelled = False
        self.is_over = False
        """Is it not open, or cancelled? Looked at before each command, and thus no property."""
        self._has_left = False
        self._transport = transport = attachment.transport
        self.owns = transport.owns
        self._entry = ledger.acquire("client", f"of {attachment.info.name}")

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
            if self._state is not State.CLOSED:  # else Ctrl-C broke into `close`
                warnings.warn(what, ResourceWarning, stacklevel=2, source=self)
        finally:
            if self._transport.is_under_way_here:  # the garbage collector, in the middle of another client's command
                self._attachment.leave_later(self)
                self._entry.release()
            else:
                self.close()

    def __str__(self) -> str:
        return str(self.info)

    @property
    def info(self) -> InterfaceInfo:
        """The interface as it was found."""
        return self._attachment.info

    @property
    def place(self) -> str:
        """Where in the program it was opened: "bench.py:12"."""
        return self._entry.place

    def close(self) -> None:
        """Ends this client's command under way, if there is one; the last client out gives the device back.

        May be called again, from any thread; after an unplug it has nothing left to do.
        """
        if self._has_left or self._state is State.FOREIGN:
            return
        if self._transport.is_under_way_here:
            raise DeviceBusy(f"a command to {self.info} is under way in this thread", "raise an exception first")
        try:
            self._leave()
        except BaseException:  # Ctrl-C may have come before anything was done
            self._leave()
            raise

    def _leave(self) -> None:
        self._become(State.CLOSED)
        self._on_gone = None
        self._transport.interrupt(self)
        self._attachment.leave(self)
        self._entry.release()
        self._has_left = True

    def lose(self) -> None:
        """The device has gone."""
        with self._changing:
            if self._state is State.OPEN:
                self._become(State.GONE)

    def disown(self) -> None:
        """This is the copy of it in a fork's child, where a thread that is not there may have the lock."""
        self._state = State.FOREIGN
        self.is_over = True

    def _become(self, state: State | None = None, *, is_cancelled: bool | None = None) -> None:
        with self._changing:
            self._state = state or self._state
            self._is_cancelled = self._is_cancelled if is_cancelled is None else is_cancelled
            self.is_over = self._state is not State.OPEN or self._is_cancelled

    def tell_gone(self) -> None:
        """Calls `on_gone`, the first time only."""
        callback, self._on_gone = self._on_gone, None
        if callback is None or self._state is not State.GONE:
            return
        try:
            _call(callback, self.info)
        except BaseException:  # sys.exit() too would end the thread that serves everybody
            log.exception("on_gone of %s failed", self.info)

    # --- Transport ------------------------------------------------------------------------------

    @property
    def max_lun(self) -> int:
        return self._transport.max_lun

    @property
    def max_transfer(self) -> int:
        return self._transport.max_transfer

    @property
    def shared(self) -> dict[int, Any]:
        return self._transport.shared

    @property
    def resets(self) -> int:
        return self._transport.resets

    @property
    def quirks(self) -> Quirk:
        learned = Quirk.IGNORE_RESIDUE if self._transport.ignore_residue else Quirk.NONE
        return self._transport.quirks | learned

    @property
    def ignore_residue(self) -> bool:
        return self._transport.ignore_residue

    @ignore_residue.setter
    def ignore_residue(self, ignored: bool) -> None:
        self._transport.ignore_residue = ignored

    def execute(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Completion:
        """See `Transport.execute`. Raises DeviceGone after an unplug, DeviceClosed after `close`."""
        try:
            return self._transport.execute(lun, cdb, direction, buffer, timeout, self)
        except TransportError as error:
            self._note(error)
            raise

    def _note(self, error: TransportError) -> None:
        """Raises what says more, if there is something."""
        if isinstance(error, DeviceGone):
            self._attachment.note_gone()
        else:
            self.check(error)

    @property
    def async_transfers(self) -> AsyncTransfers | None:
        """See `BulkOnlyTransport.overlap`."""
        return self._transport.async_transfers

    def begin(self, lun: int, cdb: bytes, direction: Direction, buffer: memoryview, timeout: float) -> Phases | None:
        """See `BulkOnlyTransport.begin`."""
        return self._transport.begin(lun, cdb, direction, buffer, timeout, self)

    def conclude(self, cdb: bytes, timeout: float, number: int, code: Code, count: int) -> Completion:
        """See `BulkOnlyTransport.conclude`; raises as `execute`."""
        try:
            return self._transport.conclude(cdb, timeout, number, code, count)
        except TransportError as error:
            self._note(error)
            raise

    def release(self) -> None:
        """See `BulkOnlyTransport.release`."""
        self._transport.release()

    def hold(self) -> AbstractContextManager[object]:
        if self.is_over:
            self.check()
        return self._transport.lock

    def check_identity(self) -> None:
        """See `Transport.check_identity`."""
        self.check()
        try:
            self._transport.check_identity()
        except DeviceGone:
            self._attachment.note_gone()
            raise

    @contextmanager
    def probing(self) -> Iterator[Port]:
        """See `BulkOnlyTransport.probing`."""
        self.check()
        with self._transport.probing() as port:
            yield port

    def buffer(self, size: int) -> AbstractContextManager[memoryview]:
        self.check()
        try:
            return self._transport.buffer(size)
        except DeviceClosed as error:  # the device has gone since we checked
            self.check(error)
            raise

    # --- cancelling -----------------------------------------------------------------------------

    @contextmanager
    def cancellable(self) -> Iterator[Callable[[], None]]:
        """Yields what another thread may call to end the commands that are run inside; they raise Cancelled."""
        try:
            yield self._cancel
        finally:
            self._become(is_cancelled=False)

    def _cancel(self) -> None:
        self._become(is_cancelled=True)
        self._transport.interrupt(self)

    def check(self, cause: BaseException | None = None) -> None:
        """Raises what the state says, if it says anything."""
        if not self.is_over:
            return
        if self._state is State.GONE:
            raise DeviceGone(f"{self.info} was unplugged") from cause
        if self._state is State.FOREIGN:
            raise DeviceClosed(
                f"{self.info} was opened by the process that forked this one", "open it in this process instead"
            ) from cause
        if self._state is State.CLOSED:
            raise DeviceClosed(f"{self.info} was closed") from cause
        raise Cancelled(f"a command to {self.info} was cancelled") from cause


def _call(callback: Callable[..., object], info: InterfaceInfo) -> None:
    try:
        inspect.signature(callback).bind(info)
    except TypeError:
        callback()
    except ValueError:  # a builtin that does not tell
        callback(info)
    else:
        callback(info)
