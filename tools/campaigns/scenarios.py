"""All scenarios of the fault campaigns, as data."""

from __future__ import annotations

from typing import Final, NamedTuple

ANY: Final = "{opcode}"  # replaced by the opcode of the operation


class Scenario(NamedTuple):
    """Faults, each as `Fault.parse` takes them. Standing faults are there before the device is opened."""

    name: str
    faults: tuple[str, ...]
    is_standing: bool = False


def _once(name: str, *faults: str) -> Scenario:
    return Scenario(name, tuple(f"{fault},opcode={ANY}" for fault in faults))


def _always(name: str, *faults: str) -> Scenario:
    return Scenario(f"{name}, always", tuple(f"{fault},opcode={ANY},times=always" for fault in faults))


def _standing(name: str, *faults: str) -> Scenario:
    return Scenario(name, faults, is_standing=True)


PHASES: Final = (
    _once("STALL of the CBW", "stall@cbw"),
    _always("STALL of the CBW", "stall@cbw"),
    _once("STALL of the data", "stall@data"),
    _once("STALL of the data after 512 bytes", "stall=512@data"),
    _always("STALL of the data", "stall@data"),
    _once("STALL of the CSW", "stall@csw"),
    _always("STALL of the CSW", "stall@csw"),
    _once("NAK of the CBW", "nak@cbw"),
    _always("NAK of the CBW", "nak@cbw"),
    _once("NAK of the data", "nak@data"),
    _always("NAK of the data", "nak@data"),
    _once("NAK of the CSW", "nak@csw"),
    _always("NAK of the CSW", "nak@csw"),
    _once("no answer until a port reset, CBW", "hang@cbw"),
    _once("no answer until a port reset, data", "hang@data"),
    _once("no answer until a port reset, CSW", "hang@csw"),
    _once("CBW taken late", "delay=0.5@cbw"),
    _once("data late", "delay=0.5@data"),
    _once("CSW late", "delay=0.5@csw"),
    _once("data short", "short=20@data"),
    _always("data short", "short=20@data"),
    _once("CSW short", "short=12@csw"),
    _always("CSW short", "short=12@csw"),
    _once("data too long", "long=512@data"),
    _always("data too long", "long=512@data"),
    _once("CSW too long", "long=512@csw"),
    _once("no data", "empty@data"),
    _once("empty packet before the CSW", "empty@csw"),
    _always("empty packet before the CSW", "empty@csw"),
    _once("wrong signature", "signature@csw"),
    _always("wrong signature", "signature@csw"),
    _once("wrong tag", "tag@csw"),
    _always("wrong tag", "tag@csw"),
    _once("residue of 7", "residue=7@csw"),
    _once("residue beyond the data", "residue=4000000000@csw"),
    _once("bogus residue", "bogus-residue@csw"),
    _always("bogus residue", "bogus-residue@csw"),
    _once("failed, no sense", "no-sense@csw"),
    _always("failed, no sense", "no-sense@csw"),
    _once("phase error", "phase-error@csw"),
    _always("phase error", "phase-error@csw"),
    _once("status 3", "status=3@csw"),
    _once("status 255", "status=255@csw"),
    _once("CSW in place of the data", "csw-as-data@data"),
    _always("CSW in place of the data", "csw-as-data@data"),
    _once("512 bytes after the CSW", "extra=512@csw"),
    _always("512 bytes after the CSW", "extra=512@csw"),
    _once("gone in the CBW", "disconnect=0@cbw"),
    _once("gone in the data", "disconnect=512@data"),
    _once("gone in the CSW", "disconnect=5@csw"),
    _once("away for 0.2 s in the data", "away=0.2@data"),
    _once("hurried, phase error", "rushed=100000000"),
)
SENSES: Final = (
    _once("unit attention, reset", "sense=6/29/00"),
    _once("becoming ready", "sense=2/04/01"),
    _once("medium error", "sense=3/11/00"),
    _always("medium error", "sense=3/11/00"),
    _once("hardware error", "sense=4/44/00"),
    _always("hardware error", "sense=4/44/00"),
    _once("aborted command", "sense=B/47/00"),
    _once("write protected", "sense=7/27/00"),
)
CASES: Final = tuple(_once(f"case {number} of the thirteen", f"case={number}") for number in range(1, 14))
RECOVERY: Final = (
    Scenario("CBW STALL, class reset stalls", (f"stall@cbw,opcode={ANY}", "reset-stalls")),
    Scenario("CBW NAK, class reset stalls", (f"nak@cbw,opcode={ANY}", "reset-stalls")),
    Scenario("CSW NAK, class reset hangs", (f"nak@csw,opcode={ANY}", "reset-hangs")),
    Scenario("data NAK, class reset without effect", (f"nak@data,opcode={ANY}", "reset-ignored")),
    Scenario("CSW STALL, halt that stays once", (f"stall@csw,opcode={ANY}", "halt-stays=1")),
    Scenario("data STALL, halt that stays", (f"stall@data,opcode={ANY}", "halt-stays")),
)
STANDING: Final = (
    _standing("GET MAX LUN stalls", "max-lun-stalls"),
    _standing("GET MAX LUN answers 3", "max-lun=3"),
    _standing("GET MAX LUN answers 200", "max-lun=200"),
    _standing("GET MAX LUN hangs", "max-lun-hangs"),
    *(_standing(f"INQUIRY data of {length} bytes", f"inquiry={length}") for length in (0, 4, 5, 35, 36, 96, 255)),
    _standing("INQUIRY garbage", "inquiry-garbage"),
    _standing("READ CAPACITY one too many", "capacity=+1"),
    _standing("READ CAPACITY one too few", "capacity=-1"),
    _standing("READ CAPACITY of no blocks", "blocks=0"),
    _standing("block size 0", "block-size=0"),
    _standing("block size 3", "block-size=3"),
    _standing("ten unit attentions", "attentions=10"),
    _standing("100 unit attentions", "attentions=100"),
    _standing("becoming ready, 3 times", "becoming-ready=3"),
    Scenario("medium pulled", (f"eject,opcode={ANY}",)),
    _standing("write protected", "write-protected"),
)
DESCRIPTORS: Final = (
    "truncated",
    "long-total-length",
    "zero-length-descriptor",
    "no-endpoints",
    "endpoint-zero-packet",
    "duplicate-endpoints",
    "wrong-types",
    "interface-count",
    "huge-string",
    "odd-string",
    "garbage",
)
SCENARIOS: Final = (
    Scenario("no fault", ()),
    *PHASES,
    *SENSES,
    *CASES,
    *RECOVERY,
    *STANDING,
    *(_standing(f"descriptors: {name}", f"descriptor={name}") for name in DESCRIPTORS),
)
