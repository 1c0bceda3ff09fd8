"""The cases that write, and what writing does: only in blocks that the user names, whose content is put back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from scsiusb.conformance.device_under_test import Bench, DeviceDead, MediumChanged, NotPutBack
from scsiusb.conformance.exchange import Ended
from scsiusb.conformance.outcome import Check, Unsuited, Violation
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

    def __init__(self, bench: Bench, lba: int, blocks: int) -> None:
        self.bench, self.lba, self.blocks = bench, lba, blocks
        self.size = bench.block_size
        self.old = bench.read(lba, blocks)
        self.new = bytes(byte ^ 0xA5 for byte in (PATTERN * (len(self.old) // 256 + 1))[: len(self.old)])
        if self.new[: self.size] == self.old[: self.size]:
            self.new = bytes(byte ^ 0xFF for byte in self.new)

    def __str__(self) -> str:
        return f"LBA {self.lba}-{self.lba + self.blocks - 1}" if self.blocks > 1 else f"LBA {self.lba}"

    def writing(self, blocks: int) -> Write10 | Write16:
        kind = Write10 if self.lba + blocks - 1 < TOO_LARGE_FOR_10 else Write16
        return kind(self.lba, blocks, block_size=self.size)

    def there(self) -> bytes:
        self.bench.note_failure()  # which the READ would hide
        self.bench.require_same_medium()
        return self.bench.read(self.lba, self.blocks)

    def require(self, ended: Ended, *rights: bytes) -> None:
        """Each block must be one of those that `rights` have at its place."""
        found = self.there()
        for at in range(0, len(found), self.size):
            block = slice(at, at + self.size)
            if all(found[block] != right[block] for right in rights):
                number = self.lba + at // self.size
                right = "what was there before" if rights == (self.old,) else "what was there or what was written"
                raise Violation(f"{ended.asked}, then a READ", f"LBA {number} has other content", right)


@contextmanager
def _range(bench: Bench, blocks: int) -> Iterator[Range]:
    """Puts the old content back, whatever happens, and compares; but nothing on another medium."""
    modes = bench.run(ModeSense6())
    if modes.is_failed:
        bench.sense()
    is_protected = modes.is_good and len(modes.data) > 2 and bool(modes.data[2] & WRITE_PROTECTED)
    if is_protected or bench.is_cd_rom:
        raise Unsuited("the medium is write protected")
    found = Range(bench, bench.area_of(blocks), blocks)
    try:
        yield found
    finally:
        _put_back(bench, found)


def _put_back(bench: Bench, found: Range) -> None:
    """Tries more than once; where it cannot be done, the run ends, and the old content is in a file."""
    trouble = "the device has gone"
    try:
        bench.revive()
        for _ in range(TRIES):
            trouble = _tried_to_put_back(bench, found)
            if not trouble:
                bench.flush()
                return
            bench.reset_port()
            bench.settle()
    except MediumChanged:
        text = f"the medium was changed; {found} of the old one may hold a test pattern"
        raise MediumChanged(text) from None
    except (DeviceDead, TransportError) as error:
        raise NotPutBack(_saved(found, str(error))) from error
    raise NotPutBack(_saved(found, trouble))


def _tried_to_put_back(bench: Bench, found: Range) -> str:
    """What went wrong; empty: the old content is there."""
    try:
        bench.require_same_medium()
        bench.good(found.writing(found.blocks), payload=found.old)
        return "" if found.there() == found.old else "a READ gives other content"
    except Violation as violation:
        return str(violation)


def _saved(found: Range, trouble: str) -> str:
    with tempfile.NamedTemporaryFile(prefix="scsiusb-check-", suffix=f"-lba{found.lba}.img", delete=False) as file:
        file.write(found.old)
    return f"{found} does NOT hold its old content, which is in {file.name} now: {trouble}"


def agree(bench: Bench) -> str:
    """Case 12."""
    with _range(bench, 2) as area:
        ended = bench.good(area.writing(2), payload=area.new)
        ended.require(ended.moved == ended.length and ended.residue == 0, f"{ended.length} bytes and residue 0")
        area.require(ended, area.new)
    return f"{ended.asked}: {ended.words}"


def none_announced(bench: Bench) -> str:
    """Case 3."""
    with _range(bench, 1) as area:
        ended = bench.exchange.command(area.writing(1), 0)
        _phase_error(ended)
        area.require(ended, area.old)
    return f"{ended.asked}: {ended.words}"


def wrong_way(bench: Bench) -> str:
    """Case 8."""
    with _range(bench, 1) as area:
        ended = bench.exchange.command(area.writing(1), area.size, Direction.IN)
        _phase_error(ended)
        area.require(ended, area.old)
    return f"{ended.asked}: {ended.words}"


def more_announced(bench: Bench) -> str:
    """Case 11."""
    with _range(bench, 2) as area:
        ended = bench.run(area.writing(1), payload=area.new)
        ended.require(ended.status == GOOD, "status 0")
        ended.require(ended.residue == area.size, f"residue {area.size}: one block was processed")
        area.require(ended, area.new[: area.size] + area.old[area.size :])
    return f"{ended.asked}: {ended.words}"


def less_announced(bench: Bench) -> str:
    """Case 13."""
    with _range(bench, 2) as area:
        ended = bench.exchange.command(area.writing(2), payload=area.new[: area.size])
        _phase_error(ended)
        area.require(ended, area.old, area.new[: area.size] + area.old[area.size :])
    return f"{ended.asked}: {ended.words}"


def _phase_error(ended: Ended) -> None:
    ended.require_csw()
    ended.require(ended.status == STATUS_PHASE_ERROR, "status 2, phase error")


def zero_blocks(bench: Bench) -> str:
    with _range(bench, 1) as area:
        ended = bench.run(area.writing(0))
        ended.require(ended.status == GOOD, "status 0: nothing to write is no error")
        area.require(ended, area.old)
    return "status 0, nothing written"


def recovery_without_data(bench: Bench) -> str:
    """The host changes its mind behind the CBW."""
    with _range(bench, 1) as area:
        return _broken_off(bench, area, b"")


def recovery_in_data(bench: Bench) -> str:
    """Whole packets, so that the data has not ended."""
    packet = bench.exchange.port.bulk_out.max_packet_size
    half = max(1, packet // bench.block_size)
    with _range(bench, 2 * half) as area:
        return _broken_off(bench, area, area.new[: half * area.size])


def _broken_off(bench: Bench, area: Range, sent: bytes) -> str:
    request = area.writing(area.blocks)
    bench.exchange.send(bench.exchange.cbw(request, request.length, Direction.OUT), "cbw")
    if sent:
        code, _ = bench.exchange.send(sent)
        if code is not Code.OK:
            raise Violation(f"data of {request}", code.name, "that it is taken")
    bench.exchange.reset_recovery()
    ended = bench.run(bench.reading(area.lba, 1))
    area.require(ended, area.old, sent + area.old[len(sent) :])
    return f"{len(sent)} of {request.length} bytes sent: each block is old or new"


def protection(bench: Bench) -> str:
    """Writes the content that is there already."""
    lba = bench.area_of(1)
    if bench.is_cd_rom:
        raise Unsuited("a CD-ROM drive has no WRITE")
    modes = bench.optional(ModeSense6())
    modes.require(len(modes.data) > 2, "a header of 4 bytes")
    old = bench.read(lba, 1)
    request = Write10(lba, 1, block_size=bench.block_size)
    if not modes.data[2] & WRITE_PROTECTED:
        bench.good(request, payload=old)
        return "WP is not set, and WRITE works"
    ended = bench.run(request, payload=old)
    ended.require(ended.status == FAILED, "status 1 with sense 7/27/00: WP is set")
    sense = bench.sense()
    if (sense.key, sense.asc, sense.ascq) != PROTECTED:
        raise Violation(ended.asked, f"sense {sense.codes}", "7/27/00: WP is set")
    return f"WP is set, and WRITE fails with {sense.codes}"


def _check(name: str, section: str, demand: str, function: Callable[[Bench], str]) -> Check:
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
