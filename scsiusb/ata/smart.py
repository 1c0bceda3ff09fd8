"""SMART of an ATA disk: whether it predicts its failure, and its attributes (ATA-8 ACS 7.52)."""

from __future__ import annotations

import struct
from typing import Final, Protocol

from scsiusb.ata.identify import IDENTIFY_DEVICE, IdentifyData
from scsiusb.ata.passthrough import Registers
from scsiusb.base.dataclass import dataclass
from scsiusb.errors import CheckCondition, MalformedReply

SMART: Final = 0xB0
READ_DATA, READ_THRESHOLDS, RETURN_STATUS = 0xD0, 0xD1, 0xDA  # features
KEY: Final = 0xC24F00  # in the LBA of each SMART command
FAILING: Final = 0x2CF400  # what RETURN STATUS gives for a disk that is about to fail
ATTRIBUTES: Final = 30
ATTRIBUTE: Final = struct.Struct("<BHBB6sx")
THRESHOLD: Final = struct.Struct("<BB10x")
LENGTH: Final = 512
PRE_FAILURE: Final = 0x0001
TEMPERATURES: Final = (194, 190)
LIFE_LEFT: Final = ("ssd_life_left", "percent_lifetime_left", "media_wearout", "wear_leveling_count")
"""Attributes of SSDs whose values say how much of their life is left."""

NAMES: Final = {  # the meanings that most makers agree on
    1: "raw_read_error_rate",
    2: "throughput_performance",
    3: "spin_up_time",
    4: "start_stop_count",
    5: "reallocated_sectors",
    7: "seek_error_rate",
    8: "seek_time_performance",
    9: "power_on_hours",
    10: "spin_retry_count",
    12: "power_cycle_count",
    160: "uncorrectable_errors_online",
    161: "spare_blocks",
    164: "total_erase_count",
    165: "maximum_erase_count",
    166: "minimum_erase_count",
    167: "average_erase_count",
    168: "sata_phy_errors",
    169: "percent_lifetime_left",
    170: "available_reserved_space",
    171: "program_failures",
    172: "erase_failures",
    173: "wear_leveling_count",
    174: "unexpected_power_losses",
    177: "wear_leveling_count",
    179: "used_reserved_blocks",
    180: "unused_reserved_blocks",
    181: "program_failures_total",
    182: "erase_failures_total",
    183: "interface_downshifts",
    184: "end_to_end_errors",
    187: "reported_uncorrectable",
    188: "command_timeouts",
    190: "airflow_temperature",
    191: "shock_events",
    192: "power_off_retracts",
    193: "load_cycle_count",
    194: "temperature",
    195: "ecc_recovered",
    196: "reallocation_events",
    197: "pending_sectors",
    198: "offline_uncorrectable",
    199: "interface_crc_errors",
    202: "percent_lifetime_used",
    231: "ssd_life_left",
    232: "available_reserved_space",
    233: "media_wearout",
    241: "total_written",
    242: "total_read",
}


class AtaChannel(Protocol):
    """How ATA commands reach a disk."""

    @property
    def via(self) -> str:
        """The name of the bridge's dialect; "" if it is not known yet."""

    def read(self, command: int, *, features: int = 0, count: int = 1, lba: int = 0) -> bytes:
        """Return `count` sectors that a command with data-in gives. Raises CheckCondition, TransportError."""

    def registers(self, command: int, *, features: int = 0, lba: int = 0) -> Registers | None:
        """Send a command without data; return the registers after it, None if they are not known."""


@dataclass(frozen=True)
class Attribute:
    """One SMART attribute. Normalized values fall from 100 to 253 on; a threshold of 0 is never reached."""

    id: int
    name: str
    """What most makers mean by it, or "attribute N"."""
    value: int
    worst: int
    threshold: int | None
    """None if the device has not told."""
    raw: int
    """The number as the maker counts it, 48 bits."""
    pre_failure: bool
    """Whether falling below the threshold predicts a failure; else it shows age."""

    @property
    def has_failed(self) -> bool:
        """Whether the value is at the threshold, or below."""
        return bool(self.threshold) and self.threshold is not None and 0 < self.value <= self.threshold


