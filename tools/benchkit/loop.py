"""An experiment: one thread handles libusb's events for all devices.

Each completion submits what comes next there and then (`Stick`), or wakes the thread of its device (`Waiter`).
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import libusb_package

from benchkit import programs
from benchkit.work import MIB, sequential
from tests.kernel.machine import Unit

READ_10 = 0x28
DATA_IN = 0x80
CBW_LENGTH = 31
CSW_LENGTH = 13
CSW_AT = 1024  # in the page of the wrappers
PAGE = 4096
TIMEOUT = 30000
HANDLE = ctypes.c_void_p
BULK_TRANSFER = 2  # LIBUSB_TRANSFER_TYPE_BULK
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class LibusbTransfer(ctypes.Structure):
    """`struct libusb_transfer`."""

    _fields_ = (
        ("dev_handle", ctypes.c_void_p),
        ("flags", ctypes.c_uint8),
        ("endpoint", ctypes.c_ubyte),
        ("type", ctypes.c_ubyte),
        ("timeout", ctypes.c_uint),
        ("status", ctypes.c_int),
        ("length", ctypes.c_int),
        ("actual_length", ctypes.c_int),
        ("callback", CALLBACK),
        ("user_data", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("num_iso_packets", ctypes.c_int),
    )


class Timeval(ctypes.Structure):
    """`struct timeval`."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class LoopFailed(OSError):
    """libusb or a device said no."""


@dataclass(frozen=True)
class Work:
    """What is read of one of many devices."""

    unit: Unit
    size: int
    lbas: Sequence[int]

    @property
    def bytes(self) -> int:
        return self.size * len(self.lbas)


def work(unit: Unit, total: int, size: int = MIB) -> Work:
    """So many bytes from the start, in commands of a size."""
    (piece,) = sequential(unit, total, 1, size)
    return Work(unit, size, piece.lbas)


@contextmanager
def context() -> Iterator[Loop]:
    loop = Loop(ctypes.CDLL(str(libusb_package.get_library_path())))
    try:
        yield loop
    finally:
        loop.library.libusb_exit(loop.context)


@contextmanager
def opened(loop: Loop, work: Work, kind: type[S]) -> Iterator[S]:
    handle = loop.open(work)
    stick = None
    try:
        stick = kind(loop, handle, work)
        yield stick
    finally:
        if stick is not None:
            stick.free()
        loop.library.libusb_release_interface(handle, 0)
        loop.library.libusb_close(handle)


def run(loop: Loop, sticks: Sequence[Stick], commands: int | None = None) -> list[float]:
    """Reads what each stick's work names, or its first commands only; returns each one's seconds."""
    began = time.perf_counter()
    for stick in sticks:
        stick.begin(commands)
    while any(stick.is_busy for stick in sticks):
        loop.check("handle_events", loop.library.libusb_handle_events(loop.context))
    for stick in sticks:
        if stick.error:
            raise LoopFailed(stick.error)
    return [stick.ended - began for stick in sticks]


def run_waiters(loop: Loop, sticks: Sequence[Waiter], commands: int | None = None) -> list[float]:
    """As `run`, with a thread for each stick beside the one that handles the events."""
    ended = threading.Event()
    interval = Timeval(0, 100_000)

    def handle() -> None:
        while not ended.is_set():
            loop.library.libusb_handle_events_timeout(loop.context, ctypes.byref(interval))

    with ThreadPoolExecutor(len(sticks) + 1) as pool:
        handling = pool.submit(handle)
        try:
            seconds = list(pool.map(lambda stick: stick.read(commands), sticks))
        finally:
            ended.set()
        handling.result()
    return seconds


class Loop:
    """libusb with a context of its own, beside pyusb's."""

    def __init__(self, library: Any) -> None:
        self.library = library
        for name in ("libusb_dev_mem_alloc", "libusb_alloc_transfer"):
            getattr(library, name).restype = HANDLE
        library.libusb_dev_mem_alloc.argtypes = [HANDLE, ctypes.c_size_t]
        library.libusb_dev_mem_free.argtypes = [HANDLE, HANDLE, ctypes.c_size_t]
        library.libusb_submit_transfer.argtypes = [HANDLE]
        library.libusb_free_transfer.argtypes = [HANDLE]
        library.libusb_get_device_list.argtypes = [HANDLE, ctypes.POINTER(ctypes.POINTER(HANDLE))]
        library.libusb_get_device_list.restype = ctypes.c_ssize_t
        library.libusb_free_device_list.argtypes = [ctypes.POINTER(HANDLE), ctypes.c_int]
        library.libusb_open.argtypes = [HANDLE, ctypes.POINTER(HANDLE)]
        for name in ("libusb_get_bus_number", "libusb_get_device_address"):
            getattr(library, name).argtypes = [HANDLE]
            getattr(library, name).restype = ctypes.c_uint8
        self.context = HANDLE()
        self.check("init", library.libusb_init(ctypes.byref(self.context)))

    def check(self, what: str, code: int) -> None:
        if code < 0:
            raise LoopFailed(f"libusb_{what}: {code}")

    def open(self, work: Work) -> HANDLE:
        """Opens and claims the device. As in the program in C."""
        folder = work.unit.device.folder
        place = tuple(int((folder / name).read_text()) for name in ("busnum", "devnum"))
        devices = ctypes.POINTER(HANDLE)()
        count = self.library.libusb_get_device_list(self.context, ctypes.byref(devices))
        self.check("get_device_list", count)
        handle = HANDLE()
        try:
            self.check("open", self.library.libusb_open(self._find(devices[:count], place), ctypes.byref(handle)))
        finally:
            self.library.libusb_free_device_list(devices, 1)
        self.library.libusb_set_auto_detach_kernel_driver(handle, 1)
        self.check("claim_interface", self.library.libusb_claim_interface(handle, 0))
        return handle

    def _find(self, devices: Sequence[Any], place: tuple[int, ...]) -> Any:
        bus, number = self.library.libusb_get_bus_number, self.library.libusb_get_device_address
        for device in devices:
            if (bus(device), number(device)) == place:
                return device
        raise LoopFailed(f"no device at {place}")


