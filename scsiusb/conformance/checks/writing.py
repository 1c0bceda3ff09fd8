"""The cases that write, and what writing does: only in blocks that the user names, whose content is put back."""

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
TRIES: Final = 3
PATTERN: Final = bytes(range(256))


class Range:
    """Blocks to write to, with their content from before."""

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
        kind = Write10 if self.lba + blocks - 1 < TOO_LARGE_FOR_10 else Write16
        return kind(self.lba, blocks, block_size=self.size)

    def there(self) -> bytes:
        self.device.note_failure()  # which the READ would hide
        self.device.require_same_medium()
        return self.device.read(self.lba, self.blocks)

    def require(self, ended: ExchangeResult, *rights: bytes) -> None:
        """Each block must be one of those that `rights` have at its place."""
        found = self.there()
        for at in range(0, len(found), self.size):
            block = slice(at, at + self.size)
            if all(found[block] != right[block] for right in rights):
                number = self.lba + at // self.size
                right = "what was there before" if rights == (self.old,) else "what was there or what was written"
                raise Violation(f"{ended.asked}, then a READ", f"LBA {number} has other content", right)


@contextmanager
def _range(device: DeviceUnderTest, blocks: int) -> Iterator[Range]:
    """Puts the old content back, whatever happens, and compares; but nothing on another medium."""
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
        _put_back(device, found)


def _put_back(device: DeviceUnderTest, found: Range) -> None:
    """Tries more than once; where it cannot be done, the run ends, and the old content is in a file."""
    trouble = "the device has gone"
    try:
        device.revive()
        for _ in range(TRIES):
            trouble = _tried_to_put_back(device, found)
            if not trouble:
                device.flush()
                return
            device.reset_port()
            device.settle()
    except MediumChanged:
        text = f"the medium was changed; {found} of the old one may hold a test pattern"
        raise MediumChanged(text) from None
    except (DeviceDead, TransportError) as error:
        raise NotPutBack(_saved(found, str(error))) from error
    raise NotPutBack(_saved(found, trouble))


def _tried_to_put_back(device: DeviceUnderTest, found: Range) -> str:
    """What went wrong; empty: the old content is there."""
    try:
        device.require_same_medium()
        device.good(found.writing(found.blocks), payload=found.old)
        return "" if found.there() == found.old else "a READ gives other content"
    except Violation as violation:
        return str(violation)


def _saved(found: Range, trouble: str) -> str:
    with tempfile.NamedTemporaryFile(prefix="scsiusb-check-", suffix=f"-lba{found.lba}.img", delete=False) as file:
        file.write(found.old)
    return f"{found} does NOT hold its old content, which is in {file.name} now: {trouble}"


def agree(device: DeviceUnderTest) -> str:
    """Case 12."""
    with _range(device, 2) as area:
        ended = device.good(area.writing(2), payload=area.new)
        ended.require(ended.moved == ended.length and ended.residue == 0, f"{ended.length} bytes and residue 0")
        area.require(ended, area.new)
    return f"{ended.asked}: {ended.words}"


def none_announced(device: DeviceUnderTest) -> str:
    """Case 3."""
    with _range(device, 1) as area:
        ended = device.exchange.command(area.writing(1), 0)
        _phase_error(ended)
        area.require(ended, area.old)
    return f"{ended.asked}: {ended.words}"


def wrong_way(device: DeviceUnderTest) -> str:
    """Case 8."""
    with _range(device, 1) as area:
        ended = device.exchange.command(area.writing(1), area.size, Direction.IN)
        _phase_error(ended)
        area.require(ended, area.old)
    return f"{ended.asked}: {ended.words}"


def more_announced(device: DeviceUnderTest) -> str:
    """Case 11."""
    with _range(device, 2) as area:
        ended = device.run(area.writing(1), payload=area.new)
        ended.require(ended.status == GOOD, "status 0")
        ended.require(ended.residue == area.size, f"residue {area.size}: one block was processed")
        area.require(ended, area.new[: area.size] + area.old[area.size :])
    return f"{ended.asked}: {ended.words}"


