"""The tables of the page "All commands": what there is, who else has it, and where it is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from comparison import (
    KERNEL,
    KERNEL_PAGES,
    LACKING,
    LIBAUMS,
    NOT_COMPARED,
    ORACLES,
    PYTHON_SCSI,
    SDPARM,
    SG3_UTILS,
    SG3_UTILS_TAPE,
    SMARTCTL,
    SMARTCTL_BRIDGES,
)
from docutils import nodes
from played import answers, has_page
from sphinx.util.docutils import SphinxDirective

import scsiusb.ata
from scsiusb.scsi.catalog import Declared, declared, declared_in
from scsiusb.scsi.pages import log, mode_pages, vpd_fields

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Rows = Iterable[tuple[str, ...]]
NO: Final = "-"
SERVED: Final = "virtual"
BYTES: Final = "bytes"
OPTICAL, TAPE = frozenset({0x05}), frozenset({0x01})
SG3_OF_TYPES: Final[dict[frozenset[int] | None, dict[tuple[int, int | None], str]]] = {
    OPTICAL: {},
    TAPE: SG3_UTILS_TAPE,
}
VPD_NAMES: Final = {0x00: "supported pages", 0x80: "unit serial number", 0x83: "device identification"}
DIAGNOSTIC_PAGES: Final = {0x00: "supported pages", 0x01: "enclosure configuration", 0x02: "enclosure status"}
OTHERS_HEAD: Final = ("sg3_utils", "sdparm", "smartctl", "python-scsi", "libaums")
COMMANDS_HEAD: Final = ("Code", "Command", "Section", *OTHERS_HEAD, "Tested", "Kernel")
BRIDGES_HEAD: Final = ("Code", "Command", "Section", "smartctl -d", "Tested")
PAGES_HEAD: Final = ("Kind", "Code", "Page", "Compared with", "Tested", "Kernel")
LACKING_HEAD: Final = ("Command", "Code", "Who has it", "Use")


def commands() -> Iterator[tuple[str, ...]]:
    """Yield a row for each declaration of `scsiusb.scsi.commands`."""
    for each in declared():
        key, types = (each.opcode, each.service), each.kind.device_types
        yield (
            code_of(each),
            f"{each.name} ({each.kind.__name__})",
            each.section,
            SG3_OF_TYPES.get(types, SG3_UTILS).get(key, NO),
            SDPARM.get(each.opcode, NO) if types != TAPE else NO,
            "yes" if each.opcode in SMARTCTL and types != OPTICAL else NO,
            PYTHON_SCSI.get(key, NO),
            "yes" if each.opcode in LIBAUMS else NO,
            SERVED if answers(each) else BYTES,
            _kernel(KERNEL.get(each.kind.__name__)),
        )


def bridges() -> Iterator[tuple[str, ...]]:
    """Yield a row for each declaration of `scsiusb.ata`."""
    for each in declared_in(scsiusb.ata.__name__):
        name = each.kind.__name__
        tested = SERVED if answers(each) else BYTES
        yield code_of(each), f"{each.name} ({name})", each.section or NO, SMARTCTL_BRIDGES.get(name, NO), tested


def pages() -> Iterator[tuple[str, ...]]:
    """Yield a row for each page whose fields are known."""
    for kind, code, subpage, name, device_type in known_pages():
        oracle, test = ORACLES[kind]
        compared = f"{oracle} (tests/scsi/{test})" if (kind, name) not in NOT_COMPARED else NO
        number = f"{code:02X}h" + (f"/{subpage:02X}h" if subpage else "")
        tested = SERVED if has_page(kind, code, subpage, device_type) else BYTES
        yield kind, number, name, compared, tested, _kernel(KERNEL_PAGES.get((kind, code, subpage)))


def known_pages() -> Iterator[tuple[str, int, int, str, int | None]]:
    """Yield the kind, code, subpage, name and device type of each page; None: of any type."""
    names = {**VPD_NAMES, **{each.page: each.name for each in vpd_fields.LAYOUTS}}
    yield from (("VPD", code, 0, names[code], None) for code in sorted(names))
    for layout in sorted(mode_pages.PAGES, key=lambda each: (each.code, each.subpage)):
        yield "mode", layout.code, layout.subpage, layout.name, layout.device_type
    yield "log", log.SUPPORTED, 0, log.page_name(log.SUPPORTED, 0), None
    yield from (("log", each.code, each.subpage, each.name, None) for each in log.LAYOUTS)
    yield from (("diagnostic", code, 0, name, None) for code, name in DIAGNOSTIC_PAGES.items())


def code_of(each: Declared) -> str:
    """Return the operation code, and the service action if there is one."""
    return f"{each.opcode:02X}h" + ("" if each.service is None else f"/{each.service:02X}h")


def _kernel(found: tuple[str, str] | None) -> str:
    return NO if found is None else f"{found[0]} ({found[1]})"


class Table(SphinxDirective):
    """Adds a table."""

    has_content: ClassVar[bool] = False
    head: ClassVar[tuple[str, ...]]
    rows: ClassVar[Callable[[], Rows]]
    counts: ClassVar[str]

    def run(self) -> list[nodes.Node]:
        """See `Directive.run`."""
        rows = list(type(self).rows())
        table, group = nodes.table(), nodes.tgroup(cols=len(self.head))
        group += [nodes.colspec(colwidth=1) for _ in self.head]
        group += nodes.thead("", _row(self.head))
        group += nodes.tbody("", *map(_row, rows))
        table += group
        return [nodes.paragraph(text=f"{len(rows)} {self.counts}."), table]


def _row(texts: tuple[str, ...]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph(text=text)) for text in texts])


TABLES: Final[dict[str, tuple[tuple[str, ...], Callable[[], Rows], str]]] = {
    "command-table": (COMMANDS_HEAD, commands, "declarations"),
    "bridge-table": (BRIDGES_HEAD, bridges, "declarations"),
    "page-table": (PAGES_HEAD, pages, "pages"),
    "lacking-table": (LACKING_HEAD, lambda: LACKING, "rows"),
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    for name, (head, rows, counts) in TABLES.items():
        parts: dict[str, Any] = {"head": head, "rows": staticmethod(rows), "counts": counts}
        app.add_directive(name, type("Named", (Table,), parts))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
