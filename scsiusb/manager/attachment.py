"""One interface that this process holds: taken for its first client, given back after its last one."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

from scsiusb import ledger
from scsiusb.base.releases import Releases
from scsiusb.base.waits import long_lock
from scsiusb.errors import DeviceGone
from scsiusb.manager.client import Client, OnGone
from scsiusb.quirks.model import Quirk, Quirks
from scsiusb.transport.bot.transport import BulkOnlyTransport
from scsiusb.transport.choice import AUTO, chosen
from scsiusb.transport.port_transport import PortTransport
from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo, by_protocol
from scsiusb.usb.port import NO_QUIRKS, Port

if TYPE_CHECKING:
    from scsiusb.leases.lease import Lease
    from scsiusb.leases.warden import Warden


BOGUS_RESIDUE: Final = "all data was transferred, but a residue reported"
UNNAMED: Final = "unknown"  # the driver was unbound before its name could be read

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What an attachment needs of the object that keeps all attachments."""

    @property
    def warden(self) -> Warden:
        """The warden, which gives the interface back if this process is killed."""

    def remove(self, attachment: Attachment) -> None:
        """Remove an attachment that has ended. Called while the attachment is locked."""

    def remember(self, attachment: Attachment, quirks: Quirks) -> None:
        """Keep the quirks learned of a device until it is unplugged. Called while the attachment is locked."""

    def tidy(self) -> None:
        """Close what no attachment needs any more. Called while no attachment is locked."""

    def poke(self, attachment: Attachment) -> None:
        """Have another thread look after the attachment: `end` it if it is lost, else give it back if it is unused."""


