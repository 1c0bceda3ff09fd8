"""The protocol of a function, which answers the transfers of an interface's endpoints, and one that never answers."""

from __future__ import annotations

import time
from enum import Enum
from typing import Protocol

from scsiusb.base.dataclass import dataclass
from scsiusb.usb.backend import Code


class Answer(Enum):
    """The result of offering a part of a transfer to a function."""

    MORE = "the bytes were moved; the transfer may continue"
    SHORT = "a short packet ended the transfer"
    BABBLE = "the packet did not fit into the rest of the buffer"
    NAK = "nothing was moved; try again later"
    STALL = "the endpoint is halted"


ENDINGS = {Answer.SHORT: Code.OK, Answer.BABBLE: Code.OVERFLOW, Answer.STALL: Code.PIPE}


class Stall(Exception):
    """A control request that the device does not support: EP0 answers STALL (USB 2.0 9.2.7)."""


class Hang(Stall):
    """A control request that the device never answers; a host that cannot wait may handle it as a STALL."""


class Plug:
    """Whether the device is still connected to its port; a device with a fault may disconnect by itself."""

    def __init__(self) -> None:
        self.is_gone = False
        self.is_unreported = False  # gone, and the stick has not called its `on_leave` yet
        self.absence: float | None = None  # seconds after which it comes back by itself; None: it does not
        self._back_at = 0.0  # time.monotonic()

    def disconnect(self, absence: float | None = None) -> None:
        """Leave the bus, for so many seconds."""
        self.is_gone = self.is_unreported = True
        self.absence = absence
        self._back_at = time.monotonic() + (absence or 0.0)

    @property
    def is_away(self) -> bool:
        """Whether the device has left the bus for a time that is not over."""
        return self.is_gone and time.monotonic() < self._back_at

    def connect(self) -> None:
        """Join the bus again."""
        self.is_gone = self.is_unreported = False
        self.absence = None


@dataclass(frozen=True)
class Setup:
    """A setup packet (USB 2.0 table 9-2)."""

    request_type: int
    request: int
    value: int
    index: int
    length: int


class Function(Protocol):
    """The device's side of one alternate setting. Every method is called with the stick's lock held."""

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """Fill `room`, the host's buffer, from an IN endpoint, in whole packets; return how many bytes were sent."""

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """Accept `data`, the host's buffer, for an OUT endpoint, in whole packets; return how many bytes were taken."""

    def control(self, setup: Setup, data: bytes) -> bytes:
        """Answer a class request to the interface with its data-in stage; `data` is the data-out stage.

        Raises `Stall` if the request is not supported, `Hang` if it is never answered.
        """

    def is_halted(self, endpoint: int) -> bool:
        """Return whether the endpoint is halted."""

    def halt(self, endpoint: int) -> None:
        """Halt the endpoint: SET_FEATURE(ENDPOINT_HALT)."""

    def clear_halt(self, endpoint: int) -> None:
        """Clear the endpoint's halt: CLEAR_FEATURE(ENDPOINT_HALT)."""

    def reset(self) -> None:
        """Return to the state after SET_CONFIGURATION, SET_INTERFACE or a port reset."""


class Halts:
    """The halts of a function's endpoints (USB 2.0 9.4.5)."""

    def __init__(self) -> None:
        self._halted: set[int] = set()

    def is_halted(self, endpoint: int) -> bool:
        """See `Function.is_halted`."""
        return endpoint in self._halted

    def halt(self, endpoint: int) -> None:
        """See `Function.halt`."""
        self._halted.add(endpoint)

    def clear_halt(self, endpoint: int) -> None:
        """See `Function.clear_halt`."""
        self._halted.discard(endpoint)


class SilentFunction(Halts):
    """A function whose endpoints always answer NAK.

    With `takes_requests` it accepts class requests without a data-in stage, and ignores them.
    """

    def __init__(self, takes_requests: bool = False) -> None:
        super().__init__()
        self._takes_requests = takes_requests

    def send(self, endpoint: int, room: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.send`."""
        return self._answer(endpoint)

    def receive(self, endpoint: int, data: memoryview, stream: int = 0) -> tuple[Answer, int]:
        """See `Function.receive`."""
        return self._answer(endpoint)

    def _answer(self, endpoint: int) -> tuple[Answer, int]:
        return (Answer.STALL if endpoint in self._halted else Answer.NAK), 0

    def control(self, setup: Setup, data: bytes) -> bytes:
        """See `Function.control`."""
        if setup.request_type & 0x80 or not self._takes_requests:
            raise Stall
        return b""

    def reset(self) -> None:
        """See `Function.reset`."""
        self._halted.clear()
