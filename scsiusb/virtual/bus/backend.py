"""A backend whose devices are virtual sticks, with the host's operating system simulated."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import partial

from scsiusb.base.copying import Uncopyable
from scsiusb.usb.backend import BlockDisk, Code, Device, Strings, UsbError
from scsiusb.virtual.bus.connection import Connection
from scsiusb.virtual.bus.handle import VirtualHandle
from scsiusb.virtual.bus.watch import Watch
from scsiusb.virtual.stick import Stick


class Bus(Uncopyable):
    """A backend whose devices are virtual sticks; `plug` and `unplug` do what a user does by hand.

    `number` is the number of the bus. Closing the bus closes the sticks that are plugged in.
    """

    def __init__(self, *sticks: Stick, number: int = 1) -> None:
        self.number = number
        self._lock = threading.RLock()
        self._connections: dict[int, Connection] = {}
        self._last = 1  # the root hub's address
        self._pluggings = itertools.count(1)
        self._handles: list[VirtualHandle] = []
        self._watches: list[Watch] = []
        self._returns: set[threading.Timer] = set()  # of sticks that come back by themselves
        for stick in sticks:
            self.plug(stick)

    def __repr__(self) -> str:
        with self._lock:
            sticks = ", ".join(f"{each.device().address}: {each.stick!r}" for each in self._connections.values())
        return f"<Bus {self.number}: {sticks or 'empty'}>"

    def plug(self, stick: Stick, ports: tuple[int, ...] | None = None) -> Device:
        """Plug the stick into a port, and return its device.

        `ports` is the path of port numbers from the root hub; None: the first free port of the root hub.
        Raises ValueError if the stick is plugged in already or the port is not free.
        """
        with self._lock:
            taken = {each.ports for each in self._connections.values()}
            if any(each.stick is stick for each in self._connections.values()):
                raise ValueError("the stick is plugged in already; unplug it first")
            if ports is None:
                ports = next((port,) for port in range(1, len(taken) + 2) if (port,) not in taken)
            if not ports or ports in taken:
                raise ValueError(f"port {ports} is not free; use another port, or None for a free one")
            self._last += 1
            number = next(self._pluggings)
            connection = self._connections[self._last] = Connection(self.number, ports, self._last, stick, number)
            connection.set_on_leave(partial(_unplug, weakref.ref(self), connection.number))
            self._notify()
            return connection.device()

    def unplug(self, what: Device | Stick) -> None:
        """Unplug a stick: its transfers in progress end with NO_DEVICE at once. ValueError if it is not plugged in."""
        with self._lock:
            found = self._connection(what) if isinstance(what, Device) else self._connection_of(what)
            if found is None:
                raise ValueError("the stick is not plugged in")
            del self._connections[found.number]
        found.disconnect()
        self._notify()

    def drop(self, number: int) -> None:
        """Remove the device with that address, which left by itself."""
        with self._lock:
            found = self._connections.pop(number, None)
        if found is not None:
            found.disconnect()
            self._notify()
            self._await(found)

    def _await(self, left: Connection) -> None:
        """Plug a stick in again after the time that it stays away, if any."""
        if left.stick.absence is None:
            return
        timer = threading.Timer(left.stick.absence, _plug_again, (weakref.ref(self), left.stick, left.ports))
        timer.daemon = True
        with self._lock:
            self._returns = {each for each in self._returns if each.is_alive()} | {timer}
            timer.start()

    def _connection_of(self, stick: Stick) -> Connection | None:
        return next((each for each in self._connections.values() if each.stick is stick), None)

    def _connection(self, device: Device) -> Connection | None:
        with self._lock:
            return self._connections.get(device.number) if device.bus == self.number else None

    @property
    def handles(self) -> Sequence[VirtualHandle]:
        """The open handles."""
        with self._lock:
            self._handles = [handle for handle in self._handles if handle.is_open]
            return tuple(self._handles)

    def _notify(self) -> None:
        with self._lock:
            for watch in self._watches:
                watch.note()

    # --- the protocol `Backend` -----------------------------------------------------------------

    def devices(self) -> Sequence[Device]:
        """See `Backend.devices`."""
        with self._lock:
            return [connection.device() for connection in self._connections.values()]

    def strings(self, device: Device) -> Strings:
        """See `Backend.strings`; None for each string if `Stick.has_readable_strings` is False."""
        connection = self._connection(device)
        return connection.strings() if connection else Strings()

    def driver(self, device: Device, interface: int) -> str | None:
        """See `Backend.driver`."""
        connection = self._connection(device)
        return connection.driver(interface) if connection else None

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        """See `Backend.uses`; returns `Stick.uses` while a storage driver is bound to the interface."""
        connection = self._connection(device)
        return connection.uses(interface) if connection else ()

    def disks(self, device: Device, interface: int) -> Sequence[BlockDisk]:
        """See `Backend.disks`; returns `Stick.disks` while a storage driver is bound to the interface."""
        connection = self._connection(device)
        return connection.disks(interface) if connection else ()

    def open(self, device: Device) -> VirtualHandle:
        """See `Backend.open`; ACCESS if `Stick.accessible` is False."""
        connection = self._connection(device)
        if connection is None or connection.device().identity != device.identity:
            raise UsbError(Code.NO_DEVICE)
        if not connection.stick.accessible:
            raise UsbError(Code.ACCESS)
        handle = VirtualHandle(connection)
        with self._lock:
            self._handles = [*self.handles, handle]  # `handles` drops those that were closed
        return handle

    @property
    def identity(self) -> Hashable:
        """See `Backend.identity`; each bus has its own devices."""
        return id(self)

    @property
    def is_shared(self) -> bool:
        """See `Backend.is_shared`."""
        return False

    def after_fork(self, device: Device) -> None:
        """See `Backend.after_fork`; does nothing, as the child has a copy of the bus and of each stick."""

    def watch(self) -> Watch:
        """See `Backend.watch`."""
        watch = Watch(self._remove_watch)
        with self._lock:
            self._watches.append(watch)
        return watch

    def _remove_watch(self, watch: Watch) -> None:
        with self._lock:
            self._watches.remove(watch)

    def close(self) -> None:
        """Close the open handles, and unplug and close the sticks."""
        with self._lock:
            for timer in self._returns:
                timer.cancel()
        for handle in self.handles:
            handle.close()
        for connection in tuple(self._connections.values()):
            self.unplug(connection.stick)
            connection.stick.close()


def _unplug(bus: weakref.ref[Bus], number: int) -> None:
    """Remove a device that left by itself; the weak reference keeps the stick from keeping its bus alive."""
    found = bus()
    if found is not None:
        found.drop(number)


def _plug_again(bus: weakref.ref[Bus], stick: Stick, ports: tuple[int, ...]) -> None:
    """Plug in a stick that comes back, unless it was plugged in by hand or its port is not free any more."""
    found = bus()
    if found is not None and stick.is_gone:
        with suppress(ValueError):
            found.plug(stick, ports)
