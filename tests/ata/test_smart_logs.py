"""The logs of errors and of self-tests, of ATA and NVMe disks behind each kind of bridge."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

import pytest

import scsiusb
from scsiusb.ata.smart_logs import (
    ErrorLog,
    LoggedError,
    PastTest,
    parse_errors,
    parse_nvme_errors,
    parse_nvme_tests,
    parse_tests,
    read_errors,
    read_self_tests,
)
from scsiusb.virtual.target import bridges


@pytest.mark.parametrize("bridge", bridges.ATA)
def test_a_failing_disk_remembers_its_errors_and_the_test_that_it_failed(bridge: str) -> None:
    with scsiusb.open(f"virtual:?profile=sat-hdd&health=failing&bridge={bridge}") as disk:
        assert read_errors(disk.unit, bridge) == ErrorLog(
            2,
            (
                LoggedError(2, "uncorrectable data", 2000, 51099, 0x25),
                LoggedError(1, "uncorrectable data", 1000, 51098, 0x25),
            ),
        )
        assert read_self_tests(disk.unit, bridge) == (PastTest("short", "failed: reading", False, 51099, 2000),)


def test_a_good_disk_has_none_and_passed() -> None:
    with scsiusb.open("virtual:?profile=sat-ssd") as disk:
        assert read_errors(disk.unit) == ErrorLog(0, ())
        assert read_self_tests(disk.unit) == (PastTest("short", "passed", True, 1233, None),)


@pytest.mark.parametrize("bridge", bridges.NVME)
def test_an_nvme_disk(bridge: str) -> None:
    with scsiusb.open(f"virtual:?profile=nvme-bridge&health=failing&bridge={bridge}") as disk:
        assert read_errors(disk.unit, bridge).errors == (LoggedError(7, "unrecovered read error", 2000, None, None),)
        assert read_self_tests(disk.unit, bridge) == ()


def test_the_ring_of_an_ata_log_is_read_from_the_latest_back() -> None:
    data = bytearray(512)
    data[1] = 2
    data[452] = 9
    for at in range(5):
        struct.pack_into("<8B", data, 2 + 90 * at + 60, 0, 0x04, 0, at, 0, 0, 0, 0x51)
    found = parse_errors(bytes(data))
    wanted = [(9, 1, "aborted"), (8, 0, "aborted"), (7, 4, "aborted"), (6, 3, "aborted"), (5, 2, "aborted")]
    assert [(each.number, each.lba, each.what) for each in found.errors] == wanted


def test_nvme_tests_have_their_failing_block_where_it_is_valid() -> None:
    entry = struct.Struct("<BBBBQIQHH")
    data = bytes(4) + entry.pack(0x27, 0, 2, 0, 500, 1, 77, 0, 0) + entry.pack(0x10, 0, 0, 0, 400, 1, 77, 0, 0)
    data += entry.pack(0x0F, *[0] * 8)
    assert parse_nvme_tests(data) == (
        PastTest("long", "failed: some segments", False, 500, 77),
        PastTest("short", "passed", True, 400, None),
    )


@pytest.mark.parametrize("parse", [parse_errors, parse_tests])
def test_another_length_is_no_log(parse: Callable[[bytes], object]) -> None:
    with pytest.raises(scsiusb.MalformedReply):
        parse(bytes(511))


def test_random_logs_never_fail_otherwise() -> None:
    random = Random(6)
    for _ in range(300):
        data = random.randbytes(512)
        parse_errors(data)
        parse_tests(data)
        parse_nvme_errors(data[: random.randrange(512)])
        parse_nvme_tests(data[: random.randrange(512)])
