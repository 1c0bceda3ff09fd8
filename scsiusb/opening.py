"""Opens devices: as a disk, as a disk for asyncio, or with a manager that reports attached and detached devices."""

from __future__ import annotations

import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from scsiusb import ledger
from scsiusb.base.arguments import (
    function,
    function_or_none,
    integer,
    number_or_none,
    text_or_none,
    timeout_or_none,
    wrong_type,
)
from scsiusb.base.copying import Uncopyable
from scsiusb.base.finalizing import run_aside
from scsiusb.base.logs import COMMANDS
from scsiusb.base.releases import Releases
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceClosed, DeviceNotFound, DeviceUnsupported
from scsiusb.finding import VIRTUAL as VIRTUAL
from scsiusb.finding import lun_of, real_usb
from scsiusb.finding import select as select
from scsiusb.manager.client import OnGone
from scsiusb.manager.process import PROCESS
from scsiusb.quirks.lookup import quirks_for
from scsiusb.quirks.model import Quirk, Quirks
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.bot.formats import MAX_LUN
from scsiusb.transport.choice import AUTO, TRANSPORTS
from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo, find

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from scsiusb.disk.aio import AsyncDisk
    from scsiusb.manager.events import Events, Match
    from scsiusb.manager.registry import Subscription
    from scsiusb.trace.recorder import Tracing
    from scsiusb.virtual import Bus


commands = logging.getLogger(COMMANDS)


class OpenOptions(TypedDict, total=False):
    """The keyword arguments of `open`, `aopen`, `open_on` and `Manager.open`; each may be left out.

    `lun`: the logical unit, default 0.
    `timeout`: seconds for every command; default, or None: as each command is declared.
    `on_gone`: called once if the device is unplugged, with the InterfaceInfo, or without an argument if it takes
    none; from a thread of scsiusb, so it should return soon.
    `trace`: a pcapng file that records what goes over the bus. Only the first user of a device can record.
    `quirks`: letters of the quirks that the device needs, "" for none (`scsiusb quirks --list` shows them), or rows as
    the option --quirks takes them; default, or None: what SCSIUSB_QUIRKS, the user's file or the table says.
    `transport`: "bot" or "uas", the protocol to use; default, "auto": UAS where the device, the bus and the platform
    can, else BOT, which is also used from then on if the device fails by UAS.
    """

    lun: int
    timeout: float | None
    on_gone: OnGone | None
    trace: str | None
    quirks: str | None
    transport: str


def open(device: str | InterfaceInfo | None = None, **options: Unpack[OpenOptions]) -> Disk:
    """Open a device; close the disk, or use it in a `with`, to give the device back.

    `device`: an address ("2-1"), "VID:PID", "serial=TEXT", "/dev/sdX", "virtual:FILE" or "virtual:", both also with
    options such as "virtual:?luns=2&fault=nak@csw", or what `devices` returned; None: the only one attached.
    `options`: `lun`, `timeout`, `on_gone`, `trace`, `quirks`, `transport`; see `OpenOptions`.

    A device that this process has open already is shared: commands take turns.
    Raise DeviceNotFound, DeviceNotUnique, DeviceBusy (mounted, or another program has it), AccessDenied,
    DeviceUnsupported, the errors of the first commands, TypeError and ValueError for wrong options.
    """
    _check_arguments(device, options)
    with ExitStack() as stack:
        if isinstance(device, str) and device.startswith(VIRTUAL):
            backend: Backend = _virtual(device.removeprefix(VIRTUAL), stack)
            device = None
        else:
            backend = real_usb()
        stack.callback(backend.close)
        return _open(backend, device, options, stack)


def open_on(backend: Backend, device: str | InterfaceInfo | None = None, **options: Unpack[OpenOptions]) -> Disk:
    """Open a device on a USB stack of the caller's, such as a `virtual.Bus`, which stays the caller's to close.

    The rest is as for `open`.
    """
    _check_backend(backend)
    _check_arguments(device, options)
    with ExitStack() as stack:
        return _open(backend, device, options, stack)


def aopen(
    device: str | InterfaceInfo | None = None, *, manager: Manager | None = None, **options: Unpack[OpenOptions]
) -> AsyncDisk:
    """Return a disk for `async with`, which opens the device on entry and closes it on exit.

    With `manager`, that manager opens the device. The rest is as for `open`.
    """
    from scsiusb.disk.aio import AsyncDisk  # loads asyncio, which most programs do not use

    _check_arguments(device, options)
    if manager is not None and not isinstance(manager, Manager):
        raise wrong_type("manager", "a Manager or None", manager)
    opener = open if manager is None else manager.open
    return AsyncDisk(lambda: opener(device, **options))


