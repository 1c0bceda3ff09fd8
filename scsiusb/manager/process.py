"""All that this process holds: attachments, watchers, the warden; and their release at exit and after a fork."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from scsiusb import ledger
from scsiusb.errors import DeviceBusy, DeviceGone, ScsiUsbError
from scsiusb.manager.attachment import Attachment
from scsiusb.manager.client import Client, OnGone
from scsiusb.manager.learned import LearnedQuirks
from scsiusb.manager.watcher import Watcher
from scsiusb.quirks.lookup import tabled
from scsiusb.quirks.model import Quirks
from scsiusb.transport.choice import AUTO, chosen
from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo, is_same
from scsiusb.usb.port import LOOK_AGAIN

if TYPE_CHECKING:
    from scsiusb.leases.warden import Warden

log = logging.getLogger(__name__)


class Closable(Protocol):
    """Something that may be open when the interpreter ends or forks."""

    def close(self) -> None:
        """Release it; may be called again."""

    def after_fork(self) -> None:
        """Forget it, in the child of a fork."""


class Needed(NamedTuple):
    """What a new client needs of an attachment that the process has already."""

    exclusive: bool
    same_quirks: bool
    transport: str


class Process:
    """The attachments, at most one per interface; watchers, one per bus; and one warden."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._attachments: dict[tuple[object, int, int, int], Attachment] = {}
        self._watchers: dict[Hashable, Watcher] = {}
        self._learned = LearnedQuirks()
        self._open: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._warden: Warden | None = None
        self._is_prepared = False

    def join(
        self,
        backend: Backend,
        info: InterfaceInfo,
        *,
        on_gone: OnGone | None = None,
        below: ExitStack | None = None,
        exclusive: bool = False,
        quirks: Quirks | None = None,
        same_quirks: bool = False,
        transport: str = AUTO,
    ) -> Client:
        """Return a client of the interface.

        `below` is released after the interface, or at once if the process has the interface already.
        `exclusive`: raise DeviceBusy unless this is the first client.
        `quirks`: of the device; None: those of the table, with those learned since it was plugged in. The quirks of the
        first client apply to all; `same_quirks`: raise DeviceBusy if they are different. `transport`: the
        protocol to use, see `chosen`; raise DeviceBusy if the process uses the interface by another one.
        Raises as `Attachment.enter`.
        """
        self.prepare()
        if quirks is None:
            device = info.device
            quirks = tabled(device.vid, device.pid, device.release)
        with ExitStack() as own:
            stack = own if below is None else own.enter_context(below)
            try:
                needed = Needed(exclusive, same_quirks, transport)
                attach = partial(self._attachment, backend, info, quirks, needed)
                return self._join(attach, on_gone, stack)
            except BaseException:
                held = self._attachments.get(Attachment(backend, info, self).key)
                if held is not None:
                    held.give_back_unused()
                self.tidy()
                raise

    def _join(self, attach: Callable[[], Attachment], on_gone: OnGone | None, below: ExitStack) -> Client:
        while True:
            client = attach().enter(on_gone, below)
            if client is not None:
                return client

    def close_at_exit(self, thing: Closable) -> None:
        """Close `thing` when the interpreter ends, unless it was freed before."""
        self.prepare()
        with self._lock:
            self._open.add(thing)

    def _attachment(self, backend: Backend, info: InterfaceInfo, quirks: Quirks, needed: Needed) -> Attachment:
        info = chosen(info, needed.transport, quirks)
        new = Attachment(backend, info, self, quirks)
        with self._lock:
            held = self._attachments.get(new.key)
            if held is None:
                new.quirks = self._learned.recall(new, quirks)
                if needed.transport == AUTO:
                    new.choose_protocol()
                self._attachments[new.key] = new
                self._watch(backend)
                return new
        if not is_same(held.info, info):
            what = f"{info} was unplugged, or {held.info} was, which is open: both have the same number"
            raise DeviceGone(what, LOOK_AGAIN)
        if needed.transport not in (AUTO, held.info.protocol):
            what = f"this process has {info} open already, by {held.info.protocol.upper()}"
            raise DeviceBusy(what, f"close it first, or open it with the transport {held.info.protocol!r} or 'auto'")
        if needed.same_quirks and not held.has_quirks(quirks):
            raise DeviceBusy(f"this process has {info} open already, with other quirks", "close it first")
        if needed.exclusive:
            what = f"this process has {info} open already"
            raise DeviceBusy(what, "close it first: a trace must begin when the device is opened")
        return held

    # --- Owner ----------------------------------------------------------------------------------

    @property
    def warden(self) -> Warden:
        """The warden, made on first use: devices that no other process can use need none."""
        from scsiusb.leases.warden import Warden

        with self._lock:
            if self._warden is None:
                self._warden = Warden()
            return self._warden

    def remove(self, attachment: Attachment) -> None:
        """See `Owner.remove`. Without the lock: a thread that has it may be waiting for the attachment's lock."""
        if self._attachments.get(attachment.key) is attachment:
            self._attachments.pop(attachment.key, None)

    def remember(self, attachment: Attachment, quirks: Quirks) -> None:
        """See `Owner.remember`."""
        self._learned.keep(attachment, quirks)

    def tidy(self) -> None:
        """See `Owner.tidy`. Watchers are closed outside of the lock: their threads, which end then, may wait for it."""
        with self._lock:
            needed = {attachment.backend.identity for attachment in list(self._attachments.values())}
            # A copy, made in one step: a signal's handler that closes a device may come in between.
            watchers = list(self._watchers.items())
            idle = [(identity, watcher) for identity, watcher in watchers if identity not in needed]
            for _, watcher in idle:
                watcher.retire()
        for identity, watcher in idle:
            watcher.close()
            with self._lock:  # a watcher closed by its own thread stays, as another must join it
                if watcher.has_ended and self._watchers.get(identity) is watcher:
                    self._watchers.pop(identity, None)

    def poke(self, attachment: Attachment) -> None:
        """See `Owner.poke`. Without the lock: it is called in the middle of a command."""
        watcher = self._watchers.get(attachment.backend.identity)
        if watcher is not None:
            watcher.poke()

    # --- unplug ---------------------------------------------------------------------------------

    def _watch(self, backend: Backend) -> None:
        identity = backend.identity
        held = self._watchers.get(identity)
        if held is not None and not held.is_retired and not held.has_ended:
            return
        watcher = Watcher(backend, partial(self._look, backend), "scsiusb unplug watch")
        self._watchers[identity] = watcher  # before it holds anything
        try:
            watcher.subscribe()
        except ScsiUsbError as error:
            log.warning("an unplug will be noticed only by the next command: %s", error)
            del self._watchers[identity]
            return
        watcher.start()

    def _look(self, backend: Backend) -> None:
        """End attachments whose device is gone: first all their commands, then handles, then call the callbacks."""
        attachments = list(self._attachments.values())  # before the devices, else a new one may be missing there
        held = [each for each in attachments if each.backend.identity == backend.identity]
        present = {device.identity for device in backend.devices()}
        self._learned.forget(backend, present)
        with ExitStack() as stack:  # if one of them fails, the others are still ended
            for attachment in held:
                if attachment.may_be_unused:
                    stack.callback(attachment.give_back_unused)
                if attachment.is_lost or attachment.info.device.identity not in present:
                    attachment.lose()
                    stack.callback(attachment.end)

    # --- the end of the process, or the beginning of another ------------------------------------

    def prepare(self) -> None:
        """Register the exit and fork handlers, on the first call only; nothing is registered at import.

        Call this before the ledger's first entry: exit functions run in reverse order, so the ledger reports leaks
        before `_close` releases them.
        """
        with self._lock:
            if self._is_prepared:
                return
            self._is_prepared = True
        atexit.register(self._close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _close(self) -> None:
        """Give back, at exit, what the program did not; continue after Ctrl-C."""
        with ExitStack() as stack:
            if self._warden is not None:
                stack.callback(self._warden.close)
            stack.callback(self.tidy)
            with self._lock:
                things = (*list(self._attachments.values()), *self._open)
            for thing in things:
                stack.callback(_quietly, thing)

    def _after_fork(self) -> None:
        """Forget everything in a fork's child. Locks are replaced, as threads of the parent may hold them."""
        self._lock = threading.RLock()
        ledger.forget()
        with ExitStack() as stack:
            warden, self._warden = self._warden, None
            if warden is not None:
                stack.callback(warden.after_fork)
            for thing in (*self._open, *self._watchers.values(), *self._attachments.values()):
                stack.callback(thing.after_fork)
            self._attachments.clear()
            self._watchers.clear()


def _quietly(thing: Closable) -> None:
    try:
        thing.close()
    except (ScsiUsbError, OSError) as error:
        log.warning("at exit: %s", error)
    except Exception:
        log.exception("at exit")


PROCESS: Final = Process()
