"""The URBs (transfers) that a client has in progress: in order on each endpoint, independent between endpoints."""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Final

from scsiusb.usb.backend import Code
from scsiusb.virtual.device.function import Hang, Stall
from scsiusb.virtual.stick import Stick
from scsiusb.virtual.usbip import wire
from scsiusb.virtual.usbip.wire import Malformed, Submit, Unlink

MAX_URBS: Final = 1024
MAX_BYTES: Final = 64 << 20  # of all transfers in progress

_SETUP = struct.Struct("<BBHHH")
_PORT_RESET = bytes.fromhex("2303 0400")  # SET_FEATURE(PORT_RESET), which some hosts send when they reset the port
_GET_DEVICE_DESCRIPTOR = bytes.fromhex("8006 0001 0000")
_FIRST_LENGTHS = (8, 64)  # bytes of the device descriptor that hosts ask for before they set the address

_STATUS = {
    Code.OK: 0,
    Code.PIPE: wire.EPIPE,
    Code.OVERFLOW: wire.EOVERFLOW,
    Code.NO_DEVICE: wire.ESHUTDOWN,
}  # all others: EPROTO, as when no device answers

log = logging.getLogger("scsiusb.virtual.usbip.server")


class Urb:
    """A transfer in progress; the buffer of an IN transfer is allocated when the transfer starts."""

    def __init__(self, submit: Submit, data: bytes | bytearray = b"") -> None:
        self.submit = submit
        self.done = 0
        self.hangs = False  # a control transfer that gets no answer
        self._data = None if submit.is_in else memoryview(data)
        self._needs_zero_packet = bool(submit.flags & wire.ZERO_PACKET) and not submit.is_in and submit.length > 0

    @property
    def data(self) -> memoryview:
        """The buffer of the transfer."""
        if self._data is None:
            self._data = memoryview(bytearray(self.submit.length))
        return self._data

    def advance(self, stick: Stick) -> int | None:
        """Move what the stick accepts or has now; return the status, or None while the stick answers NAK."""
        code, waits = None, False
        while code is None and not waits:
            code, count, waits = stick.step(self.submit.endpoint, self.data[self.done :])
            self.done += count
            if code is Code.OK and self._needs_zero_packet:
                self._needs_zero_packet = False
                is_whole = self.done % stick.packet_size(self.submit.endpoint) == 0
                code = None if is_whole else code
        return None if code is None else _STATUS.get(code, wire.EPROTO)

    def reply(self, status: int) -> bytes:
        """Return the USBIP_RET_SUBMIT that ends the transfer."""
        is_short = self.done < self.submit.length
        if status == 0 and is_short and self.submit.is_in and self.submit.flags & wire.SHORT_NOT_OK:
            status = wire.EREMOTEIO
        return wire.ret_submit(self.submit, status, self.done, self.data[: self.done] if self.submit.is_in else b"")


