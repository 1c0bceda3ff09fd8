"""Fields of vital product data pages whose layout is fixed (SPC-4 7.8, SBC-3 6.5); offsets are from the first byte."""

from __future__ import annotations

from typing import Final, NamedTuple

from scsiusb.scsi.pages.fields import Field, flags, number


class VpdLayout(NamedTuple):
    """A page whose fields are known."""

    page: int
    name: str
    fields: tuple[Field, ...]
    texts: tuple[tuple[str, int, int], ...] = ()
    """ASCII fields: name, first byte, length."""


LAYOUTS: Final = (
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
        0xB1,
        "block device characteristics",
        (
            number("ROTATION_RATE", 4, 2, "rotations a minute; 1: does not rotate, 0: not reported"),
            number("PRODUCT_TYPE", 6, 1, "2: CFast, 3: CompactFlash, 4: MemoryStick, 5: MultiMediaCard, 6: SD, 8: UFS"),
            Field("WABEREQ", 7, 7, 2, "reading what was never written"),
            Field("WACEREQ", 7, 5, 2, "reading what was unmapped"),
            Field("FORM_FACTOR", 7, 3, 4, "1: 5.25, 2: 3.5, 3: 2.5, 4: 1.8 inch, 5: smaller; 0: not reported"),
            Field("ZONED", 8, 5, 2, "1: host-aware zones, 2: zones that the device manages"),
            *flags(8, "- - - - - - FUAB VBULS", "FUA writes only what has changed", "VERIFY may name unmapped blocks"),
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
        0xB7,
        "block limits extension",
        (
            number("MAXIMUM_STREAMS", 6, 2, "streams"),
            number("OPTIMAL_STREAM_WRITE_SIZE", 8, 2, "blocks"),
            number("STREAM_GRANULARITY_SIZE", 10, 4, "write sizes"),
        ),
    ),
)


def find_layout(page: int) -> VpdLayout | None:
    """Return the layout of a page, None if its fields are not known."""
    return next((each for each in LAYOUTS if each.page == page), None)
