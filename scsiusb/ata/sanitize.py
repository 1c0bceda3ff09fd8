"""Sanitize of an ATA disk: make all former data unreadable, by the disk itself (ACS-3 SANITIZE DEVICE)."""

from __future__ import annotations

import struct
from typing import Final

from scsiusb.ata.device import check_disk
from scsiusb.ata.extended import AtaExtendedPlain, ExtendedRegisters, send_plain
from scsiusb.ata.identify import IDENTIFY_DEVICE
from scsiusb.ata.passthrough import SAT, SECTOR, Ata
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceUnsupported, MalformedReply
from scsiusb.scsi.unit import LogicalUnit

SANITIZE_DEVICE: Final = 0xB4
STATUS, CRYPTO, BLOCK, OVERWRITE = 0x00, 0x11, 0x12, 0x14  # FEATURES
CRYPTO_KEY, BLOCK_KEY, OVERWRITE_KEY = 0x43727970, 0x426B4572, 0x4F57  # in the LBA, against accidents
COMPLETED, IN_PROGRESS, FROZEN, ANTIFROZEN = 0x8000, 0x4000, 0x2000, 0x1000  # of COUNT
INVERT: Final = 0x80  # of COUNT
MOST_PASSES: Final = 16
WORD: Final = 59
WHOLE: Final = 65536
METHODS: Final = {"crypto": 0x2000, "overwrite": 0x4000, "block": 0x8000}  # with their bits in word 59
SUPPORTED: Final = 0x1000


@dataclass(frozen=True)
class AtaSanitizeState:
    """What the disk says of its sanitize operations."""

    methods: tuple[str, ...]
    """Those that it has, of `METHODS`; none: it has no sanitize."""
    completed: bool
    """The last operation ended without an error."""
    running: bool
    percent: float | None
    """Of the operation that runs."""
    frozen: bool
    """None can be begun until the next power-on."""
    antifrozen: bool
    """The disk refuses to be frozen until the next power-on."""


def read_sanitize(unit: LogicalUnit) -> AtaSanitizeState:
    """Return the state (SANITIZE STATUS EXT) of the disk behind a bridge that translates ATA commands of 48 bits.

    Raises DeviceUnsupported for a unit that is no disk, one without sanitize, and where the bridge does not return the
    registers; AbortedCommand after an operation that failed; as `LogicalUnit.execute`.
    """
    check_disk(unit, SAT)
    methods = _methods(Ata(unit).read(IDENTIFY_DEVICE))
    if not methods:
        raise DeviceUnsupported("the disk has no ATA sanitize", "use `scsiusb ata-security` or `scsiusb erase`")
    return _state(methods, send_plain(unit, AtaExtendedPlain(SANITIZE_DEVICE, STATUS), is_query=True))


def begin_sanitize(
    unit: LogicalUnit, method: str, *, pattern: bytes = bytes(4), passes: int = 1, invert: bool = False
) -> AtaSanitizeState:
    """Begin an operation, which nothing can stop, not even a loss of power; return what the disk then says of it.

    `method`: "block", "crypto" or "overwrite"; the others are for "overwrite": 4 bytes to repeat, 1 to 16 passes, and
    whether each inverts the pattern of the last. Raises ValueError for another method, pattern or number,
    DeviceUnsupported where the disk cannot do it now, MalformedReply if it accepted the command and does not carry it
    out, and as `read_sanitize`.
    """
    command = _command(method, pattern, passes, invert)
    check_sanitizable(read_sanitize(unit), method)
    send_plain(unit, command)
    state = read_sanitize(unit)
    if not (state.running or state.completed):
        raise MalformedReply("the disk accepted SANITIZE DEVICE, and says that none runs and that none is completed")
    return state


def check_sanitizable(state: AtaSanitizeState, method: str) -> None:
    """Raise DeviceUnsupported where the operation cannot be begun now, and say why."""
    if method not in state.methods:
        raise DeviceUnsupported(f"the disk has no {method} sanitize", f"it has: {', '.join(state.methods)}")
    if state.running:
        raise DeviceUnsupported("a sanitize runs already", "`scsiusb sanitize --ata --wait` follows it")
    if state.frozen:
        raise DeviceUnsupported("the sanitize is frozen until the next power-on", "unplug it, and plug it in again")


def _command(method: str, pattern: bytes, passes: int, invert: bool) -> AtaExtendedPlain:
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; use {', '.join(METHODS)}")
    if method != "overwrite":
        feature, key = {"crypto": (CRYPTO, CRYPTO_KEY), "block": (BLOCK, BLOCK_KEY)}[method]
        return AtaExtendedPlain(SANITIZE_DEVICE, feature, 0, key)
    if not 1 <= passes <= MOST_PASSES or 4 % max(1, len(pattern)):
        raise ValueError(f"{passes} passes, {len(pattern)} bytes: use 1 to {MOST_PASSES}, and 1, 2 or 4 bytes")
    count = passes % MOST_PASSES | (INVERT if invert else 0)  # 0 means 16
    repeated = int.from_bytes((pattern or b"\0") * (4 // max(1, len(pattern))), "big")
    return AtaExtendedPlain(SANITIZE_DEVICE, OVERWRITE, count, OVERWRITE_KEY << 32 | repeated)


def _methods(data: bytes) -> tuple[str, ...]:
    if len(data) != SECTOR:
        raise MalformedReply(f"IDENTIFY DEVICE: received {len(data)} of {SECTOR} bytes")
    (word,) = struct.unpack_from("<H", data, 2 * WORD)
    return tuple(name for name, bit in METHODS.items() if word & bit) if word & SUPPORTED else ()


def _state(methods: tuple[str, ...], found: ExtendedRegisters) -> AtaSanitizeState:
    count, running = found.sectors, bool(found.sectors & IN_PROGRESS)
    percent = round((found.lba & 0xFFFF) * 100 / WHOLE, 1) if running else None
    return AtaSanitizeState(
        methods, bool(count & COMPLETED), running, percent, bool(count & FROZEN), bool(count & ANTIFROZEN)
    )
