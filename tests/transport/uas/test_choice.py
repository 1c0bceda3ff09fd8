"""Which protocol a device is used by: what it has, what the bus and the platform can, and what the user asks for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb import ledger
from scsiusb.opening import open_on
from scsiusb.scsi.telling import Teller
from scsiusb.trace.commands import CommandLog
from scsiusb.trace.conversation import Exchange
from scsiusb.trace.recorder import Tracing
from scsiusb.usb.interface import by_protocol, find, uas_pipes
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, bot_interface, uas_interface
from scsiusb.virtual.device.descriptors import InterfaceDescriptor

BOTH = (bot_interface(), uas_interface())
UAS_ONLY = (uas_interface(alternate=0),)


def bus_with(interfaces: Sequence[InterfaceDescriptor], speed: str = "super", luns: int = 1) -> Bus:
    return Bus(Stick(units_of(luns), Identity(speed=speed), interfaces))


def units_of(luns: int) -> list[Unit]:
    return [Unit(Memory(bytearray(64 * 512))) for _ in range(luns)]


@pytest.fixture(params=["high", "super"])
def both(request: pytest.FixtureRequest) -> Iterator[Bus]:
    bus = bus_with(BOTH, request.param)
    yield bus
    assert [info.driver for info in find(bus)] == ["uas"]
    bus.close()


def protocol(bus: Bus, **options: Any) -> str:
    with open_on(bus, **options) as disk:
        disk.write(3, b"x" * 512)
        assert disk.read(3, 1) == b"x" * 512
        return disk.unit.transport.info.protocol


@pytest.mark.parametrize(("transport", "used"), [("auto", "uas"), ("bot", "bot"), ("uas", "uas")])
def test_a_device_with_both_is_used_as_asked(both: Bus, transport: str, used: str) -> None:
    assert protocol(both, transport=transport) == used


def test_one_protocol_after_the_other(both: Bus) -> None:
    assert [protocol(both, transport=each) for each in ("uas", "bot", "uas")] == ["uas", "bot", "uas"]


@pytest.mark.parametrize("speed", ["high", "super"])
def test_a_device_that_has_only_uas_is_used_by_it(speed: str) -> None:
    bus = bus_with(UAS_ONLY, speed)
    assert protocol(bus) == "uas"
    with pytest.raises(scsiusb.DeviceUnsupported, match="no setting for BOT"):
        open_on(bus, transport="bot")
    assert ledger.outstanding() == []


def test_a_platform_without_streams_refuses_uas_at_superspeed_and_gives_the_driver_back() -> None:
    bus = bus_with(UAS_ONLY)
    (connection,) = bus._connections.values()
    connection.stick.host_has_streams = False
    with pytest.raises(scsiusb.DeviceUnsupported, match="no streams"):
        open_on(bus)
    assert [info.driver for info in find(bus)] == ["uas"]
    assert bus.handles == ()
    assert ledger.outstanding() == []


def test_the_quirk_u_forbids_uas_and_leaves_bot() -> None:
    bus = bus_with(BOTH)
    assert protocol(bus, quirks="1209:0001:u") == "bot"
    with pytest.raises(scsiusb.DeviceUnsupported, match="must not be used by UAS"):
        open_on(bus, transport="uas", quirks="1209:0001:u")


def test_an_unknown_transport_is_an_error_before_anything_is_touched(both: Bus) -> None:
    with pytest.raises(ValueError, match="'usb4' is not one of auto, bot, uas"):
        open_on(both, transport="usb4")


def test_a_device_in_use_by_one_protocol_is_shared_by_it_only(both: Bus) -> None:
    with open_on(both, transport="uas"):
        with open_on(both) as second:
            assert second.unit.transport.info.protocol == "uas"
        with pytest.raises(scsiusb.DeviceBusy, match="already, by UAS"):
            open_on(both, transport="bot")


def test_streams_are_freed_and_in_the_ledger_while_they_are_there() -> None:
    bus = bus_with(UAS_ONLY)
    (connection,) = bus._connections.values()
    with open_on(bus) as disk:
        assert set(connection.streams.values()) == {16}
        assert "streams" in {held.kind for held in ledger.outstanding()}
        disk.unit.transport.reset_port()
        assert set(connection.streams.values()) == {16}
        assert disk.read(0, 64) == bytes(64 * 512)
    assert connection.streams == {}
    assert ledger.outstanding() == []


@pytest.mark.parametrize("luns", [1, 3, 16])
def test_every_unit_is_found_and_used(luns: int) -> None:
    bus = bus_with(UAS_ONLY, luns=luns)
    with open_on(bus, lun=luns - 1) as disk:
        assert disk.unit.transport.max_lun == luns - 1
        disk.write(0, bytes([luns]) * 512)
    for lun in range(luns):
        with open_on(bus, lun=lun) as disk:
            assert disk.read(0, 1) == bytes([luns if lun == luns - 1 else 0]) * 512


def test_the_breaking_of_rules_is_for_bot(both: Bus) -> None:
    with (
        open_on(both, transport="uas") as disk,
        pytest.raises(scsiusb.DeviceUnsupported, match="Bulk-Only"),
        disk.unit.transport.probing(),
    ):
        pass


# --- descriptors ----------------------------------------------------------------------------------


def test_pipes_that_are_missing_twice_there_or_the_wrong_way_are_no_pipes() -> None:
    (info,) = find(bus_with(UAS_ONLY))
    setting = info.setting
    assert uas_pipes(setting) is not None
    for at, endpoint in enumerate(setting.endpoints):
        for wrong in (
            replace(endpoint, pipe=0),
            replace(endpoint, pipe=endpoint.pipe % 4 + 1),
            replace(endpoint, address=endpoint.address ^ 0x80),
            replace(endpoint, attributes=3),
            replace(endpoint, max_packet_size=0),
        ):
            changed = (*setting.endpoints[:at], wrong, *setting.endpoints[at + 1 :])
            assert uas_pipes(replace(setting, endpoints=changed)) is None, wrong


def test_a_device_whose_uas_is_not_usable_is_used_by_bot() -> None:
    broken = uas_interface()
    broken = replace(broken, endpoints=tuple(replace(each, extra=b"") for each in broken.endpoints))
    bus = bus_with((bot_interface(), broken))
    (info,) = find(bus)
    assert by_protocol(info, "uas") is None
    assert protocol(bus) == "bot"


# --- what watches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["high", "super"])
def test_each_command_is_told_with_its_status_and_its_sense(speed: str) -> None:
    told: list[Exchange] = []
    bus = CommandLog(bus_with(UAS_ONLY, speed), told.append)
    with open_on(bus) as disk:
        disk.read(5, 2)
        told.clear()
        disk.read(5, 2)
        with pytest.raises(scsiusb.IllegalRequest):
            disk.unit.vpd(0x77)
    teller = Teller()
    lines = [teller.line(each) for each in told]
    assert lines[0].startswith("LUN 0: READ(10) [28 00 00 00 00 05 00 00 02 00], 1024 bytes in: good")
    assert "failed" in lines[1]
    assert "5/24/00" in lines[1]


@pytest.mark.parametrize("speed", ["high", "super"])
def test_a_trace_has_the_information_units(tmp_path: Path, speed: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "uas.pcapng"
    tracing = Tracing(bus_with(UAS_ONLY, speed), str(path))
    with caplog.at_level(logging.WARNING), open_on(tracing) as disk:
        disk.write(1, b"written!" * 64)
    tracing.close()
    data = path.read_bytes()
    assert bytes.fromhex("2a000000000100000100") in data
    assert b"written!" * 64 in data
    assert not caplog.records


@pytest.mark.parametrize("speed", ["high", "super"])
def test_the_device_knows_how_long_each_command_is(speed: str) -> None:
    """A command IU has 16 bytes for every CDB: READ CAPACITY(10) must not be taken for a longer one."""
    stick = Stick(units_of(1), Identity(speed=speed), UAS_ONLY, faults=["capacity=+1"])
    with open_on(Bus(stick)) as disk:
        assert disk.blocks == 65
