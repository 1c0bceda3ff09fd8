"""Arguments of a wrong type are a TypeError with the parameter's name; what the objects say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import scsiusb
from scsiusb import (
    Disk,
    IllegalRequest,
    LogicalUnit,
    Manager,
    RawCommand,
    RetryPolicy,
    UnsupportedOpcode,
    imaging,
    volume,
)
from scsiusb.opening import open_on
from scsiusb.scsi.commands.spc import Inquiry
from scsiusb.virtual import Bus, Fault, Stick, Unit
from tests.sticks import InterceptedBus, stick

Call = Callable[[Any], object]
raw: Any = RawCommand
jobs: Any = imaging
volumes: Any = volume
READ_0 = bytes.fromhex("28000000000000000100")


@pytest.fixture
def bus() -> InterceptedBus:
    return InterceptedBus(stick())


@pytest.fixture
def disk(bus: InterceptedBus) -> Iterator[Disk]:
    with open_on(bus) as opened:
        yield opened


OPENERS: dict[str, Call] = {
    "open": lambda options: scsiusb.open(**options),
    "open_on": lambda options: open_on(Bus(stick()), **options),
    "aopen": lambda options: scsiusb.aopen(**options),
    "Manager.open": lambda options: _open_by_manager(options),
}


def _open_by_manager(options: Any) -> None:
    with Manager(Bus(stick())) as manager:
        manager.open(**options)


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", 1),
        ("device", b"2-1"),
        ("device", Disk),
        ("lun", "0"),
        ("lun", 0.0),
        ("lun", None),
        ("timeout", "5"),
        ("on_gone", "print"),
        ("trace", 3),
        ("quirks", ["r"]),
    ],
)
def test_an_opener_names_the_parameter(opener: Call, name: str, value: object) -> None:
    given = "the class Disk" if value is Disk else type(value).__name__
    with pytest.raises(TypeError, match=f"^{name} must be .*, not {given}$"):
        opener({name: value})


def test_an_unknown_option_and_a_wrong_backend_or_manager() -> None:
    with pytest.raises(TypeError, match="unknown option 'lum'"):
        scsiusb.aopen(lum=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"backend must be a USB backend, such as a virtual\.Bus, not str"):
        open_on("2-1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="manager must be a Manager or None, not Bus"):
        scsiusb.aopen(manager=Bus())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda disk: disk.read("0", 1), "lba must be an int, not str"),
        (lambda disk: disk.read(0, 1.0), "blocks must be an int, not float"),
        (lambda disk: disk.read(None, 1), "lba must be an int, not NoneType"),
        (lambda disk: disk.readinto(0.0, bytearray(512)), "lba must be an int, not float"),
        (lambda disk: disk.readinto(0, 512), "buffer must be bytes, .*, not int"),
        (lambda disk: disk.readinto(0, bytes(512)), "buffer must be writable"),
        (lambda disk: disk.write("0", bytes(512)), "lba must be an int, not str"),
        (lambda disk: disk.write(0, "text"), "data must be bytes, .*, not str"),
        (lambda disk: disk.write(0, [0] * 512), "data must be bytes, .*, not list"),
        (lambda disk: disk.reading("0", 1), "lba must be an int, not str"),
        (lambda disk: disk.writing(0.5), "lba must be an int, not float"),
        (lambda disk: disk.execute(READ_0), "command must be a Command, or a RawCommand with a CDB, not bytes"),
        (lambda disk: disk.execute(Inquiry), "command must be .*, not the class Inquiry"),
        (lambda disk: disk.execute(Inquiry(), timeout="5"), "timeout must be a number of seconds or None, not str"),
        (lambda disk: disk.execute(Inquiry(), retry=3), "retry must be a RetryPolicy or None, not int"),
        (lambda disk: disk.execute(Inquiry(), retry=RetryPolicy), "retry must be .*, not the class RetryPolicy"),
        (lambda disk: setattr(disk, "max_blocks", "8"), "max_blocks must be an int, not str"),
        (lambda disk: setattr(disk, "max_blocks", 1.5), "max_blocks must be an int, not float"),
        (lambda disk: jobs.dump(disk, "x.img", progress=5), "progress must be a function, not int"),
        (lambda disk: jobs.restore("x.img", [disk]), "each disk must be a Disk, .*, not list"),
        (lambda disk: jobs.clone(disk, "2-1"), "each disk must be a Disk, .*, not str"),
        (lambda disk: jobs.compare("x.img", "2-1"), "each disk must be a Disk, .*, not str"),
        (lambda disk: jobs.erase(disk, progress="x"), "progress must be a function, not str"),
        (lambda disk: jobs.scan(disk, lba=0.0), "lba must be an int, not float"),
        (lambda _: jobs.scan("2-1"), "each disk must be a Disk, .*, not str"),
        (lambda _: jobs.probe(None), "each disk must be a Disk, .*, not NoneType"),
        (lambda _: jobs.rescue("2-1", "x.img", "x.map"), "each disk must be a Disk, .*, not str"),
        (lambda _: volumes.partitions("2-1"), "disk must be a Disk, .*, not str"),
        (lambda _: volumes.write_gpt(None, []), "disk must be a Disk, .*, not NoneType"),
        (lambda _: volumes.filesystem("2-1"), "where must be a Partition or a Disk, not str"),
        (lambda _: volumes.make_filesystem(5), "where must be a Partition or a Disk, not int"),
        (lambda _: raw("28"), "cdb must be bytes, .*, not str"),
        (lambda _: raw(READ_0, length="1"), "length must be an int, not str"),
        (lambda _: raw(READ_0, data="x"), "data must be bytes, .*, not str"),
    ],
)
def test_a_call_names_the_parameter_and_sends_nothing(
    bus: InterceptedBus, disk: Disk, call: Call, message: str
) -> None:
    disk.blocks  # noqa: B018 - asks for the capacity
    bus.wire.log.clear()
    with pytest.raises(TypeError, match=f"^{message}$"):
        call(disk)
    assert bus.wire.log == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda disk: disk.execute(Inquiry(), timeout=0), "a timeout of 0 seconds is not possible"),
        (lambda disk: disk.execute(Inquiry(), timeout=-1.5), "a timeout of -1.5 seconds is not possible"),
        (lambda disk: disk.execute(Inquiry(), timeout=float("nan")), "a timeout of nan seconds is not possible"),
        (lambda _: raw(READ_0, length=1 << 32), "4294967296 bytes do not fit one command"),
        (lambda disk: jobs.restore(__file__, disk, disk), ".* is given twice; give each disk once"),
        (lambda disk: jobs.clone(disk, disk), ".* is given twice; give each disk once"),
    ],
)
def test_a_value_that_is_not_possible_sends_nothing(bus: InterceptedBus, disk: Disk, call: Call, message: str) -> None:
    disk.blocks  # noqa: B018 - asks for the capacity
    bus.wire.log.clear()
    with pytest.raises(ValueError, match=f"^{message}"):
        call(disk)
    assert bus.wire.log == []


def test_a_unit_that_is_opened_twice_is_one_disk(bus: InterceptedBus, disk: Disk) -> None:
    """Two threads would write to it, and two journals would have one name."""
    with open_on(bus) as again:
        with pytest.raises(ValueError, match="is given twice"):
            imaging.clone(disk, again)
        with open_on(Bus(stick()), lun=0) as other:
            assert imaging.compare(disk, other).equal


@pytest.mark.parametrize(
    ("limit", "value"),
    [("failures", "3"), ("failures", 1.5), ("unit_attentions", None), ("timeouts", 0.5), ("interval", "1")],
)
def test_a_limit_of_retries_of_a_wrong_type(limit: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{limit} must be .*, not {type(value).__name__}$"):
        RetryPolicy(**{limit: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda manager: manager.on_attach(5), "callback must be a function, not int"),
        (lambda manager: manager.on_detach(None), "callback must be a function, not NoneType"),
        (lambda manager: manager.on_attach(print, 5), "device must be .*, not int"),
        (lambda manager: manager.events("1"), "timeout must be a number of seconds or None, not str"),
        (lambda manager: manager.events(1.0, b"2-1"), "device must be .*, not bytes"),
        (lambda _: Manager("2-1"), "backend must be a USB backend, .*, not str"),  # type: ignore[arg-type]
    ],
)
def test_a_manager_names_the_parameter(call: Call, error: str) -> None:
    with Manager(Bus()) as manager, pytest.raises(TypeError, match=f"^{error}$"):
        call(manager)


def test_events_do_not_wait_for_ever_for_a_time_that_is_no_number() -> None:
    with Manager(Bus()) as manager, pytest.raises(ValueError, match="timeout is not a number of seconds: nan"):
        manager.events(float("nan"))


class Whole:
    """A whole number that is no int, as numpy's are."""

    def __index__(self) -> int:
        return 3


