"""A stick that fails as old ones do: it has bad blocks, stops answering until it is reset, or leaves the bus."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection

import scsiusb
from scsiusb.usb.backend import Code
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.device.descriptors import Identity
from scsiusb.virtual.target.sense import CommandFailed, Sense
from scsiusb.virtual.target.task import Task
from tests.sticks import Answer, InterceptedBus, Wire

READ_10 = 0x28
CBW_LENGTH = 31
UNRECOVERED = Sense(3, 0x11, 0)


class FailingUnit(Unit):
    """A unit with bad blocks, which counts how often each block is read."""

    def __init__(self, data: bytearray, bad: Collection[int] = (), *, block_size: int = 512) -> None:
        super().__init__(Memory(data, block_size))
        self.left = dict.fromkeys(bad, 1 << 30)
        """How often each bad block still fails."""
        self.largest = 1 << 30
        """More blocks than this are not read by one command."""
        self.reads: list[tuple[int, int]] = []
        """LBA and blocks of each READ."""
        self.tried: Counter[int] = Counter()
        """How often each block was read, up to the first time that it was read well."""
        self._good: set[int] = set()

    def _decode(self, cdb: bytes) -> Task:
        if cdb[0] == READ_10:
            lba, blocks = struct.unpack_from(">IxH", cdb, 2)
            self._read(range(lba, lba + blocks))
        return super()._decode(cdb)

    def _read(self, lbas: range) -> None:
        self.reads.append((lbas.start, len(lbas)))
        self.tried.update(lba for lba in lbas if lba not in self._good)
        bad = [lba for lba in lbas if self.left.get(lba, 0) > 0]
        for lba in bad:
            self.left[lba] -= 1
        if bad or len(lbas) > self.largest:
            raise CommandFailed(UNRECOVERED)
        self._good.update(lbas)


class FailingBus(InterceptedBus):
    """A bus with one stick, which stops answering, or leaves, at some blocks; a port reset makes it answer again."""

    def __init__(self, unit: Unit, serial: str | None = "RESCUE01") -> None:
        self.stick = Stick([unit], identity=Identity(serial=serial))
        super().__init__(self.stick)
        self.hangs: Collection[int] = ()
        self.leaves: set[int] = set()
        """At each of these blocks it leaves the bus, once."""
        self.hung = 0
        self.left = 0
        self._is_hanging = False
        self._resets = 0
        self.wire.intercept = self._intercept

    def _intercept(self, wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        resets = wire.log.count("port reset")
        if resets != self._resets:
            self._resets, self._is_hanging = resets, False
        if self._is_hanging:
            return Code.TIMEOUT, 0
        if wire.log[-1] != f"cbw {READ_10:02x}":
            return None
        lba, blocks = struct.unpack_from(">IxH", buffer, 17)
        lbas = range(lba, lba + blocks)
        if any(each in lbas for each in self.hangs):
            self._is_hanging, self.hung = True, self.hung + 1
            return Code.OK, CBW_LENGTH
        leaving = [each for each in self.leaves if each in lbas]
        if leaving:
            self.leaves.remove(leaving[0])
            self.left += 1
            self.unplug(self.stick)
            return Code.NO_DEVICE, 0
        return None

    def reopen(self) -> scsiusb.Disk:
        """Plug the stick in again if it has left, and open it."""
        if not self.devices():
            self.plug(self.stick)
        return scsiusb.open_on(self)
