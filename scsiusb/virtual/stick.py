"""A stick: identity, descriptors, default control pipe, functions and logical units put together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from scsiusb.usb.backend import ENDPOINT_IN, Code, Setting
from scsiusb.virtual.device import descriptors, ep0
from scsiusb.virtual.device.bot import BotOptions
from scsiusb.virtual.device.descriptors import Descriptors, Identity, InterfaceDescriptor
from scsiusb.virtual.device.function import ENDINGS, Answer, Function, Mute, Plug, Stall
from scsiusb.virtual.faults.bot_faults import Faulty
from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.faults.script import Script
from scsiusb.virtual.target import fat
from scsiusb.virtual.target.media import File
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.unit import SERIAL, Unit

_SLICE = 0.05  # seconds: on Windows a wait keeps KeyboardInterrupt from getting through


class Line:
    """The cable as a transfer sees it: `code` is what every transfer on it ends with once it, or its trunk, is cut."""

    def __init__(self, trunk: Line | None = None) -> None:
        self._trunk = trunk
        self.cut: Code | None = None

    @property
    def code(self) -> Code | None:
        return self._trunk.code if self._trunk is not None and self._trunk.code is not None else self.cut


class Stick:
    """A device made of software; any thread may use it.

    `units` are the logical units of its mass-storage interface, or, in a mapping, of each by its number; a device
    without such an interface has the mapping empty.
    `uses`, `accessible` and `has_readable_strings` are what the host's operating system makes of the device.
    """

    def __init__(
        self,
        units: Sequence[Unit] | Mapping[int, Sequence[Unit]],
        identity: Identity | None = None,
        interfaces: Sequence[InterfaceDescriptor] | None = None,
        bot_options: BotOptions | None = None,
        faults: Iterable[Fault | str] = (),
    ) -> None:
        layout = tuple(interfaces or (descriptors.bot_interface(),))
        descriptors.check_layout(layout)
        self.identity = identity or Identity()
        self.faults = Script(faults)
        self.descriptors = Descriptors(self.identity, layout)
        self.settings = descriptors.parse_settings(self.descriptors.configuration())
        self.uses: Sequence[str] = ()  # "/dev/sda1 is mounted on /mnt", …
        self.accessible = True
        self.has_readable_strings = True
        self.on_leave: list[Callable[[], None]] = []  # called when it has left by itself, without any lock
        self._plug = Plug()
        self.configuration = 0
        self.alternates: dict[int, int] = {}
        self._targets = _targets(units, self.settings)
        for unit in self.units:
            unit.device_serial = self.identity.serial or SERIAL
        self._functions = {
            (setting.interface, setting.alternate): self._function(setting, bot_options or BotOptions())
            for setting in self.settings
        }
        self._changed = threading.Condition()
        self._resets = 0
        self.configure(0)

    @classmethod
    def formatted(
        cls,
        block_size: int = 512,
        identity: Identity | None = None,
        interfaces: Sequence[InterfaceDescriptor] | None = None,
        bot_options: BotOptions | None = None,
        faults: Iterable[Fault | str] = (),
    ) -> Stick:
        """A small stick in memory, formatted, with a README.TXT on it."""
        return cls([Unit(fat.Formatted(block_size))], identity, interfaces, bot_options, faults)

    @classmethod
    def open_file(
        cls,
        path: str | os.PathLike[str],
        block_size: int = 512,
        identity: Identity | None = None,
        interfaces: Sequence[InterfaceDescriptor] | None = None,
        bot_options: BotOptions | None = None,
        faults: Iterable[Fault | str] = (),
        *,
        read_only: bool | None = None,
    ) -> Stick:
        """A stick whose blocks are the file's; OSError or ValueError if the file will not do."""
        return cls([Unit(File(path, block_size, read_only))], identity, interfaces, bot_options, faults)

    def __enter__(self) -> Stick:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the media."""
        for unit in self.units:
            unit.close()

    @property
    def units(self) -> tuple[Unit, ...]:
        """The logical units of all interfaces; with one mass-storage interface the index is the LUN."""
        targets = {id(target): target for target in self._targets.values()}
        return tuple(unit for target in targets.values() for unit in target.units)

    def _function(self, setting: Setting, bot_options: BotOptions) -> Function:
        bulk_in = next((endpoint for endpoint in setting.endpoints if endpoint.is_bulk_in), None)
        bulk_out = next((endpoint for endpoint in setting.endpoints if endpoint.is_bulk_out), None)
        is_bot = setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.BOT
        if is_bot and bulk_in and bulk_out:
            return Faulty(bulk_in, bulk_out, self._targets[setting.interface], bot_options, self.faults, self._plug)
        return Mute(setting.interface_class == descriptors.HID)

    # --- the device's state, for the default control pipe and the bus ---------------------------

    def plug_in(self) -> None:
        """Puts the plug into a host's port."""
        with self._changed:
            self._plug.put_in()
            self.faults.commands = 0
            self.power_on()

    def power_on(self) -> None:
        """Also a reset of the port: not configured, and UNIT ATTENTION is pending. Transfers under way fail."""
        with self._changed:
            self._resets += 1
            for unit in self.units:
                unit.power_on()
            self.configure(0)
            self._changed.notify_all()

    @property
    def is_gone(self) -> bool:
        """Has it left its host by itself?"""
        return self._plug.is_gone

    def _tell_leaving(self) -> None:
        with self._changed:
            was_leaving, self._plug.is_leaving = self._plug.is_leaving, False
            self._changed.notify_all()
        if was_leaving:
            for call in tuple(self.on_leave):
                call()

    def configure(self, value: int) -> None:
        """Configuration 0 has no interfaces."""
        with self._changed:
            self.configuration = value
            self.alternates = {setting.interface: 0 for setting in self.settings} if value else {}
            for function in self._functions.values():
                function.reset()

    def select(self, interface: int, alternate: int) -> None:
        """Selects an alternate setting; raises `Stall` if there is no such one."""
        with self._changed:
            function = self._functions.get((interface, alternate))
            if function is None:
                raise Stall
            self.alternates[interface] = alternate
            function.reset()

    def function_of_interface(self, interface: int) -> Function:
        if interface not in self.alternates:
            raise Stall
        return self._functions[interface, self.alternates[interface]]

    def interface_of_endpoint(self, address: int) -> int | None:
        """The interface whose setting, as selected now, has the endpoint."""
        for setting in self.settings:
            is_selected = self.alternates.get(setting.interface) == setting.alternate
            if is_selected and any(endpoint.address == address for endpoint in setting.endpoints):
                return setting.interface
        return None

    def function_of_endpoint(self, address: int) -> Function:
        interface = self.interface_of_endpoint(address)
        if interface is None:
            raise Stall
        return self.function_of_interface(interface)

    def descriptor(self, kind: int, index: int = 0) -> bytes | None:
        """What the device answers to GET_DESCRIPTOR; None: it does not have it."""
        if kind == descriptors.STRING:
            found = self.descriptors.string(index)
        else:
            render = {
                descriptors.DEVICE: self.descriptors.device,
                descriptors.CONFIGURATION: self.descriptors.configuration,
                descriptors.DEVICE_QUALIFIER: self.descriptors.qualifier,
                descriptors.OTHER_SPEED: self.descriptors.other_speed,
                descriptors.BOS: self.descriptors.bos,
            }.get(kind)
            found = render() if render and index == 0 else None
        return self.faults.twisted(kind, found) if found and (kind != descriptors.STRING or index) else found

    # --- what comes over the cable --------------------------------------------------------------

    def control(self, setup: bytes, data: bytes = b"") -> bytes:
        """A control transfer: the setup packet and the data-out stage in, the data-in stage out; raises `Stall`."""
        with self._changed:
            try:
                return ep0.control(self, setup, data)
            finally:
                self._changed.notify_all()

    def transfer(
        self, endpoint: int, buffer: memoryview, timeout: float | None, line: Line | None = None
    ) -> tuple[Code, int]:
        """A bulk or interrupt transfer in the endpoint's direction; waits as long as the device answers NAK."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            result = self._transfer(endpoint, buffer, deadline, line or Line())
        if self._plug.is_leaving:
            self._tell_leaving()
        return result

    def _transfer(self, endpoint: int, buffer: memoryview, deadline: float | None, line: Line) -> tuple[Code, int]:
        done, resets = 0, self._resets
        while line.code is None and resets == self._resets:
            code, count, waits = self._step(endpoint, buffer[done:])
            done += count
            if code is not None:
                return code, done
            if waits and not self._wait(deadline):
                return Code.TIMEOUT, done
        return (Code.IO if line.code is None else line.code), done

    def hang(self, timeout: float, line: Line) -> Code:
        """A request that the device does not answer: waits for the timeout, or for the end of the line."""
        deadline = time.monotonic() + timeout
        with self._changed:
            resets = self._resets
            while line.code is None and resets == self._resets and not self.is_gone:
                if not self._wait(deadline):
                    return Code.TIMEOUT
            return Code.NO_DEVICE if self.is_gone else line.code or Code.IO

    def step(self, endpoint: int, rest: memoryview) -> tuple[Code | None, int, bool]:
        """A part of a transfer, for a host that does not wait in here: as `_step` says."""
        with self._changed:
            result = self._step(endpoint, rest)
        if self._plug.is_leaving:
            self._tell_leaving()
        return result

    def packet_size(self, endpoint: int) -> int:
        """What a packet of the endpoint holds at most; 1 where there is no such endpoint."""
        found = (each for setting in self.settings for each in setting.endpoints if each.address == endpoint)
        return max((each.max_packet_size for each in found), default=1) or 1

    def _step(self, endpoint: int, rest: memoryview) -> tuple[Code | None, int, bool]:
        """What the transfer came to, if it has ended; how much was moved; whether to wait before the next step."""
        if self._plug.is_gone:
            return Code.NO_DEVICE, 0, False
        interface = self.interface_of_endpoint(endpoint)
        if interface is None:
            return Code.NOT_FOUND, 0, False
        function = self.function_of_interface(interface)
        move = function.send if endpoint & ENDPOINT_IN else function.receive
        answer, count = move(endpoint, rest)
        if answer is Answer.NAK:
            return None, 0, not self._plug.is_gone
        self._changed.notify_all()
        if answer is Answer.MORE:
            return (Code.OK if count == len(rest) else None), count, False
        return ENDINGS[answer], count, False

    def _wait(self, deadline: float | None) -> bool:
        now = time.monotonic()
        left = _SLICE if deadline is None else deadline - now
        if left > 0:
            pause = self.faults.due - now
            self._changed.wait(min(left, pause if pause > 0 else _SLICE, _SLICE))
        return left > 0

    def cut(self, line: Line, code: Code | None) -> None:
        """Ends every transfer on the line at once, with the code; None mends it."""
        with self._changed:
            line.cut = code
            self._changed.notify_all()


def _targets(units: Sequence[Unit] | Mapping[int, Sequence[Unit]], settings: Sequence[Setting]) -> dict[int, Target]:
    """The target of each mass-storage interface, by its number."""
    storage = {setting.interface for setting in settings if setting.interface_class == descriptors.MASS_STORAGE}
    if isinstance(units, Mapping):
        if set(units) != storage:
            raise ValueError(f"units for interfaces {sorted(units)}, but the mass-storage ones are {sorted(storage)}")
        return {number: Target(some) for number, some in units.items()}
    return dict.fromkeys(storage, Target(units))