def test_any_whole_number_is_an_lba(disk: Disk) -> None:
    buffer = bytearray(512)
    number: Any = Whole()
    assert disk.readinto(number, buffer) == 1
    assert disk.read(number, number)[:512] == buffer
    assert disk.write(number, buffer) == 1


def test_a_raw_command_receives(disk: Disk) -> None:
    assert disk.execute(RawCommand(bytes.fromhex("120000002400"), length=36))[8:15] == b"scsiusb"
    assert len(disk.execute(RawCommand(bytes.fromhex("12000000ff00"), length=255))) == 36, "a short reply"
    assert disk.execute(RawCommand(bytes(6))) == b""
    with pytest.raises(UnsupportedOpcode, match="command FFh failed"):
        disk.execute(RawCommand(b"\xff" + bytes(5)))


def test_a_raw_command_sends(disk: Disk) -> None:
    data = bytearray(b"w" * 512)
    disk.execute(RawCommand(b"\x2a" + READ_0[1:], data=data))
    assert disk.read(0, 1) == data


@pytest.mark.parametrize("cdb", [b"", bytes(17)])
def test_a_cdb_of_an_impossible_length(cdb: bytes) -> None:
    with pytest.raises(ValueError, match=f"a CDB of {len(cdb)} bytes; it has 1 to 16"):
        RawCommand(cdb)


