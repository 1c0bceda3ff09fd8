"""Devices that do UAS badly: BOT takes its place, with one line in the log, and their data stay right."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scsiusb
from scsiusb import Disk, ledger
from scsiusb.ata.device import read_smart
from scsiusb.disk.medium import READ
from scsiusb.opening import open_on
from scsiusb.quirks.model import Applied, Quirk, Quirks
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import Read10
from scsiusb.scsi.commands.spc_support import ReportSupportedOperationCodes
from scsiusb.trace.recorder import Tracing
from scsiusb.transport import recovery
from scsiusb.transport.choice import chosen, needs_small_commands
from scsiusb.transport.uas import tasks
from scsiusb.usb.interface import InterfaceInfo, find
from scsiusb.usb.port import NO_QUIRKS
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, bot_interface, uas_interface
from scsiusb.virtual.target import bridges
from scsiusb.virtual.target.ata import AtaDisk

BLOCKS = 1024
DATA = random.Random(15).randbytes(512 * BLOCKS)
NEW = DATA[::-1]
BOTH = (bot_interface(), uas_interface())
HANGS = "hang@csw,by=uas,times=always"
LONG, SHORT = 10.0, 0.25  # seconds


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses of a recovery short."""
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", SHORT)
    monkeypatch.setattr(recovery, "CONTROL_TIMEOUT", SHORT)
    monkeypatch.setattr("scsiusb.transport.uas.transport.CONTROL_TIMEOUT", SHORT)
    monkeypatch.setattr(tasks, "GRACE", 0.02)


@pytest.fixture(params=[pytest.param("high", marks=pytest.mark.slow), "super"])
def bus(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Bus]:
    caplog.set_level(logging.WARNING, "scsiusb")
    unit = Unit(Memory(bytearray(DATA)))
    bus = Bus(Stick([unit], Identity(speed=request.param), BOTH))
    yield bus
    assert not bus.handles
    assert [info.driver for info in find(bus)] == ["uas"]
    bus.close()
    assert ledger.outstanding() == []


def stick_of(bus: Bus) -> Stick:
    (connection,) = bus._connections.values()
    return connection.stick


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log has at a user's usual level."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("scsiusb")]


def protocol_of(disk: Disk) -> str:
    return disk.unit.transport.info.protocol


def read(disk: Disk) -> None:
    assert disk.read(8, 700) == DATA[8 * 512 : 708 * 512]


def write(disk: Disk) -> None:
    disk.write(8, NEW[8 * 512 : 72 * 512])
    disk.flush()
    assert disk.read(0, 80) == DATA[: 8 * 512] + NEW[8 * 512 : 72 * 512] + DATA[72 * 512 : 80 * 512]


def read_many(disk: Disk) -> None:
    places = [(at * 7, 4) for at in range(100)]
    for number, data in disk.read_many(places):
        assert data == DATA[number * 7 * 512 : (number * 7 + 4) * 512]


def stream(disk: Disk) -> None:
    with disk.reading(0, BLOCKS) as chunks:
        assert b"".join(bytes(chunk) for chunk in chunks) == DATA


def unbound(bus: Bus) -> Disk:
    """Open with retries that follow a timeout, as without a timeout of the caller's, but soon."""
    disk = open_on(bus, timeout=SHORT)
    disk.unit.retry = replace(disk.unit.retry, timeouts=1)
    return disk


@pytest.mark.parametrize(
    "use", [read, *(pytest.param(use, marks=pytest.mark.slow) for use in (write, read_many, stream))]
)
def test_a_device_that_hangs_by_uas_is_used_by_bot_and_loses_nothing(
    bus: Bus, use: Callable[[Disk], None], caplog: pytest.LogCaptureFixture
) -> None:
    with unbound(bus) as disk:
        assert (protocol_of(disk), disk.unit.transport.depth > 1) == ("uas", True)
        stick_of(bus).faults.add(HANGS)
        use(disk)
        assert (protocol_of(disk), disk.unit.transport.depth) == ("bot", 1)
        use(disk)
    (line,) = lines(caplog)
    assert "fails by UAS" in line


