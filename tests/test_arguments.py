"""Arguments of a wrong type are a TypeError with the parameter's name; what the objects say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import scsiusb
from scsiusb import Disk, IllegalRequest, LogicalUnit, Manager, RawCommand, RetryPolicy, UnsupportedOpcode
from scsiusb.opening import open_on
from scsiusb.scsi.commands.spc import Inquiry
from scsiusb.virtual import Bus, Fault, Stick, Unit
from tests.sticks import InterceptedBus, stick

Call = Callable[[Any], object]
raw: Any = RawCommand
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
