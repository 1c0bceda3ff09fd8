"""ATA commands through bridges that have a command of their own for them: Cypress, JMicron, Prolific, Sunplus."""

from __future__ import annotations

from typing import ClassVar, Final, TypeVar

from construct import BitStruct, Const, Flag, Padding

from scsiusb.ata.passthrough import ABORTED, ERROR_BIT, SECTOR, AtaRegisters, Registers, WholeData, execute_shortly
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import DeviceUnsupported
from scsiusb.scsi.command import U8, U16, U32, Command, opcode
from scsiusb.scsi.sense import error_for
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction

R = TypeVar("R")

SMART, RETURN_STATUS = 0xB0, 0xDA
PASSED, FAILING = 0xC24F00, 0x2CF400  # in the LBA after RETURN STATUS (ACS-3 7.52)
MASTER: Final = 0xA0  # of the device register
PORT_REGISTER: Final = 0x720F  # of JMicron's bridges: which ports have a disk
PORTS: Final = {0x04: 0, 0x40: 1}
STATUS_BYTES: Final = {0xC2: PASSED, 0x2C: FAILING}


@dataclass(frozen=True)
class CypressAta(AtaRegisters):
    """ATACB of Cypress's bridges (CY7C68300C data sheet, "ATA command block")."""

    NAME = "Cypress ATACB"
    CDB = BitStruct(
        opcode(0x24),
        Const(0x24, U8),
        "identifies" / Flag,
        Padding(6),
        "reads_registers" / Flag,
        Const(0xBE, U8),  # which registers below are valid: not the device, and not its control
        Const(1, U8),  # blocks of 512 bytes
        Padding(8),
        "features" / U8,
        "count" / U8,
        "lba_low" / U8,
        "lba_mid" / U8,
        "lba_high" / U8,
        Padding(8),
        "command" / U8,
        Padding(24),
    )
    reads_registers: bool = False
    """Read the registers of the command before, of which the other fields are repeated."""

    @property
    def identifies(self) -> bool:
        """Whether the command is IDENTIFY DEVICE or IDENTIFY PACKET DEVICE."""
        return self.command in (0xEC, 0xA1) and not self.reads_registers


@dataclass(frozen=True)
class JmicronAta(AtaRegisters):
    """ATA command of JMicron's SATA and PATA bridges."""

    NAME = "JMicron ATA"
    CDB = BitStruct(
        opcode(0xDF),
        Const(0x10, U8),  # no data, or data-in
        Padding(8),
        "length" / U16,
        "features" / U8,
        "count" / U8,
        "lba_low" / U8,
        "lba_mid" / U8,
        "lba_high" / U8,
        "device" / U8,
        "command" / U8,
    )


@dataclass(frozen=True)
class Pl3507Ata(JmicronAta):
    """The same of Prolific's PL3507, which wants its vendor ID after it."""

    NAME = "Prolific PL3507 ATA"
    CDB = BitStruct(*JmicronAta.CDB.subcon.subcons, Const(0x067B, U16))


@dataclass(frozen=True)
class JmicronRegister(WholeData):
    """Read registers of a JMicron bridge."""

    NAME = "JMicron READ REGISTER"
    CDB = BitStruct(
        opcode(0xDF), Const(0x10, U8), Padding(8), "length" / U16, Padding(8), "at" / U16, Padding(24), Const(0xFD, U8)
    )
    at: int
    length: int = 1


@dataclass(frozen=True)
class ProlificAta(AtaRegisters):
    """ATA command of Prolific's PL2571 and PL277x."""

    NAME = "Prolific ATA"
    CDB = BitStruct(
        opcode(0xD8),
        Const(0x15, U8),  # no data, or data-in
        Padding(8),
        "features" / U8,
        Const(0x067B, U16),  # Prolific's vendor ID
        "length" / U32,
        "count" / U8,
        "lba_low" / U8,
        "lba_mid" / U8,
        "lba_high" / U8,
        "device" / U8,
        "command" / U8,
    )


@dataclass(frozen=True)
class ProlificRegisters(WholeData):
    """Read the ATA registers that Prolific's bridge kept."""

    NAME = "Prolific READ REGISTERS"
    CDB = BitStruct(opcode(0xD7), Padding(24), Const(0x067B, U16), Padding(80))
    length = 16


@dataclass(frozen=True)
class SunplusAta(AtaRegisters):
    """ATA command of Sunplus's bridges."""

    NAME = "Sunplus ATA"
    CDB = BitStruct(
        opcode(0xF8),
        Padding(8),
        Const(0x22, U8),
        "protocol" / U8,
        "blocks" / U8,
        "features" / U8,
        "count" / U8,
        "lba_low" / U8,
        "lba_mid" / U8,
        "lba_high" / U8,
        "device" / U8,
        "command" / U8,
    )

    @property
    def protocol(self) -> int:
        """Whether there is data-in."""
        return 0x10 if self.length else 0x00

    @property
    def blocks(self) -> int:
        """Blocks of 512 bytes of the data phase."""
        return self.length // SECTOR


