"""Self-tests that a disk runs by itself: begin one, see how far it is and how the last one ended (ACS-3, NVMe 1.4)."""

from __future__ import annotations

from typing import Final

from scsiusb.ata.device import ATA, NVME, check_disk, read_smart
from scsiusb.ata.smart import KEY, READ_DATA, SMART, AtaChannel
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceUnsupported, MalformedReply
from scsiusb.scsi.unit import LogicalUnit

SHORT, LONG, ABORT = "short", "long", "abort"
EXECUTE: Final = 0xD4  # SMART EXECUTE OFFLINE IMMEDIATE (ACS-3 7.53.3)
SUBCOMMANDS: Final = {SHORT: 0x01, LONG: 0x02, ABORT: 0x7F}
STATUS_AT, SHORT_MINUTES_AT, LONG_MINUTES_AT, LONG_WORD_AT = 363, 372, 373, 375  # in READ DATA
RUNNING: Final = 0xF
ATA_RESULTS: Final = (
    "passed",
    "aborted by the host",
    "interrupted by a reset",
    "could not be completed",
    "failed: an element that is not known",
    "failed: electrical",
    "failed: servo",
    "failed: reading",
    "failed: damage by handling is suspected",
)
FIRST_FAILURE: Final = 3  # of the results above
SELF_TEST_LOG: Final = 0x06
LOG_LENGTH: Final = 564
NVME_CODES: Final = {SHORT: 0x1, LONG: 0x2, ABORT: 0xF}
NVME_RESULTS: Final = (  # NVMe 1.4 figure 201
    "passed",
    "aborted by the host",
    "interrupted by a reset",
    "aborted as a namespace was removed",
    "aborted by a format",
    "could not be completed",
    "failed: a segment that is not known",
    "failed: some segments",
    "aborted",
    "aborted by a sanitize",
)
NVME_FAILURES: Final = (5, 6, 7)
NEVER: Final = 0xF


@dataclass(frozen=True)
class SelfTest:
    """The state of a disk's self-tests."""

    running: bool
    percent: int | None
    """How much of the running one is done."""
    result: str | None
    """How the last one ended, in words; None if none was run, or one is running and the last is not known."""
    passed: bool | None
    """Of the last one; None if it was not completed, or none was run."""
    short_minutes: int | None
    """How long one takes, as the disk says."""
    long_minutes: int | None


def read_self_test(unit: LogicalUnit, via: str | None = None) -> SelfTest:
    """Return the state of the self-tests. `via`: as in `read_smart`, or that of its result, which saves commands.

    Raises as `read_smart`.
    """
    name = dialect_of(unit, via)
    if name in NVME:
        return parse_log(NVME[name](unit).log(SELF_TEST_LOG, LOG_LENGTH))
    return parse_data(ATA[name](unit).read(SMART, features=READ_DATA, lba=KEY))


def begin_self_test(unit: LogicalUnit, kind: str, via: str | None = None) -> None:
    """Begin a self-test, which the disk runs beside its other work, or abort it: `SHORT`, `LONG` or `ABORT`.

    Raises ValueError for another kind, DeviceUnsupported if the bridge passes no such command, and as `read_smart`.
    """
    if kind not in SUBCOMMANDS:
        raise ValueError(f"there is no self-test {kind!r}; use {', '.join(SUBCOMMANDS)}")
    name = dialect_of(unit, via)
    if name not in NVME:
        channel: AtaChannel = ATA[name](unit)
        channel.registers(SMART, features=EXECUTE, lba=KEY | SUBCOMMANDS[kind])
        return
    begin = getattr(NVME[name](unit), "begin_self_test", None)
    if begin is None:
        what = f"the bridge ({name}) passes no command that begins a self-test"
        raise DeviceUnsupported(what, "attach the disk to NVMe directly")
    begin(NVME_CODES[kind])


def parse_data(data: bytes) -> SelfTest:
    """Return what SMART READ DATA says of the self-tests. Raises MalformedReply."""
    if len(data) != 512:
        raise MalformedReply(f"SMART READ DATA: received {len(data)} bytes of 512")
    code, tenths = data[STATUS_AT] >> 4, data[STATUS_AT] & 0xF
    long = data[LONG_MINUTES_AT]
    minutes = int.from_bytes(data[LONG_WORD_AT : LONG_WORD_AT + 2], "little") if long == 0xFF else long
    times = data[SHORT_MINUTES_AT] or None, minutes or None
    if code == RUNNING:
        return SelfTest(True, 100 - 10 * min(tenths, 10), None, None, *times)
    result = ATA_RESULTS[code] if code < len(ATA_RESULTS) else f"code {code:X}h"
    passed = True if code == 0 else False if FIRST_FAILURE <= code < len(ATA_RESULTS) else None
    return SelfTest(False, None, result, passed, *times)


def parse_log(data: bytes) -> SelfTest:
    """Return what the self-test log of an NVMe disk says. Raises MalformedReply."""
    if len(data) < 32:
        raise MalformedReply(f"self-test log: received {len(data)} bytes")
    is_running = data[0] & 0xF != 0
    code = data[4] & 0xF
    if code == NEVER or not data[4] >> 4:  # no such test was ever begun
        return SelfTest(is_running, data[1] & 0x7F if is_running else None, None, None, None, None)
    result = NVME_RESULTS[code] if code < len(NVME_RESULTS) else f"code {code:X}h"
    passed = True if code == 0 else False if code in NVME_FAILURES else None
    return SelfTest(is_running, data[1] & 0x7F if is_running else None, result, passed, None, None)


def dialect_of(unit: LogicalUnit, via: str | None) -> str:
    """Return the dialect that the bridge answers in: the given one, or that in which it gives its identity."""
    if via is None:
        via = read_smart(unit).via
    check_disk(unit, via)
    return via