@pytest.mark.parametrize("options", [{"length": -1}, {"length": 1, "data": b"1"}])
def test_a_raw_command_with_two_directions_or_a_negative_length(options: Any) -> None:
    with pytest.raises(ValueError, match="give either a number of bytes to receive, or data to send"):
        RawCommand(bytes(6), **options)


def test_a_raw_command_is_not_sent_again_after_a_failed_exchange() -> None:
    target = Stick([Unit(stick().units[0].medium)], faults=[Fault.parse("phase-error,opcode=28")])
    with open_on(Bus(target)) as disk, pytest.raises(scsiusb.TransportError, match="command 28h"):
        disk.execute(RawCommand(READ_0, length=512))


def test_a_call_can_have_a_retry_policy_of_its_own(disk: Disk) -> None:
    target = stick(becoming_ready=1)
    with open_on(Bus(target)) as busy:
        with pytest.raises(scsiusb.UnitAttention):
            busy.execute(RawCommand(bytes(6)), retry=RetryPolicy(unit_attentions=0))
        with pytest.raises(scsiusb.NotReady):
            busy.execute(RawCommand(bytes(6)), retry=RetryPolicy(becoming_ready=0), timeout=5)
        assert busy.execute(RawCommand(bytes(6)), timeout=5.0) == b""


def test_an_async_disk_takes_the_same_options() -> None:
    async def main() -> bytes:
        async with scsiusb.aopen("virtual:") as disk:
            return await disk.execute(RawCommand(bytes.fromhex("120000002400"), length=36), timeout=5, retry=None)

    assert asyncio.run(main())[8:15] == b"scsiusb"


def test_the_error_of_a_raw_command_has_its_sense(disk: Disk) -> None:
    with pytest.raises(IllegalRequest) as caught:
        disk.execute(RawCommand(bytes.fromhex("28007fffffff00000100"), length=512))
    assert caught.value.sense.key == 5


def test_reprs_name_the_device_and_do_no_input_or_output(bus: InterceptedBus) -> None:
    with open_on(bus) as disk, Manager(bus) as manager:
        name = "scsiusb Virtual Stick at 1-1"
        bus.wire.log.clear()
        assert repr(disk) == f"<Disk LUN 0 of {name}>"
        assert repr(disk.unit) == f"<LogicalUnit 0 of {name}>"
        assert repr(disk.unit.transport) == f"<Client of {name}, open>"
        assert repr(manager).endswith(", 0 opened>")
        assert repr(bus) == f"<Bus 1: 1-1: {bus._connections[2].stick!r}>"
        assert bus.wire.log == []
    assert repr(disk) == f"<Disk LUN 0 of {name}, closed>"
    assert repr(manager) == "<Manager: closed>"
    assert repr(scsiusb.aopen("2-1")) == "<AsyncDisk, not open>"
    assert repr(stick(product="Reader")) == "<Stick 1209:0001 serial=0123456789AB: Reader>"
    assert repr(Bus()) == "<Bus 1: empty>"
    assert isinstance(disk.unit, LogicalUnit)
