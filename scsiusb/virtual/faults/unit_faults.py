"""Faults of logical units: commands that fail, media that are ejected, false replies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from scsiusb.virtual.faults.faults import Fault
from scsiusb.virtual.target.primary import INQUIRY
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.target import Target
from scsiusb.virtual.target.task import Parameters, Task
from scsiusb.virtual.target.unit import Unit

_CAPACITY: Mapping[int, struct.Struct] = {8: struct.Struct(">II"), 32: struct.Struct(">QI20x")}  # by length
_ALL_ONES: Mapping[int, int] = {8: 0xFFFFFFFF, 32: 0xFFFFFFFFFFFFFFFF}


def execute(target: Target, lun: int, cdb: bytes, faults: tuple[Fault, ...]) -> Task:
    """Execute a command as `Target.execute` does, with the faults applied."""
    unit = target.units[lun] if lun < len(target.units) else None
    if unit is None:
        return target.execute(lun, cdb)
    for fault in faults:
        _change_unit(unit, fault)
    failing = next((fault for fault in faults if fault.name == "sense"), None)
    if failing is not None:
        unit.keep_sense(_sense(failing))
        return Task(failed=True)
    edits = [fault for fault in faults if fault.name in _EDITS]
    return _execute_edited(target, lun, cdb, edits) if edits else _execute_protected(target, lun, cdb, unit, faults)


def _change_unit(unit: Unit, fault: Fault) -> None:
    """Apply a fault that changes the state of the unit before the command."""
    if fault.name == "eject":
        unit.eject()
    elif fault.name == "attentions":
        unit.queue_attentions(fault.number)
    elif fault.name == "becoming-ready":
        unit.becoming_ready = fault.number


def _sense(fault: Fault) -> Sense:
    key, asc, ascq = (int(part, 16) for part in str(fault.value).split("/"))
    return Sense(key, asc, ascq)


def _execute_protected(target: Target, lun: int, cdb: bytes, unit: Unit, faults: tuple[Fault, ...]) -> Task:
    was_protected = unit.write_protected
    unit.write_protected = was_protected or any(fault.name == "write-protected" for fault in faults)
    try:
        return target.execute(lun, cdb)
    finally:
        unit.write_protected = was_protected


def _execute_edited(target: Target, lun: int, cdb: bytes, edits: list[Fault]) -> Task:
    """Execute a command and change its parameter data.

    The command is executed with the largest allocation length, so that the changes see all of its data; the host's
    allocation length is applied to the result.
    """
    place = _allocation_length(cdb)
    task = target.execute(lun, cdb[: place.start] + b"\xff" * len(cdb[place]) + cdb[place.stop :])
    if not isinstance(task, Parameters):
        return task
    data = bytearray(task.length)
    task.read(memoryview(data))
    for fault in edits:
        data = bytearray(_EDITS[fault.name](fault, bytes(data)))
    return Parameters(bytes(data), int.from_bytes(cdb[place], "big") if cdb[place] else len(data))


def _allocation_length(cdb: bytes) -> slice:
    """Return where ALLOCATION LENGTH is in INQUIRY and READ CAPACITY(16); READ CAPACITY(10) has none."""
    if cdb[0] == INQUIRY:
        return slice(3, 5)
    return slice(10, 14) if len(cdb) == 16 else slice(0, 0)


def _inquiry(fault: Fault, data: bytes) -> bytes:
    longer = bytearray(data.ljust(max(fault.number, 5), b"\0"))
    longer[4] = max(fault.number - 5, 0)  # ADDITIONAL LENGTH
    return bytes(longer[: fault.number])


def _garbage(fault: Fault, data: bytes) -> bytes:
    from random import Random

    return Random(len(data)).randbytes(len(data))


def _capacity(fault: Fault, data: bytes) -> bytes:
    last, size = _CAPACITY[len(data)].unpack(data)
    return _CAPACITY[len(data)].pack((last + fault.number) & _ALL_ONES[len(data)], size)


def _blocks(fault: Fault, data: bytes) -> bytes:
    _, size = _CAPACITY[len(data)].unpack(data)
    all_ones = _ALL_ONES[len(data)]
    return _CAPACITY[len(data)].pack(min(fault.number - 1, all_ones) & all_ones, size)


def _block_size(fault: Fault, data: bytes) -> bytes:
    last, _ = _CAPACITY[len(data)].unpack(data)
    return _CAPACITY[len(data)].pack(last, fault.number)


_EDITS: Mapping[str, Callable[[Fault, bytes], bytes]] = {
    "inquiry": _inquiry,
    "inquiry-garbage": _garbage,
    "capacity": _capacity,
    "blocks": _blocks,
    "block-size": _block_size,
}
