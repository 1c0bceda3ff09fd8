"""Which protocol an interface is used by: what it has, what is known of the device, and what the caller asks for."""

from __future__ import annotations

from typing import Final

from scsiusb.errors import DeviceUnsupported
from scsiusb.quirks.model import Quirk, Quirks
from scsiusb.usb.interface import InterfaceInfo, by_protocol, uas_pipes

AUTO: Final = "auto"
TRANSPORTS: Final = (AUTO, "bot", "uas")

ASMEDIA: Final = 0x174C
ASM105X: Final = (0x5106, 0x55AA)  # used by three generations of the chip
ASM1053_STREAMS: Final = 32  # the ASM1051, which does UAS badly, has fewer
REALTEK_RTL9210: Final = (0x0BDA, 0x9210)
BAD_RTL9210: Final = ("HIKSEMI", "MD202")  # manufacturer and product of an enclosure that fails by UAS


def chosen(info: InterfaceInfo, transport: str, quirks: Quirks) -> InterfaceInfo:
    """Return the interface as it is used by the wanted transport; "auto": UAS where it has that and does it well.

    Raise DeviceUnsupported if it does not have the transport, or a quirk forbids it.
    """
    if transport == AUTO:
        by_uas = None if Quirk.IGNORE_UAS in quirks or does_uas_badly(info) else by_protocol(info, "uas")
        info = by_uas or by_protocol(info, "bot") or info
    wanted = info.protocol if transport == AUTO else transport
    if wanted == "uas" and Quirk.IGNORE_UAS in quirks.unlearned():
        what = f"{info} must not be used by UAS: {quirks.why(Quirk.IGNORE_UAS)}"
        raise DeviceUnsupported(what, "open it with the transport 'bot', if the device has it")
    found = info if wanted == info.protocol else by_protocol(info, wanted)
    if found is None:
        raise DeviceUnsupported(f"{info} has no setting for {wanted.upper()}", "use the transport 'auto'")
    return found


def does_uas_badly(info: InterfaceInfo) -> bool:
    """Return whether the IDs with the descriptors tell a chip that does UAS badly; Linux has these rules, too.

    The ASM1051 has the IDs of its better successors, but fewer streams; below SuperSpeed nothing tells them apart.
    """
    if (info.vid, info.pid) == REALTEK_RTL9210:
        return (info.manufacturer, info.product) == BAD_RTL9210
    return (info.vid == ASMEDIA and info.pid in ASM105X) and not _is_asm1053(info)


def needs_small_commands(info: InterfaceInfo) -> bool:
    """Return whether the interface is an ASM1053 used by UAS, which fails at commands of more than 240 sectors."""
    is_used = info.protocol == "uas" and info.vid == ASMEDIA and info.pid in ASM105X
    return is_used and _is_asm1053(info)


def _is_asm1053(info: InterfaceInfo) -> bool:
    by_uas = by_protocol(info, "uas")
    pipes = None if by_uas is None else uas_pipes(by_uas.setting)
    return pipes is not None and all(each.max_streams >= ASM1053_STREAMS for each in pipes.streaming)
