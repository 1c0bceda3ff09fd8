"""Commands of block devices (SBC-3) that transfer, verify or compare blocks, beside those of `sbc`."""

from __future__ import annotations

from dataclasses import field

from construct import BitStruct, Flag, Padding

from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import U2, U8, U16, U21, U32, U64, Command, opcode
from scsiusb.scsi.commands.sbc import RW_16, SLOW, BlockCommand, WriteCommand
from scsiusb.transport.base import Direction

DISKS = frozenset({0x00, 0x04, 0x05, 0x07, 0x0E, 0x14})  # device types that have blocks with addresses

RW_6 = (Padding(3), "lba" / U21, "blocks" / U8, Padding(8))  # SBC-2 tables 29 and 64
RW_12 = (  # the same in READ(12) and WRITE(12); SBC-3 tables 48 and 105
    Padding(3),  # RDPROTECT, WRPROTECT
    "dpo" / Flag,
    "fua" / Flag,
    Padding(3),
    "lba" / U32,
    "blocks" / U32,
    Padding(16),  # GROUP NUMBER, CONTROL
)
CHECK = (Padding(3), "dpo" / Flag, Padding(1), "byte_check" / U2, Padding(1))  # VRPROTECT, DPO, BYTCHK


@dataclass(frozen=True)
class Read6(BlockCommand):
    """READ(6): read up to 255 blocks below LBA 200000h; obsolete (SBC-2 5.5)."""

    NAME = "READ(6)"
    repeatable = True
    CDB = BitStruct(opcode(0x08), *RW_6)
    direction = Direction.IN
    device_types = DISKS

    def cdb(self) -> bytes:
        """Return the CDB. Raises ValueError, also for 0 blocks, which a device takes for 256."""
        return _refuse_zero(self, super().cdb())


@dataclass(frozen=True)
class Write6(WriteCommand):
    """WRITE(6): write up to 255 blocks below LBA 200000h; obsolete (SBC-2 5.25)."""

    NAME = "WRITE(6)"
    CDB = BitStruct(opcode(0x0A), *RW_6)
    device_types = DISKS

    def cdb(self) -> bytes:
        """Return the CDB. Raises ValueError, also for 0 blocks, which a device takes for 256."""
        return _refuse_zero(self, super().cdb())


def _refuse_zero(command: BlockCommand, cdb: bytes) -> bytes:
    if not command.blocks:
        raise ValueError(f"blocks=0 means 256 in {command.NAME}; give 1 to 255")
    return cdb


@dataclass(frozen=True)
class Read12(BlockCommand):
    """READ(12): read blocks; 32-bit LBA and number of blocks (SBC-3 5.12)."""

    NAME = "READ(12)"
    repeatable = True
    CDB = BitStruct(opcode(0xA8), *RW_12)
    direction = Direction.IN
    device_types = DISKS


@dataclass(frozen=True)
class Write12(WriteCommand):
    """WRITE(12): write blocks; 32-bit LBA and number of blocks (SBC-3 5.34)."""

    NAME = "WRITE(12)"
    CDB = BitStruct(opcode(0xAA), *RW_12)
    device_types = DISKS


@dataclass(frozen=True)
class WriteAtomic16(WriteCommand):
    """WRITE ATOMIC(16): write all of the blocks or none, also at a loss of power (SBC-4 5.48)."""

    NAME = "WRITE ATOMIC(16)"
    CDB = BitStruct(
        opcode(0x9C),
        Padding(3),
        "dpo" / Flag,
        "fua" / Flag,
        Padding(3),
        "lba" / U64,
        "boundary" / U16,
        "blocks" / U16,
        Padding(16),
    )
    boundary: int = 0
    """Blocks between the places at which the device may divide the write; 0: nowhere."""


@dataclass(frozen=True)
class WriteAndVerify10(WriteCommand):
    """WRITE AND VERIFY(10): write blocks, then check that the medium has them (SBC-3 5.37)."""

    NAME = "WRITE AND VERIFY(10)"
    timeout = SLOW
    CDB = BitStruct(opcode(0x2E), *CHECK, "lba" / U32, Padding(8), "blocks" / U16, Padding(8))
    byte_check: int = 0
    """BYTCHK: 1 compares what is on the medium with the data."""


