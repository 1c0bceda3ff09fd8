"""Commands beyond those that a stick needs, byte by byte: what a unit supports, reservations, format, CD-ROM."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from scsiusb.virtual import Flawed, Memory, Sparse, Stick, Unit
from tests.virtual.host import Host, cdb10, cdb16

INVALID_FIELD = (0x5, 0x24, 0x00)
INVALID_LIST = (0x5, 0x26, 0x00)
OUT_OF_RANGE = (0x5, 0x21, 0x00)
WRITE_PROTECTED = (0x7, 0x27, 0x00)
MISCOMPARE = (0xE, 0x1D, 0x00)
FORMATTING = (0x2, 0x04, 0x04)
SANITIZING = (0x2, 0x04, 0x1B)
BLOCK = bytes(range(256)) * 2
BLOCKS = 64


@pytest.fixture
def medium() -> Memory:
    return Memory(BLOCK * BLOCKS)


@pytest.fixture
def unit(medium: Memory) -> Unit:
    return Unit(medium, thin=True)


@pytest.fixture
def host(unit: Unit) -> Host:
    return Host(Stick([unit]))


def cdb(text: str) -> bytes:
    return bytes.fromhex(text)


def write(host: Host, command: bytes, data: bytes) -> tuple[int, int, int] | None:
    """Send a command with data-out; return key, ASC and ASCQ if it failed."""
    result = host.do(command, out=data)
    return host.sense() if result.status else None


# --- what a unit supports -------------------------------------------------------------------------


def test_supported_commands_are_those_that_it_answers(host: Host) -> None:
    reply = host.data(cdb("a30c00000000 00001000 0000"), 4096)
    (length,) = struct.unpack_from(">I", reply)
    rows = [struct.unpack_from(">BxHxBH", reply, at) for at in range(4, 4 + length, 8)]
    codes = {(row[0], row[1] if row[2] & 1 else None) for row in rows}
    assert {(0x12, None), (0x2A, None), (0x42, None), (0x9E, 0x10), (0xA3, 0x0C), (0x48, 0x02)} <= codes
    assert len(codes) == len(rows)
    assert all(row[3] in (6, 10, 12, 16) for row in rows)


def test_one_command_has_its_usage_map(host: Host) -> None:
    reply = host.data(cdb("a30c01280000 00000040 0000"), 64)
    assert (reply[1] & 7, reply[3], reply[4]) == (3, 10, 0x28)
    assert host.data(cdb("a30c02 9e 0010 00000040 0000"), 64)[4:6] == b"\x9e\x10"
    assert host.data(cdb("a30c01c50000 00000040 0000"), 64)[1] & 7 == 1
    assert host.fails(cdb("a30c019e0000 00000040 0000"), 64) == INVALID_FIELD, "it has service actions"


def test_a_unit_that_is_not_thin_does_not_list_unmap(medium: Memory) -> None:
    host = Host(Stick([Unit(medium)]))
    assert host.data(cdb("a30c01420000 00000040 0000"), 64)[1] & 7 == 1


def test_supported_task_management(host: Host) -> None:
    assert host.data(cdb("a30d00000000 00000004 0000"), 4) == bytes((0x08, 0, 0, 0))


def test_the_clock_can_be_set(host: Host) -> None:
    assert host.data(cdb("a30f00000000 0000000c 0000"), 12)[2] == 0
    assert write(host, cdb("a40f00000000 0000000c 0000"), cdb("00000000 0176bb3e7000 0000")) is None
    reply = host.data(cdb("a30f00000000 0000000c 0000"), 12)
    assert reply[2] == 2
    assert int.from_bytes(reply[4:10], "big") >= 0x0176BB3E7000


def test_the_name_can_be_set(host: Host) -> None:
    assert write(host, cdb("a40600000000 00000004 0000"), b"USB1") is None
    assert host.data(cdb("a30500000000 00000040 0000"), 64) == b"\0\0\0\4USB1"


def test_the_echo_buffer_returns_what_was_written(host: Host) -> None:
    assert host.data(cdb("3c0b0000000000000400"), 4) == cdb("00001000")
    assert write(host, cdb("3b0a0000000000000800"), b"12345678") is None
    assert host.data(cdb("3c0a0000000000000800"), 8) == b"12345678"
    assert write(host, cdb("3b0a0000000000100100"), bytes(4097)) == INVALID_FIELD


def test_firmware_comes_in_pieces_and_in_order(host: Host, unit: Unit) -> None:
    assert write(host, cdb("3b070000000000000400"), b"abcd") is None
    assert write(host, cdb("3b070000000400000400"), b"efgh") is None
    assert bytes(unit.kept.firmware) == b"abcdefgh"
    assert write(host, cdb("3b070000001000000400"), b"ijkl") == INVALID_LIST


def test_security_protocol_0_is_supported(host: Host) -> None:
    assert host.data(cdb("a20000000000 00000010 0000"), 16) == cdb("000000000000 0001 00")
    assert host.fails(cdb("a20100010000 00000010 0000"), 16) == INVALID_FIELD


# --- reservations ---------------------------------------------------------------------------------


def pr_out(action: int, kind: int = 0) -> bytes:
    return bytes((0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0))


def test_a_persistent_reservation_is_registered_made_and_released(host: Host) -> None:
    key = (0x123ABC).to_bytes(8, "big")
    assert write(host, pr_out(0), bytes(8) + key + bytes(8)) is None
    assert host.data(cdb("5e000000000000002000"), 32) == cdb("0000000100000008") + key
    assert write(host, pr_out(1, 5), key + bytes(16)) is None
    assert host.data(cdb("5e010000000000002000"), 32)[8:] == key + bytes(5) + b"\5" + bytes(2)
    assert host.data(cdb("5e030000000000004000"), 64)[20:22] == b"\1\5"
    assert write(host, pr_out(2, 1), key + bytes(16)) == (0x5, 0x26, 0x04)
    assert write(host, pr_out(2, 5), bytes(24)) == INVALID_LIST, "another key"
    assert write(host, pr_out(2, 5), key + bytes(16)) is None
    assert write(host, pr_out(0), key + bytes(16)) is None
    assert host.data(cdb("5e000000000000002000"), 32) == cdb("0000000200000000")


# --- blocks -----------------------------------------------------------------------------------------


def test_write_same_repeats_a_block_to_the_end(host: Host, medium: Memory) -> None:
    assert write(host, cdb10(0x41, 2, 3), b"\x11" * 512) is None
    assert bytes(medium.data[1024:2560]) == b"\x11" * 1536
    assert bytes(medium.data[2560:3072]) == BLOCK
    assert write(host, cdb10(0x41, 60, 0), b"\x22" * 512) is None
    assert bytes(medium.data[60 * 512 :]) == b"\x22" * 2048
    assert write(host, cdb10(0x41, 60, 5), b"\x22" * 512) == OUT_OF_RANGE


def test_write_same_without_data_writes_zeros(host: Host, medium: Memory) -> None:
    command = bytearray(cdb16(0x93, 1, 1))
    command[1] = 0x01
    assert host.do(bytes(command)).status == 0
    assert bytes(medium.data[512:1024]) == bytes(512)


def test_compare_and_write(host: Host, medium: Memory) -> None:
    command = bytearray(16)
    command[0], command[9], command[13] = 0x89, 5, 1
    assert write(host, bytes(command), BLOCK + b"\x33" * 512) is None
    assert bytes(medium.data[5 * 512 : 6 * 512]) == b"\x33" * 512
    assert write(host, bytes(command), BLOCK + b"\x44" * 512) == MISCOMPARE
    assert bytes(medium.data[5 * 512 : 6 * 512]) == b"\x33" * 512
    command[13] = 255
    assert write(host, bytes(command), BLOCK) == INVALID_FIELD


def test_orwrite_sets_bits(host: Host, medium: Memory) -> None:
    medium.data[512:1024] = b"\x0f" * 512
    assert write(host, cdb16(0x8B, 1, 1), b"\xf0" * 512) is None
    assert bytes(medium.data[512:1024]) == b"\xff" * 512


@pytest.mark.parametrize("build", [cdb10, cdb16], ids=["10", "16"])
def test_write_and_verify(host: Host, medium: Memory, build: Callable[[int, int, int], bytes]) -> None:
    assert write(host, build(0x2E if build is cdb10 else 0x8E, 3, 1), b"\x55" * 512) is None
    assert bytes(medium.data[3 * 512 : 4 * 512]) == b"\x55" * 512


def test_prefetch_and_seek_check_the_range(host: Host) -> None:
    for good, wrong in ((cdb10(0x34, 0, 64), cdb10(0x34, 1, 64)), (cdb10(0x2B, 63, 0), cdb10(0x2B, 64, 0))):
        assert host.do(good).status == 0
        assert host.fails(wrong) == OUT_OF_RANGE


def test_lba_status_of_a_thin_unit(host: Host, medium: Memory) -> None:
    medium.data[512 : 3 * 512] = bytes(1024)
    reply = host.data(cdb16(0x9E, 0, 0)[:1] + b"\x12" + bytes(8) + cdb("00000400 0000"), 1024)
    rows = [struct.unpack_from(">QIB", reply, at) for at in range(8, len(reply), 16)]
    assert rows == [(0, 1, 0), (1, 2, 1), (3, 61, 0)]


def test_a_reassigned_block_is_listed_and_good_again() -> None:
    host = Host(Stick([Unit(Flawed(Memory(BLOCK * 8), bad=[(2, 5)]))]))
    assert host.fails(cdb10(0x28, 3, 1), 512) == (0x3, 0x11, 0x00)
    assert write(host, cdb("070000000000"), cdb("00000004 00000003")) is None
    assert host.data(cdb10(0x28, 3, 1), 512) == bytes(512)
    assert host.fails(cdb10(0x28, 4, 1), 512) == (0x3, 0x11, 0x00)
    assert host.data(cdb("3700080000000000ff00"), 255) == cdb("00080004 00000003")
    assert host.data(cdb("b708000000000000ff000000")[:6] + cdb("000000ff0000"), 255) == cdb("0008000000000004 00000003")


# --- the whole medium -------------------------------------------------------------------------------


def progress(host: Host) -> tuple[int, int]:
    """Return the sense key and the progress that REQUEST SENSE reports."""
    data = host.data(cdb("030000001200"), 18)
    return data[2] & 0xF, int.from_bytes(data[16:18], "big") if data[15] & 0x80 else 0


def test_a_format_goes_on_and_reports_its_progress(host: Host, medium: Memory) -> None:
    assert write(host, cdb("041000000000"), cdb("00020000")) is None
    assert host.fails(bytes(6)) == FORMATTING
    seen = []
    while (now := progress(host))[0] == 2:
        seen.append(now[1])
    assert seen == sorted(set(seen))
    assert all(0 < each < 65536 for each in seen)
    assert host.do(bytes(6)).status == 0
    assert not any(medium.data)


def test_a_format_without_immed_ends_with_the_medium_empty(host: Host, medium: Memory) -> None:
    assert host.do(cdb("040000000000")).status == 0
    assert not any(medium.data)
    assert host.fails(cdb("048000000000")) == INVALID_FIELD, "no protection information"


def test_a_sanitize_overwrites_with_a_pattern(host: Host, medium: Memory) -> None:
    assert write(host, cdb("48810000000000000500"), cdb("01000001 55")) is None
    assert host.fails(bytes(6)) == SANITIZING
    while progress(host)[0] == 2:
        pass
    assert bytes(medium.data) == b"\x55" * len(medium.data)
    assert write(host, cdb("48810000000000000500"), cdb("00000001 55")) == INVALID_LIST, "no pass"


def test_a_sanitize_of_a_write_protected_unit_is_refused(medium: Memory) -> None:
    host = Host(Stick([Unit(medium, write_protected=True)]))
    assert host.fails(cdb("48820000000000000000")) == WRITE_PROTECTED
    assert bytes(medium.data[:512]) == BLOCK


class Failing(Memory):
    def fill(self, pattern: bytes) -> None:
        raise OSError("no room")


@pytest.mark.parametrize("immediate", [True, False])
def test_a_format_that_fails_says_so(immediate: bool) -> None:
    host = Host(Stick([Unit(Failing(BLOCK))]))
    if immediate:
        assert write(host, cdb("041000000000"), cdb("00020000")) is None
        while (key := progress(host)[0]) == 2:
            pass
        assert key == 3
    else:
        assert host.fails(cdb("040000000000")) == (0x3, 0x31, 0x01)
    assert host.do(bytes(6)).status == 0


def test_a_large_empty_medium_is_formatted_at_once() -> None:
    medium = Sparse(1 << 32)
    medium.write(0, memoryview(BLOCK))
    assert Host(Stick([Unit(medium)])).do(cdb("040000000000")).status == 0
    assert not medium.chunks


# --- a vendor's commands ------------------------------------------------------------------------------


def test_a_vendors_command_with_data_in_and_one_with_data_out(host: Host, unit: Unit) -> None:
    taken: list[bytes] = []

    def act(cdb: bytes, data: bytes) -> None:
        if not data.strip(b"\0"):
            raise ValueError("no data")
        taken.append(data)

    unit.add_data_in(0xC0, lambda cdb: bytes((cdb[1], 1, 2, 3)))
    unit.add_data_out(0xC1, act, lambda cdb: cdb[8])
    assert host.data(cdb("c0450000000000000400"), 4) == cdb("45010203")
    assert write(host, cdb("c1e10000000000000300"), b"abc") is None
    assert taken == [b"abc"]
    assert write(host, cdb("c1e10000000000000300"), bytes(3)) == INVALID_LIST


# --- CD-ROM -------------------------------------------------------------------------------------------


@pytest.fixture
def cd() -> Host:
    return Host(Stick([Unit.cd_rom(Memory(2048 * 100, 2048))]))


def test_the_table_of_contents_has_one_data_track(cd: Host) -> None:
    assert cd.data(cdb("43000000000000030000")[:6] + cdb("00030000"), 20) == cdb(
        "0012 0101 00140100 00000000 0014aa00 00000064"
    )
    assert cd.data(cdb("43020000000000030000")[:6] + cdb("aa030000"), 12)[8:] == cdb("00000319"), "100 + 150 frames"
    assert cd.data(cdb("43000100000000030000"), 12)[:8] == cdb("000a 0101 00140100")
    assert len(cd.data(cdb("43020200000001030000"), 64)) == 4 + 4 * 11


def test_the_configuration_has_the_profile_of_the_disc(cd: Host) -> None:
    reply = cd.data(cdb("46000000000000010000"), 256)
    assert (int.from_bytes(reply[:4], "big") + 4, reply[6:8]) == (len(reply), cdb("0008"))
    only = cd.data(cdb("46020108000000010000"), 256)
    assert only[8:10] == cdb("0108")


def test_the_state_of_disc_track_and_drive(cd: Host) -> None:
    assert cd.data(cdb("51000000000000010000"), 64)[2] & 3 == 2
    assert cd.data(cdb("52010000000100002400"), 64)[24:28] == cdb("00000064")
    assert cd.data(cdb("bd0000000000000000080000"), 8) == bytes(8)
    assert cd.data(cdb("4a010000100000000800"), 8)[5] == 0x02
    assert cd.data(cdb("be0000000001000001100000"), 2048) == bytes(2048)
    assert cd.fails(cdb("be0000000001000001f80000"), 2352) == INVALID_FIELD


# --- EXTENDED COPY, and WRITE ATOMIC ----------------------------------------------------------------

CSCD = bytes.fromhex("e4000000 01030008")  # and the designator
COPY_ABORTED = (0xA, 0x00, 0x00)
NOT_REACHABLE = (0xA, 0x0D, 0x02)


def copier(medium: Memory) -> Host:
    return Host(Stick([Unit(medium, copies=True, serial="S1")]))


def own_device(host: Host) -> bytes:
    """Return the CSCD descriptor of the unit: with the NAA designator of its page 83h."""
    page = host.data(cdb("12 01 83 00 ff 00"), 255)
    return CSCD + page[-8:].ljust(24, b"\0")


def segment(blocks: int, source: int, destination: int, index: int = 0) -> bytes:
    return struct.pack(">BBHHHxxHQQ", 0x02, 0, 24, 0, index, blocks, source, destination)


def extended_copy(host: Host, devices: bytes, segments: bytes, usage: int = 0) -> tuple[bytes, bytes]:
    head = struct.pack(">BBH4xII", 7, usage << 3, len(devices), len(segments), 0)
    data = head + devices + segments
    return b"\x83" + bytes(9) + len(data).to_bytes(4, "big") + bytes(2), data


def refused(host: Host, command: bytes, data: bytes) -> tuple[int, int, int]:
    assert host.do(command, out=data).status == 1
    return host.sense()


def copy_status(name: int) -> bytes:
    return bytes((0x84, 0, name)) + bytes(7) + (64).to_bytes(4, "big") + bytes(2)


def test_blocks_are_copied_within_the_unit_also_where_the_ranges_overlap(medium: Memory) -> None:
    host = copier(medium)
    for lba in range(8):
        medium.write(lba * 512, memoryview(bytes([lba]) * 512))
    host.ok(*extended_copy(host, own_device(host), segment(8, 0, 4) + segment(1, 1, 20)))
    assert [medium.data[lba * 512] for lba in (4, 11, 20)] == [0, 7, 1]
    assert host.data(copy_status(7), 64)[4:7] == bytes((1, 0, 2)), "completed, two segments"
    assert host.fails(copy_status(7), 64) == INVALID_FIELD, "they are told once"


@pytest.mark.parametrize(
    ("devices", "segments", "sense"),
    [
        (1, segment(8, 0, 60), COPY_ABORTED),
        (1, segment(1, 0, 8, index=1), NOT_REACHABLE),
        (5, segment(1, 0, 8), (0x5, 0x26, 0x06)),
        (1, segment(1, 0, 8) * 17, (0x5, 0x26, 0x08)),
        (1, b"\x01" + segment(1, 0, 8)[1:], (0x5, 0x26, 0x09)),
        (1, segment(1, 0, 8)[:-1], (0x5, 0x1A, 0x00)),
        (40, segment(1, 0, 8), (0x5, 0x1A, 0x00)),
    ],
)
def test_a_copy_that_cannot_be_says_why(
    medium: Memory, devices: int, segments: bytes, sense: tuple[int, int, int]
) -> None:
    host = copier(medium)
    before = bytes(medium.data)
    assert refused(host, *extended_copy(host, own_device(host) * devices, segments)) == sense
    assert bytes(medium.data) == before


def test_a_device_of_another_kind_or_name_is_not_copied_to(medium: Memory) -> None:
    host = copier(medium)
    assert refused(host, *extended_copy(host, b"\xe0" + own_device(host)[1:], segment(1, 0, 8))) == (0x5, 0x26, 0x07)
    other = CSCD + b"\x30" + bytes(23)
    assert refused(host, *extended_copy(host, other, segment(1, 0, 8))) == NOT_REACHABLE


def test_units_without_copies_have_none_of_it(host: Host) -> None:
    assert host.fails(copy_status(7), 64) == (0x5, 0x20, 0x00)
    assert host.fails(cdb("12 01 8f 00 ff 00"), 255) == INVALID_FIELD


def test_an_atomic_write_is_written_when_all_has_come(host: Host, medium: Memory) -> None:
    write = cdb("9c 00 0000000000000004 0000 0002 00 00")
    host.ok(write, BLOCK[::-1] * 2)
    assert bytes(medium.data[4 * 512 : 6 * 512]) == BLOCK[::-1] * 2
    assert refused(host, cdb("9c 00 0000000000000004 0001 0002 00 00"), bytes(1024)) == INVALID_FIELD
    assert refused(host, cdb("9c 00 000000000000003f 0000 0002 00 00"), bytes(1024)) == OUT_OF_RANGE
