"""Fields of vital product data pages whose layout is fixed (SPC-4 7.8, SBC-3 6.5); offsets are from the first byte."""

from __future__ import annotations

from typing import Final, NamedTuple

from scsiusb.scsi.pages.fields import Field, flags, number, values_of
from scsiusb.scsi.reply import text


class Entries(NamedTuple):
    """A list at the end of a page. Offsets are from the first byte of an entry."""

    at: int
    """The first byte of the first entry."""
    header: int
    """Bytes of an entry before its first part of variable length."""
    fields: tuple[Field, ...]
    parts: tuple[tuple[str, bool, int], ...] = ()
    """Parts of variable length: the name, whether it is ASCII, and the bytes between it and the part before. The two
    bytes before each part are its length."""

    def parse(self, page: bytes) -> tuple[tuple[dict[str, int | str], ...], tuple[str, ...]]:
        """Return the values of each entry, also of one that the page ends in, and what is wrong."""
        entries: list[dict[str, int | str]] = []
        problems: list[str] = []
        at = self.at
        while at < len(page):
            found, size = self._entry(page[at:])
            here = page[at : at + size]
            if len(here) < size:
                problems.append(
                    f"entry {len(entries)} is cut: it ends after {len(here)} bytes: {here.hex(' ')}, of {size}"
                )
            entries.append(found)
            at += size
        return tuple(entries), tuple(problems)

    def _entry(self, data: bytes) -> tuple[dict[str, int | str], int]:
        """Return the values of the entry that the data begin with, and its size by its own length fields."""
        found: dict[str, int | str] = {**values_of(self.fields, data)}
        end = self.header
        for name, is_text, gap in self.parts:
            end += gap
            length = int.from_bytes(data[end - 2 : end], "big") if len(data) >= end else 0
            part, end = data[end : end + length], end + length
            if part:
                found[name.lower()] = text(part) if is_text else part.hex()
        return found, end


class VpdLayout(NamedTuple):
    """A page whose fields are known."""

    page: int
    name: str
    fields: tuple[Field, ...]
    texts: tuple[tuple[str, int, int], ...] = ()
    """ASCII fields: name, first byte, length."""
    entries: Entries | None = None


