"""A USB stack whose every call is recorded, and can be preceded or followed by a mishap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.virtual import Bus, Memory, Stick, Unit, VirtualHandle, bot_interface, uas_interface

Mishap = Callable[[], object]


class Watched:
    """`steps` are the calls so far, those of handles and those of the stack alike, with their arguments."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.steps: list[tuple[Any, ...]] = []
        self.handle: VirtualHandle | None = None
        self._before: dict[int, Mishap] = {}
        self._after: dict[int, Mishap] = {}

    def before(self, step: int, mishap: Mishap) -> None:
        self._before[step] = mishap

    def after(self, step: int, mishap: Mishap) -> None:
        self._after[step] = mishap

    @property
    def backend(self) -> Backend:
        return cast(Backend, _Proxy(self, self.bus))

    @property
    def names(self) -> list[str]:
        return [step[0] for step in self.steps]

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        number = len(self.steps)
        self.steps.append((name, *arguments))
        self._before.get(number, _nothing)()
        result = function(*arguments)
        self._after.get(number, _nothing)()
        if name != "open":
            return result
        self.handle = result
        return _Proxy(self, result)


class _Proxy:
    def __init__(self, watched: Watched, target: object) -> None:
        self._watched = watched
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._watched.call(name, getattr(self._target, name), arguments)


def _nothing() -> None:
    pass


class Scene:
    """A stick on a bus, seen by a `Watched` stack: with BOT alone, or with UAS in its alternate setting 1."""

    def __init__(self, uas: bool = False) -> None:
        self.stick = Stick([Unit(Memory(4096))], None, [bot_interface(), *([uas_interface()] if uas else [])])
        self.bus = Bus(self.stick)
        self.device = self.bus.devices()[0]
        self.watched = Watched(self.bus)
        self.driver_before = self.bus.driver(self.device, 0)

    @property
    def backend(self) -> Backend:
        return self.watched.backend

    @property
    def info(self) -> InterfaceInfo:
        (info,) = find(self.bus)
        return info

    @property
    def driver(self) -> str | None:
        return self.bus.driver(self.device, 0)

    def unplug(self) -> None:
        self.bus.unplug(self.device)

    def unbind(self) -> None:
        """Nobody drives the interface from now on."""
        handle = self.bus.open(self.device)
        handle.detach_driver(0)
        handle.close()
        self.driver_before = None

    def assert_all_given_back(self) -> None:
        """As it was before: the driver bound or not, nothing claimed, no handle open, no buffer outstanding."""
        assert self.driver == self.driver_before
        assert self.bus.handles == ()
        handle = self.bus.open(self.device)
        if self.driver:
            handle.detach_driver(0)
        handle.claim(0)  # BUSY if anybody had it
        handle.release(0)
        if self.driver_before:
            handle.attach_driver(0)
        handle.close()
        self.assert_no_buffer_outstanding()

    def assert_no_buffer_outstanding(self) -> None:
        assert self.watched.handle is None or self.watched.handle.outstanding == 0
