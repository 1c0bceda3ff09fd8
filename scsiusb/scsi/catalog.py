"""The commands that scsiusb declares, looked up by CDB and device type."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any, Final

from construct import Const, Renamed

from scsiusb.base.dataclass import dataclass
from scsiusb.base.packing import parsed
from scsiusb.scsi import commands
from scsiusb.scsi.command import Command
from scsiusb.scsi.opcodes import FIRST_VENDOR, command_name

SECTION: Final = re.compile(r"\(((?:SPC|SBC|MMC|SSC|ZBC|SAT|UFI|TCG)[^()]*(?:\(\d+\))?)")
OWN: Final = (commands.__name__,)
"""The package whose modules declare the commands of SCSI. `scsiusb.ata.DECLARING` has those of bridges, too."""


@dataclass(frozen=True)
class Declared:
    """A declared command, with what tells it from others."""

    kind: type[Command[Any]]
    opcode: int
    service: int | None
    """SERVICE ACTION; None for a command without one."""
    length: int
    """Bytes of the CDB."""
    mask: int
    """Bits of the CDB that are constant, and their `value`."""
    value: int

    @property
    def name(self) -> str:
        """Name in the standard."""
        return self.kind.NAME

    @property
    def section(self) -> str:
        """Standard and section, from the declaration's docstring: "SBC-3 5.11"; "" if it names none."""
        found = SECTION.findall(" ".join((self.kind.__doc__ or "").split()))
        return found[-1] if found else ""

    def matches(self, cdb: bytes) -> bool:
        """Whether the CDB, or its beginning, has the constants of the command."""
        return int.from_bytes(self._whole(cdb), "big") & self.mask == self.value

    def fields_of(self, cdb: bytes) -> dict[str, int | bool]:
        """Return the values of the fields of a CDB of this command, by their names; what was cut off counts as 0."""
        values = parsed(self.kind.CDB, self._whole(cdb))
        return {name: value for name, value in values.items() if name[0] != "_" and name not in ("opcode", "service")}

    def _whole(self, cdb: bytes) -> bytes:
        return cdb[: self.length].ljust(self.length, b"\0")


def declared() -> tuple[Declared, ...]:
    """Return all commands that are declared in `scsiusb.scsi.commands`, by operation code."""
    return declared_in(commands.__name__)


@cache
def declared_in(package: str) -> tuple[Declared, ...]:
    """Return all commands that the modules of a package declare, by operation code."""
    found = []
    for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        home = import_module(module.name)
        for kind in vars(home).values():
            if isinstance(kind, type) and issubclass(kind, Command) and kind.__module__ == home.__name__:
                found += [describe(kind)] if "CDB" in vars(kind) else []
    return tuple(sorted(found, key=lambda each: (each.opcode, each.service or 0, each.kind.__name__)))


def describe(kind: type[Command[Any]]) -> Declared:
    """Return what tells a command from others, from its layout."""
    constants: dict[str | None, int] = {}
    mask = value = 0
    for field in kind.CDB.subcon.subcons:
        name, inner = (field.name, field.subcon) if isinstance(field, Renamed) else (None, field)
        width = inner.sizeof()
        is_constant = isinstance(inner, Const)
        constants |= {name: int(inner.value)} if is_constant else {}
        mask = mask << width | ((1 << width) - 1 if is_constant else 0)
        value = value << width | (int(inner.value) if is_constant else 0)
    return Declared(kind, constants["opcode"], constants.get("service"), kind.CDB.sizeof(), mask, value)


def find(cdb: bytes, device_type: int = 0, packages: Iterable[str] = OWN) -> Declared | None:
    """Return the command that a CDB is for a peripheral device type; None: no module of the packages declares it.

    A declaration that names the device type comes before one for all types, and the one with more constants first.
    """
    known = chain.from_iterable(map(declared_in, packages))
    fits = [each for each in known if cdb and each.matches(cdb)]
    special = [each for each in fits if each.kind.device_types and device_type in each.kind.device_types]
    general = [each for each in fits if each.kind.device_types is None]
    return max(special or general, key=lambda each: bin(each.mask).count("1"), default=None)


def lookup(cdb: bytes, device_type: int = 0, packages: Iterable[str] = OWN) -> type[Command[Any]] | None:
    """Return the declaration of the command that a CDB is; see `find`."""
    found = find(cdb, device_type, packages)
    return None if found is None else found.kind


def name_of(opcode: int, service: int | None = None, device_type: int = 0) -> str:
    """Return the name of a command for a device type, also of one that is not declared; see `command_name`."""
    # Whose a vendor's operation code is, more bytes of the CDB would have to tell.
    kind = lookup(bytes((opcode, service or 0)), device_type) if opcode < FIRST_VENDOR else None
    return command_name(opcode, service, device_type) if kind is None else kind.NAME


def name_of_cdb(cdb: bytes, device_type: int = 0, packages: Iterable[str] = OWN) -> str:
    """Return the name of the command that a CDB is, also if it is not declared; see `find` and `command_name`."""
    kind = lookup(cdb, device_type, packages)
    service = cdb[1] & 0x1F if len(cdb) > 1 else None
    return command_name(cdb[0], service, device_type) if kind is None else kind.NAME