def less_announced(device: DeviceUnderTest) -> str:
    """Case 13."""
    with _range(device, 2) as area:
        ended = device.exchange.command(area.writing(2), payload=area.new[: area.size])
        _phase_error(ended)
        area.require(ended, area.old, area.new[: area.size] + area.old[area.size :])
    return f"{ended.asked}: {ended.words}"


def _phase_error(ended: ExchangeResult) -> None:
    ended.require_csw()
    ended.require(ended.status == STATUS_PHASE_ERROR, "status 2, phase error")


def zero_blocks(device: DeviceUnderTest) -> str:
    with _range(device, 1) as area:
        ended = device.run(area.writing(0))
        ended.require(ended.status == GOOD, "status 0: nothing to write is no error")
        area.require(ended, area.old)
    return "status 0, nothing written"


def recovery_without_data(device: DeviceUnderTest) -> str:
    """The host changes its mind behind the CBW."""
    with _range(device, 1) as area:
        return _broken_off(device, area, b"")


def recovery_in_data(device: DeviceUnderTest) -> str:
    """Whole packets, so that the data has not ended."""
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
            raise Violation(f"data of {request}", code.name, "that it is taken")
    device.exchange.reset_recovery()
    ended = device.run(device.reading(area.lba, 1))
    area.require(ended, area.old, sent + area.old[len(sent) :])
    return f"{len(sent)} of {request.length} bytes sent: each block is old or new"


def protection(device: DeviceUnderTest) -> str:
    """Writes the content that is there already."""
    lba = device.area_of(1)
    if device.is_cd_rom:
        raise NotApplicable("a CD-ROM drive has no WRITE")
    modes = device.optional(ModeSense6())
    modes.require(len(modes.data) > 2, "a header of 4 bytes")
    old = device.read(lba, 1)
    request = Write10(lba, 1, block_size=device.block_size)
    if not modes.data[2] & WRITE_PROTECTED:
        device.good(request, payload=old)
        return "WP is not set, and WRITE works"
    ended = device.run(request, payload=old)
    ended.require(ended.status == FAILED, "status 1 with sense 7/27/00: WP is set")
    sense = device.sense()
    if (sense.key, sense.asc, sense.ascq) != PROTECTED:
        raise Violation(ended.asked, f"sense {sense.codes}", "7/27/00: WP is set")
    return f"WP is set, and WRITE fails with {sense.codes}"


def _check(name: str, section: str, demand: str, function: Callable[[DeviceUnderTest], str]) -> Check:
    return Check(name, section, demand, function, needs_medium=True, destructive=True)


CHECKS: Final = (
    _check(
        "case-3",
        "BOT 6.7.1",
        "Hn < Do: a WRITE where no data is announced is a phase error, and writes nothing.",
        none_announced,
    ),
    _check(
        "case-8", "BOT 6.7.2", "Hi <> Do: a WRITE while the host reads is a phase error, and writes nothing.", wrong_way
    ),
    _check(
        "case-11", "BOT 6.7.3", "Ho > Do: what the WRITE takes is written, and the rest is residue.", more_announced
    ),
    _check("case-12", "BOT 6.7.3", "Ho = Do: all data is taken, status 0, residue 0, and it can be read back.", agree),
    _check(
        "case-13",
        "BOT 6.7.3",
        "Ho < Do: a WRITE of more than is announced is a phase error, and writes no other data.",
        less_announced,
    ),
    _check("write-zero-blocks", "SBC-3 5.32", "WRITE(10) of 0 blocks succeeds and writes nothing.", zero_blocks),
    _check("write-protect", "SBC-3 6.4.1", "A WRITE works, or fails with 7/27/00, as MODE SENSE says.", protection),
    _check(
        "recovery-of-write",
        "BOT 5.3.4",
        "Recovery behind the CBW of a WRITE: nothing is written.",
        recovery_without_data,
    ),
    _check(
        "recovery-in-write",
        "BOT 5.3.4",
        "Recovery in the middle of a WRITE: each block is the old or the new one.",
        recovery_in_data,
    ),
)