class Stick:
    """A device and its three transfers, which follow each other: CBW, data, CSW."""

    def __init__(self, loop: Loop, handle: HANDLE, work: Work) -> None:
        self._library = loop.library
        self._handle = handle
        self._work = work
        self._memory: list[tuple[int, int]] = []
        wrappers, data = self._allocate(PAGE), self._allocate(work.size)
        self._wrappers = (ctypes.c_ubyte * PAGE).from_address(wrappers)
        into, out = programs.endpoints(work.unit)
        self._callback = CALLBACK(self._done)
        phases = ((out, wrappers, CBW_LENGTH), (into, data, work.size), (into, wrappers + CSW_AT, CSW_LENGTH))
        self._transfers = [self._transfer(*phase) for phase in phases]
        self._tag = self._left = self._phase = self._next = 0
        self.is_busy = False
        self.error = ""
        self.ended = 0.0

    def begin(self, commands: int | None) -> None:
        self._next = 0
        self._left = len(self._work.lbas) if commands is None else commands
        self.is_busy = True
        self._command()

    def free(self) -> None:
        for address, _ in self._transfers:
            self._library.libusb_free_transfer(address)
        for address, size in self._memory:
            self._library.libusb_dev_mem_free(self._handle, address, size)

    def _allocate(self, size: int) -> int:
        address = self._library.libusb_dev_mem_alloc(self._handle, size)
        if not address:
            raise LoopFailed(f"no device memory of {size} bytes")
        self._memory.append((address, size))
        return int(address)

    def _transfer(self, endpoint: int, buffer: int, length: int) -> tuple[int, LibusbTransfer]:
        address = self._library.libusb_alloc_transfer(0)
        fields = LibusbTransfer.from_address(address)
        fields.dev_handle = self._handle.value
        fields.endpoint, fields.type, fields.timeout = endpoint, BULK_TRANSFER, TIMEOUT
        fields.buffer, fields.length, fields.callback = buffer, length, self._callback
        return address, fields

    def _command(self) -> None:
        self._pack(self._work.lbas[self._next])
        self._submit(0)

    def _pack(self, lba: int) -> None:
        self._tag += 1
        blocks = self._work.size // self._work.unit.block_size
        cdb = (READ_10, 0, lba, 0, blocks, 0)
        head = (b"USBC", self._tag, self._work.size, DATA_IN, 0, 10)
        struct.pack_into("<4sIIBBB", self._wrappers, 0, *head)
        struct.pack_into(">BBIBHB", self._wrappers, 15, *cdb)

    def _submit(self, phase: int) -> None:
        self._phase = phase
        code = self._library.libusb_submit_transfer(self._transfers[phase][0])
        if code < 0:
            self._end(f"libusb_submit_transfer: {code}")

    def _done(self, address: int) -> None:
        """Called by libusb, in the thread that handles the events."""
        fault = self._fault()
        if fault:
            self._end(fault)
        elif self._phase < 2:
            self._submit(self._phase + 1)
        else:
            self._next += 1
            self._left -= 1
            if self._left:
                self._command()
            else:
                self._end("")

    def _fault(self) -> str:
        fields = self._transfers[self._phase][1]
        if fields.status or fields.actual_length != fields.length:
            return f"phase {self._phase}: status {fields.status}, {fields.actual_length} bytes"
        status = self._wrappers[CSW_AT + CSW_LENGTH - 1] if self._phase == 2 else 0
        return f"CSW status {status}" if status else ""

    def _end(self, error: str) -> None:
        self.error = error
        self.ended = time.perf_counter()
        self.is_busy = False


class Waiter(Stick):
    """Read by a thread of its own, which waits for each transfer."""

    def __init__(self, loop: Loop, handle: HANDLE, work: Work) -> None:
        self._completed = threading.Semaphore(0)
        super().__init__(loop, handle, work)

    def read(self, commands: int | None) -> float:
        began = time.perf_counter()
        for lba in self._work.lbas[:commands]:
            self._pack(lba)
            for phase in range(len(self._transfers)):
                self._submit(phase)
                self._completed.acquire()
                self.error = self.error or self._fault()
                if self.error:
                    raise LoopFailed(self.error)
        return time.perf_counter() - began

    def _done(self, address: int) -> None:
        self._completed.release()

    def _end(self, error: str) -> None:
        """Of a transfer that could not be submitted."""
        self.error = error
        self._completed.release()


S = TypeVar("S", bound=Stick)