class Urbs:
    """The transfers that one client has in progress; not thread-safe. `send` sends an answer to the client."""

    def __init__(self, stick: Stick, send: Callable[[bytes], None]) -> None:
        self._stick, self._send = stick, send
        self._queues: dict[int, deque[Urb]] = {}
        self._count = self._bytes = 0
        self._last_logged = stick.faults.fired[-1:]

    @property
    def count(self) -> int:
        """The number of transfers in progress."""
        return self._count

    def check(self, submit: Submit) -> None:
        """Raise `Malformed` if the transfer would exceed the limits; to be called before its data are received."""
        if self._count >= MAX_URBS or self._bytes + submit.length > MAX_BYTES:
            raise Malformed(f"more than {MAX_URBS} transfers or {MAX_BYTES} bytes at a time")

    def submit(self, submit: Submit, data: bytes | bytearray = b"") -> None:
        """Add a transfer to the queue of its endpoint; `advance` starts it."""
        self._count += 1
        self._bytes += submit.length
        self._queues.setdefault(_queue(submit), deque()).append(Urb(submit, data))

    def unlink(self, unlink: Unlink) -> None:
        """Cancel a transfer; data that were moved already are lost, as the answer has no field for them."""
        for queue in self._queues.values():
            for urb in queue:
                if urb.submit.seqnum == unlink.target:
                    queue.remove(urb)
                    self._remove(urb)
                    self._send(wire.ret_unlink(unlink, wire.ECONNRESET))
                    return
        self._send(wire.ret_unlink(unlink, 0))

    def advance(self) -> None:
        """Continue all transfers until none makes progress: one endpoint may wait for what another one receives."""
        moved = True
        while moved:
            moved = False
            for queue in tuple(self._queues.values()):
                while queue and self._advance(queue):
                    moved = True
        self._queues = {number: queue for number, queue in self._queues.items() if queue}

    def _advance(self, queue: deque[Urb]) -> bool:
        urb = queue[0]
        status = self._control(urb) if urb.submit.endpoint & 0x7F == 0 else urb.advance(self._stick)
        if status is None:
            return False
        queue.popleft()
        self._remove(urb)
        self._log_new_faults()
        _log_transfer(urb, status)
        self._send(urb.reply(status))
        return True

    def _log_new_faults(self) -> None:
        """Log the faults that were applied since the last call."""
        fired, last = self._stick.faults.fired, self._last_logged
        new = list(takewhile(lambda each: not last or each is not last[0], reversed(fired)))
        self._last_logged = fired[-1:]
        for command, fault in reversed(new):
            log.info("fault %s at command %d", fault, command)

    def end(self, status: int) -> None:
        """End all transfers with `status`."""
        for queue in self._queues.values():
            for urb in queue:
                self._send(urb.reply(status))
        self._queues, self._count, self._bytes = {}, 0, 0

    def _remove(self, urb: Urb) -> None:
        self._count -= 1
        self._bytes -= urb.submit.length

    # --- the default control pipe ---------------------------------------------------------------

    def _control(self, urb: Urb) -> int | None:
        submit = urb.submit
        if urb.hangs:
            return None
        request_type, _, _, _, length = _SETUP.unpack(submit.setup)
        if length != submit.length or (length and bool(request_type & 0x80) != submit.is_in):
            return wire.EINVAL
        if submit.setup.startswith(_PORT_RESET):
            self._reset(self._stick.configuration)
            return 0
        if self._stick.configuration and _is_first_request(submit.setup):
            self._reset(0)
        return self._request(urb)

    def _request(self, urb: Urb) -> int | None:
        try:
            answer = self._stick.control(urb.submit.setup, b"" if urb.submit.is_in else bytes(urb.data))
        except Hang:
            urb.hangs = True
            return None
        except Stall:
            return wire.EPIPE
        urb.done = len(answer) if urb.submit.is_in else urb.submit.length
        if urb.submit.is_in:
            urb.data[: urb.done] = answer
        return 0

    def _reset(self, configuration: int) -> None:
        log.info("port reset")
        self._stick.power_on()
        self._stick.configure(configuration)


def _queue(submit: Submit) -> int:
    """Return the number of the transfer's queue: its endpoint; 0 for both directions of the default control pipe."""
    return submit.endpoint if submit.endpoint & 0x0F else 0


def _is_first_request(setup: bytes) -> bool:
    """Return whether the request is the first one of an enumeration.

    Linux's vhci_hcd forwards neither a port reset nor SET_ADDRESS. But after a port reset a host first asks for 8 or
    64 bytes of the device descriptor, which no host does with a configured device; so the reset is detected by that.
    """
    return setup.startswith(_GET_DEVICE_DESCRIPTOR) and int.from_bytes(setup[6:], "little") in _FIRST_LENGTHS


def _log_transfer(urb: Urb, status: int) -> None:
    """Log the transfer at level DEBUG and, if it is a CBW or a CSW, the command or its status at level INFO."""
    submit = urb.submit
    log.debug("endpoint %02x: %d of %d bytes, status %d", submit.endpoint, urb.done, submit.length, status)
    if status or not submit.endpoint & 0x0F:
        return
    data = bytes(urb.data[: urb.done]) if urb.done in (13, 31) else b""
    if data[:4] == b"USBC" and not submit.is_in and len(data) == 31:
        _, _, length, flags, lun, size = struct.unpack_from("<IIIBBB", data)
        direction = "in" if flags & 0x80 else "out"
        log.info("command %s, LUN %d, %d bytes %s", data[15 : 15 + min(size, 16)].hex(" "), lun, length, direction)
    elif data[:4] == b"USBS" and submit.is_in and len(data) == 13:
        log.info("status %d, residue %d", data[12], int.from_bytes(data[8:12], "little"))