@dataclass(frozen=True)
class SunplusRegisters(WholeData):
    """Read the ATA registers that Sunplus's bridge kept."""

    NAME = "Sunplus GET STATUS"
    CDB = BitStruct(opcode(0xF8), Padding(8), Const(0x21, U8), Padding(72))
    length = 8


class Bridge:
    """The ATA device behind a bridge with a command of its own. Another user's commands may come between two of ours:
    the registers read after a command may be those of another one.
    """

    via: ClassVar[str]
    """The name of the dialect, as smartctl has it."""

    def __init__(self, unit: LogicalUnit) -> None:
        """Take the unit; nothing is sent."""
        self._unit = unit

    def read(self, command: int, *, features: int = 0, count: int = 1, lba: int = 0) -> bytes:
        """Return `count` sectors that a command with data-in gives. Raises as `Ata.read`."""
        return self._send(command, features, count, lba, Direction.IN, SECTOR * count)

    def registers(self, command: int, *, features: int = 0, lba: int = 0) -> Registers | None:
        """Send a command without data; return the registers after it, None if they are not known. Raises as `Ata`."""
        self._send(command, features, 0, lba, Direction.NONE, 0)
        found = self._registers_after(command, features, lba)
        if found is not None and found.status & ERROR_BIT:
            raise error_for(ABORTED, f"ATA command {command:02X}h")
        return found

    def _send(self, command: int, features: int, count: int, lba: int, direction: Direction, length: int) -> bytes:
        raise NotImplementedError

    def _registers_after(self, command: int, features: int, lba: int) -> Registers | None:
        raise NotImplementedError

    def _execute(self, command: Command[R]) -> R:
        return execute_shortly(self._unit, command)


class Cypress(Bridge):
    """Behind Cypress's CY7C68300 and its kin."""

    via = "usbcypress"

    def _send(self, command: int, features: int, count: int, lba: int, direction: Direction, length: int) -> bytes:
        return self._execute(CypressAta(command, features, count, lba, direction=direction, length=length))

    def _registers_after(self, command: int, features: int, lba: int) -> Registers | None:
        found = self._execute(
            CypressAta(command, features, 0, lba, direction=Direction.IN, length=8, reads_registers=True)
        )
        return _task_file(found)


class Jmicron(Bridge):
    """Behind JMicron's JM20329 and later ones, on either of the two ports that a bridge may have."""

    via = "usbjmicron"
    _command: ClassVar[type[JmicronAta]] = JmicronAta
    _port: int | None = None

    def _send(self, command: int, features: int, count: int, lba: int, direction: Direction, length: int) -> bytes:
        if command == SMART and features == RETURN_STATUS:  # gives a byte in place of the registers
            direction, length = Direction.IN, 1
        device = MASTER | self._port_of() << 4
        return self._execute(self._command(command, features, count, lba, device, direction, length))

    def registers(self, command: int, *, features: int = 0, lba: int = 0) -> Registers | None:
        """Send a command without data; return what is known of the registers: the LBA after RETURN STATUS."""
        found = self._send(command, features, 0, lba, Direction.NONE, 0)
        # The JM20336 always answers 01h here.
        return Registers(0, 0, 0, STATUS_BYTES[found[0]]) if found and found[0] in STATUS_BYTES else None

    def _port_of(self) -> int:
        if self._port is None:
            found = self._execute(JmicronRegister(PORT_REGISTER))[0] & 0x44
            if found not in PORTS:
                what = "the bridge has two disks" if found else "the bridge has no disk"
                raise DeviceUnsupported(f"{what} (register {PORT_REGISTER:04X}h)", "attach one disk to it")
            self._port = PORTS[found]
        return self._port


class FirstPort(Jmicron):
    """Behind bridges with JMicron's command that cannot tell which port they use: the first."""

    via = "usbjmicron,0"
    _port = 0


class Pl3507(FirstPort):
    """Behind Prolific's PL3507."""

    via = "usbjmicron,p"
    _command = Pl3507Ata


class Prolific(Bridge):
    """Behind Prolific's PL2571 and PL277x."""

    via = "usbprolific"

    def _send(self, command: int, features: int, count: int, lba: int, direction: Direction, length: int) -> bytes:
        return self._execute(ProlificAta(command, features, count, lba, MASTER, direction, length))

    def _registers_after(self, command: int, features: int, lba: int) -> Registers | None:
        found = self._execute(ProlificRegisters())
        return Registers(found[1], found[0], found[2], found[4] | found[6] << 8 | found[8] << 16)


class Sunplus(Bridge):
    """Behind Sunplus's SPDIF215 and its kin. A failed ATA command gives MEDIUM ERROR."""

    via = "usbsunplus"

    def _send(self, command: int, features: int, count: int, lba: int, direction: Direction, length: int) -> bytes:
        return self._execute(SunplusAta(command, features, count, lba, MASTER, direction, length))

    def _registers_after(self, command: int, features: int, lba: int) -> Registers | None:
        found = self._execute(SunplusRegisters())
        return _task_file(found)


def _task_file(data: bytes) -> Registers:
    """Return the registers in the order of the ATA task file, which begins with the device control."""
    return Registers(data[1], data[7], data[2], int.from_bytes(data[3:6], "little"))
