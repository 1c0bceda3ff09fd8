"""SECURITY PROTOCOL IN and OUT (SPC-4), and TCG's discovery of a self-encrypting device."""

from __future__ import annotations

from typing import Final

from construct import BitStruct, Const, Flag, Int8ub, Int16ub, Int32ub, Padding, Struct

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi.command import SECOND, U8, U16, U32, Command, opcode
from scsiusb.scsi.reply import listed, parse
from scsiusb.transport.base import Direction

PROTOCOLS: Final = {  # SPC-4 table 273
    0x00: "security protocol information",
    **dict.fromkeys(range(0x01, 0x07), "TCG"),
    0x20: "tape data encryption",
    0x40: "SA creation capabilities",
    0x41: "IKEv2-SCSI",
    0xEC: "JEDEC UFS",
    0xED: "SD Association TrustedFlash",
    0xEE: "IEEE 1667",
    0xEF: "ATA device server password",
}
INFORMATION: Final = 0x00
TCG: Final = 0x01
IEEE_1667: Final = 0xEE
LEVEL_0: Final = 0x0001  # ComID of the discovery (TCG Storage Architecture Core 3.3.6)
LIST_LENGTH: Final = 512
LEVEL_0_LENGTH: Final = 2048
LEVEL_0_HEADER: Final = 48
TAIL: Final = (Padding(16), "length" / U32, Padding(16))

PROTOCOL_LIST: Final = Struct(Padding(6), "length" / Int16ub)
DISCOVERY: Final = Struct("length" / Int32ub, "major" / Int16ub, "minor" / Int16ub, Padding(40))
FEATURE: Final = Struct("code" / Int16ub, "version" / Int8ub, "length" / Int8ub)
LOCKING: Final = BitStruct(
    Padding(2),
    "shadow_done" / Flag,
    "shadow_enabled" / Flag,
    "encrypts" / Flag,
    "locked" / Flag,
    "enabled" / Flag,
    "supported" / Flag,
)
LOCKING_CODE: Final = 0x0002
FEATURES: Final = {  # TCG feature sets
    0x0001: "TPer",
    0x0002: "locking",
    0x0003: "geometry",
    0x0100: "Enterprise SSC",
    0x0200: "Opal SSC 1",
    0x0201: "single user mode",
    0x0202: "additional DataStore tables",
    0x0203: "Opal SSC 2",
    0x0301: "Opalite SSC",
    0x0302: "Pyrite SSC 1",
    0x0303: "Pyrite SSC 2",
    0x0304: "Ruby SSC",
    0x0402: "block SID authentication",
}


def protocol_text(protocol: int) -> str:
    """Return the name of a security protocol."""
    return PROTOCOLS.get(protocol, "vendor specific" if protocol >= 0xF0 else "reserved")


@dataclass(frozen=True)
class SecurityProtocolIn(Command[bytes]):
    """SECURITY PROTOCOL IN: bytes of a security protocol (SPC-4 6.40)."""

    NAME = "SECURITY PROTOCOL IN"
    CDB = BitStruct(
        opcode(0xA2),
        "protocol" / U8,
        "specific" / U16,
        "blocks_of_512" / Flag,
        Padding(15),
        "length" / U32,
        Padding(16),
    )
    direction = Direction.IN
    protocol: int = INFORMATION
    """SECURITY PROTOCOL, a key of `PROTOCOLS`."""
    specific: int = 0
    """SECURITY PROTOCOL SPECIFIC."""
    length: int = LIST_LENGTH
    """Allocation length in bytes."""
    blocks_of_512 = False  # INC_512: the allocation length would count blocks

    def reply(self, data: bytes) -> bytes:
        """Return the bytes received."""
        return data


@dataclass(frozen=True)
class SecurityProtocols(Command[tuple[int, ...]]):
    """SECURITY PROTOCOL IN, protocol 00h: the protocols that the unit supports (SPC-4 7.7.1.3)."""

    NAME = "SECURITY PROTOCOL IN"
    repeatable = True
    CDB = BitStruct(opcode(0xA2), Padding(40), "length" / U32, Padding(16))
    direction = Direction.IN
    length: int = LIST_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> tuple[int, ...]:
        """Return the protocols. Raises MalformedReply."""
        return tuple(listed(data, 8, parse(PROTOCOL_LIST, data, self.NAME).length)[0])


@dataclass(frozen=True)
class TcgFeature:
    """A feature of a self-encrypting device."""

    code: int
    """Feature code, a key of `FEATURES`."""
    version: int
    data: bytes
    """The descriptor after its header."""

    @property
    def name(self) -> str:
        """Name of the feature set."""
        return FEATURES.get(self.code, "vendor specific" if self.code >= 0xC000 else f"feature {self.code:04X}h")


@dataclass(frozen=True)
class TcgDiscovery:
    """Level 0 discovery of TCG: what kind of self-encrypting device it is, and whether it is locked."""

    revision: str
    """Of the data structure."""
    features: tuple[TcgFeature, ...]
    missing: int
    """Bytes that were announced and did not come."""

    @property
    def locked(self) -> bool | None:
        """The device is locked; None: not reported."""
        return self._locking("locked")

    @property
    def locking_enabled(self) -> bool | None:
        """Locking is enabled; None: not reported."""
        return self._locking("enabled")

    def _locking(self, name: str) -> bool | None:
        found = next((each.data for each in self.features if each.code == LOCKING_CODE and each.data), None)
        return None if found is None else bool(parsed(LOCKING, found)[name])


@dataclass(frozen=True)
class TcgLevel0Discovery(Command[TcgDiscovery]):
    """SECURITY PROTOCOL IN, protocol 01h, ComID 0001h: TCG level 0 discovery (TCG Core 3.3.6)."""

    NAME = "SECURITY PROTOCOL IN, LEVEL 0 DISCOVERY"
    repeatable = True
    CDB = BitStruct(opcode(0xA2), "protocol" / Const(TCG, U8), "specific" / Const(LEVEL_0, U16), *TAIL)
    direction = Direction.IN
    timeout = 10 * SECOND
    length: int = LEVEL_0_LENGTH
    """Allocation length in bytes."""

    def reply(self, data: bytes) -> TcgDiscovery:
        """Return the discovery. Raises MalformedReply."""
        head = parse(DISCOVERY, data, self.NAME)
        body, missing = listed(data, LEVEL_0_HEADER, max(head.length + 4 - LEVEL_0_HEADER, 0))
        features = []
        while len(body) >= FEATURE.sizeof():
            entry = parsed(FEATURE, body)
            end = FEATURE.sizeof() + entry.length
            features.append(TcgFeature(entry.code, entry.version >> 4, body[FEATURE.sizeof() : end]))
            body = body[end:]
        return TcgDiscovery(f"{head.major}.{head.minor}", tuple(features), missing)


@dataclass(frozen=True)
class SecurityProtocolOut(Command[None]):
    """SECURITY PROTOCOL OUT: send bytes of a security protocol (SPC-4 6.41)."""

    NAME = "SECURITY PROTOCOL OUT"
    CDB = BitStruct(opcode(0xB5), "protocol" / U8, "specific" / U16, Padding(16), "length" / U32, Padding(16))
    direction = Direction.OUT
    protocol: int
    """SECURITY PROTOCOL, a key of `PROTOCOLS`."""
    specific: int = 0
    """SECURITY PROTOCOL SPECIFIC."""
    payload: bytes = b""
    """Data to send."""

    @property
    def length(self) -> int:
        """Bytes of data-out."""
        return len(self.payload)
