"""The commands that access the medium, byte by byte (SBC-3), on media of every size."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from scsiusb.usb.backend import Code
from scsiusb.virtual import BotOptions, DataIn, Memory, Sparse, Stick, Unit
from tests.virtual.host import Host, cdb10, cdb16

BLOCKS = 300
CONTENT = b"".join(struct.pack(">I", lba) * 128 for lba in range(BLOCKS))
OUT_OF_RANGE = (0x5, 0x21, 0x00)
INVALID_FIELD = (0x5, 0x24, 0x00)
WRITE_PROTECTED = (0x7, 0x27, 0x00)

Build = Callable[[int, int, int], bytes]


def cdb6(opcode: int, lba: int, blocks: int) -> bytes:
    return bytes((opcode,)) + lba.to_bytes(3, "big") + bytes((blocks, 0))


def cdb12(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIIxx", opcode, flags, lba, blocks)


read_commands = pytest.mark.parametrize(
    ("build", "opcode"), [(cdb6, 0x08), (cdb10, 0x28), (cdb12, 0xA8), (cdb16, 0x88)], ids=["6", "10", "12", "16"]
)
write_commands = pytest.mark.parametrize(
    ("build", "opcode"), [(cdb6, 0x0A), (cdb10, 0x2A), (cdb12, 0xAA), (cdb16, 0x8A)], ids=["6", "10", "12", "16"]
)
verify_commands = pytest.mark.parametrize(
    ("build", "opcode"), [(cdb10, 0x2F), (cdb12, 0xAF), (cdb16, 0x8F)], ids=["10", "12", "16"]
)


def host_of(unit: Unit) -> Host:
    return Host(Stick([unit]))


@pytest.fixture
def medium() -> Memory:
    return Memory(CONTENT)


@pytest.fixture
def host(medium: Memory) -> Host:
    return host_of(Unit(medium))


def block(lba: int, blocks: int = 1) -> bytes:
    return CONTENT[lba * 512 : (lba + blocks) * 512]


# --- READ ---------------------------------------------------------------------------------------


@read_commands
def test_read(host: Host, build: Build, opcode: int) -> None:
    assert host.data(build(opcode, 7, 3), 3 * 512) == block(7, 3)
    assert host.data(build(opcode, BLOCKS - 1, 1), 512) == block(BLOCKS - 1)


@read_commands
def test_read_beyond_the_end(host: Host, build: Build, opcode: int) -> None:
    assert host.fails(build(opcode, BLOCKS - 1, 2), 1024) == OUT_OF_RANGE
    assert host.fails(build(opcode, BLOCKS, 1), 512) == OUT_OF_RANGE


@pytest.mark.parametrize(("build", "opcode"), [(cdb10, 0x28), (cdb12, 0xA8), (cdb16, 0x88), (cdb10, 0x2A)])
def test_a_transfer_of_no_blocks_succeeds_only_within_the_medium(host: Host, build: Build, opcode: int) -> None:
    host.ok(build(opcode, BLOCKS - 1, 0))
    assert host.fails(build(opcode, BLOCKS, 0)) == OUT_OF_RANGE


def test_read_6_of_zero_blocks_is_256(host: Host) -> None:
    assert host.data(cdb6(0x08, 20, 0), 256 * 512) == block(20, 256)


def test_read_6_has_21_bits_of_lba(host: Host) -> None:
    assert host.data(cdb6(0x08, 0xE00005, 1), 512) == block(5)


def test_protection_information_is_refused(host: Host) -> None:
    assert host.fails(cdb10(0x28, 0, 1, 0x20), 512) == INVALID_FIELD
    assert host.fails(cdb10(0x2A, 0, 1, 0x20), out=bytes(512)) == INVALID_FIELD


def test_more_blocks_than_the_maximum_transfer_are_refused() -> None:
    host = host_of(Unit(Memory(CONTENT), maximum_transfer=64))
    assert host.data(cdb10(0x28, 0, 64), 64 * 512) == block(0, 64)
    assert host.fails(cdb10(0x28, 0, 65), 65 * 512) == INVALID_FIELD


# --- WRITE --------------------------------------------------------------------------------------


@write_commands
def test_write(host: Host, medium: Memory, build: Build, opcode: int) -> None:
    host.ok(build(opcode, 7, 3), out=b"\xee" * 3 * 512)
    assert medium.data == block(0, 7) + b"\xee" * 3 * 512 + block(10, BLOCKS - 10)


@write_commands
def test_write_beyond_the_end_changes_nothing(host: Host, medium: Memory, build: Build, opcode: int) -> None:
    assert host.fails(build(opcode, BLOCKS - 1, 2), out=bytes(1024)) == OUT_OF_RANGE
    assert medium.data == CONTENT


@write_commands
def test_write_to_a_protected_unit(build: Build, opcode: int) -> None:
    medium = Memory(CONTENT)
    host = host_of(Unit(medium, write_protected=True))
    assert host.fails(build(opcode, 0, 1), out=bytes(512)) == WRITE_PROTECTED
    assert medium.data == CONTENT


def test_write_6_of_zero_blocks_is_256(host: Host, medium: Memory) -> None:
    host.ok(cdb6(0x0A, 0, 0), out=bytes(256 * 512))
    assert medium.data == bytes(256 * 512) + block(256, BLOCKS - 256)


def test_force_unit_access_flushes(host: Host, medium: Memory) -> None:
    host.ok(cdb10(0x2A, 0, 1), out=bytes(512))
    assert medium.flushes == 0
    host.ok(cdb10(0x2A, 0, 1, 0x08), out=bytes(512))
    assert medium.flushes == 1


def test_an_incomplete_block_is_not_written() -> None:
    medium = Memory(bytes(8192), 4096)
    host = host_of(Unit(medium))
    host.command(cdb10(0x2A, 0, 2), 8192, 0)
    host.write(b"\x11" * 5000)
    host.handle.control_out(0x21, 0xFF, 0, 0, b"", 1000)
    assert medium.data == b"\x11" * 4096 + bytes(4096)


# --- VERIFY, SYNCHRONIZE CACHE ------------------------------------------------------------------


@verify_commands
def test_verify_without_data_checks_the_range(host: Host, build: Build, opcode: int) -> None:
    host.ok(build(opcode, 0, BLOCKS))
    assert host.fails(build(opcode, 0, BLOCKS + 1)) == OUT_OF_RANGE


def test_verify_compares_with_byte_check(host: Host) -> None:
    host.ok(cdb10(0x2F, 2, 2, 0x02), out=block(2, 2))


def test_verify_reports_the_block_of_the_first_difference(host: Host) -> None:
    data = bytearray(block(2, 4))
    data[1024 + 511] ^= 1
    data[1536] ^= 1
    result = host.do(cdb10(0x2F, 2, 4, 0x02), out=bytes(data))
    assert (result.code, result.status, result.residue) == (Code.OK, 1, 0)
    expected = bytes.fromhex("f0 00 0e 00000004 0a 00000000 1d 00 00 0000 00")
    assert host.data(bytes((0x03, 0, 0, 0, 18, 0)), 18) == expected


@pytest.mark.parametrize("flags", [0x04, 0x06])
def test_other_values_of_byte_check_are_refused(host: Host, flags: int) -> None:
    assert host.fails(cdb10(0x2F, 0, 1, flags)) == INVALID_FIELD


def test_synchronize_cache_flushes(host: Host, medium: Memory) -> None:
    host.ok(cdb10(0x35, 0, 0))
    host.ok(cdb16(0x91, 0, 0))
    assert medium.flushes == 2
    assert host.fails(cdb10(0x35, BLOCKS, 1)) == OUT_OF_RANGE


# --- READ CAPACITY ------------------------------------------------------------------------------


def capacity_16(length: int, action: int = 0x10) -> bytes:
    return struct.pack(">BB8xIxx", 0x9E, action, length)


@pytest.mark.parametrize("block_size", [512, 2048, 4096])
def test_read_capacity_returns_the_last_lba(block_size: int) -> None:
    host = host_of(Unit(Memory(8 * block_size, block_size)))
    assert host.data(cdb10(0x25, 0, 0), 8) == struct.pack(">II", 7, block_size)
    assert host.data(capacity_16(32), 32) == struct.pack(">QI", 7, block_size) + bytes(20)


def test_read_capacity_16_returns_at_most_the_allocation_length(host: Host) -> None:
    assert len(host.data(capacity_16(12), 12)) == 12
    assert host.do(capacity_16(0)).status == 0


def test_read_capacity_refuses_a_partial_medium_without_pmi_and_other_service_actions(host: Host) -> None:
    assert host.fails(cdb10(0x25, 1, 0), 8) == INVALID_FIELD
    assert host.data(struct.pack(">BxIxxBx", 0x25, 1, 1), 8) == struct.pack(">II", BLOCKS - 1, 512)
    assert host.fails(capacity_16(32, 0x13), 32) == INVALID_FIELD


@pytest.mark.parametrize(
    ("blocks", "last"), [((1 << 32) - 1, 0xFFFFFFFE), (1 << 32, 0xFFFFFFFF), (6 << 30, 0xFFFFFFFF)]
)
def test_read_capacity_10_returns_all_ones_when_the_last_lba_does_not_fit(blocks: int, last: int) -> None:
    host = host_of(Unit(Sparse(blocks)))
    assert host.data(cdb10(0x25, 0, 0), 8) == struct.pack(">II", last, 512)
    assert host.data(capacity_16(12), 12) == struct.pack(">QI", blocks - 1, 512)


def test_a_3_tib_disk_is_reached_to_its_end() -> None:
    last = (6 << 30) - 1
    medium = Sparse(6 << 30)
    host = host_of(Unit(medium))
    host.ok(cdb16(0x8A, last - 1, 2), out=b"\x5a" * 1024)
    assert host.data(cdb16(0x88, last - 1, 2), 1024) == b"\x5a" * 1024
    assert host.data(cdb10(0x28, (last - 1) & 0xFFFFFFFF, 2), 1024) == bytes(1024)
    assert host.fails(cdb16(0x88, last, 2), 1024) == OUT_OF_RANGE
    assert len(medium.chunks) == 1


def test_an_extent_that_overflows_64_bits_is_out_of_range(host: Host) -> None:
    assert host.fails(cdb16(0x88, (1 << 64) - 1, (1 << 32) - 1), 512) == OUT_OF_RANGE


# --- media that fail, CD-ROM --------------------------------------------------------------------


class Broken(Memory):
    """A medium that cannot be read or written from block 2 on, nor flushed."""

    def _check(self, offset: int, view: memoryview) -> None:
        if offset + len(view) > 1024:
            raise OSError("bad block")

    def _readinto(self, offset: int, view: memoryview) -> None:
        self._check(offset, view)
        super()._readinto(offset, view)

    def _write(self, offset: int, view: memoryview) -> None:
        self._check(offset, view)
        super()._write(offset, view)

    def flush(self) -> None:
        raise OSError("bad disk")


@pytest.fixture
def broken() -> Host:
    return host_of(Unit(Broken(4096)))


def test_an_unreadable_block_is_a_medium_error_after_the_data_before_it(broken: Host) -> None:
    broken.command(cdb10(0x28, 0, 4), 2048)
    assert broken.read(1024) == (Code.OK, bytes(1024))
    assert broken.read(1024) == (Code.PIPE, b"")
    assert broken.csw() == (1, 1024)
    expected = bytes.fromhex("f0 00 03 00000002 0a 00000000 11 00 00 0000 00")
    assert broken.data(bytes((0x03, 0, 0, 0, 18, 0)), 18) == expected


@pytest.mark.parametrize("data_in", [DataIn.PAD, DataIn.SHORT])
def test_an_unreadable_block_ends_the_data_with_padding_or_a_short_packet_too(data_in: DataIn) -> None:
    host = Host(Stick([Unit(Broken(4096))], bot_options=BotOptions(data_in=data_in)))
    result = host.do(cdb10(0x28, 2, 1), 512)
    assert (result.data, result.status, result.residue) == (b"", 1, 512)


def test_an_unwritable_block_is_a_medium_error(broken: Host) -> None:
    broken.command(cdb10(0x2A, 0, 4), 2048, 0)
    for _ in range(4):
        assert broken.write(bytes(512)) == (Code.OK, 512)
    assert broken.csw() == (1, 0)
    assert broken.sense() == (0x3, 0x0C, 0x00)


def test_a_flush_that_fails_is_a_medium_error(broken: Host) -> None:
    assert broken.do(cdb10(0x2A, 0, 1, 0x08), out=bytes(512)).status == 1
    assert broken.sense() == (0x3, 0x0C, 0x00)
    assert broken.fails(cdb10(0x35, 0, 0)) == (0x3, 0x0C, 0x00)


def test_verify_of_an_unreadable_block_is_a_medium_error(broken: Host) -> None:
    assert broken.do(cdb10(0x2F, 2, 1, 0x02), out=bytes(512)).status == 1
    assert broken.sense() == (0x3, 0x11, 0x00)


def test_a_cd_rom_can_be_read_but_not_written() -> None:
    host = host_of(Unit.cd_rom(Memory(b"\x01" * 4096, 2048)))
    assert host.data(cdb10(0x28, 1, 1), 2048) == b"\x01" * 2048
    assert host.data(cdb10(0x25, 0, 0), 8) == struct.pack(">II", 1, 2048)
    assert host.fails(cdb10(0x2A, 0, 1), out=bytes(2048)) == (0x5, 0x20, 0x00)


# --- UNMAP --------------------------------------------------------------------------------------


def unmap(*ranges: tuple[int, int], length: int | None = None) -> tuple[bytes, bytes]:
    """Return CDB and parameter list."""
    body = b"".join(struct.pack(">QI4x", lba, blocks) for lba, blocks in ranges)
    data = struct.pack(">HH4x", len(body) + 6, len(body)) + body
    return struct.pack(">B6xHx", 0x42, len(data) if length is None else length), data


def test_unmapped_blocks_read_as_zeros(medium: Memory) -> None:
    host = host_of(Unit(medium, thin=True))
    cdb, data = unmap((1, 2), (BLOCKS - 1, 1))
    host.ok(cdb, out=data)
    assert bytes(medium.data) == block(0) + bytes(1024) + block(3, BLOCKS - 4) + bytes(512)
    host.ok(unmap(length=0)[0])


def test_unmapped_blocks_of_a_unit_that_does_not_clear_them_stay(medium: Memory) -> None:
    host = host_of(Unit(medium, thin=True, thin_zeros=False))
    cdb, data = unmap((0, BLOCKS))
    host.ok(cdb, out=data)
    assert bytes(medium.data) == CONTENT


@pytest.mark.parametrize(
    ("ranges", "sense"),
    [([(0, 1), (BLOCKS, 1)], OUT_OF_RANGE), ([(0, 1)] * 17, (0x5, 0x26, 0x00)), ([(0, 65537)], (0x5, 0x26, 0x00))],
)
def test_a_wrong_list_of_ranges_unmaps_nothing(
    medium: Memory, ranges: list[tuple[int, int]], sense: tuple[int, int, int]
) -> None:
    host = host_of(Unit(medium, thin=True))
    cdb, data = unmap(*ranges)
    assert host.do(cdb, out=data).status == 1
    assert host.sense() == sense
    assert bytes(medium.data) == CONTENT


def test_only_a_thin_unit_that_can_be_written_supports_unmap(host: Host, medium: Memory) -> None:
    cdb, data = unmap((0, 1))
    assert host.fails(cdb, out=data) == (0x5, 0x20, 0x00)
    assert host_of(Unit(medium, thin=True, write_protected=True)).fails(cdb, out=data) == WRITE_PROTECTED
    anchored = bytes((cdb[0], 1)) + cdb[2:]
    assert host_of(Unit(medium, thin=True)).fails(anchored, out=data) == INVALID_FIELD


def test_a_thin_unit_says_so() -> None:
    capacity = host_of(Unit(Memory(CONTENT), thin=True)).data(capacity_16(32), 32)
    assert capacity[14] == 0xC0
    page = bytes((0x12, 1, 0xB2, 0, 64, 0))
    assert host_of(Unit(Memory(CONTENT), thin=True)).data(page, 64) == bytes.fromhex("00b20004 00e40200")
    kept = host_of(Unit(Memory(CONTENT), thin=True, thin_zeros=False))
    assert kept.data(page, 64) == bytes.fromhex("00b20004 00e00200")
    assert kept.data(capacity_16(32), 32)[14] == 0x80
    assert host_of(Unit(Memory(CONTENT))).fails(page, 64) == INVALID_FIELD
