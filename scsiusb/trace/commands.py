"""A backend that tells each command which goes over it, with its status and its time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from scsiusb.trace.conversation import Conversation, Exchange
from scsiusb.trace.passing import PassingBackend, PassingHandle
from scsiusb.trace.uas_conversation import UasConversation, pipes_of
from scsiusb.usb.backend import ENDPOINT_IN, Backend, Code, Device, Handle

Tell = Callable[[Exchange], None]


class CommandLog(PassingBackend):
    """A backend that tells the commands of the handles that it opens; `tell` is called in the thread that sent them."""

    def __init__(self, backend: Backend, tell: Tell) -> None:
        super().__init__(backend)
        self._tell = tell

    def open(self, device: Device) -> Handle:
        """See `Backend.open`."""
        return _LoggingHandle(self._backend.open(device), self._tell, device)


class _LoggingHandle(PassingHandle):
    def __init__(self, handle: Handle, tell: Tell, device: Device) -> None:
        super().__init__(handle)
        self._by_uas = UasConversation(pipes_of(device))
        self._numbers = itertools.count()
        self._tell = tell
        self._conversation = Conversation()
        self.reset = self._reset

    def _reset(self) -> None:
        for each in (self._conversation.cut_off(), *self._by_uas.cut_off()):
            self._say(each)
        self._handle.reset()

    def bulk(self, endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        """See `Handle.bulk`."""
        code, count = self._handle.bulk(endpoint, buffer, deadline)
        now = time.monotonic()
        if endpoint & ENDPOINT_IN:
            ended = self._conversation.received(buffer[:count], count, now)
        else:
            ended = self._conversation.sent(buffer[:count], count, now)
        if code != Code.OK:
            self._conversation.failed(_word(code))
        self._say(ended)
        return code, count

    def begun(self, endpoint: int, buffer: memoryview, stream: int) -> int:
        """See `PassingHandle.begun`."""
        number = next(self._numbers)
        self._say(self._by_uas.begun(number, endpoint, buffer, len(buffer), stream, time.monotonic()))
        return number

    def ended(self, number: int, endpoint: int, buffer: memoryview, stream: int, code: Code, count: int) -> None:
        """See `PassingHandle.ended`."""
        problem = "" if code == Code.OK else _word(code)
        self._say(self._by_uas.ended(number, endpoint, buffer[:count], count, time.monotonic(), problem))

    def _say(self, exchange: Exchange | None) -> None:
        if exchange is not None:
            self._tell(exchange)


def _word(code: Code) -> str:
    return "stall" if code == Code.PIPE else code.name.lower().replace("_", " ")