@dataclass(frozen=True)
class WriteAndVerify12(WriteCommand):
    """WRITE AND VERIFY(12): write blocks, then check that the medium has them (SBC-3 5.38)."""

    NAME = "WRITE AND VERIFY(12)"
    timeout = SLOW
    CDB = BitStruct(opcode(0xAE), *CHECK, "lba" / U32, "blocks" / U32, Padding(16))
    device_types = DISKS
    byte_check: int = 0
    """BYTCHK: 1 compares what is on the medium with the data."""


@dataclass(frozen=True)
class WriteAndVerify16(WriteCommand):
    """WRITE AND VERIFY(16): write blocks, then check that the medium has them (SBC-3 5.39)."""

    NAME = "WRITE AND VERIFY(16)"
    timeout = SLOW
    CDB = BitStruct(opcode(0x8E), *CHECK, "lba" / U64, "blocks" / U32, Padding(16))
    byte_check: int = 0
    """BYTCHK: 1 compares what is on the medium with the data."""


@dataclass(frozen=True)
class CheckCommand(Command[None], abstract=True):
    """Base of the commands that verify blocks: against `data` if there are any, else that the device can read them."""

    direction = Direction.OUT
    timeout = SLOW
    repeatable = True
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 verifies nothing."""
    data: bytes | bytearray | memoryview = field(default=b"", repr=False)
    """Blocks to compare with; empty: none are sent, and BYTCHK is 0."""
    byte_check: int = 0
    """BYTCHK: 1: `data` has all of the blocks; 3: one block, which each is compared with; 0: no data."""
    dpo: bool = False
    """Disable page out: the device need not keep these blocks in its cache."""

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return memoryview(self.data).nbytes

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        """See `Command.payload`."""
        return self.data

    def __str__(self) -> str:
        return f"{self.NAME} of {self.blocks} block{'s' * (self.blocks != 1)} at LBA {self.lba}"


@dataclass(frozen=True)
class VerifyCompare10(CheckCommand):
    """VERIFY(10) with BYTCHK: compare blocks on the medium with data (SBC-3 5.29); `sbc.Verify10` sends none."""

    NAME = "VERIFY(10)"
    CDB = BitStruct(opcode(0x2F), *CHECK, "lba" / U32, Padding(8), "blocks" / U16, Padding(8))


@dataclass(frozen=True)
class Verify12(CheckCommand):
    """VERIFY(12): check that blocks can be read, or compare them with data (SBC-3 5.30)."""

    NAME = "VERIFY(12)"
    CDB = BitStruct(opcode(0xAF), *CHECK, "lba" / U32, "blocks" / U32, Padding(16))
    device_types = DISKS


@dataclass(frozen=True)
class Verify16(CheckCommand):
    """VERIFY(16): check that blocks can be read, or compare them with data (SBC-3 5.31)."""

    NAME = "VERIFY(16)"
    CDB = BitStruct(opcode(0x8F), *CHECK, "lba" / U64, "blocks" / U32, Padding(16))


@dataclass(frozen=True)
class SynchronizeCache16(Command[None]):
    """SYNCHRONIZE CACHE(16): write cached blocks to the medium (SBC-3 5.27)."""

    NAME = "SYNCHRONIZE CACHE(16)"
    repeatable = True
    CDB = BitStruct(opcode(0x91), Padding(6), "immediate" / Flag, Padding(1), "lba" / U64, "blocks" / U32, Padding(16))
    timeout = SLOW
    accesses_medium = True
    lba: int = 0
    """First block."""
    blocks: int = 0
    """Number of blocks; 0 means all from `lba` to the end of the medium."""
    immediate: bool = False
    """Return before the blocks are on the medium (IMMED)."""


@dataclass(frozen=True)
class PreFetch10(Command[None]):
    """PRE-FETCH(10): read blocks into the device's cache (SBC-3 5.8)."""

    NAME = "PRE-FETCH(10)"
    repeatable = True
    device_types = DISKS
    CDB = BitStruct(
        opcode(0x34), Padding(6), "immediate" / Flag, Padding(1), "lba" / U32, Padding(8), "blocks" / U16, Padding(8)
    )
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int = 0
    """Number of blocks; 0 means all from `lba` to the end of the medium."""
    immediate: bool = False
    """Return before the blocks are in the cache (IMMED)."""


