"""Which dialect a USB bridge speaks to the disk after it: a table by vendor and product ID.

The IDs and dialects are those of smartmontools' drivedb.h of 2026-08-19. A bridge that is not in the table is taken
for one that translates (SAT).
"""

from __future__ import annotations

from typing import Final, NamedTuple

SAT: Final = "sat"
MAKERS: Final = {0x152D: "sntjmicron", 0x174C: "sntasmedia", 0x0BDA: "sntrealtek"}
"""What a bridge of these makers may speak that refuses SAT, and is not in the table."""


class Row(NamedTuple):
    """Bridges of one vendor ID that speak the same."""

    vid: int
    pids: tuple[int, ...]
    dialect: str
    """A key of `DIALECTS` in scsiusb/ata/device.py; with "/sat", another version of the device translates."""
    name: str


ROWS: Final = (
    Row(0x03F0, (0x070C,), "usbsunplus", "HP Personal Media Drive"),
    Row(0x0411, (0x039D,), "sntasmedia", "Buffalo SSD-PSTA/N"),
    Row(0x043E, (0x70F1,), "usbjmicron", "LG Mini HXD5"),
    Row(0x0480, (0xA004,), "usbsunplus", "Toshiba Canvio 500GB"),
    Row(0x04B4, (0x6830,), "usbcypress/sat", "Cypress CY7C68300B/C (AT2LP)"),
    Row(0x04E8, (0x1F05, 0x1F06, 0x1F08, 0x1F0A), "usbjmicron", "Samsung S2 Portable"),
    Row(0x04E8, (0x2F03, 0x2F06), "usbjmicron", "Samsung S1"),
    Row(0x04E8, (0x4001, 0x61FB), "sntasmedia", "Samsung Portable SSD T7 (ASM2362)"),
    Row(0x04E8, (0x6032,), "usbjmicron/sat", "Samsung G2 Portable"),
    Row(0x04E8, (0x61FD,), "sntasmedia", "Samsung Portable SSD T9 (ASM2362)"),
    Row(0x04FC, (0x0C05, 0x0C15, 0x0C25), "usbsunplus", "Sunplus SPDIF215, SPDIF225"),
    Row(0x059B, (0x0272,), "usbcypress", "Iomega LPHD080-0"),
    Row(0x059B, (0x0274,), "usbjmicron,0", "Iomega MDHD500-U"),
    Row(0x059B, (0x0277, 0x0278, 0x0470, 0x0475, 0x0571, 0x0575), "usbjmicron", "Iomega"),
    Row(0x059B, (0x0370,), "usbsunplus", "Iomega LDHD-UP"),
    Row(0x059F, (0x0951, 0x1019, 0x101D, 0x1021, 0x102A), "usbjmicron", "LaCie hard disk"),
    Row(0x059F, (0x1010,), "usbsunplus", "LaCie Desktop Hard Drive"),
    Row(0x05AB, (0x0060,), "usbcypress", "In-System ISD-300A1"),
    Row(0x0634, (0x5603, 0x5607), "sntasmedia", "Crucial X9 Pro, X10"),
    Row(0x067B, (0x2507,), "usbjmicron,0", "Prolific PL2507"),
    Row(0x067B, (0x2571, 0x2771, 0x2773, 0x2775), "usbprolific", "Prolific PL2571, PL2771, PL2773, PL2775"),
    Row(0x067B, (0x3507,), "usbjmicron,p", "Prolific PL3507"),
    Row(0x0766, (0x0017,), "usbsunplus", "Packard Bell Carbon"),
    Row(0x0781, (0x55AE, 0x55AF, 0x55BB), "sntasmedia", "SanDisk Extreme (ASM2362)"),
    Row(0x07AB, (0xFC85, 0xFC88, 0xFCD6, 0xFCDA), "usbjmicron", "Freecom"),
    Row(0x07AB, (0xFC8E,), "usbsunplus", "Freecom Hard Drive XS"),
    Row(0x0930, (0x0B03, 0x0B09, 0x0B11, 0xA002), "usbsunplus", "Toshiba"),
    Row(0x0939, (0x0B15, 0x0B16), "usbsunplus", "Toshiba Stor.E"),
    Row(0x0B05, (0x1932,), "sntasmedia", "ASUS (ASM236x)"),
    Row(0x0BC2, (0x0503,), "usbcypress", "Seagate External Drive"),
    Row(0x0BC2, (0xAA1A,), "sntasmedia", "Seagate FireCuda Gaming SSD (ASM2364)"),
    Row(0x0BDA, (0x9210, 0x9211, 0x9220), "sntrealtek/sat", "Realtek RTL9210, RTL9211, RTL9220"),
    Row(0x0C0B, (0xB001,), "usbcypress", "Dura Micro"),
    Row(0x0C0B, (0xB159,), "usbsunplus", "Dura Micro 509"),
    Row(0x0DBF, (0x9001,), "usbcypress", "Cypress"),
    Row(0x0DD8, (0x9210,), "sntrealtek/sat", "Realtek RTL9210"),
    Row(0x0E21, (0x0510,), "usbcypress", "Cowon iAudio X5"),
    Row(0x1006, (0x3002,), "usbcypress", "iRiver iHP-120/140"),
    Row(0x1058, (0x0701,), "usbcypress", "WD My Passport (IDE)"),
    Row(0x1058, (0x266E,), "sntasmedia", "Western Digital (ASM236x)"),
    Row(0x125F, (0xA93A, 0xA94A), "usbcypress", "ADATA"),
    Row(0x13FE, (0x6500,), "sntasmedia", "Phison"),
    Row(0x152D, (0x0551, 0x2329, 0x2336, 0x2337, 0x2338, 0x2339, 0x2352), "usbjmicron", "JMicron JM2033x, JM20329"),
    Row(0x152D, (0x2509, 0x2566), "usbjmicron/sat", "JMicron JMS539, JMS566"),
    Row(0x152D, (0x0581, 0xA581, 0xB581), "sntjmicron/sat", "JMicron JMS581"),
    Row(0x152D, (0x0583, 0xA583), "sntjmicron/sat", "JMicron JMS583"),
    Row(0x174C, (0x2362, 0x2364, 0x2463), "sntasmedia/sat", "ASMedia ASM236x, ASM2464PD"),
    Row(0x18A5, (0x0214, 0x0216), "usbsunplus", "Verbatim External Hard Drive"),
    Row(0x18A5, (0x0227, 0x022A, 0x022B), "usbjmicron", "Verbatim Store'n'Go"),
    Row(0x1B1C, (0x1A20,), "sntasmedia", "Corsair EX400U"),
    Row(0x1BCF, (0x0C31,), "usbsunplus", "SunplusIT"),
    Row(0x1DE1, (0xE101,), "sntrealtek", "Actions AM8180"),
    Row(0x1E91, (0xDE79,), "sntasmedia", "OWC Express 1M2 (ASM2464PD)"),
    Row(0x2174, (0x7010,), "sntrealtek", "Transcend TS-CM10G"),
    Row(0x21C4, (0x0003, 0xB06A), "sntjmicron", "Lexar ES3, E6"),
    Row(0x21C4, (0xB083,), "sntrealtek", "Lexar E300"),
    Row(0x2EB9, (0x9211,), "sntrealtek/sat", "Realtek RTL9211"),
    Row(0x30DE, (0x1000,), "sntjmicron", "Kioxia"),
    Row(0x32AC, (0x0005,), "sntasmedia", "Framework Expansion Card (PS2251)"),
    Row(0x3538, (0x0064,), "usbsunplus", "PQI bridge"),
    Row(0x3538, (0x0902,), "usbsunplus/sat", "PQI H550"),
    Row(0x4971, (0x1011, 0xCE17), "usbjmicron", "Hitachi Touro Desk, SimpleTech"),
)


def dialects_of(vid: int, pid: int, *, is_removable: bool) -> tuple[str, ...]:
    """Return the dialects to be tried with a device, in order.

    A device that is not in the table is asked by SAT, and if one of the `MAKERS` made it, then as its bridges for NVMe
    are, unless the medium is removable: in a card reader, these operation codes may mean anything.
    """
    for row in ROWS:
        if row.vid == vid and pid in row.pids:
            return tuple(row.dialect.split("/"))
    return (SAT, MAKERS[vid]) if vid in MAKERS and not is_removable else (SAT,)
