"""The page "All commands and pages": its data name commands, pages and tests that exist, and say what is tested."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pyscsi import pyscsi

import scsiusb.ata
from scsiusb.scsi.catalog import declared, declared_in, describe
from tests.docs.pages import ROOT
from tests.scsi.recorded import SG3
from tests.scsi.test_log_oracles import LENGTHS
from tests.scsi.test_mode_oracles import UNKNOWN_TO_IT
from tests.scsi.vpd_makers import MAKERS, WHOLE

ATA_PASS_THROUGH = {(0x85, None), (0xA1, None)}  # which have a table of their own
PAGE = ROOT / "docs" / "reference" / "commands.md"


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    return import_module("comparison")


@pytest.fixture
def table(comparison: Any) -> Any:
    return import_module("command_table")


def test_the_data_name_commands_and_tests_that_exist(comparison: Any) -> None:
    codes = {(each.opcode, each.service) for each in declared()}
    assert {*comparison.SG3_UTILS, *comparison.SG3_UTILS_TAPE, *comparison.PYTHON_SCSI} <= codes
    assert set(comparison.KERNEL) <= {each.kind.__name__ for each in declared()}
    found = {*comparison.KERNEL.values(), *comparison.KERNEL_PAGES.values()}
    assert all((ROOT / "tests" / "kernel" / test).is_file() for _, test in found)
    assert all((ROOT / "tests" / "scsi" / test).is_file() for _, test in comparison.ORACLES.values())
    assert all("QEMU" in device or "gadget" in device for device, _ in found)


def test_each_command_of_sg3_utils_is_compared_with_what_it_sends(comparison: Any) -> None:
    compared = {(each.opcode, each.service) for each in (describe(type(command)) for _, command in SG3)}
    assert compared == ATA_PASS_THROUGH | set(comparison.SG3_UTILS) | set(comparison.SG3_UTILS_TAPE)


def test_what_others_have_is_either_declared_or_listed_as_lacking(comparison: Any) -> None:
    lacking = {name: who for names, _, who, _ in comparison.LACKING for name in names.split(", ")}
    assert not lacking.keys() & {each.name for each in declared()}
    modules = {path.stem for path in Path(str(pyscsi.__path__[0])).glob("scsi_cdb_*.py")}
    named = {f"scsi_cdb_{name}" for name in comparison.PYTHON_SCSI.values()}
    assert len(modules - named) == sum("python-scsi" in who for who in lacking.values())


def test_a_page_is_compared_with_a_program_where_the_table_says_so(comparison: Any, table: Any) -> None:
    compared = {"VPD": {*MAKERS, *WHOLE}, "log": set(LENGTHS), "mode": None, "diagnostic": {0x01}}
    unknown = {layout.name for layout in table.mode_pages.PAGES if layout.acronym in UNKNOWN_TO_IT}
    for kind, code, _, name, _ in table.known_pages():
        codes = compared[kind]
        is_compared = name not in unknown if codes is None else code in codes
        assert ((kind, name) not in comparison.NOT_COMPARED) == is_compared, (kind, name)


def test_each_table_has_a_cell_for_each_column(table: Any) -> None:
    for head, rows, _ in table.TABLES.values():
        assert {len(row) for row in rows()} == {len(head)}


@pytest.mark.parametrize(
    "name",
    [
        *("ReportZones", "OpenZone", "Blank", "CloseTrackSession", "SendOpc", "ExtendedCopy", "ReceiveCopyParameters"),
        *("Read10", "Unmap", "SanitizeOverwrite", "AtaPassThrough12", "AtaSend", "AsmediaNvme", "SunplusRegisters"),
    ],
)
def test_a_command_of_any_profile_is_served_by_the_virtual_stick(table: Any, name: str) -> None:
    every = (*declared(), *declared_in(scsiusb.ata.__name__))
    (command,) = [each for each in every if each.kind.__name__ == name]
    assert table.answers(command)


@pytest.mark.parametrize("name", ["Rewind", "PlayAudio10", "SendKey", "Pl3507Ata"])
def test_a_command_that_no_profile_has_is_not(table: Any, name: str) -> None:
    every = (*declared(), *declared_in(scsiusb.ata.__name__))
    (command,) = [each for each in every if each.kind.__name__ == name]
    assert not table.answers(command)


def test_pages_of_the_virtual_stick_are_known(table: Any) -> None:
    served = {row[2] for row in table.pages() if row[4] == table.SERVED}
    assert {"caching", "temperature", "zoned block device characteristics", "third-party copy", "optical"} <= served
    assert not served & {"referrals", "audio", "statistics", "enclosure status"}


def test_the_figures_of_libiscsi_are_those_of_its_test() -> None:
    """Read from its source: it can be imported in the lab only."""
    text = PAGE.read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "tests" / "kernel" / "test_libiscsi.py").read_text(encoding="utf-8"))
    values = {
        each.targets[0].id: each.value
        for each in tree.body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
    }
    failing = values["FAILING"]
    assert isinstance(failing, ast.Dict)
    least_run = ast.literal_eval(values["LEAST_RUN"])
    assert f"At least {least_run} run" in " ".join(text.split())
    rows = text.partition("| test | it wants")[2]
    assert set(re.findall(r"`(\w+\.\w+)`", rows)) == {ast.literal_eval(key) for key in failing.keys if key is not None}
