"""Reads and writes of any size, on media of several block sizes, also larger than 2 TiB."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb import (
    DataProtect,
    Disk,
    LbaOutOfRange,
    MediumChanged,
    MediumError,
    NoMedium,
    OutOfRange,
    TransportError,
    UnitAttention,
)
from scsiusb.disk.block_stories import Note
from scsiusb.disk.medium import READ, BlockTransfer, Medium
from scsiusb.opening import open_on
from scsiusb.scsi.commands import spc as primary
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.usb.backend import Code
from scsiusb.virtual import Identity, Memory, Sparse, Stick, Unit
from tests.fuzz import profiles
from tests.sticks import Answer, InterceptedBus, Wire, stick

SBC = "scsiusb.scsi.commands.sbc"


@contextmanager
def disk_on(*sticks: Stick) -> Iterator[tuple[Disk, InterceptedBus]]:
    bus = InterceptedBus(*sticks)
    with open_on(bus) as disk:
        yield disk, bus
    assert not bus.handles
    bus.close()


def cbws(bus: InterceptedBus, opcode: str) -> int:
    return bus.wire.log.count(f"cbw {opcode}")


@pytest.mark.parametrize("block_size", [512, 2048, 4096])
def test_reads_return_the_right_blocks(block_size: int) -> None:
    with disk_on(stick(700, block_size)) as (disk, _):
        assert (disk.blocks, disk.block_size, disk.size) == (700, block_size, 700 * block_size)
        for lba, blocks in [(0, 1), (699, 1), (0, 700), (3, 333)]:
            data = disk.read(lba, blocks)
            assert len(data) == blocks * block_size
            for at in range(blocks):
                assert int.from_bytes(data[at * block_size :][:4], "big") == lba + at


@given(data=st.data())
@profiles.quick(60)
def test_a_write_lands_where_it_belongs_and_nowhere_else(data: st.DataObject) -> None:
    lba = data.draw(st.integers(0, 599))
    blocks = data.draw(st.integers(0, 600 - lba))
    medium = Memory(600 * 512)
    before = bytes(medium.data)
    payload = bytes([0xA5]) * (blocks * 512)
    with disk_on(Stick([Unit(medium)])) as (disk, _):
        assert disk.write(lba, payload) == blocks
        assert disk.read(lba, blocks) == payload
    assert bytes(medium.data) == before[: lba * 512] + payload + before[(lba + blocks) * 512 :]


def test_the_bus_speed_limits_the_size_of_a_command() -> None:
    with disk_on(stick(2048)) as (disk, bus):
        assert disk.max_blocks == 240
        disk.read(0, 1)
        before = cbws(bus, "28")
        disk.read(0, 2048)
        assert cbws(bus, "28") == before + 10  # the last block is read alone
    fast = Stick([Unit(Memory(1 << 21))], Identity(speed="super"))
    with disk_on(fast) as (disk, bus):
        assert disk.max_blocks == 2048
        disk.read(0, 1)
        before = cbws(bus, "28")
        disk.read(0, 4096)
        assert cbws(bus, "28") == before + 3


def test_the_block_limits_page_limits_the_size_of_a_command() -> None:
    with disk_on(stick(256, maximum_transfer=64)) as (disk, bus):
        assert disk.max_blocks == 64
        disk.read(0, 1)
        before = cbws(bus, "28")
        disk.read(0, 130)
        assert cbws(bus, "28") == before + 3


def test_an_old_device_is_not_asked_for_vpd_pages() -> None:
    """Some sticks hang on any VPD page."""
    with disk_on(stick(256, version=4, maximum_transfer=64)) as (disk, bus):
        assert disk.max_blocks == 240
        assert cbws(bus, "12") == 1


def test_16_byte_commands_are_used_beyond_two_tebibytes() -> None:
    blocks = 6 << 30
    border = 1 << 32
    with disk_on(Stick([Unit(Sparse(blocks))])) as (disk, bus):
        assert disk.blocks == blocks
        disk.write(border - 2, b"\x11" * 1024)
        assert (cbws(bus, "2a"), cbws(bus, "8a")) == (1, 0)
        disk.write(border - 1, b"\x22" * 1024)
        assert cbws(bus, "8a") == 1
        disk.write(blocks - 1, b"\x33" * 512)
        assert disk.read(border - 2, 3) == b"\x11" * 512 + b"\x22" * 1024
        assert disk.read(blocks - 1, 1) == b"\x33" * 512
        assert disk.read(blocks - 2, 1) == bytes(512)


@pytest.mark.parametrize("blocks", [1 << 32, (1 << 32) - 1, (1 << 32) + 1])
def test_capacities_around_two_tebibytes(blocks: int) -> None:
    with disk_on(Stick([Unit(Sparse(blocks))])) as (disk, _):
        assert disk.blocks == blocks
        assert disk.read(blocks - 1, 1) == bytes(512)


@pytest.mark.parametrize(("lba", "blocks"), [(2048, 1), (2047, 2), (0, 2049), (1 << 70, 1), (0, 1 << 70)])
def test_blocks_beyond_the_medium_are_refused_before_anything_is_sent(lba: int, blocks: int) -> None:
    with disk_on(stick()) as (disk, bus):
        assert disk.blocks == 2048
        bus.wire.log.clear()
        with pytest.raises(OutOfRange, match="beyond the medium's 2048 blocks"):
            disk.read(lba, blocks)
        with pytest.raises(ValueError):
            disk.write(2048, bytes(512))
        assert bus.wire.log == []


@pytest.mark.parametrize(("lba", "blocks"), [(-1, 1), (0, -1), (-1, 0)])
def test_negative_numbers_are_refused(lba: int, blocks: int) -> None:
    with disk_on(stick()) as (disk, _), pytest.raises(ValueError, match="negative"):
        disk.read(lba, blocks)


def test_no_command_is_sent_for_no_blocks() -> None:
    with disk_on(stick()) as (disk, bus):
        assert disk.blocks == 2048
        before = cbws(bus, "28")
        assert disk.read(0, 0) == b""
        assert disk.read(2048, 0) == b""
        assert disk.write(0, b"") == 0
        assert (cbws(bus, "28"), cbws(bus, "2a")) == (before, 0)


@pytest.mark.parametrize("length", [1, 511, 513])
def test_a_length_that_is_not_a_multiple_of_the_block_size_is_refused(length: int) -> None:
    with disk_on(stick()) as (disk, bus):
        with pytest.raises(ValueError, match="not a multiple of the block size 512"):
            disk.readinto(0, bytearray(length))
        with pytest.raises(ValueError, match="not a multiple"):
            disk.write(0, bytes(length))
        assert cbws(bus, "2a") == 0


def test_readinto_takes_any_writable_buffer() -> None:
    with disk_on(stick()) as (disk, _):
        words = array.array("I", bytes(1024))
        assert disk.readinto(7, memoryview(words)) == 2
        assert words.tobytes()[:4] == (7).to_bytes(4, "big")
        whole = bytearray(2048)
        with memoryview(whole) as view:
            disk.readinto(9, view[512:1024])
        assert whole[:512] == bytes(512)
        assert whole[512:516] == (9).to_bytes(4, "big")


def test_memory_that_is_not_contiguous_is_copied() -> None:
    with disk_on(stick()) as (disk, bus), disk.buffer(2048) as lent:
        for lba, whole in ((7, lent), (9, memoryview(bytearray(2048)))):
            whole[:] = bytes(2048)
            assert disk.readinto(lba, whole[::2]) == 2
            content = disk.read(lba, 2)
            assert content[:4] == lba.to_bytes(4, "big")
            assert bytes(whole[::2]) == content
            assert bytes(whole[1::2]) == bytes(1024)
            assert disk.write(20, whole[::2]) == 2
            assert disk.read(20, 2) == content
        assert "port reset" not in bus.wire.log


def test_readinto_refuses_a_read_only_buffer() -> None:
    with disk_on(stick()) as (disk, _), pytest.raises(TypeError, match="writable"):
        disk.readinto(0, memoryview(bytes(512)))


def test_the_callers_buffer_is_no_longer_exported_after_an_error() -> None:
    with disk_on(stick()) as (disk, bus):
        buffer = bytearray(512 * 300)
        disk.read(1, 1)

        def fail(wire: Wire, endpoint: int, view: memoryview) -> Answer | None:
            return (Code.IO, 0) if wire.opcode == 0x28 else None

        bus.wire.intercept = fail
        with pytest.raises(TransportError):
            disk.readinto(0, buffer)
        buffer.append(0)  # a BufferError if it were still exported
        bus.wire.intercept = None


def test_closing_flushes_what_was_written() -> None:
    medium = Memory(1 << 16)
    with disk_on(Stick([Unit(medium)])) as (disk, bus):
        disk.write(0, bytes(512))
        assert cbws(bus, "35") == 0
    assert cbws(bus, "35") == 1
    assert medium.flushes == 1


def test_closing_after_reading_flushes_nothing() -> None:
    with disk_on(stick()) as (disk, bus):
        disk.read(0, 1)
    assert cbws(bus, "35") == 0


def test_a_failed_flush_at_close_does_not_replace_the_exception_of_the_caller() -> None:
    bus = InterceptedBus(stick())
    with pytest.raises(TransportError, match="another device"), open_on(bus) as disk:
        disk.write(0, bytes(512))
        raise TransportError("another device")
    assert cbws(bus, "35") == 1
    with pytest.raises(KeyError), open_on(bus) as disk:
        disk.write(0, bytes(512))
        bus.wire.intercept = lambda wire, endpoint, view: (Code.IO, 0) if wire.opcode == 0x35 else None
        raise KeyError
    assert not bus.handles
    bus.close()


def unit_of(bus: InterceptedBus) -> Unit:
    return bus._connections[2].stick.units[0]


def swap(bus: InterceptedBus, blocks: int) -> Memory:
    medium = Memory(blocks * 512)
    unit_of(bus).remove()
    unit_of(bus).insert(medium)
    return medium


def test_a_flush_after_a_medium_change_is_an_error_and_nothing_is_written_to_the_new_medium() -> None:
    with disk_on(stick(64)) as (disk, bus):
        disk.write(0, b"A" * 512)
        new = swap(bus, 32)
        with pytest.raises(MediumChanged):
            disk.flush()
        assert disk.blocks == 32
        assert bytes(new.data) == bytes(32 * 512)


def test_a_medium_change_that_a_retry_cleared_is_reported_by_the_next_write() -> None:
    with disk_on(stick(64)) as (disk, bus):
        assert disk.blocks == 64
        new = swap(bus, 32)
        disk.execute(primary.TestUnitReady())
        with pytest.raises(MediumChanged):
            disk.write(0, b"A" * 512)
        assert bytes(new.data) == bytes(32 * 512)
        assert disk.blocks == 32
        assert disk.write(0, b"A" * 512) == 1


def test_a_write_stops_at_a_medium_change_that_another_thread_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_on(stick(2048)) as (disk, bus):
        pieces: list[int] = []
        move_piece = disk.mover._move_piece

        def then_swap(
            access: BlockTransfer, medium: Medium, lba: int, blocks: int, view: memoryview, note: Note | None
        ) -> None:
            move_piece(access, medium, lba, blocks, view, note)
            if access is READ:
                return
            pieces.append(lba)
            swap(bus, 1024)
            with pytest.raises(MediumChanged):
                disk.read(0, 1)
            assert disk.blocks == 1024

        monkeypatch.setattr(disk.mover, "_move_piece", then_swap)
        with pytest.raises(MediumChanged):
            disk.write(0, bytes(480 * 512))
        assert pieces == [0]
        with pytest.raises(UnitAttention, match="exchanged"):  # before what was written of it was flushed
            disk.flush()


def test_threads_that_start_at_once_agree_on_the_medium() -> None:
    """Found with the real kernel: each thread used the medium object that it had made itself."""
    with disk_on(stick(64)) as (disk, bus):
        start = threading.Barrier(8)
        bus.wire.intercept = lambda wire, endpoint, view: time.sleep(0.001)  # gives the other threads time to enter
        read: list[bytes] = []

        def read_first() -> None:
            start.wait()
            read.append(disk.read(1, 1))

        threads = [threading.Thread(target=read_first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read == [(1).to_bytes(4, "big") + bytes(508)] * 8


def test_the_capacity_of_an_ejected_medium_is_forgotten() -> None:
    with disk_on(stick(64)) as (disk, bus):
        assert disk.blocks == 64
        unit_of(bus).remove()
        with pytest.raises(NoMedium):
            disk.read(0, 1)
        with pytest.raises(NoMedium):
            disk.blocks  # noqa: B018


def test_a_reset_before_the_flush_is_an_error() -> None:
    with disk_on(stick(64)) as (disk, bus):
        disk.write(0, bytes(512))
        unit_of(bus).power_on()
        with pytest.raises(UnitAttention, match="was reset before"):
            disk.flush()
        disk.flush()


def test_a_flush_that_fails_is_an_error() -> None:
    failing = Stick([Unit(Memory(64 * 512))], faults=["sense=3/0C/00,opcode=35"])
    with disk_on(failing) as (disk, _):
        disk.write(0, bytes(512))
        with pytest.raises(MediumError):
            disk.flush()
        disk.flush()


@pytest.mark.parametrize("code", [Code.PIPE, Code.IO, Code.TIMEOUT])
def test_a_device_that_fails_on_vpd_pages_is_still_usable(code: Code) -> None:
    with disk_on(stick(256, maximum_transfer=64)) as (disk, bus):
        cdbs: list[int] = []

        def fail_vpd_inquiries(wire: Wire, endpoint: int, view: memoryview) -> Answer | None:
            if wire.log[-1] == "cbw 12":
                cdbs.append(view[16])
            return (code, 0) if wire.opcode == 0x12 and cdbs[-1:] == [1] else None

        bus.wire.intercept = fail_vpd_inquiries
        assert disk.max_blocks == 240
        bus.wire.intercept = None
        assert disk.read(255, 1)[:4] == (255).to_bytes(4, "big")


def test_the_device_is_released_also_when_the_last_flush_fails() -> None:
    bus = InterceptedBus(stick())
    disk = open_on(bus)
    disk.write(0, bytes(512))
    bus.wire.intercept = lambda wire, endpoint, view: (Code.IO, 0) if wire.opcode == 0x35 else None
    with pytest.raises(TransportError):
        disk.close()
    assert not bus.handles
    assert bus.driver(bus.devices()[0], 0) == "usb-storage"
    disk.close()
    bus.close()


def test_a_device_without_a_cache_has_nothing_to_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_on(stick()) as (disk, _):
        disk.write(0, bytes(512))
        monkeypatch.setattr(f"{SBC}.SynchronizeCache10.cdb", lambda self: bytes.fromhex("c0" + "00" * 9))
        disk.flush()


def test_write_protected() -> None:
    with disk_on(stick(write_protected=True)) as (disk, _):
        assert disk.read(0, 1)[:4] == bytes(4)
        with pytest.raises(DataProtect, match="the medium is write protected: nothing was written"):
            disk.write(0, bytes(512))


def test_a_unit_without_medium_answers_inquiry_but_has_no_blocks() -> None:
    with disk_on(Stick([Unit()])) as (disk, _):
        assert disk.inquiry().product == "Virtual Stick"
        with pytest.raises(NoMedium):
            disk.blocks  # noqa: B018
        with pytest.raises(NoMedium):
            disk.read(0, 1)


def test_a_medium_change_is_an_error_once_and_then_the_new_medium_is_used() -> None:
    with disk_on(stick(2048)) as (disk, bus):
        assert disk.blocks == 2048
        swap(bus, 100)
        with pytest.raises(MediumChanged):
            disk.read(0, 1)
        assert disk.blocks == 100


def test_the_device_checks_the_block_address_of_an_executed_command() -> None:
    with disk_on(stick(64)) as (disk, _):
        disk.read(0, 1)
        with pytest.raises(LbaOutOfRange):
            disk.execute(Read10(64, 1, block_size=512))


@pytest.mark.parametrize("fault", ["block-size=0", "inquiry=0", "inquiry=4", "inquiry=5", "inquiry-garbage"])
def test_a_disk_with_a_block_size_of_0_or_bad_inquiry_data_can_be_read(fault: str) -> None:
    """As in Linux, a block size of 0 counts as 512, and INQUIRY data that cannot be parsed counts as none."""
    thing = stick()
    thing.faults.add(fault)
    with disk_on(thing) as (disk, _):
        assert disk.block_size == 512
        assert disk.read(3, 1)[:4] == b"\0\0\0\3"
