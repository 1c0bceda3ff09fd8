"""Self-tests: begun, followed to their end, aborted, by each dialect that can."""

from __future__ import annotations

import pytest

import scsiusb
from scsiusb import DeviceUnsupported, MalformedReply
from scsiusb.ata.self_test import ABORT, LONG, SHORT, SelfTest, begin_self_test, parse_data, parse_log, read_self_test
from scsiusb.virtual.target import bridges

ABLE = (*(f"profile=sat-ssd&bridge={name}" for name in bridges.ATA), "profile=nvme-bridge&bridge=sntjmicron")


@pytest.mark.parametrize("kind", [SHORT, LONG])
@pytest.mark.parametrize("options", ABLE)
def test_a_self_test_is_followed_to_its_end(options: str, kind: str) -> None:
    with scsiusb.open(f"virtual:?{options}", timeout=2) as disk:
        begin_self_test(disk.unit, kind)
        seen = [read_self_test(disk.unit)]
        while seen[-1].running:
            seen.append(read_self_test(disk.unit))
    percents = [each.percent for each in seen if each.percent is not None]
    assert percents == sorted(percents)
    assert len(percents) >= 2
    assert (seen[-1].result, seen[-1].passed) == ("passed", True)


@pytest.mark.parametrize("options", ABLE)
def test_a_failing_disk_fails_it(options: str) -> None:
    with scsiusb.open(f"virtual:?{options}&health=failing", timeout=2) as disk:
        begin_self_test(disk.unit, SHORT)
        for _ in range(20):
            found = read_self_test(disk.unit)
        assert found.passed is False
        assert found.result is not None
        assert found.result.startswith("failed")


@pytest.mark.parametrize("options", ABLE)
def test_one_can_be_aborted(options: str) -> None:
    with scsiusb.open(f"virtual:?{options}", timeout=2) as disk:
        begin_self_test(disk.unit, LONG)
        assert read_self_test(disk.unit).running
        begin_self_test(disk.unit, ABORT)
        found = read_self_test(disk.unit)
        assert (found.running, found.result, found.passed) == (False, "aborted by the host", None)
        with pytest.raises(ValueError, match="short, long, abort"):
            begin_self_test(disk.unit, "nothing")


@pytest.mark.parametrize("bridge", ["sntasmedia", "sntrealtek"])
def test_a_bridge_that_passes_no_such_command(bridge: str) -> None:
    with scsiusb.open(f"virtual:?profile=nvme-bridge&bridge={bridge}") as disk:
        with pytest.raises(DeviceUnsupported, match=bridge):
            begin_self_test(disk.unit, SHORT)
        assert read_self_test(disk.unit) == SelfTest(False, None, None, None, None, None), "none was ever run"


def test_codes_of_the_standards() -> None:
    data = bytearray(512)
    for code, passed in ((0x00, True), (0x10, None), (0x20, None), (0x70, False), (0x90, None)):
        data[363] = code
        assert parse_data(bytes(data)).passed is passed
    data[363], data[372], data[373], data[375:377] = 0xF3, 2, 0xFF, b"\x2c\x01"
    assert parse_data(bytes(data)) == SelfTest(True, 70, None, None, 2, 300)
    with pytest.raises(MalformedReply):
        parse_data(b"")
    with pytest.raises(MalformedReply):
        parse_log(bytes(31))
    assert parse_log(bytes((2, 40, 0, 0, 0x17)) + bytes(559)).passed is False