LAYOUTS: Final = (
    VpdLayout(
        0x85,
        "management network addresses",
        (),
        entries=Entries(
            4,
            4,
            (
                Field("ASSOCIATION", 0, 6, 2, "0: the unit, 1: the port, 2: the device"),
                Field("SERVICE_TYPE", 0, 4, 5, "1: storage configuration, 2: diagnostics, 3: status, 4: logging"),
            ),
            (("ADDRESS", True, 0),),
        ),
    ),
    VpdLayout(
        0x86,
        "extended INQUIRY data",
        (
            Field("ACTIVATE_MICROCODE", 4, 7, 2, "when downloaded microcode is used"),
            Field("SPT", 4, 5, 3, "supported protection types"),
            *flags(
                4, "- - - - - GRD_CHK APP_CHK REF_CHK", "checks the guard", "checks the tag", "checks the reference"
            ),
            *flags(
                5,
                "- - UASK_SUP GROUP_SUP PRIOR_SUP HEADSUP ORDSUP SIMPSUP",
                "unit attentions have sense-key specific data",
                "grouping",
                "priorities",
                "head of queue",
                "ordered",
                "simple",
            ),
            *flags(
                6,
                "- - - - WU_SUP CRD_SUP NV_SUP V_SUP",
                "write uncorrectable",
                "correction disabled",
                "cache that keeps its content",
                "volatile cache",
            ),
            *flags(7, "- - - P_I_I_SUP - - - LUICLR", "protection information intervals", "clears unit attentions"),
            number("EXTENDED_SELF_TEST_MINUTES", 10, 2, "minutes of an extended self-test"),
            number("MAXIMUM_SENSE_LENGTH", 13, 1, "most bytes of sense data"),
        ),
    ),
    VpdLayout(
        0x87,
        "mode page policy",
        (),
        entries=Entries(
            4,
            4,
            (
                Field("POLICY_PAGE_CODE", 0, 5, 6, "of the mode page; 3F: of all others"),
                number("POLICY_SUBPAGE_CODE", 1, 1, "FF: of all others"),
                Field("MLUS", 2, 7, 1, "shared by several units"),
                Field(
                    "POLICY", 2, 1, 2, "0: shared, 1: for each target port, 2: for each initiator, 3: for each nexus"
                ),
            ),
        ),
    ),
    VpdLayout(
        0x88,
        "SCSI ports",
        (),
        entries=Entries(
            4,
            8,
            (number("RELATIVE_PORT", 2, 2, "number of the port"),),
            (("INITIATOR_PORT", False, 0), ("TARGET_PORT_DESIGNATORS", False, 4)),
        ),
    ),
    VpdLayout(
        0x89,
        "ATA information",
        (number("COMMAND_CODE", 56, 1, "EC: IDENTIFY DEVICE, A1: IDENTIFY PACKET DEVICE"),),
        (("SAT_VENDOR", 8, 8), ("SAT_PRODUCT", 16, 16), ("SAT_REVISION", 32, 4)),
    ),
    VpdLayout(
        0x8A,
        "power condition",
        (
            *flags(4, "- - - - - - STANDBY_Y STANDBY_Z", "standby_y", "standby_z"),
            *flags(5, "- - - - - IDLE_C IDLE_B IDLE_A", "idle_c", "idle_b", "idle_a"),
            number("STOPPED_RECOVERY", 6, 2, "milliseconds"),
            number("STANDBY_Z_RECOVERY", 8, 2, "milliseconds"),
            number("STANDBY_Y_RECOVERY", 10, 2, "milliseconds"),
            number("IDLE_A_RECOVERY", 12, 2, "milliseconds"),
            number("IDLE_B_RECOVERY", 14, 2, "milliseconds"),
            number("IDLE_C_RECOVERY", 16, 2, "milliseconds"),
        ),
    ),
    VpdLayout(
        0x8D,
        "power consumption",
        (),
        entries=Entries(
            4,
            4,
            (
                number("POWER_CONSUMPTION_ID", 0, 1, "for the power consumption mode page"),
                Field("UNITS", 1, 2, 3, "0: GW, 1: MW, 2: kW, 3: W, 4: mW, 5: uW"),
                number("VALUE", 2, 2, "at most so many of the units"),
            ),
        ),
    ),
    VpdLayout(
        0x8F,
        "third-party copy",
        (),
        entries=Entries(
            4,
            4,
            (
                number(
                    "DESCRIPTOR_TYPE",
                    0,
                    2,
                    "0: limits, 1: commands, 4: parameters, 8: descriptors, 106h: token features, 108h: token types",
                ),
            ),
            (("DATA", False, 0),),
        ),
    ),
    VpdLayout(
        0xB0,
        "block limits",
        (
            Field("WSNZ", 4, 0, 1, "WRITE SAME of 0 blocks, for all up to the last, is refused"),
            number("MAXIMUM_COMPARE_AND_WRITE_LENGTH", 5, 1, "blocks"),
            number("OPTIMAL_TRANSFER_LENGTH_GRANULARITY", 6, 2, "blocks"),
            number("MAXIMUM_TRANSFER_LENGTH", 8, 4, "blocks"),
            number("OPTIMAL_TRANSFER_LENGTH", 12, 4, "blocks"),
            number("MAXIMUM_PREFETCH_LENGTH", 16, 4, "blocks"),
            number("MAXIMUM_UNMAP_LBA_COUNT", 20, 4, "blocks; FFFFFFFFh: no limit"),
            number("MAXIMUM_UNMAP_BLOCK_DESCRIPTOR_COUNT", 24, 4, "ranges; FFFFFFFFh: no limit"),
            number("OPTIMAL_UNMAP_GRANULARITY", 28, 4, "blocks"),
            Field("UGAVALID", 32, 7, 1, "the alignment is valid"),
            Field("UNMAP_GRANULARITY_ALIGNMENT", 32, 6, 31, "first block of a unit that can be unmapped"),
            number("MAXIMUM_WRITE_SAME_LENGTH", 36, 8, "blocks"),
            number("MAXIMUM_ATOMIC_TRANSFER_LENGTH", 44, 4, "blocks"),
            number("ATOMIC_ALIGNMENT", 48, 4, "blocks"),
            number("ATOMIC_TRANSFER_LENGTH_GRANULARITY", 52, 4, "blocks"),
            number("MAXIMUM_ATOMIC_TRANSFER_LENGTH_WITH_ATOMIC_BOUNDARY", 56, 4, "blocks"),
            number("MAXIMUM_ATOMIC_BOUNDARY_SIZE", 60, 4, "blocks; 0: only the whole is atomic"),
        ),
    ),
    VpdLayout(
        0xB1,
        "block device characteristics",
        (
            number("ROTATION_RATE", 4, 2, "rotations a minute; 1: does not rotate, 0: not reported"),
            number(
                "PRODUCT_TYPE",
                6,
                1,
                "1: CFast, 2: CompactFlash, 3: MemoryStick, 4: MultiMediaCard, 5: SD, 6: XQD, 7: UFS",
            ),
            Field("WABEREQ", 7, 7, 2, "reading what was never written"),
            Field("WACEREQ", 7, 5, 2, "reading what was unmapped"),
            Field("FORM_FACTOR", 7, 3, 4, "1: 5.25, 2: 3.5, 3: 2.5, 4: 1.8 inch, 5: smaller; 0: not reported"),
            Field("ZONED", 8, 5, 2, "1: host-aware zones, 2: zones that the device manages"),
            *flags(
                8,
                "- - - - RBWZ BOCS FUAB VBULS",
                "REASSIGN BLOCKS writes zeros to what cannot be read",
                "BACKGROUND CONTROL is supported",
                "FUA writes only what has changed",
                "VERIFY may name unmapped blocks",
            ),
            number("DEPOPULATION_TIME", 12, 4, "seconds to depopulate an element; 0: not reported"),
        ),
    ),
    VpdLayout(
        0xB2,
        "logical block provisioning",
        (
            number("THRESHOLD_EXPONENT", 4, 1, "blocks of a threshold set, as a power of two; 0: no thresholds"),
            *flags(5, "LBPU LBPWS LBPWS10", "UNMAP", "WRITE SAME(16) unmaps", "WRITE SAME(10) unmaps"),
            Field("LBPRZ", 5, 4, 3, "unmapped blocks read as 1: zeros, 2: the provisioning pattern; 0: not reported"),
            Field("ANC_SUP", 5, 1, 1, "blocks can be anchored"),
            Field("DP", 5, 0, 1, "a provisioning group follows"),
            Field("MINIMUM_PERCENTAGE", 6, 7, 5, "of what is resource provisioned"),
            Field("PROVISIONING_TYPE", 6, 2, 3, "1: resource, 2: thin; 0: not reported"),
            number("THRESHOLD_PERCENTAGE", 7, 1, "percent"),
        ),
    ),
    VpdLayout(
        0xB3,
        "referrals",
        (
            number("SEGMENT_SIZE", 8, 4, "blocks of a segment"),
            number("SEGMENT_MULTIPLIER", 12, 4, "segments"),
        ),
    ),
    VpdLayout(
        0xB5,
        "block device characteristics extension",
        (
            number("UTILIZATION_TYPE", 5, 1, "1: writes and reads together, 2: writes, 3: each of them"),
            number("UTILIZATION_UNITS", 6, 1, "2: MB, 3: GB, 4: TB, 5: PB"),
            number("UTILIZATION_INTERVAL", 7, 1, "0Ah: a day, 0Eh: a year"),
            number("UTILIZATION_B", 8, 4, "that the device was made for, per interval"),
            number("UTILIZATION_A", 12, 4, "that the device was made for, in the whole"),
        ),
    ),
    VpdLayout(
        0xB6,
        "zoned block device characteristics",
        (
            *flags(4, "- - - - - - - URSWRZ", "reads are not restricted to written blocks of a zone"),
            number("OPTIMAL_OPEN_ZONES", 8, 4, "sequential write preferred zones to have open"),
            number("OPTIMAL_NON_SEQUENTIAL_ZONES", 12, 4, "such zones to write in any order"),
            number("MAXIMUM_OPEN_ZONES", 16, 4, "sequential write required zones that can be open"),
        ),
    ),
    VpdLayout(
        0xB7,
        "block limits extension",
        (
            number("MAXIMUM_STREAMS", 6, 2, "streams"),
            number("OPTIMAL_STREAM_WRITE_SIZE", 8, 2, "blocks"),
            number("STREAM_GRANULARITY_SIZE", 10, 4, "write sizes"),
        ),
    ),
    VpdLayout(
        0xB8,
        "format presets",
        (),
        entries=Entries(
            4,
            64,
            (
                number("PRESET_IDENTIFIER", 0, 4, "for FORMAT WITH PRESET"),
                number("SCHEMA_TYPE", 4, 1, "2: host-aware zones, 3: host-managed, 4: domains and realms; 1: none"),
                Field("LB_PER_PB_EXPONENT", 7, 3, 4, "logical blocks of a physical block, as a power of two"),
                number("BLOCK_LENGTH", 8, 4, "bytes of a logical block"),
                number("LAST_LBA", 16, 8, "after the format"),
                Field("FMTPINFO", 38, 7, 2, "protection information"),
                Field("PROTECTION_FIELD_USAGE", 38, 2, 3, "its usage"),
            ),
        ),
    ),
    VpdLayout(
        0xB9,
        "concurrent positioning ranges",
        (),
        entries=Entries(
            64,
            32,
            (
                number("RANGE_NUMBER", 0, 1, "of the range"),
                number("STORAGE_ELEMENTS", 1, 1, "that have it"),
                number("LOWEST_LBA", 8, 8, "of the range"),
                number("BLOCKS", 16, 8, "of the range"),
            ),
        ),
    ),
)


def find_layout(page: int) -> VpdLayout | None:
    """Return the layout of a page, None if its fields are not known."""
    return next((each for each in LAYOUTS if each.page == page), None)
