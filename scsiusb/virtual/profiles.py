"""The devices that a virtual stick can play, each modelled on published dumps: `virtual:?profile=cd-rw`."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from scsiusb.virtual.device.descriptors import SCSI
from scsiusb.virtual.target import ata_packet, bridges, burning, zoned
from scsiusb.virtual.target.ata import HEALTHS, AtaDisk
from scsiusb.virtual.target.fat import Formatted
from scsiusb.virtual.target.flawed import WRAPAROUND, Fake
from scsiusb.virtual.target.media import Medium, Memory
from scsiusb.virtual.target.modes import OPTICAL_PAGES, ModePages
from scsiusb.virtual.target.nvme import NvmeDisk
from scsiusb.virtual.target.pages import CD_ROM, DISK
from scsiusb.virtual.target.task import Task
from scsiusb.virtual.target.unit import Unit

Values = Mapping[str, Any]
"""The options of the stick's name, read."""

CARD_SLOTS: Final = 4  # of the card reader, of which the first has a card
CD_BLOCK: Final = 2048
CD_BLOCKS: Final = 4096  # 8 MiB
UFI: Final = 0x04  # bInterfaceSubClass
FLOPPIES: Final = {1440: (9, 0x1E), 2880: (18, 0x94)}  # by blocks: sectors of a track, and the MEDIUM TYPE (UFI 4.5)
UFI_COMMANDS: Final = (
    0x00,
    0x03,
    0x04,
    0x12,
    0x1B,
    0x1E,
    0x23,
    0x25,
    0x28,
    0x2A,
    0x2B,
    0x2E,
    0x2F,
    0x55,
    0x5A,
    0xA8,
    0xAA,
)
REZERO, SEND_DIAGNOSTIC = 0x01, 0x1D  # which do nothing
FAKE_TIMES: Final = 4  # the counterfeit announces so many times what it has
PHOTOS: Final = range(8192, 8192 + 64)  # LBAs of what looks like files on it


def _keep(medium: Medium, values: Values) -> Medium:
    return medium


def _nothing(unit: Unit, values: Values) -> None:
    """Leave it a stick."""


class Profile(NamedTuple):
    """A device to play."""

    about: str
    furnish: Callable[[Unit, Values], None] = _nothing
    """Makes the unit what it plays."""
    medium: Callable[[Medium, Values], Medium] = _keep
    """Returns what is made of the medium. Raises ValueError for one that does not fit."""
    memory: Callable[[int], Medium] = Formatted
    """Makes the medium where no file is given, by the block size."""
    block_size: int = 512
    device_type: int = DISK
    is_removable: bool = True
    subclass: int = SCSI
    ids: Mapping[str, Any] = {}
    """Fields of `Identity`."""
    bridges: tuple[str, ...] = ()
    """The bridges that it can be behind; the first is the default."""
    empty_slots: int = 0
    """Units without a medium after the first one."""
    is_thin: bool = False
    """Whether blocks can be unmapped, unless the options say otherwise."""

    @property
    def can_be_thin(self) -> bool:
        """Whether it is of a kind that has UNMAP."""
        return self.device_type == DISK and self.subclass == SCSI


def _ata(kind: str, unit: Unit, values: Values) -> None:
    _behind_bridge(unit, values, AtaDisk(kind, values.get("health", HEALTHS[0])), "ATA", "sat")


def _solid(unit: Unit, values: Values) -> None:
    _ata("sat-ssd", unit, values)


def _hard_disk(unit: Unit, values: Values) -> None:
    _ata("sat-hdd", unit, values)


def _nvme(unit: Unit, values: Values) -> None:
    _behind_bridge(unit, values, NvmeDisk(values.get("health", HEALTHS[0])), "NVMe", next(iter(bridges.NVME)))


def _behind_bridge(unit: Unit, values: Values, disk: AtaDisk | NvmeDisk, vendor: str, usual: str) -> None:
    unit.vendor, unit.product = vendor, disk.model
    bridges.furnish(unit, disk, values.get("bridge", usual))


def _shingled(unit: Unit, values: Values) -> None:
    """Make it a host-aware SMR disk behind a bridge that translates ZAC to ZBC."""
    _ata("smr", unit, values)
    if isinstance(unit.medium, zoned.Zoned):
        zoned.furnish(unit, unit.medium)


