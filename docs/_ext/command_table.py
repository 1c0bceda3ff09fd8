"""The directive `command-table`: every declared command, with the tools that have it too and where it is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from scsiusb.scsi.catalog import Declared, declared

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# By operation code and service action: the program of sg3_utils, and the module of python-scsi (scsi_cdb_…).
SG3_UTILS: Final = {
    (0x00, None): "sg_turs",
    (0x03, None): "sg_requests",
    (0x04, None): "sg_format",
    (0x07, None): "sg_reassign",
    (0x12, None): "sg_inq, sg_vpd",
    (0x15, None): "sg_wr_mode",
    (0x1A, None): "sg_modes",
    (0x1B, None): "sg_start",
    (0x1C, None): "sg_ses",
    (0x1D, None): "sg_senddiag",
    (0x1E, None): "sg_prevent",
    (0x25, None): "sg_readcap",
    (0x28, None): "sg_dd",
    (0x2A, None): "sg_dd",
    (0x2B, None): "sg_seek",
    (0x2E, None): "sg_write_verify",
    (0x2F, None): "sg_verify",
    (0x34, None): "sg_seek",
    (0x35, None): "sg_sync",
    (0x37, None): "sg_reassign",
    (0x3B, None): "sg_write_buffer",
    (0x3C, None): "sg_read_buffer",
    (0x3E, None): "sg_read_long",
    (0x3F, None): "sg_write_long",
    (0x41, None): "sg_write_same",
    (0x42, None): "sg_unmap",
    (0x46, None): "sg_get_config",
    (0x48, 1): "sg_sanitize",
    (0x48, 2): "sg_sanitize",
    (0x48, 3): "sg_sanitize",
    (0x48, 31): "sg_sanitize",
    (0x4C, None): "sg_logs",
    (0x4D, None): "sg_logs",
    (0x55, None): "sg_wr_mode",
    (0x5A, None): "sg_modes",
    (0x5E, 0): "sg_persist",
    (0x5E, 1): "sg_persist",
    (0x5E, 2): "sg_persist",
    (0x5E, 3): "sg_persist",
    (0x5F, None): "sg_persist",
    (0x83, 0): "sg_xcopy",
    (0x84, 3): "sg_copy_results",
    (0x88, None): "sg_dd",
    (0x89, None): "sg_compare_and_write",
    (0x8A, None): "sg_dd",
    (0x8B, None): "sg_write_x",
    (0x8E, None): "sg_write_verify",
    (0x8F, None): "sg_verify",
    (0x90, None): "sg_seek",
    (0x91, None): "sg_sync",
    (0x93, None): "sg_write_same",
    (0x94, 1): "sg_zone",
    (0x94, 2): "sg_zone",
    (0x94, 3): "sg_zone",
    (0x94, 4): "sg_reset_wp",
    (0x95, 0): "sg_rep_zones",
    (0x9C, None): "sg_write_x",
    (0x9E, 0x10): "sg_readcap",
    (0x9E, 0x11): "sg_read_long",
    (0x9E, 0x12): "sg_get_lba_status",
    (0x9E, 0x17): "sg_get_elem_status",
    (0x9F, 0x11): "sg_write_long",
    (0xA0, None): "sg_luns",
    (0xA3, 0x05): "sg_ident",
    (0xA3, 0x0C): "sg_opcodes",
    (0xA3, 0x0D): "sg_opcodes",
    (0xA3, 0x0F): "sg_timestamp",
    (0xA4, 0x06): "sg_ident",
    (0xA4, 0x0F): "sg_timestamp",
    (0xA8, None): "sg_dd",
    (0xAA, None): "sg_dd",
    (0xAB, 0x01): "sg_rmsn",
}
PYTHON_SCSI: Final = {
    (0x00, None): "testunitready",
    (0x12, None): "inquiry",
    (0x15, None): "modesense6",
    (0x1A, None): "modesense6",
    (0x1E, None): "preventallow_mediumremoval",
    (0x25, None): "readcapacity10",
    (0x28, None): "read10",
    (0x2A, None): "write10",
    (0x41, None): "writesame10",
    (0x55, None): "modesense10",
    (0x5A, None): "modesense10",
    (0x88, None): "read16",
    (0x8A, None): "write16",
    (0x93, None): "writesame16",
    (0x9E, 0x10): "readcapacity16",
    (0x9E, 0x12): "getlbastatus",
    (0xA0, None): "report_luns",
    (0xA8, None): "read12",
    (0xAA, None): "write12",
    (0xBE, None): "readcd",
}
SDPARM: Final = {0x00: "ready", 0x12: "--inquiry", 0x1B: "start, stop, load, eject", 0x1E: "unlock"} | {
    0x03: "sense",
    0x1A: "--get",
    0x15: "--set",
    0x25: "capacity",
    0x35: "sync",
    0x46: "profile",
    0x55: "--set",
    0x5A: "--get",
    0xB6: "speed",
}
SMARTCTL: Final = frozenset({0x00, 0x03, 0x12, 0x1A, 0x1C, 0x1D, 0x25, 0x37, 0x4D, 0x5A, 0x85, 0xA1})
LIBAUMS: Final = frozenset({0x00, 0x03, 0x12, 0x25, 0x28, 0x2A})
HEAD: Final = ("Code", "Command", "Section", "sg3_utils", "sdparm", "smartctl", "python-scsi", "libaums", "Tested")
NO: Final = "-"
SERVED: Final = "virtual"
BYTES: Final = "bytes"
UNANSWERED: Final = frozenset({"FormatTrack", "ReadTocBytes", "TcgLevel0Discovery"})  # other forms of a command


def cells(each: Declared, is_answered: bool) -> tuple[str, ...]:
    """Return a row of the table; `is_answered`: by the virtual stick."""
    key = each.opcode, each.service
    is_mmc = each.kind.device_types == frozenset({0x05})
    is_tape = each.kind.device_types == frozenset({0x01})
    others = {} if is_mmc or is_tape else SG3_UTILS
    code = f"{each.opcode:02X}h" + ("" if each.service is None else f"/{each.service:02X}h")
    return (
        code,
        f"{each.name} ({each.kind.__name__})",
        each.section,
        others.get(key, NO),
        SDPARM.get(each.opcode, NO) if not is_tape else NO,
        "yes" if each.opcode in SMARTCTL and not is_mmc else NO,
        PYTHON_SCSI.get(key, NO),
        "yes" if each.opcode in LIBAUMS else NO,
        SERVED if is_answered else BYTES,
    )


def is_answered(each: Declared) -> bool:
    """Return whether a virtual disk, or a CD-ROM for commands of optical drives, answers the command."""
    from scsiusb.virtual import Unit
    from scsiusb.virtual.target.support import SERVICES

    types = each.kind.device_types
    if each.kind.__name__ in UNANSWERED or (types is not None and not types & {0x00, 0x05}):
        return False
    if types is None or 0x00 in types:
        services = SERVICES.get(each.opcode)
        is_here = each.opcode in Unit(thin=True).opcodes
        if is_here and (services is None or each.service is None or each.service in services):
            return True
    return (types is None or 0x05 in types) and each.service is None and each.opcode in Unit.cd_rom().opcodes


class CommandTable(SphinxDirective):
    """Adds the table of commands."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """See `Directive.run`."""
        table, group = nodes.table(), nodes.tgroup(cols=len(HEAD))
        group += [nodes.colspec(colwidth=1) for _ in HEAD]
        group += nodes.thead("", _row(HEAD))
        group += nodes.tbody("", *[_row(cells(each, is_answered(each))) for each in declared()])
        table += group
        return [nodes.paragraph(text=f"{len(declared())} declarations."), table]


def _row(texts: tuple[str, ...]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph(text=text)) for text in texts])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("command-table", CommandTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