@pytest.mark.slow
def test_what_fails_at_opening_is_seen_then(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    stick_of(bus).faults.add(HANGS)
    with open_on(bus) as disk:
        assert protocol_of(disk) == "bot"
        read(disk)
    assert len(lines(caplog)) == 1


@pytest.mark.slow
def test_units_are_counted_as_bot_does_it() -> None:
    stick = Stick([Unit(Memory(bytearray(DATA))) for _ in range(3)], None, BOTH, faults=["hang@csw,by=uas,opcode=A0"])
    with open_on(Bus(stick), lun=2) as disk:
        assert protocol_of(disk) == "bot"
        read(disk)


@pytest.mark.slow
def test_the_device_is_remembered_until_it_is_unplugged(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    stick = stick_of(bus)
    stick.faults.add("hang@csw,by=uas,opcode=A0")
    with scsiusb.Manager(bus) as manager:  # it watches the bus
        for _ in range(3):
            with manager.open() as disk:
                assert protocol_of(disk) == "bot"
                read(disk)
        assert len(lines(caplog)) == 1
        with manager.open(transport="uas") as disk:  # who asks for it gets it
            assert protocol_of(disk) == "uas"
            read(disk)
        attached = manager.events(timeout=LONG)
        next(attached)
        bus.unplug(stick)
        assert next(attached).kind == "detached"
        bus.plug(stick)
        assert next(attached).kind == "attached"
        with manager.open() as disk:
            assert protocol_of(disk) == "uas"


@pytest.mark.slow
def test_who_asks_for_uas_keeps_it(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    with open_on(bus, transport="uas", timeout=SHORT) as disk:
        stick_of(bus).faults.add(HANGS)
        for _ in range(3):
            with pytest.raises(scsiusb.DeviceTimeout):
                disk.read(8, 1)
        stick_of(bus).faults.clear()
        read(disk)
        assert protocol_of(disk) == "uas"
    assert lines(caplog) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["nak@csw", "stall@csw", "phase-error", "status=40", "long@csw", "sense=b/00/00"])
def test_one_fault_that_task_management_cures_is_no_reason(bus: Bus, fault: str) -> None:
    with unbound(bus) as disk:
        stick_of(bus).faults.add(fault)
        read(disk)
        assert protocol_of(disk) == "uas"


@pytest.mark.parametrize("fault", ["stall@csw", "short=2@csw", "status=3"])
def test_a_device_that_answers_badly_each_time_is_used_by_bot(bus: Bus, fault: str) -> None:
    with unbound(bus) as disk:
        stick_of(bus).faults.add(f"{fault},by=uas,times=always")
        read(disk)
        assert protocol_of(disk) == "bot"


@pytest.mark.slow
def test_all_users_of_the_device_go_on(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        with unbound(bus) as disk:
            ready.wait()
            for at in range(number, BLOCKS - 8, 64):
                found = disk.read(at, 8)
                wrong.extend([at] if found != DATA[at * 512 : (at + 8) * 512] else [])

    def begin() -> None:
        stick_of(bus).faults.add(HANGS)

    ready = threading.Barrier(5, begin)
    with open_on(bus):  # so that they share it
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        ready.wait()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(lines(caplog)) == 1


@pytest.mark.slow
def test_an_unplug_after_the_change_is_told_once(bus: Bus) -> None:
    told: list[object] = []
    stick = stick_of(bus)
    with open_on(bus, on_gone=told.append, timeout=SHORT) as disk:
        disk.unit.retry = replace(disk.unit.retry, timeouts=1)
        stick.faults.add(HANGS)
        read(disk)
        stick.faults.add("disconnect@csw")
        with pytest.raises(scsiusb.DeviceGone):
            read(disk)
    with pytest.raises(scsiusb.DeviceClosed):
        disk.read(0, 1)
    assert len(told) <= 1  # it may be closed before it is told
    stick.faults.clear()
    bus.plug(stick)


@pytest.mark.slow
def test_the_rules_of_bot_can_be_broken_after_the_change(bus: Bus) -> None:
    with unbound(bus) as disk:
        stick_of(bus).faults.add(HANGS)
        read(disk)
        with disk.unit.transport.probing() as port:
            assert port.info.protocol == "bot"
        read(disk)


@pytest.mark.slow
def test_a_false_residue_is_ignored_after_the_change(bus: Bus) -> None:
    with unbound(bus) as disk:
        assert disk.unit.transport.ignore_residue is False
        stick_of(bus).faults.add(HANGS)
        read(disk)
        disk.unit.transport.ignore_residue = True
        stick_of(bus).faults.add("bogus-residue,times=always")
        read(disk)


@pytest.mark.slow
def test_a_trace_goes_through_the_change(bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "change.pcapng"
    tracing = Tracing(bus, str(path))
    with open_on(tracing, timeout=SHORT) as disk:
        disk.unit.retry = replace(disk.unit.retry, timeouts=1)
        stick_of(bus).faults.add(HANGS)
        read(disk)
    tracing.close()
    assert b"USBC" in path.read_bytes()


# --- each of the ways in which Linux has seen devices fail by UAS ------------------------------------


def identify(disk: Disk) -> None:
    assert read_smart(disk.unit, "sat").via == "sat"


def list_commands(disk: Disk) -> None:
    assert disk.unit.execute(ReportSupportedOperationCodes()).commands


def read_past_the_cache(disk: Disk) -> None:
    assert disk.unit.execute(Read10(lba=8, blocks=1, block_size=512, fua=True)) == DATA[8 * 512 : 9 * 512]


WEAKNESSES: dict[str, tuple[str, Callable[[Disk], None]]] = {
    "no ATA pass-through (t)": ("hang@csw,by=uas,opcode=85", identify),
    "no REPORT SUPPORTED OPERATION CODES (f)": ("hang@csw,by=uas,opcode=A3", list_commands),
    "no REPORT LUNS (j)": ("hang@csw,by=uas,opcode=A0", read),
    "no FUA": ("hang@csw,by=uas,cdb=2808", read_past_the_cache),
    "no large commands (g)": ("hang@data,by=uas,over=65536", read),
    "no UAS at all (u)": ("hang@csw,by=uas", read),
}


@pytest.mark.slow
@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_device_with_one_of_the_known_weaknesses_works_by_bot(
    weakness: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scsiusb.ata.passthrough.SHORTLY", SHORT)
    monkeypatch.setattr(READ, "timeout", SHORT)
    monkeypatch.setattr(Command, "timeout", SHORT)
    caplog.set_level(logging.WARNING, "scsiusb")
    fault, use = WEAKNESSES[weakness]
    unit = Unit(Memory(bytearray(DATA)))
    bridges.furnish(unit, AtaDisk("sat-ssd", "good"), "sat")
    stick = Stick([unit], Identity(speed="super"), BOTH, faults=[f"{fault},times=always"])
    with open_on(Bus(stick)) as disk:
        use(disk)
        assert protocol_of(disk) == "bot"
        read(disk)
    assert len(lines(caplog)) == 1


# --- what is known without a try -----------------------------------------------------------------


def test_a_platform_without_streams_leaves_bot(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(Stick([Unit(Memory(bytearray(DATA)))], Identity(speed="super"), BOTH))
    stick_of(bus).host_has_streams = False
    with caplog.at_level(logging.INFO, "scsiusb"), open_on(bus) as disk:
        assert protocol_of(disk) == "bot"
        read(disk)
        write(disk)
    (line,) = [line for line in lines(caplog) if "Bulk-Only" in line]
    assert "no streams" in line
    with pytest.raises(scsiusb.DeviceUnsupported, match="no streams"):
        open_on(bus, transport="uas")
    assert ledger.outstanding() == []


def info_of(speed: str, streams: int = 16, **changes: Any) -> InterfaceInfo:
    (info,) = find(Bus(Stick([Unit(Memory(bytearray(DATA)))], Identity(speed=speed), BOTH)))
    settings = tuple(
        replace(
            setting,
            endpoints=tuple(
                replace(each, max_streams=streams if each.max_streams else 0) for each in setting.endpoints
            ),
        )
        for setting in info.device.settings
    )
    info = replace(info, device=replace(info.device, settings=settings))
    return replace(info, **changes)


@pytest.mark.parametrize(
    ("speed", "streams", "vid", "pid", "product", "protocol", "small"),
    [
        ("super", 16, 0x174C, 0x55AA, "", "bot", False),  # ASM1051
        ("high", 32, 0x174C, 0x5106, "", "bot", False),  # nothing tells which it is
        ("super", 32, 0x174C, 0x55AA, "", "uas", True),  # ASM1053
        ("super", 32, 0x174C, 0x1153, "", "uas", False),
        ("super", 16, 0x0BDA, 0x9210, "MD202", "bot", False),
        ("super", 16, 0x0BDA, 0x9210, "other", "uas", False),
    ],
)
def test_chips_that_only_their_descriptors_tell_apart(
    speed: str, streams: int, vid: int, pid: int, product: str, protocol: str, *, small: bool
) -> None:
    info = info_of(speed, streams, vid=vid, pid=pid, manufacturer="HIKSEMI", product=product)
    found = chosen(info, "auto", NO_QUIRKS)
    assert (found.protocol, needs_small_commands(found)) == (protocol, small)
    assert chosen(info, "uas", NO_QUIRKS).protocol == "uas"
    with pytest.raises(scsiusb.DeviceUnsupported, match="must not"):
        chosen(info, "uas", Quirks((Applied(Quirk.IGNORE_UAS, "table", "a test"),)))
