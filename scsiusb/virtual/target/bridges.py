"""Bridges that have commands of their own for the ATA or NVMe disk after them, as their makers' programs use them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from scsiusb.virtual.target.ata import PASS_THROUGH_12, PASS_THROUGH_16, AtaDisk, run
from scsiusb.virtual.target.collecting import act_on
from scsiusb.virtual.target.nvme import NvmeDisk
from scsiusb.virtual.target.sense import INVALID_FIELD_IN_CDB, INVALID_FIELD_IN_PARAMETERS, CommandFailed, Sense
from scsiusb.virtual.target.task import Parameters, Task

if TYPE_CHECKING:
    from scsiusb.virtual.target.unit import Unit

NON_DATA, PIO_IN = 3, 4
SMART, RETURN_STATUS = 0xB0, 0xDA
PROLIFIC_ID: Final = b"\x06\x7b"
JMICRON_SIGNATURE: Final = b"NVME"
JMICRON_BLOCK: Final = 512
REALTEK_LOG: Final = 512
NOT_SUPPORTED: Final = 0x4002 << 1  # a status: invalid field, do not retry; above the phase bit


class Registers:
    """The registers that a bridge keeps after a command without data: error, status, count, LBA."""

    def __init__(self) -> None:
        self.values = (0, 0x50, 0, 0)

    def take(self, sense: Sense) -> None:
        """Take them from sense data with registers, in fixed format (SAT-3 12.2.5)."""
        information, specific = sense.information or 0, sense.specific
        lba = specific[1] | specific[2] << 8 | specific[3] << 16
        self.values = (information >> 24, information >> 16 & 0xFF, information & 0xFF, lba)

    def task_file(self) -> bytes:
        """Return them in the order of the ATA task file."""
        error, status, count, lba = self.values
        return bytes((0, error, count)) + lba.to_bytes(3, "little") + bytes((0xA0, status))


def _ata(unit: Unit, registers: Registers, features: int, count: int, lba: int, command: int, has_data: bool) -> Task:
    """Run an ATA command; keep the registers after one without data."""
    try:
        return run(unit, PIO_IN if has_data else NON_DATA, not has_data, features, count, lba, command)
    except CommandFailed as failure:
        if failure.sense.key != 0x1:
            raise
        registers.take(failure.sense)
        return Task()


def _low(cdb: bytes, at: int) -> int:
    return int.from_bytes(cdb[at : at + 3], "little")


def _cypress(unit: Unit) -> None:
    registers = Registers()

    def atacb(unit: Unit, cdb: bytes) -> Task:
        if cdb[1] != 0x24:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        if cdb[2] & 1:
            return Parameters(registers.task_file(), 8)
        return _ata(unit, registers, cdb[6], cdb[7], _low(cdb, 8), cdb[12], has_data=bool(cdb[7]))

    unit.add(0x24, atacb)


def _jmicron(unit: Unit) -> None:
    registers = Registers()

    def ata(unit: Unit, cdb: bytes) -> Task:
        length = int.from_bytes(cdb[3:5], "big")
        if cdb[11] == 0xFD:  # a register of the bridge: a disk on the second port
            return Parameters(b"\x40" if cdb[6:8] == b"\x72\x0f" else b"\0", length)
        if cdb[10] & 0x10 == 0:  # the first port has none
            raise CommandFailed(Sense(0x4, 0x44, 0x00))
        is_status = cdb[11] == SMART and cdb[5] == RETURN_STATUS
        task = _ata(unit, registers, cdb[5], cdb[6], _low(cdb, 7), cdb[11], has_data=bool(length) and not is_status)
        return Parameters(bytes((registers.values[3] >> 16,)), length) if is_status else task

    unit.add(0xDF, ata)


def _prolific(unit: Unit) -> None:
    registers = Registers()

    def ata(unit: Unit, cdb: bytes) -> Task:
        if cdb[4:6] != PROLIFIC_ID:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return _ata(unit, registers, cdb[3], cdb[10], _low(cdb, 11), cdb[15], has_data=any(cdb[6:10]))

    def read(unit: Unit, cdb: bytes) -> Task:
        if cdb[4:6] != PROLIFIC_ID:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        error, status, count, lba = registers.values
        low, mid, high = lba.to_bytes(3, "little")
        data = bytes((status, error, count, 0, low, 0, mid, 0, high, 0, 0xA0, 0, 0, 0, 0, status))
        return Parameters(data, 16)

    unit.add(0xD8, ata)
    unit.add(0xD7, read)


def _sunplus(unit: Unit) -> None:
    registers = Registers()

    def ata(unit: Unit, cdb: bytes) -> Task:
        if cdb[2] == 0x21:
            return Parameters(registers.task_file(), 8)
        if cdb[2] != 0x22:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        return _ata(unit, registers, cdb[5], cdb[6], _low(cdb, 7), cdb[11], has_data=cdb[3] == 0x10)

    unit.add(0xF8, ata)


def _nvme(unit: Unit, opcode: int, low: int, length: int) -> Task:
    data = unit.nvme.admin(unit, opcode, low) if unit.nvme is not None else None
    if data is None:
        raise CommandFailed(INVALID_FIELD_IN_CDB)
    return Parameters(data[:length].ljust(length, b"\0"), length)


def _asmedia(unit: Unit) -> None:
    def admin(unit: Unit, cdb: bytes) -> Task:
        length = 4096 if cdb[1] == 0x06 else (int.from_bytes(cdb[6:8], "big") + 1) * 4
        return _nvme(unit, cdb[1], cdb[3], length)

    unit.add(0xE6, admin)


def _realtek(unit: Unit) -> None:
    def admin(unit: Unit, cdb: bytes) -> Task:
        return _nvme(unit, cdb[3], cdb[4], int.from_bytes(cdb[1:3], "little"))

    unit.add(0xE4, admin)


def _jmicron_nvme(unit: Unit) -> None:
    """Three SCSI commands for one of the disk: the command, its data, its response."""
    given = {"data": b"", "status": 0}

    def take(data: bytes) -> None:
        if data[:4] != JMICRON_SIGNATURE:
            raise CommandFailed(INVALID_FIELD_IN_PARAMETERS)
        opcode, dword_10 = struct.unpack_from("<I", data, 8)[0], struct.unpack_from("<I", data, 48)[0]
        disk = unit.nvme
        answer = disk.admin(unit, opcode & 0xFF, dword_10 & 0xFF) if disk is not None else None
        if opcode & 0xFF == 0x14 and disk is not None and disk.begin_self_test(dword_10 & 0xF):
            answer = b""
        given.update(data=answer or b"", status=0 if answer is not None else NOT_SUPPORTED)

    def admin(unit: Unit, cdb: bytes) -> Task:
        protocol, length = cdb[1] & 0x7F, int.from_bytes(cdb[3:6], "big")
        if not cdb[1] & 0x80 or length > 1 << 16:
            raise CommandFailed(INVALID_FIELD_IN_CDB)
        if protocol == 0x0 and length == JMICRON_BLOCK:
            return act_on(unit, length, take)
        data, status = given["data"], given["status"]
        assert isinstance(data, bytes)
        if protocol == 0x1:
            return Task()
        if protocol == 0x2:
            return Parameters(data[:length].ljust(length, b"\0"), length)
        if protocol == 0xF:
            response = struct.pack("<4sI4x8xI", JMICRON_SIGNATURE, 0, int(str(status)) << 16)
            return Parameters(response.ljust(JMICRON_BLOCK, b"\0"), length)
        raise CommandFailed(INVALID_FIELD_IN_CDB)

    unit.add(PASS_THROUGH_12, admin)


ATA: Final[dict[str, Callable[[Unit], None]]] = {
    "sat": lambda unit: None,
    "usbcypress": _cypress,
    "usbjmicron": _jmicron,
    "usbprolific": _prolific,
    "usbsunplus": _sunplus,
}
NVME: Final[dict[str, Callable[[Unit], None]]] = {
    "sntasmedia": _asmedia,
    "sntjmicron": _jmicron_nvme,
    "sntrealtek": _realtek,
}
IDS: Final = {  # of a device that has the bridge
    "usbcypress": (0x04B4, 0x6830),
    "usbjmicron": (0x152D, 0x2338),
    "usbprolific": (0x067B, 0x2773),
    "usbsunplus": (0x04FC, 0x0C25),
    "sntasmedia": (0x174C, 0x2362),
    "sntjmicron": (0x152D, 0x0583),
    "sntrealtek": (0x0BDA, 0x9210),
}


def furnish(unit: Unit, disk: AtaDisk | NvmeDisk, bridge: str) -> None:
    """Make the unit a bridge with that disk; `bridge`: a key of `ATA` or of `NVME`, as the disk is."""
    if isinstance(disk, AtaDisk):
        unit.ata = disk
        if bridge != "sat":
            unit.withdraw(PASS_THROUGH_16, PASS_THROUGH_12)
        ATA[bridge](unit)
    else:
        unit.nvme = disk
        NVME[bridge](unit)
