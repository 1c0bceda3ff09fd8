"""The fields of mode pages, by the names of sdparm (SPC-4 7.5, SBC-3 6.4, MMC-3 5.5.10 for 2Ah, UFI 4.5 for 05h)."""

from __future__ import annotations

from typing import Final, NamedTuple

from scsiusb.scsi.pages.fields import Field, flags, number


class PageLayout(NamedTuple):
    """A mode page whose fields are known."""

    name: str
    """The word for the page."""
    acronym: str
    """sdparm's."""
    code: int
    subpage: int
    fields: tuple[Field, ...]


PAGES: Final = (
    PageLayout(
        "recovery",
        "rw",
        0x01,
        0,
        (
            *flags(
                2,
                "AWRE ARRE TB RC EER PER DTE DCR",
                "reassign blocks by itself when writing",
                "reassign blocks by itself when reading",
                "transfer a block that could not be corrected",
                "read without a pause, errors or not",
                "recover as early as possible",
                "report errors that were recovered",
                "end the command at an error that was recovered",
                "do not use error correction codes",
            ),
            number("RRC", 3, 1, "read retries"),
            number("WRC", 8, 1, "write retries"),
            number("RTL", 10, 2, "time limit of the recovery, in milliseconds"),
        ),
    ),
    PageLayout(
        "reconnect",
        "dr",
        0x02,
        0,
        (
            number("BFR", 2, 1, "how full the buffer is before the unit connects, of 256"),
            number("BER", 3, 1, "how empty the buffer is before the unit connects, of 256"),
            number("BIL", 4, 2, "time limit without data"),
            number("DTL", 6, 2, "time limit without a connection"),
            number("CTL", 8, 2, "time limit of a connection"),
            number("MBS", 10, 2, "longest burst, in units of 512 bytes"),
            Field("EMDP", 12, 7, 1, "data may come out of order"),
            number("FBS", 14, 2, "first burst, in units of 512 bytes"),
        ),
    ),
    PageLayout(
        "format",
        "fo",
        0x03,
        0,
        (
            number("TPZ", 2, 2, "tracks of a zone"),
            number("SPT", 10, 2, "sectors of a track"),
            number("DBPPS", 12, 2, "bytes of a physical sector"),
            number("INTLV", 14, 2, "interleave"),
            *flags(20, "SSEC HSEC RMB SURF", "soft sectors", "hard sectors", "removable", "by surface"),
        ),
    ),
    PageLayout(
        "flexible",
        "fd",
        0x05,
        0,
        (
            number("TR", 2, 2, "kilobits a second"),
            number("NH", 4, 1, "heads"),
            number("SPT", 5, 1, "sectors of a track"),
            number("DBPS", 6, 2, "bytes of a sector"),
            number("NC", 8, 2, "cylinders"),
            number("MRR", 28, 2, "rotations a minute"),
        ),
    ),
    PageLayout(
        "verify",
        "ve",
        0x07,
        0,
        (
            *flags(
                2,
                "- - - - V_EER V_PER V_DTE V_DCR",
                "recover as early as possible",
                "report errors that were recovered",
                "end the command at an error that was recovered",
                "do not use error correction codes",
            ),
            number("V_RC", 3, 1, "retries of a verification"),
            number("V_RTL", 10, 2, "time limit of the recovery, in milliseconds"),
        ),
    ),
    PageLayout(
        "caching",
        "ca",
        0x08,
        0,
        (
            *flags(
                2,
                "IC ABPF CAP DISC SIZE WCE MF RCD",
                "the unit does not adapt its cache by itself",
                "end a pre-fetch when another command comes",
                "the unit divides its cache by itself",
                "pre-fetch across cylinders",
                "the cache's segments have a given size",
                "write cache",
                "the pre-fetch limits are factors",
                "read cache off",
            ),
            Field("DRRP", 3, 7, 4, "which read data stay in the cache"),
            Field("WRP", 3, 3, 4, "which written data stay in the cache"),
            number("DPTL", 4, 2, "no pre-fetch after a command of more blocks"),
            number("MIPF", 6, 2, "least pre-fetch"),
            number("MAPF", 8, 2, "most pre-fetch"),
            number("MAPFC", 10, 2, "most pre-fetch in blocks"),
            *flags(
                12,
                "FSW LBCSS DRA",
                "write blocks in the order of the commands",
                "the size of a segment is in blocks",
                "no read-ahead",
            ),
            Field("SYNC_PROG", 12, 2, 2, "what reports the progress of a flush"),
            Field("NV_DIS", 12, 0, 1, "cache that keeps its content is off"),
            number("NCS", 13, 1, "segments of the cache"),
            number("CSS", 14, 2, "size of a segment"),
        ),
    ),
    PageLayout(
        "control",
        "co",
        0x0A,
        0,
        (
            Field("TST", 2, 7, 3, "task sets: 0 one for all, 1 one for each initiator"),
            *flags(
                2,
                "- - - TMF_ONLY DPICZ D_SENSE GLTSD RLEC",
                "only task management ends what an error blocks",
                "protection information is not checked",
                "sense data in descriptor format",
                "log parameters are not saved by themselves",
                "report exceptions of the log",
            ),
            Field("QAM", 3, 7, 4, "order of commands: 0 restricted, 1 free"),
            Field("NUAR", 3, 3, 1, "no unit attention on release"),
            Field("QERR", 3, 2, 2, "what an error does to other commands"),
            Field("RAC", 4, 6, 1, "report a check condition instead of busy"),
            Field("UA_INTLCK", 4, 5, 2, "how long a unit attention stays"),
            Field("SWP", 4, 3, 1, "write protection by software"),
            *flags(
                5,
                "ATO TAS ATMPE RWWP",
                "the application tag belongs to the host",
                "report commands that another initiator aborted",
                "the tag is as a mode page says",
                "refuse writes without protection",
            ),
            Field("AUTOLOAD", 5, 2, 3, "what happens when a medium is inserted"),
            number("BTP", 8, 2, "longest time busy, in units of 100 ms"),
            number("ESTCT", 10, 2, "time of an extended self-test, in seconds"),
        ),
    ),
    PageLayout(
        "control-extension",
        "coe",
        0x0A,
        1,
        (
            *flags(
                4,
                "- - - - - TCMOS SCSIP IALUAE",
                "timestamp may be set by other means",
                "a timestamp set by SCSI has precedence",
                "implicit changes of access states",
            ),
            Field("INIT_PR", 5, 3, 4, "initial priority of commands"),
            number("MSDL", 6, 1, "most bytes of sense data"),
        ),
    ),
    PageLayout(
        "power",
        "po",
        0x1A,
        0,
        (
            Field("PM_BG", 2, 7, 2, "background work before power is saved"),
            Field("STANDBY_Y", 2, 0, 1, "timer of standby_y is on"),
            *flags(
                3,
                "- - - - IDLE_C IDLE_B IDLE STANDBY",
                "timer of idle_c is on",
                "timer of idle_b is on",
                "timer of idle_a is on",
                "timer of standby_z is on",
            ),
            number("ICT", 4, 4, "idle_a after so many 100 ms"),
            number("SCT", 8, 4, "standby_z after so many 100 ms"),
            number("IBCT", 12, 4, "idle_b after so many 100 ms"),
            number("ICCT", 16, 4, "idle_c after so many 100 ms"),
            number("SYCT", 20, 4, "standby_y after so many 100 ms"),
        ),
    ),
    PageLayout(
        "exceptions",
        "ie",
        0x1C,
        0,
        (
            *flags(
                2,
                "PERF - EBF EWASC DEXCPT TEST EBACKERR LOGERR",
                "no delays for the sake of reports",
                "background functions are on",
                "warnings are reported",
                "failure predictions are off",
                "report a failure as a test",
                "report errors of background work",
                "log failure predictions",
            ),
            Field("MRIE", 3, 3, 4, "how a failure prediction is reported; 0: not, 6: on request"),
            number("INTT", 4, 4, "pause between reports, in units of 100 ms"),
            number("REPC", 8, 4, "how often a report is repeated; 0: for ever"),
        ),
    ),
    PageLayout(
        "cd",
        "cddp",
        0x0D,
        0,
        (
            Field("INACTIVITY_MULTIPLIER", 3, 3, 4, "how long the drive holds its place; 0: as its maker likes"),
            number("S_PER_M", 4, 2, "seconds of a minute of the address"),
            number("F_PER_S", 6, 2, "frames of a second of the address"),
        ),
    ),
    PageLayout(
        "audio",
        "cdac",
        0x0E,
        0,
        (
            Field("IMM_AUDIO", 2, 2, 1, "a play command ends when playing begins"),
            Field("SOTC", 2, 1, 1, "stops at the end of a track"),
            Field("CHANNEL_0", 8, 3, 4, "what port 0 plays, a bit for each channel"),
            number("VOLUME_0", 9, 1, "of port 0"),
            Field("CHANNEL_1", 10, 3, 4, "what port 1 plays"),
            number("VOLUME_1", 11, 1, "of port 1"),
            Field("CHANNEL_2", 12, 3, 4, "what port 2 plays"),
            number("VOLUME_2", 13, 1, "of port 2"),
            Field("CHANNEL_3", 14, 3, 4, "what port 3 plays"),
            number("VOLUME_3", 15, 1, "of port 3"),
        ),
    ),
    PageLayout(
        "advice",
        "ioad",
        0x0A,
        0x05,
        (
            Field("GROUP_0_MODE", 16, 7, 2, "of the first group: 0 has no advice, 1 has it below"),
            Field("GROUP_0_CS", 16, 1, 1, "of the first group: cache segments are used"),
            Field("GROUP_0_IC", 16, 0, 1, "of the first group: information is collected"),
        ),
    ),
    PageLayout(
        "pata",
        "pat",
        0x0A,
        0xF1,
        (
            *flags(4, "- PIO4 PIO3 - - - - -", "PIO mode 4", "PIO mode 3"),
            *flags(
                5,
                "- - - - - MWDMA2 MWDMA1 MWDMA0",
                "multiword DMA mode 2",
                "multiword DMA mode 1",
                "multiword DMA mode 0",
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
    PageLayout(
        "consumption",
        "ps",
        0x1A,
        0x01,
        (
            Field("ACT_LEV", 6, 2, 3, "active level: 0 by the identifier, 1 highest, 2 intermediate, 3 lowest"),
            number("PC_ID", 7, 1, "of the VPD page 8Dh"),
        ),
    ),
    PageLayout(
        "atapower",
        "apo",
        0x1A,
        0xF1,
        (
            Field("APMP", 5, 0, 1, "the value below is used"),
            number("APM", 6, 1, "advanced power management: 1 to 7F may spin down, 80 to FE may not"),
        ),
    ),
    PageLayout(
        "background",
        "bc",
        0x1C,
        0x01,
        (
            *flags(
                4,
                "- - - - - S_L_FULL LOWIR EN_BMS",
                "stop the scan when its log is full",
                "record only what needs a human",
                "scan in the background",
            ),
            Field("EN_PS", 5, 0, 1, "scan after power-on"),
            number("BMS_I", 6, 2, "hours between scans"),
            number("BPS_TL", 8, 2, "hours that the scan after power-on may take"),
            number("MIN_IDLE", 10, 2, "milliseconds without commands before a scan goes on"),
            number("MAX_SUSP", 12, 2, "milliseconds that a command may wait for the scan"),
        ),
    ),
    PageLayout(
        "provisioning",
        "lbp",
        0x1C,
        0x02,
        (
            Field("SITUA", 4, 0, 1, "one initiator alone is told of a threshold"),
            Field("THRESHOLD_0_ENABLED", 16, 7, 1, "the first threshold is watched"),
            Field("THRESHOLD_0_TYPE", 16, 5, 3, "0: a count of sets of blocks"),
            Field("THRESHOLD_0_ARMING", 16, 2, 3, "0: when more is used, 1: when less is free"),
            number("THRESHOLD_0_RESOURCE", 17, 1, "1: available, 2: used"),
            number("THRESHOLD_0_COUNT", 20, 4, "sets of blocks"),
        ),
    ),
    PageLayout(
        "optical",
        "mms",
        0x2A,
        0,
        (
            *flags(
                2,
                "- - D_RAM_R D_R_R D_ROM_R METH2 CD_RW_R CD_R_R",
                "reads DVD-RAM",
                "reads DVD-R",
                "reads DVD-ROM",
                "reads packets of a fixed length",
                "reads CD-RW",
                "reads CD-R",
            ),
            *flags(
                3,
                "- - D_RAM_W D_R_W - TST_W CD_RW_W CD_R_W",
                "writes DVD-RAM",
                "writes DVD-R",
                "has a test of writing",
                "writes CD-RW",
                "writes CD-R",
            ),
            Field("LMT", 6, 7, 3, "how a disc is loaded: 0 caddy, 1 tray, 2 lid, 4 changer"),
            *flags(
                6,
                "- - - - EJECT PVT_J LCK_ST LCK",
                "can eject",
                "a jumper prevents eject",
                "is locked",
                "can be locked",
            ),
            number("BUF_SZ", 12, 2, "buffer in units of 1024 bytes"),
        ),
    ),
)


def find_layout(code: int, subpage: int) -> PageLayout | None:
    """Return the layout of a page, None if its fields are not known."""
    return next((each for each in PAGES if (each.code, each.subpage) == (code, subpage)), None)


def page_called(word: str) -> tuple[int, int]:
    """Return the code and subpage of a page by its name, sdparm's acronym, or in hex: 8, 0x0a,1. Raise ValueError."""
    for each in PAGES:
        if word.lower() in (each.name, each.acronym):
            return each.code, each.subpage
    numbers = word.lower().split(",")
    try:
        code, subpage = (int(each, 16) for each in (*numbers, "0")[:2]) if len(numbers) <= 2 else (-1, -1)
    except ValueError:
        code = subpage = -1
    if not (0 <= code <= 0x3F and 0 <= subpage <= 0xFF):
        known = ", ".join(each.name for each in PAGES)
        raise ValueError(f"there is no mode page {word!r}; use a number in hex, such as 8 or a,1, or one of: {known}")
    return code, subpage


def page_with(field: str) -> PageLayout:
    """Return the page that has a field of that name. Raise ValueError where there is none, or more than one."""
    found = [page for page in PAGES if any(each.name == field.upper() for each in page.fields)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{field} is in the pages {', '.join(each.name for each in found)}; name one by --page")
    raise ValueError(f"no page that is known has a field {field!r}; `scsiusb modes` shows those of a device")
