"""Imports run one way only: down."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import scsiusb

ROOT = Path(scsiusb.__file__).parent
# From top to bottom: a module imports only from rooms below its own, or from its own.
ROOMS = ["cli", "conformance", "opening", "disk", "scsi", "manager", "leases", "finding", "transport", "trace", "usb"]
ROOMS += ["quirks", "ledger", "errors", "base", "_version"]
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(tree: ast.AST) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("scsiusb")}


def in_type_checking(tree: ast.Module) -> set[int]:
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {id(inner) for block in blocks for inner in ast.walk(block)}


def runtime_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = in_type_checking(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= imported(ast.Module([node], []))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    module = ".".join(("scsiusb", *path.relative_to(ROOT).with_suffix("").parts))
    room = room_of(module)
    rooms = {room_of(name) for name in runtime_imports(path)} - {"", "__version__"}
    if room in ("__init__", "__main__"):
        return
    if room == "virtual":
        assert rooms <= {"virtual", "usb", "errors", "base"}
        return
    if room == "disk" and path.name == "aio.py":  # opens a disk; the opening moves out of it next
        return
    below = set(ROOMS[ROOMS.index(room) :])
    allowed = below | {"virtual"} if room in ("cli", "opening") else below
    assert rooms <= allowed


def test_the_virtual_stick_knows_only_the_seam_of_usb() -> None:
    """It must not share a wire declaration with the host's side."""
    used = {name for path in (ROOT / "virtual").rglob("*.py") for name in runtime_imports(path)}
    assert {name.rsplit(".", 1)[0] for name in used if room_of(name) == "usb"} <= {"scsiusb.usb", "scsiusb.usb.backend"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_in_one_sentence_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith(".")
