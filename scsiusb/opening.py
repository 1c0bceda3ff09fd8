"""Which device the words mean, and opening it; the manager, which opens what it sees."""

from __future__ import annotations

import operator
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType
from typing import TYPE_CHECKING

from scsiusb import ledger
from scsiusb.base.releases import Releases
from scsiusb.disk.disk import Disk
from scsiusb.errors import DeviceClosed, DeviceNotFound, DeviceUnsupported
from scsiusb.finding import VIRTUAL as VIRTUAL
from scsiusb.finding import real_usb
from scsiusb.finding import select as select
from scsiusb.manager.client import OnGone
from scsiusb.manager.process import PROCESS
from scsiusb.quirks.model import Quirk, Quirks, quirks_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.bot.formats import MAX_LUN
from scsiusb.usb.backend import Backend
from scsiusb.usb.interface import InterfaceInfo, find

if TYPE_CHECKING:
    from scsiusb.manager.events import Events, Match
    from scsiusb.manager.registry import Subscription
    from scsiusb.trace.recorder import Tracing
    from scsiusb.virtual import Bus


def open(
    device: str | InterfaceInfo | None = None,
    *,
    lun: int = 0,
    timeout: float | None = None,
    on_gone: OnGone | None = None,
    trace: str | None = None,
    quirks: str | None = None,
) -> Disk:
    """Opens a device; close the disk, or use it in a `with`, to give it back.

    `device`: an address ("2-1"), "VID:PID", "serial=TEXT", "virtual:FILE", "virtual:" alone, or what `devices`
    returned; None: the only one attached. `timeout`: seconds for every command, None: as each is declared.
    `on_gone` is called once if the device is unplugged: with the InterfaceInfo, or with nothing if it takes nothing;
    from a thread of scsiusb's, so it should return soon. `trace`: a pcapng file that records what goes over the bus.
    `quirks`: letters for what the device needs care for, "" for nothing (see `scsiusb quirks --list`), or rows as the
    option --quirks takes them; None: what SCSIUSB_QUIRKS, the user's file or the table says.

    Opened again while it is open in this process, the device is shared: commands take turns.
    Raises DeviceNotFound, DeviceNotUnique, DeviceBusy (mounted, or another program has it), AccessDenied,
    DeviceUnsupported, the errors of the first commands, and ValueError for quirks that cannot be read.
    """
    _check_arguments(lun, timeout)
    with ExitStack() as stack:
        if isinstance(device, str) and device.startswith(VIRTUAL):
            backend: Backend = _virtual(device.removeprefix(VIRTUAL))
            device = None
        else:
            backend = real_usb()
        stack.callback(backend.close)
        return _open(backend, device, lun, timeout, on_gone, trace, stack, quirks)


def open_on(
    backend: Backend,
    device: str | InterfaceInfo | None = None,
    *,
    lun: int = 0,
    timeout: float | None = None,
    on_gone: OnGone | None = None,
    quirks: str | None = None,
) -> Disk:
    """As `open`, on a USB stack of the caller's, such as a `virtual.Bus`, which stays the caller's to close."""
    _check_arguments(lun, timeout)
    with ExitStack() as stack:
        return _open(backend, device, lun, timeout, on_gone, None, stack, quirks)


def _check_arguments(lun: int, timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"a timeout of {timeout} seconds")
    if not 0 <= operator.index(lun) <= MAX_LUN:
        raise ValueError(f"LUN {lun} is not from 0 to {MAX_LUN}")


def _open(
    backend: Backend,
    device: str | InterfaceInfo | None,
    lun: int,
    timeout: float | None,
    on_gone: OnGone | None,
    trace: str | None,
    below: ExitStack,
    letters: str | None = None,
) -> Disk:
    if trace is not None:
        backend = below.enter_context(closing(_tracing(backend, trace)))
    info = device if isinstance(device, InterfaceInfo) else select(find(backend), device)
    client = PROCESS.join(
        backend,
        info,
        on_gone=on_gone,
        below=below,
        alone=trace is not None,
        quirks=_quirks(info, letters),
        insisting=letters is not None,
    )
    try:
        if lun > client.max_lun:
            raise DeviceNotFound(
                f"{info} has no LUN {lun}, its last is {client.max_lun}", "run `scsiusb luns` to see them"
            )
        disk = Disk(LogicalUnit(client, lun, timeout=timeout), client.place)
        PROCESS.close_at_exit(disk)
    except BaseException:
        client.close()
        raise
    return disk