def _check_backend(backend: object) -> None:
    if not hasattr(backend, "devices"):
        raise wrong_type("backend", "a USB backend, such as a virtual.Bus", backend)


def _check_match(match: object) -> None:
    """Raise TypeError unless it selects devices: None, a text, or a function."""
    if match is not None and not callable(match) and not isinstance(match, str):
        raise wrong_type("device", 'a str such as "2-1", a function, or None', match)


def _check_arguments(device: object, options: OpenOptions) -> None:
    """Raise TypeError for an unknown option or a value of the wrong type, ValueError for one that is out of range."""
    if device is not None and not isinstance(device, (str, InterfaceInfo)):
        raise wrong_type("device", 'a str such as "2-1", an InterfaceInfo, or None', device)
    for name in options.keys() - OpenOptions.__annotations__.keys():
        raise TypeError(f"unknown option {name!r}; use one of {', '.join(OpenOptions.__annotations__)}")
    lun = options.get("lun", 0)
    timeout_or_none("timeout", options.get("timeout"))
    function_or_none("on_gone", options.get("on_gone"))
    text_or_none("quirks", options.get("quirks"))
    if not isinstance(options.get("trace"), os.PathLike):
        text_or_none("trace", options.get("trace"))
    if not 0 <= integer("lun", lun) <= MAX_LUN:
        raise ValueError(f"LUN {lun} is not from 0 to {MAX_LUN}")
    if options.get("transport", AUTO) not in TRANSPORTS:
        raise ValueError(f"the transport {options['transport']!r} is not one of {', '.join(TRANSPORTS)}")


def _open(backend: Backend, device: str | InterfaceInfo | None, options: OpenOptions, below: ExitStack) -> Disk:
    """Open the device; `below` is released after it."""
    trace, quirks, lun = options.get("trace"), options.get("quirks"), options.get("lun", 0)
    if trace is not None:
        backend = below.enter_context(closing(_tracing(backend, trace)))
    if commands.isEnabledFor(logging.DEBUG):
        backend = _telling(backend)
    info = device if isinstance(device, InterfaceInfo) else select(find(backend), device)
    if isinstance(device, str):
        lun = _lun(info, device, options.get("lun"))
    known = _quirks(info, quirks)
    client = PROCESS.join(
        backend,
        info,
        on_gone=options.get("on_gone"),
        below=below,
        exclusive=trace is not None,
        quirks=known,
        same_quirks=quirks is not None,
        transport=options.get("transport", AUTO),
    )
    try:
        if lun > client.max_lun:
            raise DeviceNotFound(
                f"{info} has no LUN {lun}, its last is {client.max_lun}", "run `scsiusb luns` to see them"
            )
        disk = Disk(LogicalUnit(client, lun, timeout=options.get("timeout")), client.place)
        PROCESS.close_at_exit(disk)
    except BaseException:
        client.close()
        raise
    return disk


def _lun(info: InterfaceInfo, device: str, given: int | None) -> int:
    """Return the LUN to open. Raises ValueError if `device` is the node of another LUN's disk."""
    of_node = lun_of(info, device)
    if of_node is not None and given not in (None, of_node):
        raise ValueError(f"{device} is LUN {of_node} of {info}, not LUN {given}; leave out the LUN")
    return of_node if of_node is not None else given or 0


def _quirks(info: InterfaceInfo, given: str | None) -> Quirks:
    """Return the quirks that apply. Raises DeviceUnsupported if they say not to open the device."""
    quirks = quirks_for(info.vid, info.pid, info.device.release, given)
    if Quirk.IGNORE_DEVICE in quirks:
        what = f"{info} must not be opened: {quirks.why(Quirk.IGNORE_DEVICE)}"
        raise DeviceUnsupported(what, f"--quirks {info.vid:04x}:{info.pid:04x}: opens it nevertheless")
    return quirks


