"""The stick: a device with its descriptors, default control pipe, functions and logical units."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from scsiusb.base.copying import Uncopyable
from scsiusb.usb.backend import ENDPOINT_IN, BlockDisk, Code, Setting
from scsiusb.virtual.device import descriptors, ep0
from scsiusb.virtual.device.bot import BotOptions
from scsiusb.virtual.device.descriptors import Descriptors, Identity, InterfaceDescriptor
from scsiusb.virtual.device.function import ENDINGS, Answer, Function, Plug, SilentFunction, Stall
from scsiusb.virtual.faults.bot_faults import FaultyBot
from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.faults.script import Script
from scsiusb.virtual.faults.uas_faults import FaultyUas
from scsiusb.virtual.target import fat
from scsiusb.virtual.target.media import File
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.unit import SERIAL, Unit

_WAIT_SLICE = 0.05  # seconds; on Windows a wait is not interrupted by Ctrl-C, so waits are short and repeated


class CancelToken:
    """Ends transfers: while the token or its parent has a code, all transfers with the token end with that code.

    A connection has one token, which is the parent of the tokens of its handles.
    """

    def __init__(self, parent: CancelToken | None = None) -> None:
        self._parent = parent
        self.own_code: Code | None = None  # set by `Stick.cancel_transfers`

    @property
    def code(self) -> Code | None:
        """The code that transfers end with; None: they continue."""
        return self._parent.code if self._parent is not None and self._parent.code is not None else self.own_code


class Stick(Uncopyable):
    """A virtual USB device; any thread may use it.

    `units` are the logical units of the mass-storage interface, or a mapping from the number of each such interface to
    its units; the mapping is empty for a device without mass storage. `interfaces` defaults to one `bot_interface`.
    `faults` may be given as text (see `Fault.parse`).
    `uses`, `disks`, `accessible` and `has_readable_strings` are the operating system's view of the device, for tests:
    what uses its disks, which disks the kernel has made of it, whether it may be opened, and whether its strings can be
    read.

    Raises ValueError if the units, interfaces or faults are invalid.
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
        self.uses: Sequence[str] = ()  # such as "/dev/sda1 is mounted on /mnt"
        self.disks: Sequence[BlockDisk] = ()
        self.accessible = True
        self.has_readable_strings = True
        self.host_has_streams = True  # whether the host's controller and platform have them
        self.on_leave: list[Callable[[], None]] = []  # called, without a lock held, when it leaves the bus by itself
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
        """Return a stick of 8 MiB in memory, with a FAT file system that contains README.TXT.

        Raises ValueError for a block size other than 512, 1024, 2048 or 4096 bytes.
        """
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
        """Return a stick that stores its blocks in the file at `path`; see `File` for `read_only`.

        Raises OSError if the file cannot be opened, and ValueError if its size is not a multiple of the block size.
        """
        return cls([Unit(File(path, block_size, read_only))], identity, interfaces, bot_options, faults)

    def __repr__(self) -> str:
        units = ", ".join(unit.product for unit in self.units)
        who = f"{self.identity.vid:04x}:{self.identity.pid:04x} serial={self.identity.serial}"
        return f"<Stick {who}: {units or 'no units'}>"

    def __enter__(self) -> Stick:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the media; may be called again."""
        for unit in self.units:
            unit.close()

    @property
    def units(self) -> tuple[Unit, ...]:
        """The logical units of all interfaces; if there is one mass-storage interface, the index is the LUN."""
        targets = {id(target): target for target in self._targets.values()}
        return tuple(unit for target in targets.values() for unit in target.units)

    def _function(self, setting: Setting, bot_options: BotOptions) -> Function:
        bulk_in = next((endpoint for endpoint in setting.endpoints if endpoint.is_bulk_in), None)
        bulk_out = next((endpoint for endpoint in setting.endpoints if endpoint.is_bulk_out), None)
        is_bot = setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.BOT
        if is_bot and bulk_in and bulk_out:
            return FaultyBot(bulk_in, bulk_out, self._targets[setting.interface], bot_options, self.faults, self._plug)
        is_uas = setting.interface_class == descriptors.MASS_STORAGE and setting.protocol == descriptors.UAS
        if is_uas and {each.pipe for each in setting.endpoints} >= {1, 2, 3, 4}:
            has_streams = self.identity.speed.startswith("super")
            target = self._targets[setting.interface]
            return FaultyUas(setting.endpoints, target, self.faults, self._plug, has_streams=has_streams)
        return SilentFunction(setting.interface_class == descriptors.HID)

    # --- the device's state, for the default control pipe and the bus ---------------------------

    def plug_in(self) -> None:
        """Connect the stick to a host's port: power on, and count commands from 1 again."""
        with self._changed:
            self._plug.connect()
            self.faults.commands = 0
            self.power_on()

    def power_on(self) -> None:
        """Power on, or reset the port: not configured, UNIT ATTENTION pending; transfers in progress end with IO."""
        with self._changed:
            self._resets += 1
            for unit in self.units:
                unit.power_on()
            self.configure(0)
            self._changed.notify_all()

    @property
    def is_gone(self) -> bool:
        """Whether the device has left the bus by itself (faults "disconnect" and "away")."""
        return self._plug.is_gone

    @property
    def is_away(self) -> bool:
        """Whether the device has left the bus by itself for a time that is not over (fault "away")."""
        return self._plug.is_away

    @property
    def absence(self) -> float | None:
        """The seconds after which the device comes back to the bus that it has left; None: it does not by itself."""
        return self._plug.absence

    def _report_leaving(self) -> None:
        with self._changed:
            was_unreported, self._plug.is_unreported = self._plug.is_unreported, False
            self._changed.notify_all()
        if was_unreported:
            for call in tuple(self.on_leave):
                call()

    def configure(self, value: int) -> None:
        """Select the configuration, and reset the functions; configuration 0 has no interfaces."""
        with self._changed:
            self.configuration = value
            self.alternates = {setting.interface: 0 for setting in self.settings} if value else {}
            for function in self._functions.values():
                function.reset()

    def select(self, interface: int, alternate: int) -> None:
        """Select an alternate setting, and reset its function; raises `Stall` if there is no such setting."""
        with self._changed:
            function = self._functions.get((interface, alternate))
            if function is None:
                raise Stall
            self.alternates[interface] = alternate
            function.reset()

    def function_of_interface(self, interface: int) -> Function:
        """Return the function of the interface's selected setting; raises `Stall` if there is no such interface."""
        if interface not in self.alternates:
            raise Stall
        return self._functions[interface, self.alternates[interface]]

    def interface_of_endpoint(self, address: int) -> int | None:
        """Return the interface whose selected setting has the endpoint, or None."""
        for setting in self.settings:
            is_selected = self.alternates.get(setting.interface) == setting.alternate
            if is_selected and any(endpoint.address == address for endpoint in setting.endpoints):
                return setting.interface
        return None

    def function_of_endpoint(self, address: int) -> Function:
        """Return the function that has the endpoint; raises `Stall` if there is no such endpoint."""
        interface = self.interface_of_endpoint(address)
        if interface is None:
            raise Stall
        return self.function_of_interface(interface)

    def descriptor(self, kind: int, index: int = 0) -> bytes | None:
        """Return the answer to GET_DESCRIPTOR, with the "descriptor" faults applied; None if there is no such one."""
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
        if not found or (kind == descriptors.STRING and not index):  # the list of languages has no faults
            return found
        return self.faults.change_descriptor(kind, found)

    # --- transfers ------------------------------------------------------------------------------

    def control(self, setup: bytes, data: bytes = b"") -> bytes:
        """Perform a control transfer: `setup` is the setup packet, `data` the data-out stage; return the data-in stage.

        Raises `Stall`, or its subclass `Hang` if the device does not answer at all.
        """
        with self._changed:
            try:
                return ep0.control(self, setup, data)
            finally:
                self._changed.notify_all()

    def transfer(
        self, endpoint: int, buffer: memoryview, timeout: float | None, token: CancelToken | None = None
    ) -> tuple[Code, int]:
        """Perform a bulk or interrupt transfer in the endpoint's direction; wait while the device answers NAK.

        `timeout` is in seconds, None: no limit. Returns the result and the number of bytes moved. The transfer ends
        with the token's code if it has one, and with IO if the port is reset.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            result = self._transfer(endpoint, buffer, deadline, token or CancelToken())
        if self._plug.is_unreported:
            self._report_leaving()
        return result

    def _transfer(
        self, endpoint: int, buffer: memoryview, deadline: float | None, token: CancelToken
    ) -> tuple[Code, int]:
        done, resets = 0, self._resets
        while token.code is None and resets == self._resets:
            code, count, waits = self._step(endpoint, buffer[done:])
            done += count
            if code is not None:
                return code, done
            if waits and not self._wait(deadline):
                return Code.TIMEOUT, done
        return (Code.IO if token.code is None else token.code), done

    def wait_unanswered(self, timeout: float, token: CancelToken) -> Code:
        """Wait as a host does for a control request that the device never answers (`Hang`), and return its result.

        Waits for `timeout` seconds (TIMEOUT), or until the token has a code, the port is reset or the device leaves.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            resets = self._resets
            while token.code is None and resets == self._resets and not self.is_gone:
                if not self._wait(deadline):
                    return Code.TIMEOUT
            return Code.NO_DEVICE if self.is_gone else token.code or Code.IO

    def step(self, endpoint: int, rest: memoryview, stream: int = 0) -> tuple[Code | None, int, bool]:
        """Move a part of a transfer without waiting, for hosts that poll.

        `stream`: the stream of the endpoint, 0 for none. `rest` is the part of the transfer's buffer that has not been
        moved. Returns the result if the transfer has ended, else None; the number of bytes moved; and whether to wait
        before the next step, because of a NAK.
        """
        with self._changed:
            result = self._step(endpoint, rest, stream)
        if self._plug.is_unreported:
            self._report_leaving()
        return result

    def packet_size(self, endpoint: int) -> int:
        """Return the largest packet of the endpoint, in bytes; 1 if there is no such endpoint."""
        found = (each for setting in self.settings for each in setting.endpoints if each.address == endpoint)
        return max((each.max_packet_size for each in found), default=1) or 1

    def await_change(self, seconds: float) -> None:
        """Wait until something has changed, for `seconds` and a short time at most."""
        with self._changed:
            self._wait(time.monotonic() + seconds)

    def _step(self, endpoint: int, rest: memoryview, stream: int = 0) -> tuple[Code | None, int, bool]:
        """See `step`; the lock must be held."""
        if self._plug.is_gone:
            return Code.NO_DEVICE, 0, False
        interface = self.interface_of_endpoint(endpoint)
        if interface is None:
            return Code.NOT_FOUND, 0, False
        function = self.function_of_interface(interface)
        move = function.send if endpoint & ENDPOINT_IN else function.receive
        answer, count = move(endpoint, rest, stream)
        if answer is Answer.NAK:
            return None, 0, not self._plug.is_gone
        self._changed.notify_all()
        if answer is Answer.MORE:
            return (Code.OK if count == len(rest) else None), count, False
        return ENDINGS[answer], count, False

    def _wait(self, deadline: float | None) -> bool:
        """Wait for a change, a short time at most; return False if the deadline has passed."""
        now = time.monotonic()
        left = _WAIT_SLICE if deadline is None else deadline - now
        if left > 0:
            delay = self.faults.delay_end - now  # the end of a fault "delay" is not notified
            self._changed.wait(min(left, delay if delay > 0 else _WAIT_SLICE, _WAIT_SLICE))
        return left > 0

    def cancel_transfers(self, token: CancelToken, code: Code | None) -> None:
        """End every transfer with the token, in progress or later, with `code`; None permits transfers again."""
        with self._changed:
            token.own_code = code
            self._changed.notify_all()


def _targets(units: Sequence[Unit] | Mapping[int, Sequence[Unit]], settings: Sequence[Setting]) -> dict[int, Target]:
    """Return the target of each mass-storage interface, by the interface's number."""
    storage = {setting.interface for setting in settings if setting.interface_class == descriptors.MASS_STORAGE}
    if isinstance(units, Mapping):
        if set(units) != storage:
            given, needed = sorted(units), sorted(storage)
            raise ValueError(f"units for interfaces {given}; give units for the mass-storage interfaces, {needed}")
        return {number: Target(some) for number, some in units.items()}
    return dict.fromkeys(storage, Target(units))