@dataclass(frozen=True)
class PreFetch16(Command[None]):
    """PRE-FETCH(16): read blocks into the device's cache (SBC-3 5.9)."""

    NAME = "PRE-FETCH(16)"
    repeatable = True
    CDB = BitStruct(opcode(0x90), Padding(6), "immediate" / Flag, Padding(1), "lba" / U64, "blocks" / U32, Padding(16))
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int = 0
    """Number of blocks; 0 means all from `lba` to the end of the medium."""
    immediate: bool = False
    """Return before the blocks are in the cache (IMMED)."""


@dataclass(frozen=True)
class Seek10(Command[None]):
    """SEEK(10): move to a block; obsolete, but MMC-6 and many sticks have it (SBC 6.1.24)."""

    NAME = "SEEK(10)"
    repeatable = True
    CDB = BitStruct(opcode(0x2B), Padding(8), "lba" / U32, Padding(32))
    device_types = DISKS
    accesses_medium = True
    lba: int
    """The block."""


@dataclass(frozen=True)
class RezeroUnit(Command[None]):
    """REZERO UNIT: move to LBA 0; obsolete, of UFI floppies (UFI 1.0 4.17)."""

    NAME = "REZERO UNIT"
    repeatable = True
    CDB = BitStruct(opcode(0x01), Padding(40))
    device_types = DISKS


@dataclass(frozen=True)
class SameCommand(Command[None], abstract=True):
    """Base of WRITE SAME: write one block to a range of blocks."""

    direction = Direction.OUT
    timeout = SLOW * 30
    accesses_medium = True
    lba: int
    """First block."""
    blocks: int
    """Number of blocks; 0 means all to the end of the medium, where the device permits it (WSNZ of VPD page B0h)."""
    data: bytes | bytearray | memoryview = field(default=b"", repr=False)
    """The block to write: one block."""
    unmap: bool = False
    """The device may unmap the blocks instead of writing them (UNMAP), if they read as `data` then."""
    anchor: bool = False
    """Anchor unmapped blocks (ANCHOR)."""

    @property
    def length(self) -> int:
        """Bytes of data-out: one block."""
        return memoryview(self.data).nbytes

    @property
    def payload(self) -> bytes | bytearray | memoryview:
        """See `Command.payload`."""
        return self.data

    def __str__(self) -> str:
        return f"{self.NAME} of {self.blocks} block{'s' * (self.blocks != 1)} at LBA {self.lba}"


@dataclass(frozen=True)
class WriteSame10(SameCommand):
    """WRITE SAME(10): write one block to a range of up to 65,535 blocks (SBC-3 5.43)."""

    NAME = "WRITE SAME(10)"
    CDB = BitStruct(
        opcode(0x41),
        Padding(3),
        "anchor" / Flag,
        "unmap" / Flag,
        Padding(3),
        "lba" / U32,
        Padding(8),
        "blocks" / U16,
        Padding(8),
    )


@dataclass(frozen=True)
class WriteSame16(SameCommand):
    """WRITE SAME(16): write one block to a range of blocks; NDOB sends none and means zeros (SBC-3 5.44)."""

    NAME = "WRITE SAME(16)"
    CDB = BitStruct(
        opcode(0x93),
        Padding(3),
        "anchor" / Flag,
        "unmap" / Flag,
        Padding(2),
        "no_data" / Flag,
        "lba" / U64,
        "blocks" / U32,
        Padding(16),
    )
    no_data: bool = False
    """No block is sent: the device writes zeros (NDOB); leave `data` empty."""


@dataclass(frozen=True)
class OrWrite16(WriteCommand):
    """ORWRITE(16): write the bits that are set, leave the others (SBC-3 5.5)."""

    NAME = "ORWRITE(16)"
    CDB = BitStruct(opcode(0x8B), *RW_16)


@dataclass(frozen=True)
class CompareAndWrite(WriteCommand):
    """COMPARE AND WRITE: write blocks only if the medium has the expected ones, at once (SBC-3 5.2).

    `data` has first the expected blocks, then those to write. Raises Miscompare.
    """

    NAME = "COMPARE AND WRITE"
    CDB = BitStruct(
        opcode(0x89),
        Padding(3),
        "dpo" / Flag,
        "fua" / Flag,
        Padding(3),
        "lba" / U64,
        Padding(24),
        "blocks" / U8,
        Padding(16),
    )

    @property
    def length(self) -> int:
        """Bytes of data-out: the expected blocks, and those to write."""
        return 2 * self.blocks * self.block_size
