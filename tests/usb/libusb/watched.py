"""A USB stack that records every call, and can run a disturbance before or after one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.virtual import Bus, Memory, Stick, Unit, VirtualHandle, bot_interface, uas_interface

Disturbance = Callable[[], object]


class Watched:
    """`steps` are all calls so far, to handles and to the stack, with their arguments."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.steps: list[tuple[Any, ...]] = []
        self.handle: VirtualHandle | None = None
        self._before: dict[int, Disturbance] = {}
        self._after: dict[int, Disturbance] = {}

    def before(self, step: int, disturbance: Disturbance) -> None:
        self._before[step] = disturbance

    def after(self, step: int, disturbance: Disturbance) -> None:
        self._after[step] = disturbance

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
    """A stick on a bus, used through a `Watched` stack: with BOT only, or also with UAS in alternate setting 1."""

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
        """Detach the kernel driver for the rest of the test."""
        handle = self.bus.open(self.device)
        handle.detach_driver(0)
        handle.close()
        self.driver_before = None

    def assert_all_given_back(self) -> None:
        """Assert that the driver is bound as before and nothing is claimed, open or outstanding."""
        assert self.driver == self.driver_before
        assert self.bus.handles == ()
        handle = self.bus.open(self.device)
        if self.driver:
            handle.detach_driver(0)
        handle.claim(0)  # raises BUSY if it is still claimed
        handle.release(0)
        if self.driver_before:
            handle.attach_driver(0)
        handle.close()
        self.assert_no_buffer_outstanding()

    def assert_no_buffer_outstanding(self) -> None:
        assert self.watched.handle is None or self.watched.handle.outstanding == 0
