"""Write protection: asked once before the first write to a medium, never by readers, and not relied on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from scsiusb import DataProtect, DeviceGone, Disk, MediumChanged, NoMedium, OutOfRange
from scsiusb.opening import open_on
from scsiusb.virtual import Bus, Memory, Stick
from scsiusb.virtual.device.descriptors import bot_interface
from scsiusb.virtual.target.task import Parameters, Task
from tests.sticks import OddUnit

MODE_SENSE_6, MODE_SENSE_10, READ_10, WRITE_10 = 0x1A, 0x5A, 0x28, 0x2A
BLOCKS, BLOCK = 64, 512
DATA = b"W" * BLOCK
TIMEOUT = 0.2  # seconds for a command that hangs


def blank() -> Memory:
    return Memory(BLOCKS * BLOCK)


def distinct() -> Memory:
    return Memory(bytearray(b"distinct".ljust(BLOCK, b".") * BLOCKS))


class Opened(NamedTuple):
    unit: OddUnit
    stick: Stick
    bus: Bus
    disk: Disk

    def asked(self) -> int:
        """Return how often the unit was asked."""
        return self.unit.count(MODE_SENSE_6) + self.unit.count(MODE_SENSE_10)


Opener = Callable[..., Opened]


@pytest.fixture
def opened() -> Iterator[Opener]:
    made: list[Opened] = []

    def make(
        *faults: str, medium: Memory | None = None, quirks: str = "", timeout: float | None = None, **attributes: bool
    ) -> Opened:
        unit = OddUnit(medium or distinct(), **attributes)
        stick = Stick([unit], faults=faults)
        bus = Bus(stick)
        made.append(Opened(unit, stick, bus, open_on(bus, quirks=quirks, timeout=timeout)))
        return made[-1]

    yield make
    for each in made:
        each.disk.close()
        each.bus.close()


def written(opened: Opened) -> bytes:
    assert isinstance(opened.unit.medium, Memory)
    return bytes(opened.unit.medium.data[:BLOCK])


# --- what is said, and when ---------------------------------------------------------------------


@pytest.mark.parametrize("removable", [True, False])
def test_a_protected_medium_is_an_error_before_anything_is_written(opened: Opener, removable: bool) -> None:
    protected = opened(write_protected=True, removable=removable)
    with pytest.raises(DataProtect, match="nothing was written; look for a switch on it") as refused:
        protected.disk.write(3, DATA)
    assert (refused.value.lba, refused.value.sense.codes) == (3, "7/27/00")
    assert protected.unit.count(WRITE_10) == 0
    assert protected.disk.write_protected is True
    assert protected.disk.read(0, 1) != DATA


def test_a_stream_is_refused_before_it_takes_any_data(opened: Opener) -> None:
    protected = opened(write_protected=True)
    with pytest.raises(DataProtect):
        protected.disk.writing(0)
    assert protected.unit.count(WRITE_10) == 0


def test_the_error_names_the_quirk_with_those_that_apply_already(opened: Opener) -> None:
    protected = opened(write_protected=True, quirks="rm")
    with pytest.raises(DataProtect) as refused:
        protected.disk.write(0, DATA)
    info = protected.disk.unit.transport.info
    assert refused.value.remedy.endswith(f"use --quirks {info.vid:04x}:{info.pid:04x}:mrw")


def test_a_reader_is_asked_nothing_and_a_writer_once(opened: Opener) -> None:
    plain = opened()
    plain.disk.read(0, BLOCKS)
    with plain.disk.reading(0, BLOCKS) as pieces:
        assert sum(len(piece) for piece in pieces) == BLOCKS * BLOCK
    assert plain.asked() == 0
    for lba in range(4):
        plain.disk.write(lba, DATA)
    with plain.disk.writing(8) as out:
        out.write(DATA * 4)
    assert plain.asked() == 1
    assert plain.disk.write_protected is False


def test_nothing_is_asked_for_no_blocks_or_blocks_beyond_the_end(opened: Opener) -> None:
    plain = opened()
    assert plain.disk.write(0, b"") == 0
    with pytest.raises(OutOfRange):
        plain.disk.write(BLOCKS, DATA)
    assert plain.asked() == 0


def test_another_medium_is_asked_for_anew(opened: Opener) -> None:
    reader = opened()
    reader.disk.write(0, DATA)
    reader.disk.flush()
    reader.unit.remove()
    reader.unit.insert(distinct())
    reader.unit.write_protected = True
    with pytest.raises(MediumChanged):
        reader.disk.write(0, DATA)
    with pytest.raises(DataProtect):
        reader.disk.write(0, DATA)
    assert written(reader) != DATA


def test_a_change_that_the_question_finds_is_a_change_not_a_protection(opened: Opener) -> None:
    reader = opened()
    reader.disk.read(0, 1)
    reader.unit.remove()
    reader.unit.insert(distinct())
    reader.unit.write_protected = True
    with pytest.raises(MediumChanged):
        reader.disk.write(0, DATA)
    assert reader.unit.count(WRITE_10) == 0


def test_a_switch_that_was_moved_is_seen(opened: Opener) -> None:
    switched = opened(write_protected=True)
    for _ in range(2):
        with pytest.raises(DataProtect):
            switched.disk.write(0, DATA)
    switched.unit.write_protected = False
    assert switched.disk.write(0, DATA) == 1
    switched.unit.write_protected = True
    with pytest.raises(DataProtect, match=r"WRITE\(10\) of 1 block"):
        switched.disk.write(0, DATA)


def test_no_medium_is_no_medium(opened: Opener) -> None:
    empty = opened()
    empty.unit.remove()
    with pytest.raises(NoMedium):
        empty.disk.write_protected  # noqa: B018
    with pytest.raises(NoMedium):
        empty.disk.write(0, DATA)


# --- units that do not report it ----------------------------------------------------------------


def refusing(unit: OddUnit, *opcodes: int, sense: tuple[int, ...] = (5, 0x20)) -> None:
    unit.answer = lambda cdb: unit.fail(*sense) if cdb[0] in opcodes else None


def test_the_ten_byte_form_is_tried_if_the_six_byte_form_is_refused(opened: Opener) -> None:
    protected = opened(write_protected=True)
    refusing(protected.unit, MODE_SENSE_6)
    with pytest.raises(DataProtect):
        protected.disk.write(0, DATA)


def test_atapi_devices_are_asked_by_the_ten_byte_form() -> None:
    unit = OddUnit()
    bus = Bus(Stick([unit], interfaces=[replace(bot_interface(), subclass=0x02)]))
    with open_on(bus) as disk:
        disk.write(0, DATA)
    bus.close()
    assert (unit.count(MODE_SENSE_6), unit.count(MODE_SENSE_10)) == (0, 1)


@pytest.mark.parametrize("codes", [(5, 0x20), (5, 0x24), (0, 0, 0)])
@pytest.mark.parametrize("make", [blank, distinct])
def test_a_unit_that_refuses_is_written_and_not_asked_again(
    opened: Opener, codes: tuple[int, ...], make: Callable[[], Memory]
) -> None:
    odd = opened(medium=make())
    refusing(odd.unit, MODE_SENSE_6, MODE_SENSE_10, sense=codes)
    odd.disk.write(0, DATA)
    assert written(odd) == DATA
    asked = odd.asked()
    assert asked <= 2
    assert odd.disk.write_protected is None
    odd.disk.flush()
    odd.unit.remove()
    odd.unit.insert(distinct())
    with pytest.raises(MediumChanged):
        odd.disk.write(0, DATA)
    odd.disk.write(0, DATA)
    odd.disk.flush()
    assert (written(odd), odd.asked()) == (DATA, asked)


@pytest.mark.slow
@pytest.mark.parametrize("removable", [True, False])
@pytest.mark.parametrize("make", [blank, distinct])
@pytest.mark.parametrize("fault", ["nak@data", "nak@csw", "stall@cbw", "phase-error", "short=0@csw", "short=2"])
def test_a_unit_that_does_not_answer_properly_is_written_and_not_asked_again(
    opened: Opener, fault: str, make: Callable[[], Memory], removable: bool
) -> None:
    faults = f"{fault},opcode=1a,times=always"
    odd = opened(faults, medium=make(), timeout=TIMEOUT, removable=removable)
    with odd.disk.writing(0) as out:
        out.write(DATA)
    odd.disk.write(1, DATA)
    assert odd.disk.write_protected is None
    odd.disk.flush()
    assert written(odd) == DATA
    assert odd.unit.count(MODE_SENSE_6) <= 2
    assert odd.unit.count(MODE_SENSE_10) == 0


def test_a_swap_in_an_unanswered_question_is_not_written_over(opened: Opener) -> None:
    """The unit attention may be in the lost answer: of a medium that was read, the write must not go to another one."""
    odd = opened("nak@csw,opcode=1a", timeout=TIMEOUT)
    odd.disk.read(0, 1)
    other = blank()

    def swap(cdb: bytes) -> Task | None:
        if cdb[0] == MODE_SENSE_6:
            odd.unit.remove()
            odd.unit.insert(other)
            odd.unit.power_on()  # the host has missed the attention
        return None

    odd.unit.answer = swap
    with pytest.raises(MediumChanged):
        odd.disk.write(0, DATA)
    assert bytes(other.data) == bytes(BLOCKS * BLOCK)


@pytest.mark.parametrize("make", [blank, distinct])
def test_a_medium_that_was_known_before_an_unanswered_question_is_recognized_or_changed(
    opened: Opener, make: Callable[[], Memory]
) -> None:
    odd = opened("nak@csw,opcode=1a", medium=make(), timeout=TIMEOUT)
    assert odd.disk.blocks == BLOCKS
    if make is blank:
        with pytest.raises(MediumChanged, match="was not recognized"):
            odd.disk.write(0, DATA)
    odd.disk.write(0, DATA)
    assert written(odd) == DATA


def test_the_quirk_of_a_device_that_leaves_at_the_question_is_named(opened: Opener) -> None:
    odd = opened("disconnect@cbw,opcode=1a")
    with pytest.raises(DeviceGone, match="if it leaves at MODE SENSE each time, use --quirks 1209:0001:w"):
        odd.disk.write(0, DATA)


def test_other_clients_are_warned_of_a_doubt_that_a_writer_raised(opened: Opener) -> None:
    """The writer begins anew with a blank medium; another user of the device must look at it, too."""
    odd = opened("nak@csw,opcode=1a", medium=blank(), timeout=TIMEOUT)
    with open_on(odd.bus, quirks="") as other:
        assert other.blocks == BLOCKS
        odd.disk.write(0, DATA)
        with pytest.raises(MediumChanged):
            other.read(0, 1)
        assert other.read(0, 1) == DATA


@pytest.mark.parametrize("data", [b"", b"\x03\x00", b"\xff" * 7])
def test_a_malformed_reply_is_no_protection(opened: Opener, data: bytes) -> None:
    odd = opened()
    odd.unit.answer = lambda cdb: Parameters(data, cdb[4]) if cdb[0] == MODE_SENSE_6 else None
    odd.disk.write(0, DATA)
    assert written(odd) == DATA


def test_a_protection_that_is_reported_falsely_is_ignored_with_the_quirk(opened: Opener) -> None:
    odd = opened(quirks="w")
    odd.unit.answer = lambda cdb: Parameters(bytes.fromhex("03 00 80 00"), cdb[4]) if cdb[0] == MODE_SENSE_6 else None
    odd.disk.write(0, DATA)
    assert odd.disk.write_protected is None
    assert (written(odd), odd.asked()) == (DATA, 0)


def test_the_device_itself_is_believed_where_it_does_not_report_it(opened: Opener) -> None:
    protected = opened(write_protected=True)
    refusing(protected.unit, MODE_SENSE_6, MODE_SENSE_10)
    with pytest.raises(DataProtect, match=r"WRITE\(10\) of 1 block at LBA 0"):
        protected.disk.write(0, DATA)
