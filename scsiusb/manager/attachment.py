"""One interface while this process holds it: taken with its first client, given back after its last."""

from __future__ import annotations

import threading
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

from scsiusb import ledger
from scsiusb.base.releases import Releases
from scsiusb.errors import DeviceGone
from scsiusb.manager.client import Client, OnGone
from scsiusb.quirks.model import Quirk, Quirks
from scsiusb.transport.bot.transport import BulkOnlyTransport
from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo
from scsiusb.usb.port import NO_QUIRKS, Port

if TYPE_CHECKING:
    from scsiusb.leases.lease import Lease
    from scsiusb.leases.warden import Warden


BOGUS_RESIDUE: Final = "all data came beside a residue"
UNNAMED: Final = "unknown"  # a driver that went in the moment when its name was asked for


class Owner(Protocol):
    """Who keeps the attachments."""

    @property
    def warden(self) -> Warden: ...

    def remove(self, attachment: Attachment) -> None:
        """It is over; called while it is locked."""

    def remember(self, attachment: Attachment, quirks: Quirks) -> None:
        """What was learned of its device, which stays attached; called while it is locked."""

    def tidy(self) -> None:
        """Ends what no attachment needs any more; called when none is locked."""

    def poke(self, attachment: Attachment) -> None:
        """Its device has gone: `end` it, in another thread."""


class Attachment:
    """Refers to its clients weakly and is referred to by them: the last reference to a client frees it."""

    def __init__(self, backend: Backend, info: InterfaceInfo, owner: Owner, quirks: Quirks = NO_QUIRKS) -> None:
        self.backend = backend
        self.info = info
        self.quirks = quirks
        self.is_lost = False
        self.is_deserted = False
        self._owner = owner
        self._lock = threading.RLock()
        self._users: dict[int, weakref.ref[Client]] = {}  # by id: of one that is being dropped the reference is dead
        self._releases = Releases()
        self._lease: Lease | None = None
        self._port: Port | None = None
        self._transport: BulkOnlyTransport | None = None
        self._is_over = False
        self._is_ended = False

    @property
    def transport(self) -> BulkOnlyTransport:
        assert self._transport is not None
        return self._transport

    def has(self, quirks: Quirks) -> bool:
        """Are these its quirks, but for what was learned?"""
        return self.quirks.unlearned() == quirks.unlearned()

    @property
    def key(self) -> tuple[object, int, int, int]:
        device = self.info.device
        return self.backend.identity, device.bus, device.number, self.info.interface

    def enter(self, on_gone: OnGone | None, below: ExitStack) -> Client | None:
        """A new client; the first takes the interface, and `below` is released after it. None: it is over.

        Raises as `Port` does, and DeviceBusy where another process has the lease.
        """
        with self._lock:
            if self._is_over:
                return None
            try:
                return self._enter(on_gone, below)
            except BaseException:
                if not self._users:
                    self._give_back()
                raise

    def _enter(self, on_gone: OnGone | None, below: ExitStack) -> Client:
        if self._transport is None:
            self._releases.add(below.pop_all().close)
            self._take()
        if self.is_lost:
            raise DeviceGone(f"{self.info} was unplugged")
        client = Client(self, on_gone)
        self._users[id(client)] = weakref.ref(client)
        return client

    def leave(self, client: Client) -> None:
        """The last one out gives everything back. The others need no lock: one may be dropped anywhere."""
        self._users.pop(id(client), None)
        if not self._users:
            self.give_back_unused()

    def leave_later(self, client: Client) -> None:
        """As `leave`, where nothing may be waited for."""
        self._users.pop(id(client), None)
        self.is_deserted = True
        self._owner.poke(self)

    def give_back_unused(self) -> None:
        """Gives everything back if no client is left."""
        self.is_deserted = False
        with self._lock:
            if not self._users:
                self._give_back()
        self._owner.tidy()

    def note_gone(self) -> None:
        """A command found that the device has gone."""
        self.lose()
        self._owner.poke(self)

    def lose(self) -> None:
        """The device has gone: every command fails from now on. Quick; `end` does the rest."""
        self.is_lost = True
        for client in self._clients():
            client.lose()
        if self._transport is not None:
            self._transport.turns.lose()

    def end(self) -> None:
        """Gives back without any client's help, then tells the clients, also where a release failed."""
        with ExitStack() as after, self._lock:
            if self._is_ended:
                return
            self._is_ended = True
            for client in reversed(self._clients()):
                client.lose()
                after.callback(client.notify_gone)
            after.callback(self._owner.tidy)
            self._give_back()

    def close(self) -> None:
        """Closes all clients, which closes this."""
        for client in self._clients():
            client.close()
        self.give_back_unused()

    def after_fork(self) -> None:
        """In a fork's child: nothing here is ours, and a lock may be held by a thread that is not here."""
        self._is_over = True
        self._lock = threading.RLock()
        self._releases.forget()
        for client in self._clients():
            client.disown()
        if self._transport is not None:
            self._transport.after_fork()
        if self._lease is not None:
            self._lease.after_fork()
        self.backend.after_fork(self.info.device)

    def _clients(self) -> list[Client]:
        """From a copy made in one step: others come and leave meanwhile."""
        return [client for user in list(self._users.values()) if (client := user()) is not None]

    def _take(self) -> None:
        if self.backend.is_shared:
            self._take_lease()
        self._port = port = Port(self.backend, self.info, self._before_taking, self._releases, self.quirks)
        self._transport = BulkOnlyTransport(port, self._lease.note_command if self._lease else None, self._releases)

    def _take_lease(self) -> None:
        from scsiusb.leases.lease import Lease
        from scsiusb.leases.orphans import recover
        from scsiusb.leases.record import record_of

        recover()
        releases, warden = self._releases, self._owner.warden
        releases.add(warden.drop, record_of(self.info))
        releases.add(ledger.acquire("lease", f"of {self.info.name}").release)
        lease = self._lease = Lease.acquire(self.info, tell=warden.hold)
        releases.add(lease.release)

    def _before_taking(self, is_driven: bool) -> None:
        lease = self._lease
        if lease is None:
            return
        driver = self.backend.driver(self.info.device, self.info.interface) if is_driven else None
        lease.record_driver((driver or UNNAMED) if is_driven else None)
        self._owner.warden.hold(lease.record, lease.path)

    def _tell_what_was_learned(self) -> None:
        if self._port is None or self._transport is None or self.is_lost:
            return
        quirks = self._port.quirks
        if self._transport.ignore_residue:
            quirks = quirks.learning(Quirk.IGNORE_RESIDUE, BOGUS_RESIDUE)
        if quirks.learned() or quirks.signature:
            self._owner.remember(self, quirks)

    def _give_back(self) -> None:
        """In the reverse order of taking, and on after Ctrl-C, which may have come before anything was released."""
        try:
            self._tell_what_was_learned()
            self._releases.close()
        except BaseException:
            self._releases.close()
            raise
        finally:
            self._is_over = True
            self._port = self._transport = None  # they refer to this object
            self._owner.remove(self)
