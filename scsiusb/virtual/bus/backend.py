"""A bus of sticks behind the device seam, with what the host's operating system adds to it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Sequence
from functools import partial

from scsiusb.usb.backend import Code, Device, Strings, UsbError
from scsiusb.virtual.bus.connection import Connection
from scsiusb.virtual.bus.handle import VirtualHandle
from scsiusb.virtual.bus.watch import Watch
from scsiusb.virtual.stick import Stick


class Bus:
    """A USB stack whose devices are sticks: `plug` and `unplug` are the user's hand."""

    def __init__(self, *sticks: Stick, number: int = 1) -> None:
        self.number = number
        self._lock = threading.RLock()
        self._connections: dict[int, Connection] = {}
        self._last = 1  # the root hub's address
        self._handles: list[VirtualHandle] = []
        self._watches: list[Watch] = []
        for stick in sticks:
            self.plug(stick)

    def plug(self, stick: Stick, ports: tuple[int, ...] | None = None) -> Device:
        """Plugs the stick into a free port, or the port named by the way to it."""
        with self._lock:
            taken = {each.ports for each in self._connections.values()}
            if any(each.stick is stick for each in self._connections.values()):
                raise ValueError("the stick is plugged in already")
            if ports is None:
                ports = next((port,) for port in range(1, len(taken) + 2) if (port,) not in taken)
            if not ports or ports in taken:
                raise ValueError(f"port {ports} is not free")
            self._last += 1
            connection = self._connections[self._last] = Connection(self.number, ports, self._last, stick)
            connection.watch_leaving(partial(_unplug, weakref.ref(self), connection.number))
            self._notify()
            return connection.device()

    def unplug(self, what: Device | Stick) -> None:
        """Pulls it out: transfers under way end with NO_DEVICE at once."""
        with self._lock:
            found = self._connection(what) if isinstance(what, Device) else self._connection_of(what)
            if found is None:
                raise ValueError("it is not plugged in")
            del self._connections[found.number]
        found.cut()
        self._notify()

    def lose(self, number: int) -> None:
        """The device left by itself."""
        with self._lock:
            found = self._connections.pop(number, None)
        if found is not None:
            found.cut()
            self._notify()

    def _connection_of(self, stick: Stick) -> Connection | None:
        return next((each for each in self._connections.values() if each.stick is stick), None)

    def _connection(self, device: Device) -> Connection | None:
        with self._lock:
            return self._connections.get(device.number) if device.bus == self.number else None

    @property
    def handles(self) -> Sequence[VirtualHandle]:
        """The handles that are open."""
        with self._lock:
            self._handles = [handle for handle in self._handles if handle.is_open]
            return tuple(self._handles)

    def _notify(self) -> None:
        with self._lock:
            for watch in self._watches:
                watch.note()

    # --- the seam -------------------------------------------------------------------------------

    def devices(self) -> Sequence[Device]:
        with self._lock:
            return [connection.device() for connection in self._connections.values()]

    def strings(self, device: Device) -> Strings:
        connection = self._connection(device)
        return connection.strings() if connection else Strings()

    def driver(self, device: Device, interface: int) -> str | None:
        connection = self._connection(device)
        return connection.driver(interface) if connection else None

    def uses(self, device: Device, interface: int) -> Sequence[str]:
        connection = self._connection(device)
        return connection.uses(interface) if connection else ()

    def open(self, device: Device) -> VirtualHandle:
        connection = self._connection(device)
        if connection is None:
            raise UsbError(Code.NO_DEVICE)
        if not connection.stick.accessible:
            raise UsbError(Code.ACCESS)
        handle = VirtualHandle(connection)
        with self._lock:
            self._handles = [*self.handles, handle]  # without those that were closed
        return handle

    @property
    def identity(self) -> Hashable:
        return id(self)

    @property
    def is_shared(self) -> bool:
        return False

    def after_fork(self, device: Device) -> None:
        """Nothing is shared: the child has a bus of its own, with a copy of each stick."""

    def watch(self) -> Watch:
        watch = Watch(self._forget)
        with self._lock:
            self._watches.append(watch)
        return watch

    def _forget(self, watch: Watch) -> None:
        with self._lock:
            self._watches.remove(watch)

    def close(self) -> None:
        """Closes the handles that are open, and the sticks that are plugged in."""
        for handle in self.handles:
            handle.close()
        for connection in tuple(self._connections.values()):
            self.unplug(connection.stick)
            connection.stick.close()


def _unplug(bus: weakref.ref[Bus], number: int) -> None:
    """A stick must not keep its bus alive."""
    found = bus()
    if found is not None:
        found.lose(number)
