"""Names of what is measured: parts, ways and measures."""

from __future__ import annotations

from typing import Final

PARTS: Final = ("sequential", "ordinary", "random", "cli", "many", "memory", "python", "start", "sick")
NATIVE: Final = ("sequential", "ordinary", "sick")  # what the native lab's figures mean something for
IN_GUEST: Final = ("sequential", "ordinary", "random", "cli", "many", "memory", "sick")

SCSIUSB: Final = "scsiusb"  # with `disk.buffer`: no copy
ORDINARY: Final = "scsiusb, bytearray"
STREAM: Final = "scsiusb, streaming"
REFUSED: Final = "scsiusb, device memory refused"
REFUSED_ORDINARY: Final = "scsiusb, bytearray, device memory refused"
DD: Final = "dd O_DIRECT"
SG_DD: Final = "sg_dd"
PYUSB: Final = "plain pyusb"
C: Final = "C, device memory"
C_ORDINARY: Final = "C, malloc"
PREAD: Final = "C, kernel's pread O_DIRECT"
READ_MANY: Final = "scsiusb, one thread for all"
READ_MANY_RAISED: Final = "scsiusb, one thread for all, 128 MB for usbfs"
THREADS: Final = "scsiusb, a thread for each"
THREADS_STREAM: Final = "scsiusb, streaming, threads for each"
CLI: Final = "scsiusb CLI"

MBS: Final = "MB/s"
COMMANDS: Final = "commands/s"
P50: Final = "p50 µs"
P99: Final = "p99 µs"
WALL: Final = "whole process s"
CPU: Final = "CPU s per GB"
EVEN: Final = "slowest/fastest"
PEAK: Final = "peak MiB"
COST: Final = "µs per command"
INSTRUCTIONS: Final = "instructions per command"
MILLISECONDS: Final = "ms"

SICK: Final = ("NOT READY twenty times", "no answer", "stalls", "wrong tags", "slow")  # what is wrong with a device
HEALTHY: Final = "all healthy"
KEPT: Final = {kind: f"of the rate, one device: {kind}" for kind in SICK}
PAUSE: Final = {kind: f"ms of pause at most, one device: {kind}" for kind in SICK} | {
    HEALTHY: f"ms of pause at most, {HEALTHY}"
}

MORE_IS_BETTER: Final = (MBS, COMMANDS, EVEN, *KEPT.values())


def key(subject: str, way: str) -> str:
    """Return the key of a figure: what is measured, and by which way."""
    return f"{subject}: {way}"