class Manager(Uncopyable):
    """Lists mass-storage interfaces, reports when they are attached and detached, and opens them. Use it in a `with`.

    Every callback and iterator first gets the interfaces attached already, as "attached"; after that it gets each
    attach and detach exactly once, in order. Callbacks run in the manager's one thread, so they should return soon.
    Leaving the `with` ends the thread and the iterations, and closes what `open` opened.
    Raises TransportError if the devices cannot be listed.
    """

    def __init__(self, backend: Backend | None = None) -> None:
        from scsiusb.manager.registry import Registry

        if backend is not None:
            _check_backend(backend)
        self._backend = real_usb() if backend is None else backend
        self._lock = threading.RLock()
        self._disks: weakref.WeakSet[Disk] = weakref.WeakSet()
        self._releases = Releases()
        self._is_closing = False
        PROCESS.prepare()
        try:
            self._entry = ledger.entry("manager", "of mass-storage devices")
            self._releases.hold(self._entry)
            self._registry = Registry(self._backend, self._releases)
            PROCESS.close_at_exit(self)
            self._is_closed = False
        except BaseException:
            self._releases.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self._is_closing else f"{len(self.devices())} attached, {len(self._disks)} opened"
        return f"<Manager: {state}>"

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_closed", True):
            return
        what = f"a manager was not closed; made at {self._entry.place}"
        try:
            warnings.warn(what, ResourceWarning, stacklevel=2, source=self)
        finally:
            if not run_aside(self.close):
                self.close()

    def devices(self) -> list[InterfaceInfo]:
        """Return the attached interfaces, sorted by address. Raises DeviceClosed."""
        return self._registry.devices()

    def on_attach(self, callback: Callable[[InterfaceInfo], object], device: Match = None) -> Subscription:
        """Call `callback` with the InterfaceInfo of each interface that is attached, now or later.

        `device`: only for interfaces that this text selects (as in `open`), or for which this function returns True.
        `cancel` of the result ends it. Raises DeviceClosed.
        """
        function("callback", callback)
        _check_match(device)
        return self._registry.on_attach(callback, device)

    def on_detach(self, callback: Callable[[InterfaceInfo], object], device: Match = None) -> Subscription:
        """Call `callback` for each interface that is detached; the rest is as for `on_attach`."""
        function("callback", callback)
        _check_match(device)
        return self._registry.on_detach(callback, device)

    def events(self, timeout: float | None = None, device: Match = None) -> Events:
        """Return an iterator over attach and detach events, for `for` or `async for`.

        It ends after `timeout` seconds without an event, and when the manager is closed. `device` is as in
        `on_attach`. Raises DeviceClosed; the iterator raises EventsLost if it is read too slowly.
        """
        number_or_none("timeout", timeout)
        _check_match(device)
        return self._registry.events(timeout, device)

    def open(self, device: str | InterfaceInfo | None = None, **options: Unpack[OpenOptions]) -> Disk:
        """Open a device of this manager's bus, as `scsiusb.open`; the manager's `close` closes it, too."""
        _check_arguments(device, options)
        self._check()
        disk: Disk | None = None
        try:
            with ExitStack() as stack:
                disk = _open(self._backend, device, options, stack)
            with self._lock:
                self._check()
                self._disks.add(disk)
        except BaseException:
            if disk is not None:
                disk.close()
            raise
        return disk

    def _check(self) -> None:
        if self._is_closing:
            raise DeviceClosed("the manager was closed", "make another one")

    def close(self) -> None:
        """Close the disks and end the thread and the iterations. May be called again, also by a callback."""
        with self._lock:
            self._is_closing = True
            disks = tuple(self._disks)
        for disk in disks:
            self._releases.add(disk.close)
        try:
            self._releases.close()
        finally:
            self._is_closed = True

    def after_fork(self) -> None:
        """Mark the copy in a fork's child as closed; the manager's thread is only in the parent."""
        self._is_closed = self._is_closing = True
        self._lock = threading.RLock()
        self._releases.forget()
        self._registry.after_fork()


def _virtual(path: str, held: ExitStack) -> Bus:
    """Return a bus with one stick. Raises OSError if the file cannot be opened, ValueError if its size is wrong.

    `held` closes the stick: the bus does not close one that has left it by itself.
    """
    from scsiusb.virtual.address import open_stick
    from scsiusb.virtual.bus.backend import Bus

    try:
        return Bus(held.enter_context(open_stick(path)))
    except ValueError as error:
        raise ValueError(f"{VIRTUAL}{path}: {error}") from error


def _telling(backend: Backend) -> Backend:
    """Return a backend that logs each command."""
    from scsiusb.ata import DECLARING
    from scsiusb.scsi.telling import Teller
    from scsiusb.trace.commands import CommandLog

    teller = Teller(DECLARING)
    return CommandLog(backend, lambda exchange: commands.debug("%s", teller.line(exchange)))


def _tracing(backend: Backend, path: str) -> Tracing:
    from scsiusb.trace.recorder import Tracing

    return Tracing(backend, path)