class Attachment:
    """The lease, port and transport of one interface, and its clients.

    It has weak references to its clients, and they refer to it, so that a client is freed with its last reference.
    """

    def __init__(self, backend: Backend, info: InterfaceInfo, owner: Owner, quirks: Quirks = NO_QUIRKS) -> None:
        self.backend = backend
        self.quirks = quirks
        self._info = info
        self._may_change_protocol = False
        self.is_lost = False
        self.may_be_unused = False
        self._owner = owner
        self._lock = long_lock()
        # By id, as the weak reference to a client that is being freed is dead.
        self._users: dict[int, weakref.ref[Client]] = {}
        self._releases = Releases()
        self._lease: Lease | None = None
        self._port: Port | None = None
        self._transport: PortTransport | None = None
        self._is_over = False
        self._is_ended = False

    @property
    def info(self) -> InterfaceInfo:
        """The interface, with the protocol that it is used by."""
        port = self._port
        return self._info if port is None else port.info

    def choose_protocol(self) -> None:
        """Use the protocol that fits best, which nobody has asked for: if UAS fails, BOT may take its place."""
        self._info = chosen(self._info, AUTO, self.quirks)
        self._may_change_protocol = True

    @property
    def transport(self) -> PortTransport:
        """The transport that all clients share; it exists while the interface is taken."""
        assert self._transport is not None
        return self._transport

    def has_quirks(self, quirks: Quirks) -> bool:
        """Return whether these are its quirks, apart from those that were learned."""
        return self.quirks.unlearned() == quirks.unlearned()

    @property
    def key(self) -> tuple[object, int, int, int]:
        """Bus identity, bus, device number and interface: unique in this process."""
        device = self.info.device
        return self.backend.identity, device.bus, device.number, self.info.interface

    def enter(self, on_gone: OnGone | None, below: ExitStack) -> Client | None:
        """Return a new client, or None if the attachment has ended.

        The first client takes the interface; `below` is then released after the interface. Raises as `Port`, and
        DeviceBusy if another process has the lease.
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
        """Remove a client; the last one gives everything back. Takes no lock before, as it may run anywhere."""
        self._users.pop(id(client), None)
        if not self._users:
            self.give_back_unused()

    def leave_later(self, client: Client) -> None:
        """Remove a client without waiting; another thread gives everything back if it was the last one."""
        self._users.pop(id(client), None)
        self.may_be_unused = True
        self._owner.poke(self)

    def give_back_unused(self) -> None:
        """Give everything back if no client is left."""
        self.may_be_unused = False
        with self._lock:
            if not self._users:
                self._give_back()
        self._owner.tidy()

    def note_gone(self) -> None:
        """Record that a command found the device gone; another thread ends the attachment."""
        self.lose()
        self._owner.poke(self)

    def lose(self) -> None:
        """Record that the device has gone: every command fails from now on. Does not wait; `end` does the rest."""
        self.is_lost = True
        for client in self._clients():
            client.lose()
        if self._transport is not None:
            self._transport.turns.lose()

    def end(self) -> None:
        """Give everything back, then notify the clients, even if a release failed. Later calls do nothing."""
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
        """Close all clients, and give everything back."""
        for client in self._clients():
            client.close()
        self.give_back_unused()

    def after_fork(self) -> None:
        """Forget everything in a fork's child. The lock is replaced, as a thread of the parent may hold it."""
        self._is_over = True
        self._lock = long_lock()
        self._releases.forget()
        for client in self._clients():
            client.disown()
        if self._transport is not None:
            self._transport.after_fork()
        if self._lease is not None:
            self._lease.after_fork()
        self.backend.after_fork(self.info.device)

    def _clients(self) -> list[Client]:
        """Return the clients that are not freed yet."""
        # `list` copies in one step: other threads add and remove clients meanwhile.
        return [client for user in list(self._users.values()) if (client := user()) is not None]

    def _take(self) -> None:
        if self.backend.is_shared:
            self._take_lease()
        self._port = port = Port(self.backend, self.info, self._before_taking, self._releases, self.quirks)
        note = self._lease.note_command if self._lease else None
        self._transport = self._by_uas(port, note) or BulkOnlyTransport(port, note, self._releases)

    def _by_uas(self, port: Port, note: Callable[[bool], None] | None) -> PortTransport | None:
        """Return a transport by UAS; None if the port is used by BOT, which may be because UAS is not possible."""
        if port.pipes is None:
            return None
        from scsiusb.transport.uas.transport import UasTransport, what_lacks

        other = by_protocol(port.info, "bot") if self._may_change_protocol else None
        lack = None if other is None else what_lacks(port)
        if other is None or lack is None:
            return UasTransport(port, note, self._releases, other)
        log.info("%s: %s; Bulk-Only Transport is used", other, lack)
        port.change_protocol(other, reset=False)
        return None

    def _take_lease(self) -> None:
        from scsiusb.leases.lease import Lease
        from scsiusb.leases.orphans import recover
        from scsiusb.leases.record import record_of

        recover()
        releases, warden = self._releases, self._owner.warden
        releases.add(warden.drop, record_of(self.info))
        releases.hold(ledger.entry("lease", f"of {self.info.name}"))
        lease = self._lease = Lease.acquire(self.info, notify=warden.hold)
        releases.add(lease.release)

    def _before_taking(self, is_driven: bool) -> None:
        lease = self._lease
        if lease is None:
            return
        driver = self.backend.driver(self.info.device, self.info.interface) if is_driven else None
        lease.record_driver((driver or UNNAMED) if is_driven else None)
        self._owner.warden.hold(lease.record, lease.path)

    def _report_learned_quirks(self) -> None:
        port, transport = self._port, self._transport  # a signal's handler may give back meanwhile
        if port is None or transport is None or self.is_lost:
            return
        quirks = port.quirks
        if transport.ignore_residue:
            quirks = quirks.learning(Quirk.IGNORE_RESIDUE, BOGUS_RESIDUE)
        if quirks.learned() or quirks.signature:
            self._owner.remember(self, quirks)

    def _give_back(self) -> None:
        """Release in the reverse order of taking. After Ctrl-C, which may come before any release, do it again."""
        try:
            self._report_learned_quirks()
            self._releases.close()
        except BaseException:
            self._releases.close()
            raise
        finally:
            self._is_over = True
            self._info = self.info
            self._port = self._transport = None  # these refer to this object: a cycle
            self._owner.remove(self)
