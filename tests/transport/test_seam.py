"""Units, disks, streams, read_many and asyncio work on any object that implements `Transport`."""

from __future__ import annotations

import asyncio
import random

import pytest

from scsiusb import AsyncDisk, DeviceClosed, Disk, IllegalRequest, LogicalUnit, MediumError, ScsiUsbError, read_many
from scsiusb.conformance.engine import run
from scsiusb.conformance.table import CHECKS
from scsiusb.errors import DeviceUnsupported
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.transport.base import Transport
from scsiusb.virtual import Memory, Unit
from tests.transport.direct import DirectTransport

BLOCKS = 1000
CONTENT = random.Random(5).randbytes(BLOCKS * 512)


class BadBlock(Memory):
    """A medium whose block 600 cannot be read."""

    def _readinto(self, offset: int, view: memoryview) -> None:
        if offset <= 600 * 512 < offset + len(view):
            raise OSError("bad block")
        super()._readinto(offset, view)


def disk(medium: Memory | None = None) -> Disk:
    transport: Transport = DirectTransport(Unit(medium or Memory(bytearray(CONTENT))))
    return Disk(LogicalUnit(transport))


def test_blocks_are_read_and_written() -> None:
    with disk() as opened:
        assert opened.inquiry().vendor == "scsiusb"
        assert (opened.blocks, opened.block_size) == (BLOCKS, 512)
        assert opened.read(3, 300) == CONTENT[3 * 512 : 303 * 512]
        opened.write(7, bytes(1024))
        opened.flush()
        assert opened.read(6, 4) == CONTENT[6 * 512 : 7 * 512] + bytes(1024) + CONTENT[9 * 512 : 10 * 512]
    with pytest.raises(DeviceClosed):
        opened.read(0, 1)


def test_the_sense_of_a_failed_command_is_fetched() -> None:
    with disk() as opened, pytest.raises(IllegalRequest) as caught:
        opened.execute(Read10(BLOCKS, 1, block_size=512))
    assert (caught.value.sense.asc, caught.value.sense.ascq) == (0x21, 0x00)


def test_streams_work() -> None:
    with disk() as opened:
        with opened.reading(0, BLOCKS) as pieces:
            assert b"".join(map(bytes, pieces)) == CONTENT
        with opened.writing(10) as out:
            out.write(bytes(100 * 512))
        assert opened.read(10, 100) == bytes(100 * 512)


def test_read_many_reads_each_in_a_thread_and_an_error_ends_only_its_stream() -> None:
    with disk() as good, disk(BadBlock(bytearray(CONTENT))) as bad:
        read = {good: bytearray(), bad: bytearray()}
        errors: dict[Disk, ScsiUsbError] = {}
        with read_many(good.reading(0, BLOCKS), bad.reading(0, BLOCKS)) as chunks:
            for reading, piece, error in chunks:
                read[reading.disk] += piece
                if error is not None:
                    errors[reading.disk] = error
        assert read[good] == CONTENT
        assert read[bad] == CONTENT[: 600 * 512]
        assert isinstance(errors[bad], MediumError)
        assert errors.keys() == {bad}


def test_asyncio_works() -> None:
    async def blocks() -> bytes:
        async with AsyncDisk(disk) as opened:
            return await opened.read(1, 2)

    assert asyncio.run(blocks()) == CONTENT[512:1536]


def test_the_conformance_checks_are_refused_without_a_port() -> None:
    with disk() as opened, pytest.raises(DeviceUnsupported, match="no port"):
        run(opened.unit.transport, 0, CHECKS.values())
