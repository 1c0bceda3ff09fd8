"""What stands behind an interface's endpoints, and how it answers the packets of the bus."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from scsiusb.base.dataclass import dataclass
from scsiusb.usb.backend import Code


class Answer(Enum):
    """How a function answers a host that wants to move data."""

    MORE = "the bytes were moved, the transfer may go on"
    SHORT = "a short packet ended the transfer"
    BABBLE = "the packet was larger than the room left"
    NAK = "nothing was moved: wait"
    STALL = "the endpoint is halted"


ENDINGS = {Answer.SHORT: Code.OK, Answer.BABBLE: Code.OVERFLOW, Answer.STALL: Code.PIPE}


class Stall(Exception):
    """A control request that the device does not take: EP0 answers STALL (USB 2.0 9.2.7)."""


class Hang(Stall):
    """A control request that the device does not answer at all: for a host that cannot wait, like a STALL."""


class Plug:
    """Tells whether the device is still in its port, which it may leave by itself."""

    def __init__(self) -> None:
        self.is_gone = self.is_leaving = False  # is_leaving: and nobody has been told yet

    def fall_out(self) -> None:
        self.is_gone = self.is_leaving = True

    def put_in(self) -> None:
        self.is_gone = self.is_leaving = False


@dataclass(frozen=True)
class Setup:
    """The setup packet (USB 2.0 table 9-2)."""

    request_type: int
    request: int
    value: int
    index: int
    length: int


class Function(Protocol):
    """One alternate setting's endpoints. It is called with the stick's lock held."""

    def send(self, endpoint: int, room: memoryview) -> tuple[Answer, int]:
        """The host offers `room` to an IN endpoint: fills whole packets of it from the start."""

    def receive(self, endpoint: int, data: memoryview) -> tuple[Answer, int]:
        """The host sends `data` to an OUT endpoint: takes whole packets of it from the start."""

    def control(self, setup: Setup, data: bytes) -> bytes:
        """A class request to the interface; raises `Stall`."""

    def is_halted(self, endpoint: int) -> bool: ...

    def halt(self, endpoint: int) -> None: ...

    def clear_halt(self, endpoint: int) -> None: ...

    def reset(self) -> None:
        """As after SET_CONFIGURATION, SET_INTERFACE or a reset of the port."""


class Mute:
    """A function that answers NAK for ever; with `takes_requests`, it takes class requests that have no data-in."""

    def __init__(self, takes_requests: bool = False) -> None:
        self._takes_requests = takes_requests
        self._halted: set[int] = set()

    def send(self, endpoint: int, room: memoryview) -> tuple[Answer, int]:
        return self._answer(endpoint)

    def receive(self, endpoint: int, data: memoryview) -> tuple[Answer, int]:
        return self._answer(endpoint)

    def _answer(self, endpoint: int) -> tuple[Answer, int]:
        return (Answer.STALL if endpoint in self._halted else Answer.NAK), 0

    def control(self, setup: Setup, data: bytes) -> bytes:
        if setup.request_type & 0x80 or not self._takes_requests:
            raise Stall
        return b""

    def is_halted(self, endpoint: int) -> bool:
        return endpoint in self._halted

    def halt(self, endpoint: int) -> None:
        self._halted.add(endpoint)

    def clear_halt(self, endpoint: int) -> None:
        self._halted.discard(endpoint)

    def reset(self) -> None:
        self._halted.clear()
