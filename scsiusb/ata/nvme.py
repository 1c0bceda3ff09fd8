"""What an NVMe disk says of itself and of its health: Identify Controller, SMART / Health Information (NVMe 1.4)."""

from __future__ import annotations

import struct
from typing import Final, Protocol

from scsiusb.base.dataclass import dataclass
from scsiusb.errors import CheckCondition, MalformedReply
from scsiusb.scsi.reply import text

IDENTIFY_LENGTH: Final = 4096  # bytes
HEALTH_LENGTH: Final = 512
HEALTH_LOG: Final = 0x02
KELVIN: Final = 273
UNIT: Final = 512_000  # bytes that a data unit counts (5.14.1.2)
NO_VALUE: Final = 0xFFFF
WARNINGS: Final = (  # bits of CRITICAL WARNING
    "the spare blocks are used up",
    "the temperature is out of its range",
    "the reliability is degraded: copy what is on it now",
    "the medium can only be read",
    "the backup of the volatile memory has failed",
    "the persistent memory can only be read",
)


class NvmeChannel(Protocol):
    """How admin commands reach an NVMe disk."""

    @property
    def via(self) -> str:
        """The name of the bridge's dialect."""

    def identify(self) -> bytes:
        """Return the 4096 bytes of Identify Controller. Raises CheckCondition, MalformedReply, TransportError."""

    def log(self, page: int, length: int) -> bytes:
        """Return `length` bytes of a log page. Raises as `identify`."""


@dataclass(frozen=True)
class NvmeIdentity:
    """Who an NVMe disk is (NVMe 1.4 figure 247)."""

    model: str
    serial: str
    firmware: str
    size: int | None
    """Bytes of all its namespaces; None if it does not say."""
    namespaces: int
    """At most."""
    version: str
    """Of the specification, such as "1.3.0"; "" if it does not say."""

    @classmethod
    def parse(cls, data: bytes) -> NvmeIdentity:
        """Parse 4096 bytes. Raises MalformedReply for another length, and if no model is in them."""
        if len(data) != IDENTIFY_LENGTH:
            raise MalformedReply(f"Identify Controller: received {len(data)} of {IDENTIFY_LENGTH} bytes")
        model = text(data[24:64])
        if not model or data.count(data[:1]) == len(data):
            raise MalformedReply("Identify Controller: the bytes received name no model")
        tertiary, minor, major = struct.unpack_from("<BBH", data, 80)
        return cls(
            model=model,
            serial=text(data[4:24]),
            firmware=text(data[64:72]),
            size=int.from_bytes(data[280:296], "little") or None,
            namespaces=int.from_bytes(data[516:520], "little"),
            version=f"{major}.{minor}.{tertiary}" if major else "",
        )


@dataclass(frozen=True)
class NvmeHealth:
    """What an NVMe disk counts and measures (NVMe 1.4 figure 196). Temperatures in degrees Celsius."""

    critical_warning: int
    temperature: int | None
    available_spare: int
    """Percent of the spare blocks that are left."""
    spare_threshold: int
    """Percent below which the disk warns."""
    percentage_used: int
    """Of the writes that the disk was made for; may be more than 100."""
    bytes_read: int
    bytes_written: int
    host_reads: int
    host_writes: int
    busy_minutes: int
    power_cycles: int
    power_on_hours: int
    unsafe_shutdowns: int
    media_errors: int
    """How often data could not be corrected."""
    error_log_entries: int
    warning_minutes: int
    """With a temperature above the disk's warning level."""
    critical_minutes: int
    """With a temperature above the disk's critical level."""
    sensors: tuple[int, ...]

    @classmethod
    def parse(cls, data: bytes) -> NvmeHealth:
        """Parse 512 bytes. Raises MalformedReply for another length."""
        if len(data) != HEALTH_LENGTH:
            raise MalformedReply(f"health log: received {len(data)} of {HEALTH_LENGTH} bytes")

        def count(at: int) -> int:
            return int.from_bytes(data[at : at + 16], "little")

        warning_minutes, critical_minutes = struct.unpack_from("<II", data, 192)
        sensors = [_celsius(value) for value in struct.unpack_from("<8H", data, 200)]
        return cls(
            critical_warning=data[0],
            temperature=_celsius(int.from_bytes(data[1:3], "little")),
            available_spare=data[3],
            spare_threshold=data[4],
            percentage_used=data[5],
            bytes_read=count(32) * UNIT,
            bytes_written=count(48) * UNIT,
            host_reads=count(64),
            host_writes=count(80),
            busy_minutes=count(96),
            power_cycles=count(112),
            power_on_hours=count(128),
            unsafe_shutdowns=count(144),
            media_errors=count(160),
            error_log_entries=count(176),
            warning_minutes=warning_minutes,
            critical_minutes=critical_minutes,
            sensors=tuple(value for value in sensors if value is not None),
        )

    @property
    def warnings(self) -> tuple[tuple[int, str], ...]:
        """What the disk warns of: bits of the critical warning, in words."""
        return tuple(
            (bit, WARNINGS[bit] if bit < len(WARNINGS) else f"bit {bit} of its critical warning is set")
            for bit in range(8)
            if self.critical_warning >> bit & 1
        )


@dataclass(frozen=True)
class NvmeSmart:
    """What an NVMe disk says of itself and of its health."""

    via: str
    """The dialect of the bridge: "sntasmedia", "sntjmicron" or "sntrealtek"."""
    identity: NvmeIdentity
    health: NvmeHealth | None
    """None if it cannot be read."""
    problems: tuple[str, ...]
    """What could not be read, in words."""

    @property
    def passed(self) -> bool | None:
        """False if the disk warns; None if its health cannot be read."""
        return None if self.health is None else self.health.critical_warning == 0

    @property
    def temperature(self) -> int | None:
        """Degrees Celsius; None if it is not known."""
        return None if self.health is None else self.health.temperature


def read_nvme(channel: NvmeChannel) -> NvmeSmart:
    """Ask an NVMe disk for its identity and its health. Raises as `NvmeChannel.identify`."""
    identity = NvmeIdentity.parse(channel.identify())
    try:
        health = NvmeHealth.parse(channel.log(HEALTH_LOG, HEALTH_LENGTH))
    except (CheckCondition, MalformedReply) as error:
        return NvmeSmart(channel.via, identity, None, (f"the health cannot be read: {error.what}",))
    return NvmeSmart(channel.via, identity, health, ())


def _celsius(kelvin: int) -> int | None:
    return kelvin - KELVIN if kelvin not in (0, NO_VALUE) else None
