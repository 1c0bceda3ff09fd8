"""The results of bench as a record for --json, and the record as text: headline, table and notes."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from scsiusb._version import __version__
from scsiusb.cli.output import identity_of, size_text
from scsiusb.disk.disk import Disk
from scsiusb.disk.speed import READ, WRITE, Case, Figures, Plan

Record = dict[str, Any]
AT_ONCE: Final = " at depth "
SHORT: Final = {"sequential": "seq", "random": "rand"}
COLUMNS: Final = ("test", "size", "MB/s", "cmd/s", "p50 µs", "p99 µs", "max µs", "CPU µs")


def record(disk: Disk, plan: Plan, found: Mapping[Case, Figures], left_out: Mapping[int, str]) -> Record:
    """Return all results and circumstances of a run; the plot and the other functions here use it too."""
    return {
        "device": _device(disk),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": {"scsiusb": __version__, "python": platform.python_version(), "platform": platform.platform()},
        "range": plan.extent._asdict(),
        "seconds": plan.seconds,
        "calls": plan.calls,
        "seed": plan.seed,
        "depths": list(plan.depths) or None,
        "read": _by_pattern(disk, found, READ),
        "write": _by_pattern(disk, found, WRITE) if plan.writes else None,
        "left_out": [{"bytes": size, "reason": reason} for size, reason in left_out.items()],
    }


def _device(disk: Disk) -> Record:
    info, unit = disk.unit.transport.info, disk.inquiry()
    return {
        **identity_of(info),
        "speed": info.speed,
        "lun": disk.unit.lun,
        "unit": {"vendor": unit.vendor, "product": unit.product, "revision": unit.revision},
        "blocks": disk.blocks,
        "block_size": disk.block_size,
        "bytes": disk.size,
        "command_bytes": disk.max_blocks * disk.block_size,
    }


def _by_pattern(disk: Disk, found: Mapping[Case, Figures], direction: str) -> dict[str, dict[str, Record]]:
    tree: dict[str, dict[str, Record]] = {}
    for case, figures in found.items():
        if case.direction == direction:
            by_size = tree.setdefault(case.pattern, {})
            if case.depth:
                by_size.setdefault(str(case.size), {})[str(case.depth)] = _numbers(figures)
            else:
                by_size[str(case.size)] = _numbers(figures)
    return tree


def _numbers(figures: Figures) -> Record:
    microseconds = {name: round(seconds * 1e6, 3) for name, seconds in figures.latency._asdict().items()}
    numbers = {
        "bytes": figures.bytes,
        "calls": figures.calls,
        "commands": figures.commands,
        "seconds": round(figures.seconds, 9),
        "mb_per_s": round(figures.mb_per_s, 6),
        "commands_per_s": round(figures.commands_per_s, 3),
        "latency_us": microseconds,
        "cpu_us_per_command": round(figures.cpu_per_command * 1e6, 3),
        "device_memory": figures.is_device_memory,
    }
    flush = figures.flush_seconds
    return numbers if flush is None else {**numbers, "flush_seconds": round(flush, 9)}


def measurements(found: Record) -> Iterator[tuple[str, str, int, Record]]:
    """Yield direction, pattern, size in bytes and numbers of each measurement, in the order of measuring.

    With `depths`, the pattern has the depth: "random at depth 8".
    """
    for direction in (READ, WRITE):
        for pattern, by_size in (found[direction] or {}).items():
            for size, numbers in by_size.items():
                if not found.get("depths"):
                    yield direction, pattern, int(size), numbers
                    continue
                for depth, each in numbers.items():
                    yield direction, f"{pattern}{AT_ONCE}{depth}", int(size), each


def device_name(found: Record) -> str:
    """Return the name and the address of the device."""
    device = found["device"]
    label = " ".join(filter(None, (device["manufacturer"], device["product"]))) or "USB mass-storage device"
    return f"{label} at {device['address']}"


def circumstances(found: Record) -> str:
    """Return what the results depend on: size, speed, largest command, kind of buffer."""
    device, memory = found["device"], _memory(found)
    said = [
        size_text(device["bytes"]),
        *([] if device["speed"] == "unknown" else [f"{device['speed']} speed"]),
        f"commands of at most {size_text(device['command_bytes'])}",
        f"{memory} memory",
    ]
    return ", ".join(said)


def _memory(found: Record) -> str:
    granted = {size: numbers["device_memory"] for _, _, size, numbers in measurements(found)}
    if all(granted.values()):
        return "device"
    if not any(granted.values()):
        return "ordinary"
    return f"device (up to {size_text(max(size for size, is_granted in granted.items() if is_granted))}) and ordinary"


def headline(found: Record) -> str:
    """Return the text above the table."""
    return f"{device_name(found)}\n{circumstances(found)}{place(found)}"


def place(found: Record) -> str:
    """Return the measured range as text, or an empty text if it is the whole medium."""
    lba, blocks = found["range"].values()
    return "" if blocks == found["device"]["blocks"] else f", LBA {lba} to {lba + blocks - 1}"


def table(found: Record) -> list[list[str]]:
    """Return the column names and a row for each measurement; all columns but the first are right-aligned."""
    rows = [COLUMNS, *(_row(*each) for each in measurements(found))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in rows]


def _row(direction: str, pattern: str, size: int, numbers: Record) -> tuple[str, ...]:
    speeds = numbers["mb_per_s"], numbers["commands_per_s"]
    values = (*speeds, *numbers["latency_us"].values(), numbers["cpu_us_per_command"])
    name, at_once, depth = pattern.partition(AT_ONCE)
    return f"{direction} {SHORT[name]}{at_once}{depth}", size_text(size), *map(_short, values)


def _short(value: float) -> str:
    """Return a number with three significant digits, or as an integer if it is larger."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def notes(found: Record) -> list[str]:
    """Return the notes that are needed to read the table correctly."""
    cut = {size: numbers["commands"] // numbers["calls"] for _, _, size, numbers in measurements(found)}
    several = [f"{size_text(size)} {count}" for size, count in sorted(cut.items()) if count > 1]
    said = [f"commands per call: {', '.join(several)}; p50, p99 and max are per call"] if several else []
    return [*said, "MB/s of writes include one flush at the end of each measurement"] if found["write"] else said