def _quirks(info: InterfaceInfo, given: str | None) -> Quirks:
    """Raises DeviceUnsupported for a device that is to be left alone."""
    quirks = quirks_for(info.vid, info.pid, info.device.release, given)
    if Quirk.IGNORE_DEVICE in quirks:
        what = f"{info} is to be left alone: {quirks.why(Quirk.IGNORE_DEVICE)}"
        raise DeviceUnsupported(what, f"--quirks {info.vid:04x}:{info.pid:04x}: opens it all the same")
    return quirks


class Manager:
    """Knows which mass-storage interfaces are attached, tells who asks, and opens them. Use it in a `with`.

    What is attached already comes first, as "attached", to every callback and iterator: each sees each
    plugging-in exactly once, and its end, in order. Callbacks run in the manager's one thread: they should return
    soon. Leaving the `with` ends the thread, the iterations, and closes what `open` opened.
    """

    def __init__(self, backend: Backend | None = None) -> None:
        from scsiusb.manager.registry import Registry

        self._backend = real_usb() if backend is None else backend
        self._lock = threading.RLock()
        self._disks: weakref.WeakSet[Disk] = weakref.WeakSet()
        self._releases = Releases()
        self._is_closing = False
        PROCESS.prepare()
        try:
            self._entry = ledger.acquire("manager", "of mass-storage devices")
            self._releases.add(self._entry.release)
            self._registry = Registry(self._backend)
            self._releases.add(self._registry.close)
            PROCESS.close_at_exit(self)
        except BaseException:
            self._releases.close()
            raise
        self._is_closed = False

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
            self.close()

    def devices(self) -> list[InterfaceInfo]:
        """The interfaces attached now, by address."""
        return self._registry.devices()

    def on_attach(self, callback: Callable[[InterfaceInfo], object], device: Match = None) -> Subscription:
        """Calls back for each interface that is attached now or later.

        `device`: only for those that these words mean (as in `open`), or that a function of the InterfaceInfo takes.
        `cancel` on what this returns ends it.
        """
        return self._registry.on_attach(callback, device)

    def on_detach(self, callback: Callable[[InterfaceInfo], object], device: Match = None) -> Subscription:
        """Calls back for each interface that leaves; the rest as in `on_attach`."""
        return self._registry.on_detach(callback, device)

    def events(self, timeout: float | None = None, device: Match = None) -> Events:
        """What comes and leaves, for `for` or for `async for`.

        Ends after `timeout` seconds without an event, and when the manager is closed. `device` as in `on_attach`.
        """
        return self._registry.events(timeout, device)

    def open(
        self,
        device: str | InterfaceInfo | None = None,
        *,
        lun: int = 0,
        timeout: float | None = None,
        on_gone: OnGone | None = None,
        trace: str | None = None,
        quirks: str | None = None,
    ) -> Disk:
        """As `scsiusb.open`; the disk is closed with the manager, if it is still open then."""
        _check_arguments(lun, timeout)
        self._check()
        with ExitStack() as stack:
            disk = _open(self._backend, device, lun, timeout, on_gone, trace, stack, quirks)
        try:
            with self._lock:
                self._check()
                self._disks.add(disk)
        except BaseException:
            disk.close()
            raise
        return disk

    def _check(self) -> None:
        if self._is_closing:
            raise DeviceClosed("the manager was closed", "make another one")

    def close(self) -> None:
        """May be called again, also by a callback."""
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
        """In a fork's child, where the manager's thread is not."""
        self._is_closed = self._is_closing = True
        self._lock = threading.RLock()
        self._releases.forget()
        self._registry.after_fork()


def _virtual(path: str) -> Bus:
    """A bus with one stick on it; OSError where the file cannot be opened, ValueError for a size that is none."""
    from scsiusb.virtual import Bus, Stick

    try:
        return Bus(Stick.open_file(path) if path else Stick.formatted())
    except ValueError as error:
        raise ValueError(f"{VIRTUAL}{path}: {error}") from error


def _tracing(backend: Backend, path: str) -> Tracing:
    from scsiusb.trace.recorder import Tracing

    return Tracing(backend, path)
