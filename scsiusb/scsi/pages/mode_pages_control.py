"""Fields of the subpages of the control mode page (SPC-4 7.5, SBC-4 6.5, SAT-3 10.1, ZBC 6.4)."""

from __future__ import annotations

from typing import Final

from scsiusb.scsi.pages.fields import Field, flags, number
from scsiusb.scsi.pages.mode_layout import PageLayout

CONTROL_PAGES: Final = (
    PageLayout(
        "control-extension",
        "coe",
        0x0A,
        1,
        (
            *flags(
                4,
                "- - - - DLC TCMOS SCSIP IALUAE",
                "reduce the speed to live longer",
                "timestamp may be set by other means",
                "a timestamp set by SCSI has precedence",
                "implicit changes of access states",
            ),
            Field("INIT_PR", 5, 3, 4, "initial priority of commands"),
            number("MSDL", 6, 1, "most bytes of sense data"),
            number("NSQCC", 7, 1, "commands that may come before one that was put off"),
            number("SQCO", 8, 1, "order of the commands that were put off"),
        ),
    ),
    PageLayout(
        "tags",
        "atag",
        0x0A,
        0x02,
        (
            Field("AT_LAST", 16, 7, 1, "of the first descriptor: no other follows"),
            number("AT_LBAT", 22, 2, "of the first descriptor: application tag of its blocks"),
            number("AT_LBA", 24, 8, "of the first descriptor: first block"),
            number("AT_COUNT", 32, 8, "of the first descriptor: blocks"),
        ),
    ),
    PageLayout(
        "limit-a",
        "cdla",
        0x0A,
        0x03,
        (
            Field("CDA_UNIT", 8, 7, 3, "of the first limit: 4: 1 us, 5: 10 ms, 6: 500 ms; 0: none"),
            number("CDA_LIMIT", 10, 2, "of the first limit: in those units"),
        ),
    ),
    PageLayout(
        "limit-b",
        "cdlb",
        0x0A,
        0x04,
        (
            Field("CDB_UNIT", 8, 7, 3, "of the first limit: 4: 1 us, 5: 10 ms, 6: 500 ms; 0: none"),
            number("CDB_LIMIT", 10, 2, "of the first limit: in those units"),
        ),
    ),
    PageLayout(
        "limit-t2a",
        "cdt2a",
        0x0A,
        0x07,
        (
            Field("PVCDG", 7, 7, 4, "how much speed the limits may cost"),
            Field("T2CDLU", 8, 3, 4, "of the first limit: 6: 500 ns, 8: 10 ms, Ah: 500 ms; 0: none"),
            number("MXINATI", 10, 2, "of the first limit: longest wait, in those units"),
            number("MXACTTI", 12, 2, "of the first limit: longest work, in those units"),
            Field("MXINATP", 14, 7, 4, "what happens after the longest wait"),
            Field("MXACTTP", 14, 3, 4, "what happens after the longest work"),
            number("CDGUID", 18, 2, "of the first limit: longest of all, in those units"),
            Field("CDGUPOL", 22, 3, 4, "what happens after the longest of all"),
            Field("BYP_SEQ", 23, 0, 1, "may overtake commands that were put off"),
        ),
    ),
    PageLayout(
        "background-work",
        "bop",
        0x0A,
        0x06,
        (Field("BO_MODE", 4, 7, 2, "background work stops when a command comes: 0 as the unit likes, 1 yes"),),
    ),
    PageLayout(
        "zones",
        "zbdct",
        0x0A,
        0x0F,
        (
            Field("URSWRZ_M", 4, 0, 1, "zones to be written in order may be read everywhere"),
            Field("U_UA_CTL", 5, 0, 1, "report a change of that by a unit attention"),
        ),
    ),
    PageLayout(
        "advice",
        "ioad",
        0x0A,
        0x05,
        (
            Field("IOA_MODE", 16, 7, 2, "of the first group: 0 has advice below, 1 has none"),
            Field("CS_EN", 16, 1, 1, "of the first group: cache segments are used"),
            Field("IC_EN", 16, 0, 1, "of the first group: information is collected"),
            Field("ACDLU", 20, 7, 1, "goes on while the device has little to do"),
            Field("RLBSR", 20, 5, 2, "later reads are of these blocks"),
            Field("LBM_DT", 20, 3, 4, "type of the descriptor"),
            Field("OV_FR", 21, 7, 2, "how often the blocks are used"),
            Field("RW_FR", 21, 5, 2, "whether reads or writes are more frequent"),
            Field("WR_SE", 21, 3, 2, "how far writes are in order"),
            Field("RD_SE", 21, 1, 2, "how far reads are in order"),
            Field("IO_CL", 22, 7, 4, "class of the data"),
            Field("SU_IO", 22, 3, 2, "how likely they are used again soon"),
            Field("OSI_PR", 22, 1, 2, "whether they are used when the system starts"),
        ),
    ),
    PageLayout(
        "pata",
        "pat",
        0x0A,
        0xF1,
        (
            *flags(
                4,
                "- MWD2 MWD1 MWD0 - - PIO4 PIO3",
                "multiword DMA mode 2",
                "multiword DMA mode 1",
                "multiword DMA mode 0",
                "PIO mode 4",
                "PIO mode 3",
            ),
            *flags(
                5,
                "- UDMA6 UDMA5 UDMA4 UDMA3 UDMA2 UDMA1 UDMA0",
                *(f"Ultra DMA mode {mode}" for mode in range(6, -1, -1)),
            ),
        ),
    ),
    PageLayout(
        "features",
        "afc",
        0x0A,
        0xF2,
        (Field("CDL_CTRL", 4, 2, 3, "command duration limits: 0 off, 1 on, 2 for each command"),),
    ),
)