def _card_reader(unit: Unit, values: Values) -> None:
    unit.product = "Card Reader"


def _writer(unit: Unit, values: Values) -> None:
    unit.vendor, unit.product, unit.revision = "VIRTUAL", "CD-RW CRX1234U", "1.0a"
    ata_packet.furnish(unit)
    if isinstance(unit.medium, burning.Disc):
        burning.furnish(unit, unit.medium)


def _floppy(unit: Unit, values: Values) -> None:
    """Make it a floppy drive: the commands of UFI, no vital product data, the page of the disk's geometry."""
    assert unit.medium is not None
    sectors, kind = FLOPPIES[unit.medium.blocks]
    unit.vendor, unit.product, unit.revision, unit.version = "VIRTUAL", "UFI FLOPPY", "3.00", 0
    unit.has_vpd = False
    unit.withdraw(*(set(range(0x100)) - set(UFI_COMMANDS)))
    for opcode in (REZERO, SEND_DIAGNOSTIC):
        unit.add(opcode, lambda unit, cdb: Task())
    geometry = struct.pack(">BBHBBHH9xBB7xH2x", 0x05, 0x1E, 500, 2, sectors, 512, 80, 5, 30, 300)
    unit.modes = ModePages({**OPTICAL_PAGES, 0x05: geometry}, medium_type=kind)


def _only_floppies(medium: Medium, values: Values) -> Medium:
    if medium.blocks not in FLOPPIES or medium.block_size != 512:
        sizes = " or ".join(f"{blocks * 512:,}" for blocks in FLOPPIES)
        raise ValueError(f"a floppy disk has {sizes} bytes, not {medium.blocks * medium.block_size:,}")
    return medium


def _cheat(medium: Medium, values: Values) -> Medium:
    """Return a medium that announces more than it has, unless the options say what it lies about."""
    if "fake" in values:
        return medium
    return Fake(medium, WRAPAROUND, medium.blocks, FAKE_TIMES * medium.blocks)


def _counterfeit(unit: Unit, values: Values) -> None:
    unit.vendor, unit.product, unit.revision = "General", "UDisk", "5.00"


def _used_stick(block_size: int) -> Medium:
    """Return a formatted medium with something like photos on it."""
    medium, noise = Formatted(block_size), random.Random(5)
    for lba in PHOTOS:
        at = lba * 512
        medium.data[at : at + 512] = noise.randbytes(512)
    return medium


PROFILES: Final[Mapping[str, Profile]] = {
    "flash": Profile("a USB stick"),
    "sat-ssd": Profile(
        "a SATA SSD behind a bridge, thin", _solid, is_removable=False, bridges=tuple(bridges.ATA), is_thin=True
    ),
    "sat-hdd": Profile("a SATA hard disk behind a bridge", _hard_disk, is_removable=False, bridges=tuple(bridges.ATA)),
    "smr": Profile(
        "a shingled hard disk with host-aware zones",
        _shingled,
        lambda medium, values: zoned.Zoned(medium),
        is_removable=False,
        bridges=("sat",),
    ),
    "nvme-bridge": Profile("an NVMe SSD behind a bridge", _nvme, is_removable=False, bridges=tuple(bridges.NVME)),
    "card-reader": Profile(
        "a card reader, with a card in the first of its slots", _card_reader, empty_slots=CARD_SLOTS - 1
    ),
    "cd-rw": Profile(
        "a CD-RW drive, with a disc that is full and can be blanked",
        _writer,
        lambda medium, values: burning.Disc(medium),
        lambda block_size: Memory(bytearray(CD_BLOCKS * block_size), block_size),
        CD_BLOCK,
        CD_ROM,
    ),
    "floppy": Profile(
        "a floppy drive",
        _floppy,
        _only_floppies,
        lambda block_size: Memory(bytearray(2880 * block_size), block_size),
        subclass=UFI,
    ),
    "counterfeit": Profile(
        "a stick that announces four times what it has, and begins again at its end",
        _counterfeit,
        _cheat,
        _used_stick,
        ids={"vid": 0xABCD, "pid": 0x1234, "manufacturer": "General", "product": "UDisk"},
    ),
}
