"""Checks that write, only in the range that the user gives; the old content is restored after each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from scsiusb.conformance.device_under_test import DeviceDead, DeviceUnderTest, MediumChanged, NotPutBack
from scsiusb.conformance.exchange import ExchangeResult
from scsiusb.conformance.outcome import Check, NotApplicable, Violation
from scsiusb.errors import TransportError
from scsiusb.scsi.commands.sbc import TOO_LARGE_FOR_10, Write10, Write16
from scsiusb.scsi.commands.spc import ModeSense6
from scsiusb.transport.base import FAILED, GOOD, Direction
from scsiusb.transport.bot.formats import STATUS_PHASE_ERROR
from scsiusb.usb.backend import Code

WRITE_PROTECTED: Final = 0x80
PROTECTED: Final = (0x7, 0x27, 0x00)
TRIES: Final = 3  # to restore the old content
PATTERN: Final = bytes(range(256))


class Range:
    """Blocks that a check overwrites: their old content, and a pattern that differs from it."""

    def __init__(self, device: DeviceUnderTest, lba: int, blocks: int) -> None:
        self.device, self.lba, self.blocks = device, lba, blocks
        self.size = device.block_size
        self.old = device.read(lba, blocks)
        self.new = bytes(byte ^ 0xA5 for byte in (PATTERN * (len(self.old) // 256 + 1))[: len(self.old)])
        if self.new[: self.size] == self.old[: self.size]:
            self.new = bytes(byte ^ 0xFF for byte in self.new)

    def __str__(self) -> str:
        return f"LBA {self.lba}-{self.lba + self.blocks - 1}" if self.blocks > 1 else f"LBA {self.lba}"

    def writing(self, blocks: int) -> Write10 | Write16:
        """Return a WRITE of the first `blocks` blocks of the range."""
        kind = Write10 if self.lba + blocks - 1 < TOO_LARGE_FOR_10 else Write16
        return kind(self.lba, blocks, block_size=self.size)

    def current(self) -> bytes:
        """Return what a READ of the range returns now. Raises MediumChanged."""
        self.device.note_failure()  # a medium change; the READ would clear its sense data
        self.device.require_same_medium()
        return self.device.read(self.lba, self.blocks)

    def require(self, result: ExchangeResult, *allowed: bytes) -> None:
        """Raise Violation unless each block equals that block in one of `allowed`."""
        found = self.current()
        for at in range(0, len(found), self.size):
            block = slice(at, at + self.size)
            if all(found[block] != content[block] for content in allowed):
                number = self.lba + at // self.size
                expected = "the old content" if allowed == (self.old,) else "the old content or what was written"
                raise Violation(f"{result.asked}, then a READ", f"LBA {number} has different content", expected)


@contextmanager
def _range(device: DeviceUnderTest, blocks: int) -> Iterator[Range]:
    """Provide a range for a check; restore its old content afterwards and compare, but never on another medium."""
    modes = device.run(ModeSense6())
    if modes.is_failed:
        device.sense()
    is_protected = modes.is_good and len(modes.data) > 2 and bool(modes.data[2] & WRITE_PROTECTED)
    if is_protected or device.is_cd_rom:
        raise NotApplicable("the medium is write protected")
    found = Range(device, device.area_of(blocks), blocks)
    try:
        yield found
    finally:
        _restore(device, found)


def _restore(device: DeviceUnderTest, found: Range) -> None:
    """Write the old content back, with retries. Raises NotPutBack, after saving the content in a file, if it fails."""
    error_text = "the device has gone"
    try:
        device.revive()
        for _ in range(TRIES):
            error_text = _try_to_restore(device, found)
            if not error_text:
                device.flush()
                return
            # Only a port reset is left: `revive` has already tried reset recovery.
            device.reset_port()
            if not device.settle():  # a WRITE would be sent in the middle of another exchange
                raise DeviceDead(f"the device is out of step: {device.problem}")
    except MediumChanged:
        text = f"the medium was changed; {found} of the old medium may hold a test pattern"
        raise MediumChanged(text) from None
    except (DeviceDead, TransportError) as error:
        raise NotPutBack(_saved(found, str(error))) from error
    raise NotPutBack(_saved(found, error_text))


def _try_to_restore(device: DeviceUnderTest, found: Range) -> str:
    """Return what went wrong, or an empty text if the old content is restored."""
    try:
        device.require_same_medium()
        device.good(found.writing(found.blocks), payload=found.old)
        return "" if found.current() == found.old else "a READ returns different content"
    except Violation as violation:
        return str(violation)


def _saved(found: Range, error_text: str) -> str:
    with tempfile.NamedTemporaryFile(prefix="scsiusb-check-", suffix=f"-lba{found.lba}.img", delete=False) as file:
        file.write(found.old)
    return f"{found} does NOT hold its old content, which was saved in {file.name}: {error_text}"


def agree(device: DeviceUnderTest) -> str:
    """Case 12: write two blocks and read them back."""
    with _range(device, 2) as area:
        result = device.good(area.writing(2), payload=area.new)
        result.require(result.moved == result.length and result.residue == 0, f"{result.length} bytes and residue 0")
        area.require(result, area.new)
    return f"{result.asked}: {result.description}"


def none_announced(device: DeviceUnderTest) -> str:
    """Case 3: send a WRITE whose CBW announces no data."""
    with _range(device, 1) as area:
        result = device.exchange.command(area.writing(1), 0)
        _phase_error(result)
        area.require(result, area.old)
    return f"{result.asked}: {result.description}"


def wrong_way(device: DeviceUnderTest) -> str:
    """Case 8: send a WRITE whose CBW announces data-in."""
    with _range(device, 1) as area:
        result = device.exchange.command(area.writing(1), area.size, Direction.IN)
        _phase_error(result)
        area.require(result, area.old)
    return f"{result.asked}: {result.description}"


def more_announced(device: DeviceUnderTest) -> str:
    """Case 11: send a WRITE of one block with two blocks of data."""
    with _range(device, 2) as area:
        result = device.run(area.writing(1), payload=area.new)
        result.require(result.status == GOOD, "status 0")
        result.require(result.residue == area.size, f"residue {area.size}: the command uses one block")
        area.require(result, area.new[: area.size] + area.old[area.size :])
    return f"{result.asked}: {result.description}"


def less_announced(device: DeviceUnderTest) -> str:
    """Case 13: send a WRITE of two blocks with one block of data."""
    with _range(device, 2) as area:
        result = device.exchange.command(area.writing(2), payload=area.new[: area.size])
        _phase_error(result)
        area.require(result, area.old, area.new[: area.size] + area.old[area.size :])
    return f"{result.asked}: {result.description}"


def _phase_error(result: ExchangeResult) -> None:
    result.require_csw()
    result.require(result.status == STATUS_PHASE_ERROR, "status 2 (phase error)")


def zero_blocks(device: DeviceUnderTest) -> str:
    """Write 0 blocks."""
    with _range(device, 1) as area:
        result = device.run(area.writing(0))
        result.require(result.status == GOOD, "status 0: writing 0 blocks is not an error")
        area.require(result, area.old)
    return "status 0, nothing written"


def recovery_without_data(device: DeviceUnderTest) -> str:
    """Recover after the CBW of a WRITE, before any data is sent."""
    with _range(device, 1) as area:
        return _broken_off(device, area, b"")


def recovery_in_data(device: DeviceUnderTest) -> str:
    """Recover after half of the data of a WRITE: full packets, so that the device expects more data."""
    packet = device.exchange.port.bulk_out.max_packet_size
    half = max(1, packet // device.block_size)
    with _range(device, 2 * half) as area:
        return _broken_off(device, area, area.new[: half * area.size])


def _broken_off(device: DeviceUnderTest, area: Range, sent: bytes) -> str:
    request = area.writing(area.blocks)
    device.exchange.send(device.exchange.cbw(request, request.length, Direction.OUT), "cbw")
    if sent:
        code, _ = device.exchange.send(sent)
        if code is not Code.OK:
            raise Violation(f"data of {request}", code.name, "the device to accept it")
    device.exchange.reset_recovery()
    result = device.run(device.reading(area.lba, 1))
    area.require(result, area.old, sent + area.old[len(sent) :])
    return f"{len(sent)} of {request.length} bytes sent; each block is old or new"


def protection(device: DeviceUnderTest) -> str:
    """Compare the WP bit with what WRITE does; it writes the content that is already there."""
    lba = device.area_of(1)
    if device.is_cd_rom:
        raise NotApplicable("a CD-ROM drive has no WRITE")
    modes = device.optional(ModeSense6())
    modes.require(len(modes.data) > 2, "a mode parameter header of 4 bytes")
    old = device.read(lba, 1)
    request = Write10(lba, 1, block_size=device.block_size)
    if not modes.data[2] & WRITE_PROTECTED:
        device.good(request, payload=old)
        return "WP is 0, and WRITE works"
    result = device.run(request, payload=old)
    result.require(result.status == FAILED, "status 1 with sense 7/27/00, because WP is 1")
    sense = device.sense()
    if (sense.key, sense.asc, sense.ascq) != PROTECTED:
        raise Violation(result.asked, f"sense {sense.codes}", "sense 7/27/00, because WP is 1")
    return f"WP is 1, and WRITE fails with {sense.codes}"


def _check(name: str, section: str, demand: str, function: Callable[[DeviceUnderTest], str]) -> Check:
    return Check(name, section, demand, function, needs_medium=True, destructive=True)


CHECKS: Final = (
    _check(
        "case-3",
        "BOT 6.7.1",
        "Hn < Do: WRITE with no data announced must end with a phase error (status 2), and write nothing.",
        none_announced,
    ),
    _check(
        "case-8",
        "BOT 6.7.2",
        "Hi <> Do: WRITE with data-in announced must end with a phase error (status 2), and write nothing.",
        wrong_way,
    ),
    _check(
        "case-11",
        "BOT 6.7.3",
        "Ho > Do: WRITE must write its blocks, and the residue must be the rest of the announced length.",
        more_announced,
    ),
    _check(
        "case-12",
        "BOT 6.7.3",
        "Ho = Do: WRITE must accept all data, end with status 0 and residue 0, and a READ must return the data.",
        agree,
    ),
    _check(
        "case-13",
        "BOT 6.7.3",
        "Ho < Do: WRITE of more than announced must end with a phase error (status 2), and write no other data.",
        less_announced,
    ),
    _check("write-zero-blocks", "SBC-3 5.33", "A WRITE of 0 blocks must succeed and write nothing.", zero_blocks),
    _check(
        "write-protect",
        "SBC-3 6.4.1",
        "WRITE must succeed if the WP bit of MODE SENSE is 0, and fail with 7/27/00 if it is 1.",
        protection,
    ),
    _check(
        "recovery-of-write",
        "BOT 5.3.4",
        "After a reset recovery before the data of a WRITE is sent, nothing must be written.",
        recovery_without_data,
    ),
    _check(
        "recovery-in-write",
        "BOT 5.3.4",
        "After a reset recovery in the middle of a WRITE, each block must be the old or the new one.",
        recovery_in_data,
    ),
)