@dataclass(frozen=True)
class Smart:
    """What an ATA disk says of its health."""

    via: str
    """How the commands went: "sat", "sat,12", or the bridge's own dialect."""
    identity: IdentifyData
    passed: bool | None
    """False if the disk predicts its failure; None if it does not say."""
    attributes: tuple[Attribute, ...]
    problems: tuple[str, ...]
    """What could not be read, or does not fit together, in words."""
    percent_used: int | None = None
    """Of the writes that it was made for, by its device statistics; asked for where no attribute says it of an SSD."""

    @property
    def temperature(self) -> int | None:
        """Degrees Celsius; None if it is not known."""
        for number in TEMPERATURES:
            for each in self.attributes:
                if each.id == number and 0 < each.raw & 0xFF < 128:
                    return each.raw & 0xFF
        return None

    def raw(self, name: str) -> int | None:
        """Return the raw number of the attribute of that name; None if there is none."""
        return next((each.raw for each in self.attributes if each.name == name), None)


def read_ata(ata: AtaChannel) -> Smart:
    """Ask an ATA disk for its identity and its SMART data.

    Raises UnsupportedOpcode or IllegalRequest where the bridge does not know the dialect, MalformedReply for an
    identification that is none, and as `LogicalUnit.execute`.
    """
    problems = list[str]()
    identity = IdentifyData.parse(ata.read(IDENTIFY_DEVICE))
    if identity.checksum_fits is False:
        problems.append("the checksum of the identification is wrong")
    attributes: tuple[Attribute, ...] = ()
    passed: bool | None = None
    if identity.has_smart:
        attributes = _attributes(ata, problems)
        passed = _passed(ata, problems)
    return Smart(ata.via, identity, passed, attributes, tuple(problems))


def parse_attributes(data: bytes, thresholds: bytes | None) -> tuple[Attribute, ...]:
    """Return the attributes of READ DATA, with those of READ THRESHOLDS. Raises MalformedReply for another length."""
    if len(data) != LENGTH or (thresholds is not None and len(thresholds) != LENGTH):
        raise MalformedReply(f"SMART READ DATA: received {len(data)} bytes of {LENGTH}")
    limits = {} if thresholds is None else _thresholds(thresholds)
    found = []
    for at in range(ATTRIBUTES):
        number, flags, value, worst, raw = ATTRIBUTE.unpack_from(data, 2 + 12 * at)
        if number:
            name = NAMES.get(number, f"attribute {number}")
            count = int.from_bytes(raw, "little")
            found.append(Attribute(number, name, value, worst, limits.get(number), count, bool(flags & PRE_FAILURE)))
    return tuple(found)


def _thresholds(data: bytes) -> dict[int, int]:
    rows = (THRESHOLD.unpack_from(data, 2 + 12 * at) for at in range(ATTRIBUTES))
    return {number: limit for number, limit in rows if number}


def _attributes(ata: AtaChannel, problems: list[str]) -> tuple[Attribute, ...]:
    try:
        data = ata.read(SMART, features=READ_DATA, lba=KEY)
    except CheckCondition as error:
        problems.append(f"the attributes cannot be read: {error.sense}")
        return ()
    if sum(data) & 0xFF:
        problems.append("the checksum of the attributes is wrong")
    try:
        thresholds = ata.read(SMART, features=READ_THRESHOLDS, lba=KEY)
    except CheckCondition as error:
        problems.append(f"the thresholds cannot be read: {error.sense}")
        return parse_attributes(data, None)
    return parse_attributes(data, thresholds)


def _passed(ata: AtaChannel, problems: list[str]) -> bool | None:
    """Return what RETURN STATUS says; by the thresholds, where the bridge does not return registers."""
    try:
        found = ata.registers(SMART, features=RETURN_STATUS, lba=KEY)
    except CheckCondition as error:
        problems.append(f"the status cannot be read: {error.sense}")
        return None
    if found is None or found.lba & 0xFFFF00 not in (KEY & 0xFFFF00, FAILING & 0xFFFF00):
        problems.append("the bridge does not return the status")
        return None
    return found.lba & 0xFFFF00 == KEY & 0xFFFF00
