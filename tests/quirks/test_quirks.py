"""Each quirk that has an effect: a device that needs it works with the quirk and fails without it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from scsiusb import (
    DataProtect,
    DeviceBusy,
    DeviceGone,
    DeviceNotFound,
    DeviceTimeout,
    DeviceUnsupported,
    Disk,
    HardwareError,
    LbaOutOfRange,
    MalformedReply,
    Manager,
    MediumError,
    NoMedium,
    PhaseError,
    ScsiUsbError,
    aopen,
)
from scsiusb.cli import device as session
from scsiusb.cli.app import run
from scsiusb.manager.attachment import Attachment
from scsiusb.manager.learned import LearnedQuirks
from scsiusb.manager.process import PROCESS
from scsiusb.opening import open_on
from scsiusb.quirks.model import MEANINGS, Meaning, Quirk, Quirks
from scsiusb.scsi.commands.spc import RequestSense
from scsiusb.usb.interface import find
from scsiusb.usb.port import NO_QUIRKS
from scsiusb.virtual import Bus, Identity, Memory, Sparse, Stick, Unit, bot_interface, uas_interface
from scsiusb.virtual.target.sense import Sense
from scsiusb.virtual.target.task import Parameters, Task
from tests.sticks import Answer, InterceptedBus, OddUnit, Wire, stick

TIMEOUT = 0.1  # seconds for a command that hangs
BLOCKS = 2048
BLOCK = 512
MODE_SENSE_6, SYNCHRONIZE_CACHE = 0x1A, 0x35


def device(
    *faults: str, blocks: int = BLOCKS, speed: str = "high", unit: Unit | None = None, removable: bool = True
) -> Stick:
    """Make a stick in which every block begins with its number."""
    source = stick(blocks)
    medium = source.units[0].medium
    assert isinstance(medium, Memory)
    return Stick([unit or Unit(medium, removable=removable)], Identity(speed=speed), faults=faults)


@contextmanager
def opened(made: Stick, letters: str, timeout: float | None = None) -> Iterator[Disk]:
    with open_on(Bus(made), timeout=timeout, quirks=letters) as disk:
        yield disk


# --- actions with the device --------------------------------------------------------------------


def read_all(disk: Disk) -> None:
    """Read every block of the capacity that is in effect."""
    data = disk.read(0, disk.blocks)
    numbers = [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), BLOCK)]
    assert numbers == list(range(disk.blocks))


def read_the_end(disk: Disk) -> None:
    data = disk.read(BLOCKS - 8, 8)
    assert int.from_bytes(data[-BLOCK:][:4], "big") == BLOCKS - 1


def write_the_end(disk: Disk) -> None:
    assert disk.write(BLOCKS - 8, bytes(8 * BLOCK)) == 8
    assert disk.read(BLOCKS - 2, 2) == bytes(2 * BLOCK)


def read_a_block(disk: Disk) -> None:
    assert disk.read(1, 1)[:4] == b"\0\0\0\1"


def write_and_flush(disk: Disk) -> None:
    disk.write(1, b"\xaa" * BLOCK)
    disk.flush()
    assert disk.read(1, 1) == b"\xaa" * BLOCK


def read_at_two_tebibytes(disk: Disk) -> None:
    assert disk.blocks == 1 << 32
    assert disk.read((1 << 32) - 1, 1) == bytes(BLOCK)


def ask_for_all_sense(disk: Disk) -> None:
    disk.blocks  # noqa: B018 - clears pending unit attentions
    assert disk.unit.execute(RequestSense(length=252)).is_empty


def count_the_blocks(disk: Disk) -> None:
    assert disk.blocks == BLOCKS


def report_the_failed_block(disk: Disk) -> None:
    with pytest.raises(MediumError) as caught:
        disk.read(5, 1)
    assert caught.value.sense.information == 5


def look_for_the_last_unit(disk: Disk) -> None:
    assert disk.unit.transport.max_lun == 0


class Case(NamedTuple):
    """An action that succeeds with the quirks of the letters, and without them raises `error`."""

    letters: str
    make: Callable[[], Stick]
    act: Callable[[Disk], None]
    error: type[BaseException]

    @property
    def id(self) -> str:
        return f"{self.letters}-{self.act.__name__}"


class BadBlockUnit(Unit):
    """A unit that reports its bad block in descriptor format, at the end of 20 bytes of sense data."""

    def take_sense(self) -> Sense:
        sense = super().take_sense()
        return DescriptorSense(sense.key, sense.asc, sense.ascq, sense.information)


@dataclass(frozen=True)
class DescriptorSense(Sense):
    """Sense data that is in descriptor format whatever format is requested."""

    def fixed(self) -> bytes:
        return self.descriptors()


class BadBlock(Memory):
    """Block 5 cannot be read."""

    def _readinto(self, offset: int, view: memoryview) -> None:
        if offset <= 5 * BLOCK < offset + len(view):
            raise OSError("bad block")
        super()._readinto(offset, view)


def stick_with_a_bad_block() -> Stick:
    return Stick([BadBlockUnit(BadBlock(BLOCKS * BLOCK))])


def huge(*faults: str) -> Stick:
    return Stick([Unit(Sparse((1 << 32) + 8))], faults=faults)


def stick_that_seems_protected() -> Stick:
    """Make a stick whose MODE SENSE reports write protection, though it can be written."""
    unit = OddUnit()
    seems_protected = Parameters(bytes.fromhex("03 00 80 00"), 192)
    unit.answer = lambda cdb: seems_protected if cdb[0] == MODE_SENSE_6 else None
    return device(unit=unit)


CASES = (
    Case("a", stick_with_a_bad_block, report_the_failed_block, AssertionError),
    Case("b", lambda: device("nak@data,opcode=03,over=18,times=always"), ask_for_all_sense, DeviceTimeout),
    Case("c", lambda: device("capacity=+1"), read_all, LbaOutOfRange),
    Case("e", lambda: huge("nak@csw,opcode=9e,times=always"), read_at_two_tebibytes, DeviceTimeout),
    Case("g", lambda: device("nak@data,over=122880,times=always", speed="super"), read_all, DeviceTimeout),
    Case("h", lambda: device("capacity=+1"), read_all, LbaOutOfRange),
    Case("h", lambda: device("capacity=+1"), count_the_blocks, AssertionError),
    Case("m", lambda: device("nak@data,over=32768,times=always"), read_all, DeviceTimeout),
    Case("n", lambda: device("sense=5/21/00,opcode=28,times=2", removable=False), read_a_block, LbaOutOfRange),
    Case("r", lambda: device("bogus-residue,opcode=28,times=always"), read_a_block, MalformedReply),
    Case("s", lambda: device("max-lun=3"), look_for_the_last_unit, AssertionError),
    Case("w", stick_that_seems_protected, write_and_flush, DataProtect),
    Case("C", lambda: device("nak@csw,opcode=35"), write_and_flush, DeviceTimeout),
    Case("E", lambda: device("capacity=+8,opcode=25,times=always"), count_the_blocks, AssertionError),
    Case("I", lambda: device("nak@data,opcode=12,times=always"), read_a_block, DeviceTimeout),
    Case("L", lambda: device("nak@data,lba=2046-2047,over=512,times=always"), read_the_end, DeviceTimeout),
    Case("L", lambda: device("nak@data,lba=2046-2047,over=512,times=always"), write_the_end, DeviceTimeout),
    Case("S", lambda: device("signature,times=always"), read_a_block, MalformedReply),
    Case("S", lambda: device("signature=4F4C594D,times=always"), write_and_flush, MalformedReply),
    Case("T", lambda: device("tag,times=always"), read_a_block, MalformedReply),
    Case("U", lambda: device("nak@csw,opcode=00,times=always"), read_a_block, DeviceTimeout),
    Case("V", lambda: device("disconnect@cbw,cdb=1201"), read_a_block, DeviceGone),
)


LEARNED = "a"  # from the first sense data that are cut, which say so; the quirk saves those


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_with_the_quirk_the_device_works(case: Case) -> None:
    with opened(case.make(), case.letters) as disk:
        case.act(disk)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.letters not in LEARNED], ids=lambda case: case.id)
def test_without_the_quirk_it_does_not(case: Case) -> None:
    timeout = TIMEOUT if case.error is DeviceTimeout else None
    with pytest.raises(case.error), opened(case.make(), "", timeout) as disk:
        case.act(disk)


BESIDE = {"g": "mL", "h": "c"}  # the quirks that the error names where others cure it, too
UNNAMED = "bn"  # the error is not specific


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.error is not AssertionError and case.letters not in UNNAMED],
    ids=lambda case: case.id,
)
def test_the_error_names_the_quirk_ready_to_paste_and_it_cures(case: Case) -> None:
    timeout = TIMEOUT if case.error is DeviceTimeout else None
    with pytest.raises(case.error) as failed, opened(case.make(), "", timeout) as disk:
        case.act(disk)
    assert isinstance(failed.value, ScsiUsbError)
    named = re.search(r"use --quirks (\S+)$", failed.value.remedy)
    assert named is not None, failed.value
    assert named[1] == f"1209:0001:{BESIDE.get(case.letters, case.letters)}"
    with opened(case.make(), named[1]) as disk:
        case.act(disk)


# --- quirks that need another test --------------------------------------------------------------


def test_a_correct_odd_capacity_is_used_with_capacity_ok() -> None:
    """The heuristic h is wrong if a medium has an odd number of blocks."""
    for letters, blocks in (("h", BLOCKS), ("ho", BLOCKS + 1), ("", BLOCKS + 1)):
        with opened(device(blocks=BLOCKS + 1), letters) as disk:
            assert disk.blocks == blocks
            read_all(disk)


def test_the_heuristic_does_not_change_an_even_capacity_and_the_fix_does() -> None:
    for letters, blocks in (("h", BLOCKS), ("c", BLOCKS - 1), ("ch", BLOCKS - 1)):
        with opened(device(), letters) as disk:
            assert disk.blocks == blocks


def test_bad_sense_overrides_sane_sense() -> None:
    made = device("nak@data,opcode=03,over=18,times=always", "sense=3/11/00,opcode=28,times=always")
    with opened(made, "ab") as disk, pytest.raises(MediumError):
        disk.read(0, 1)
    with opened(device("nak@data,opcode=03,over=18,times=always"), "a", TIMEOUT) as disk, pytest.raises(DeviceTimeout):
        disk.read(0, 1)


def test_an_ignored_device_is_listed_and_not_opened() -> None:
    """Such a device disconnects at the first command, and comes back as a modem."""
    bus = Bus(device("disconnect@cbw"))
    with pytest.raises(DeviceUnsupported, match=r"must not be opened: quirks= of open; --quirks 1209:0001: opens it"):
        open_on(bus, quirks="i")
    assert len(find(bus)) == 1
    with pytest.raises(DeviceGone), open_on(bus, quirks="") as disk:
        read_a_block(disk)
    assert find(bus) == []


def test_a_second_unit_cannot_be_opened_with_single_lun() -> None:
    with pytest.raises(DeviceNotFound, match="no LUN 1"):
        open_on(Bus(device("max-lun=1")), lun=1, quirks="s")


def test_a_medium_that_cannot_be_locked_is_ejected(monkeypatch: pytest.MonkeyPatch) -> None:
    made = device("nak@csw,opcode=1e,times=always")
    bus = Bus(made)
    monkeypatch.setattr(session, "open_disk", lambda device, trace, **rest: open_on(bus, device, **rest))
    monkeypatch.setattr(session, "devices", lambda: find(bus))
    assert run(["eject", "1-1", "--quirks", "1209:0001:l"]) == 0
    assert made.units[0].medium is None
    assert made.faults.fired == [], "the command was not sent"
    assert run(["eject", "1-1", "--timeout", str(TIMEOUT)]) == 0, "one that is not answered is passed over"
    assert len(made.faults.fired) == 1


class Kindle(Unit):
    """A unit that ejects its medium a second after SYNCHRONIZE CACHE, unless another command comes."""

    last = 0

    def execute(self, cdb: bytes) -> Task:
        self.last = cdb[0]
        return super().execute(cdb)

    def let_a_second_pass(self) -> None:
        if self.last == SYNCHRONIZE_CACHE:
            self.eject()


def test_a_flush_after_which_the_medium_would_be_ejected_is_followed_by_a_command() -> None:
    for letters in ("K", ""):
        unit = Kindle(Memory(BLOCKS * BLOCK))
        with opened(Stick([unit]), letters) as disk:
            write_and_flush(disk)
            disk.flush()
            unit.let_a_second_pass()
            if letters:
                assert disk.read(1, 1) == b"\xaa" * BLOCK
            else:
                with pytest.raises(NoMedium):
                    disk.read(1, 1)


def after_class_reset(letters: str) -> None:
    """Use a stick whose writes fail after a class reset; a refused command makes the host recover."""
    made = device("stall@cbw,opcode=28")
    bus = InterceptedBus(made)

    def intercept(wire: Wire, endpoint: int, buffer: memoryview) -> Answer | None:
        if "request ff" in wire.log:
            wire.log.clear()
            made.faults.add("sense=4/44/00,opcode=2A,times=always")
        return None

    bus.wire.intercept = intercept
    with open_on(bus, quirks=letters) as disk:
        read_a_block(disk)
        write_and_flush(disk)


def test_a_harmful_class_reset_is_sent_without_the_quirk() -> None:
    with pytest.raises(HardwareError):
        after_class_reset("")


def test_a_harmful_class_reset_is_not_sent_with_the_quirk() -> None:
    after_class_reset("R")


class Clock:
    """A clock in which time passes only while the driver pauses, as a busy machine may be slower than any limit."""

    def __init__(self) -> None:
        self.now = 1.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def rush(monkeypatch: pytest.MonkeyPatch, letters: str) -> None:
    """Read from a device that needs 100 microseconds after each CBW; nothing else takes time."""
    clock = Clock()
    monkeypatch.setattr("scsiusb.transport.base.time", clock)  # of which the driver's pauses are made
    monkeypatch.setattr("scsiusb.virtual.faults.bot_faults.time", clock)
    with opened(device("rushed=100"), letters) as disk:
        for _ in range(100):
            read_a_block(disk)


def test_a_slow_device_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rush(monkeypatch, "G")


def test_a_slow_device_is_not_waited_for_without_the_quirk(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PhaseError):
        rush(monkeypatch, "")


def uas_with_units(units: int, **identity: Any) -> Bus:
    """Make a device that speaks BOT and UAS."""
    made = [Unit(Memory(bytearray(8 * 512))) for _ in range(units)]
    return Bus(Stick(made, Identity(**identity), [bot_interface(), uas_interface()]))


def test_the_units_of_a_device_that_cannot_report_its_luns_are_one_by_uas() -> None:
    bus = uas_with_units(3)
    for quirks, last in (("", 2), ("1209:0001:j", 0)):
        with open_on(bus, transport="uas", quirks=quirks) as disk:
            assert disk.unit.transport.max_lun == last


def test_a_device_that_does_uas_badly_is_used_by_bot_only() -> None:
    bus = uas_with_units(1, vid=0x0B05, pid=0x1932)  # of the table
    with pytest.raises(DeviceUnsupported, match=r"must not be used by UAS: .*unusual_uas"):
        open_on(bus, transport="uas")
    with open_on(bus) as disk:
        assert disk.unit.transport.info.protocol == "bot"


TESTED_ABOVE: dict[str, Callable[..., None]] = {
    "o": test_a_correct_odd_capacity_is_used_with_capacity_ok,
    "i": test_an_ignored_device_is_listed_and_not_opened,
    "l": test_a_medium_that_cannot_be_locked_is_ejected,
    "K": test_a_flush_after_which_the_medium_would_be_ejected_is_followed_by_a_command,
    "R": test_a_harmful_class_reset_is_not_sent_with_the_quirk,
    "G": test_a_slow_device_is_waited_for,
    "j": test_the_units_of_a_device_that_cannot_report_its_luns_are_one_by_uas,
    "u": test_a_device_that_does_uas_badly_is_used_by_bot_only,
}


def test_every_quirk_with_an_effect_is_tested_here() -> None:
    tested = {case.letters[-1] for case in CASES} | set(TESTED_ABOVE)
    assert tested == {meaning.letter for meaning in MEANINGS if not meaning.unused}


@pytest.mark.parametrize("meaning", [each for each in MEANINGS if each.unused], ids=lambda each: each.letter)
def test_a_letter_without_an_effect_is_accepted_and_changes_nothing(meaning: Meaning) -> None:
    logs = []
    for letters in ("", meaning.letter):
        bus = InterceptedBus(device())
        with open_on(bus, quirks=letters) as disk:
            write_and_flush(disk)
        logs.append(tuple(bus.wire.log))
    assert logs[0] == logs[1]


# --- the source ---------------------------------------------------------------------------------


def nokia(*faults: str) -> Stick:
    """Make a stick for which the table has the quirk `h`."""
    made = device(*faults, blocks=BLOCKS + 1)
    return Stick(list(made.units), Identity(vid=0x0421, pid=0x0001))


def test_the_table_applies_by_default_and_the_users_row_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {}
    for variable, letters in ((None, None), ("421:1:", None), ("421:1:", "c"), (None, "421:1:o,1:1:r")):
        monkeypatch.setenv("SCSIUSB_QUIRKS", variable or "")
        with open_on(Bus(nokia()), quirks=letters) as disk:
            blocks[variable, letters] = disk.blocks
    assert list(blocks.values()) == [BLOCKS, BLOCKS + 1, BLOCKS, BLOCKS + 1]


def test_the_manager_accepts_quirks() -> None:
    with Manager(Bus(device())) as manager, manager.open(quirks="c") as disk:
        assert disk.blocks == BLOCKS - 1


def test_asyncio_accepts_quirks() -> None:
    async def blocks(letters: str) -> int:
        async with aopen("virtual:", quirks=letters) as disk:
            return (await disk.medium())[0]

    assert asyncio.run(blocks("")) - asyncio.run(blocks("c")) == 1


@pytest.mark.parametrize("letters", ["x", "1209:0001:x", "1209:0001", "1209:0001:c,junk:"])
def test_invalid_quirks_are_an_error_before_anything_is_opened(letters: str) -> None:
    bus = Bus(device())
    with pytest.raises(ValueError, match=r"quirk"):
        open_on(bus, quirks=letters)
    assert not bus.handles


def test_users_of_one_device_share_its_quirks() -> None:
    bus = Bus(device())
    with open_on(bus, quirks="c") as disk:
        with open_on(bus) as other, open_on(bus, quirks="c") as third:
            assert disk.blocks == other.blocks == third.blocks == BLOCKS - 1
        with pytest.raises(DeviceBusy, match="with other quirks"):
            open_on(bus, quirks="")


# --- what is learned ----------------------------------------------------------------------------

FALSE_RESIDUES = ("bogus-residue,opcode=12", "bogus-residue,opcode=28,times=always")


def test_a_learned_quirk_is_kept_when_the_device_is_opened_again() -> None:
    """A residue after all INQUIRY data was received is recognized as false; one of READ(10) would not be."""
    bus = Bus(device(*FALSE_RESIDUES))
    with open_on(bus, quirks="") as disk:
        assert Quirk.IGNORE_RESIDUE not in disk.unit.transport.quirks
        read_a_block(disk)
        assert Quirk.IGNORE_RESIDUE in disk.unit.transport.quirks
    with open_on(bus, quirks="") as disk:
        assert Quirk.IGNORE_RESIDUE in disk.unit.transport.quirks
        disk.unit.test_unit_ready()
        read_a_block(disk)


def test_learned_quirks_are_forgotten_when_the_device_is_unplugged() -> None:
    made = device(*FALSE_RESIDUES)
    bus = Bus(made)
    with open_on(bus) as disk:
        read_a_block(disk)
    bus.unplug(made)
    bus.plug(made)
    with open_on(bus) as disk, pytest.raises(MalformedReply):
        read_a_block(disk)


def test_learned_quirks_do_not_apply_to_another_device() -> None:
    first, second = device(*FALSE_RESIDUES), device(FALSE_RESIDUES[1])
    bus = Bus(first, second)
    with open_on(bus, "1-1") as disk:
        read_a_block(disk)
    with open_on(bus, "1-2") as disk, pytest.raises(MalformedReply):
        read_a_block(disk)


def test_a_learned_signature_is_logged_and_no_other_wrong_one_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    """This holds when the device is opened again. The standard signature is always accepted."""
    caplog.set_level(logging.INFO, "scsiusb")
    made = device("signature=4F4C594D,times=always")
    bus = Bus(made)
    with open_on(bus, quirks="S") as disk:
        read_a_block(disk)
    assert "any-signature: the first CSW was signed 4f4c594d" in caplog.text
    made.faults.clear()
    for letters in ("S", ""):
        with open_on(bus, quirks=letters) as disk:
            read_a_block(disk)
    made.faults.add("signature=41414141,times=always")
    with open_on(bus, quirks="S") as disk, pytest.raises(MalformedReply, match="the signature is 41414141"):
        read_a_block(disk)


def test_another_bus_with_the_same_identity_has_no_learned_quirks(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, kept = LearnedQuirks(), Quirks().learning(Quirk.IGNORE_RESIDUE, "it was seen")
    bus = Bus(device())
    attachment = Attachment(bus, find(bus)[0], PROCESS)
    memory.keep(attachment, kept)
    assert Quirk.IGNORE_RESIDUE in memory.recall(attachment, NO_QUIRKS)
    monkeypatch.setattr(Bus, "identity", bus.identity)
    twin = Bus(device())
    other = Attachment(twin, find(twin)[0], PROCESS)
    assert other.key == attachment.key
    assert memory.recall(other, NO_QUIRKS) == NO_QUIRKS


def test_another_device_with_the_same_number_and_model_has_no_learned_quirks() -> None:
    """While nothing is open, an unplug is not noticed; the serial number shows that it is another device."""
    memory, kept = LearnedQuirks(), Quirks().learning(Quirk.IGNORE_RESIDUE, "it was seen")
    bus = Bus(device())
    info = find(bus)[0]
    own, other = (Attachment(bus, replace(info, serial=serial), PROCESS) for serial in ("0123456789AB", "0123456789AC"))
    memory.keep(own, kept)
    assert own.key == other.key
    assert memory.recall(own, NO_QUIRKS) == kept
    assert memory.recall(other, NO_QUIRKS) == NO_QUIRKS
    assert memory.recall(own, NO_QUIRKS) == NO_QUIRKS


def test_learned_quirks_of_unplugged_devices_are_forgotten_and_the_number_is_limited() -> None:
    memory, kept = LearnedQuirks(), Quirks().learning(Quirk.IGNORE_RESIDUE, "it was seen")
    bus = Bus()
    sticks = [device() for _ in range(70)]
    for made in sticks:
        bus.plug(made)
    attachments = [Attachment(bus, info, PROCESS) for info in find(bus)]
    for attachment in attachments:
        memory.keep(attachment, kept)
    known = [attachment for attachment in attachments if memory.recall(attachment, NO_QUIRKS) == kept]
    assert known == attachments[-64:]
    memory.forget(bus, {attachments[-1].info.device.identity})
    assert [memory.recall(attachment, NO_QUIRKS) == NO_QUIRKS for attachment in attachments[-2:]] == [True, False]
