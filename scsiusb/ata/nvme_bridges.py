"""NVMe admin commands through USB bridges, each maker's own way: ASMedia, JMicron, Realtek."""

from __future__ import annotations

import struct
from typing import Final, TypeVar

from construct import BitStruct, Const, Padding

from scsiusb.ata.nvme import IDENTIFY_LENGTH
from scsiusb.ata.passthrough import ABORTED, WholeData, execute_shortly
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import CheckCondition, MalformedReply
from scsiusb.scsi.command import U4, U8, U16, U24, Command, opcode
from scsiusb.scsi.unit import LogicalUnit
from scsiusb.transport.base import Direction

R = TypeVar("R")

GET_LOG_PAGE, IDENTIFY, DEVICE_SELF_TEST = 0x02, 0x06, 0x14  # admin commands (NVMe 1.4 figure 139)
CONTROLLER: Final = 1  # CNS of Identify
ALL_NAMESPACES: Final = 0xFFFFFFFF
DWORD: Final = 4  # bytes
SIGNATURE: Final = b"NVME"
BLOCK: Final = 512  # bytes of JMicron's command and of its response
COMMAND, NO_DATA, DATA_IN, RESPONSE = 0x0, 0x1, 0x2, 0xF  # JMicron's protocols
MOST_REALTEK: Final = 512  # bytes of a log: more gives old data
MOST_JMICRON_SELF_TEST: Final = 0x218  # bytes of the self-test log: more hangs the JMS583
SELF_TEST_LOG: Final = 0x06


@dataclass(frozen=True)
class AsmediaNvme(WholeData):
    """NVMe admin command of ASMedia's ASM236x and ASM2464."""

    NAME = "ASMedia NVMe"
    CDB = BitStruct(
        opcode(0xE6), "admin" / U8, Padding(8), "low" / U8, Padding(16), "high" / U16, Padding(64)
    )  # the last eight bytes: dwords 13 and 12
    admin: int = IDENTIFY
    low: int = CONTROLLER
    """Bits 0 to 7 of dword 10: the log page, or CNS."""
    high: int = 0
    """Bits 16 to 31 of dword 10: of a log, the dwords less 1."""
    length: int = IDENTIFY_LENGTH


@dataclass(frozen=True)
class RealtekNvme(WholeData):
    """NVMe admin command of Realtek's RTL9210, RTL9211 and RTL9220."""

    NAME = "Realtek NVMe"
    CDB = BitStruct(opcode(0xE4), "length_low" / U8, "length_high" / U8, "admin" / U8, "low" / U8, Padding(88))
    admin: int = IDENTIFY
    low: int = CONTROLLER
    """Bits 0 to 7 of dword 10: the log page, or CNS."""
    length: int = IDENTIFY_LENGTH

    @property
    def length_low(self) -> int:
        """Bits 0 to 7 of the length."""
        return self.length & 0xFF

    @property
    def length_high(self) -> int:
        """Bits 8 to 15 of the length."""
        return self.length >> 8


@dataclass(frozen=True)
class JmicronNvme(WholeData):
    """The data or the response of the NVMe admin command that JMicron's JMS583 or JMS581 was given before."""

    NAME = "JMicron NVMe"
    CDB = BitStruct(opcode(0xA1), Const(0x8, U4), "protocol" / U4, Padding(8), "length" / U24, Padding(48))
    protocol: int = RESPONSE
    length: int = BLOCK
    direction: Direction = Direction.IN


@dataclass(frozen=True)
class JmicronNvmeCommand(Command[None]):
    """Give JMicron's bridge an NVMe admin command: its dwords 0, 1 and 10."""

    NAME = "JMicron NVMe"
    CDB = BitStruct(opcode(0xA1), Const(0x8, U4), Const(COMMAND, U4), Padding(8), "length" / U24, Padding(48))
    direction = Direction.OUT
    admin: int = IDENTIFY
    namespace: int = 0
    dword_10: int = CONTROLLER
    length = BLOCK

    @property
    def payload(self) -> bytes:
        """The command as the bridge wants it: dwords from the third one on, and the bridge's own before them."""
        return struct.pack("<4s4xII32xI", SIGNATURE, self.admin, self.namespace, self.dword_10).ljust(BLOCK, b"\0")


class Bridge:
    """An NVMe disk behind a bridge."""

    def __init__(self, unit: LogicalUnit) -> None:
        """Take the unit; nothing is sent."""
        self._unit = unit

    def _execute(self, command: Command[R]) -> R:
        return execute_shortly(self._unit, command)


class Asmedia(Bridge):
    """Behind ASMedia's bridges."""

    via = "sntasmedia"

    def identify(self) -> bytes:
        """See `NvmeChannel.identify`."""
        return self._execute(AsmediaNvme())

    def log(self, page: int, length: int) -> bytes:
        """See `NvmeChannel.log`."""
        return self._execute(AsmediaNvme(GET_LOG_PAGE, page, length // DWORD - 1, length))


class Realtek(Bridge):
    """Behind Realtek's bridges, which give the first 512 bytes of a log."""

    via = "sntrealtek"

    def identify(self) -> bytes:
        """See `NvmeChannel.identify`."""
        return self._execute(RealtekNvme())

    def log(self, page: int, length: int) -> bytes:
        """See `NvmeChannel.log`; of more than 512 bytes, the rest is zeros."""
        return self._execute(RealtekNvme(GET_LOG_PAGE, page, min(length, MOST_REALTEK))).ljust(length, b"\0")


class Jmicron(Bridge):
    """Behind JMicron's bridges: the command, its data, and its result are three SCSI commands."""

    via = "sntjmicron"

    def identify(self) -> bytes:
        """See `NvmeChannel.identify`."""
        return self._run(JmicronNvmeCommand(), IDENTIFY_LENGTH)

    def log(self, page: int, length: int) -> bytes:
        """See `NvmeChannel.log`; of the self-test log, the rest after 19 tests is zeros."""
        size = min(length, MOST_JMICRON_SELF_TEST) if page == SELF_TEST_LOG else length
        dword = page | (size // DWORD - 1) << 16
        return self._run(JmicronNvmeCommand(GET_LOG_PAGE, ALL_NAMESPACES, dword), size).ljust(length, b"\0")

    def begin_self_test(self, code: int) -> None:
        """Begin a self-test, or abort it (Device Self-test, NVMe 1.4 5.8)."""
        self._run(JmicronNvmeCommand(DEVICE_SELF_TEST, ALL_NAMESPACES, code), 0)

    def _run(self, command: JmicronNvmeCommand, length: int) -> bytes:
        self._execute(command)
        if length:
            data = self._execute(JmicronNvme(DATA_IN, length))
        else:
            data = self._execute(JmicronNvme(NO_DATA, 0, direction=Direction.NONE))
        response = self._execute(JmicronNvme())
        if not response.startswith(SIGNATURE):
            raise MalformedReply(f"{command}: the bridge's response has no signature")
        status = int.from_bytes(response[20:24], "little") >> 17
        if status:
            what = f"NVMe admin command {command.admin:02X}h failed with status {status:04X}h"
            raise CheckCondition(what, ABORTED, "the disk does not support it, or is failing")
        return data
