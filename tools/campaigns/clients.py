"""Users of a device that is unplugged: each must be notified once, promptly, and for good."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import scsiusb
from scsiusb.scsi.commands.spc import TestUnitReady

BLOCK = 512
OPENERS_PAUSE = 0.05  # seconds at most
KINDS = ("read", "large read", "write", "ask", "idle")

Opener = Callable[..., scsiusb.Disk]


class Client:
    """Uses its disk in a thread until that raises."""

    def __init__(self, kind: str, opener: Opener, device: str, reference: bytes, seed: int) -> None:
        self.kind = kind
        self.calls_of_on_gone: list[float] = []
        self.ended_at = 0.0
        self.actions = 0
        self.faults: list[str] = []
        self._reference = reference
        self._choice = random.Random(seed)
        self.disk = opener(device, on_gone=self._on_gone)
        self._thread = threading.Thread(target=self._run, name=f"client that does {kind}", daemon=True)
        self._thread.start()

    def _on_gone(self) -> None:
        self.calls_of_on_gone.append(time.monotonic())

    def _run(self) -> None:
        try:
            while True:
                self._act()
                self.actions += 1
        except scsiusb.DeviceGone:
            self.ended_at = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - any other is a fault
            self.ended_at = time.monotonic()
            self._fault(f"ended with {type(error).__name__}: {error}")

    def _act(self) -> None:
        if self.kind == "ask":
            self.disk.execute(TestUnitReady())
        elif self.kind == "write":
            self.disk.write(self._choice.randrange(16384, 24576), self._choice.randbytes(256 * BLOCK))
            if self._choice.random() < 0.2:
                self.disk.flush()
        elif self.kind == "idle":
            while not self.calls_of_on_gone:
                time.sleep(0.01)
                self.actions += 1
            self.disk.execute(TestUnitReady())
        else:
            self._read(2048 if self.kind == "large read" else 8)

    def _read(self, blocks: int) -> None:
        lba = self._choice.randrange(len(self._reference) // BLOCK - blocks)
        if self.disk.read(lba, blocks) != self._reference[lba * BLOCK : (lba + blocks) * BLOCK]:
            self._fault(f"read wrong data: {blocks} blocks at LBA {lba}")

    def _fault(self, what: str) -> None:
        self.faults.append(f"the client that does {self.kind} {what}")

    def is_notified(self) -> bool:
        """Report whether the thread got `DeviceGone` and on_gone was called."""
        return bool(self.ended_at and self.calls_of_on_gone)

    def join(self) -> None:
        """Wait for the thread; a thread that does not end is a fault."""
        self._thread.join(60)
        if self._thread.is_alive():
            self._fault("hangs")

    def must_be_dead(self, when: str) -> None:
        """Check that every way to use the disk raises DeviceGone."""
        uses: tuple[Callable[[], object], ...] = (
            lambda: self.disk.read(0, 1),
            lambda: self.disk.execute(TestUnitReady()),
            lambda: self.disk.write(16384, bytes(BLOCK)) if self.kind == "write" else self.disk.flush(),
        )
        for use in uses:
            try:
                use()
            except scsiusb.DeviceGone:
                continue
            except Exception as error:  # noqa: BLE001 - any other is a fault
                self._fault(f"{when} got {type(error).__name__}: {error}")
            else:
                self._fault(f"{when} still works")
        if len(self.calls_of_on_gone) != 1:
            self._fault(f"{when} had {len(self.calls_of_on_gone)} calls of on_gone")

    def close(self) -> None:
        """Close twice, which must work; after that, any use must raise DeviceClosed."""
        try:
            self.disk.close()
            self.disk.close()
        except Exception as error:  # noqa: BLE001 - any is a fault
            self._fault(f"could not be closed: {type(error).__name__}: {error}")
        try:
            self.disk.read(0, 1)
        except scsiusb.DeviceClosed:
            return
        except Exception as error:  # noqa: BLE001 - any other is a fault
            self._fault(f"closed, got {type(error).__name__}: {error}")
        else:
            self._fault("closed, still works")


class RandomOpener:
    """Opens and closes all the time, even while the device leaves: either that works, or a typed error says why not."""

    def __init__(self, openers: list[Opener], seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self._openers = openers
        self._choice = random.Random(seed)
        self._device: str | None = None
        self._reference = b""
        self._turn = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="random opener", daemon=True)
        self._thread.start()

    def begin(self, device: str, reference: bytes) -> None:
        """Open this device from now on; `reference` is its content."""
        with self._turn:
            self._device, self._reference = device, reference

    def pause(self) -> None:
        """Stop; return when it holds nothing."""
        with self._turn:
            self._device = None

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._is_closed.wait(self._choice.random() * OPENERS_PAUSE):
            with self._turn:
                if self._device is not None:
                    self.outcomes[self._try(self._device)] += 1

    def _try(self, device: str) -> str:
        try:
            with self._choice.choice(self._openers)(device) as disk:
                data = disk.read(0, 8)
        except scsiusb.ScsiUsbError as error:
            return type(error).__name__
        except BaseException as error:  # noqa: BLE001 - any other is a fault
            self.faults.append(f"an opening ended with {type(error).__name__}: {error}")
            return type(error).__name__
        if data != self._reference[: 8 * BLOCK]:
            self.faults.append("an opening read wrong data")
        return "opened"
