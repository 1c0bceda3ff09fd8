"""Any bytes from a device or a file: a typed value or the documented error, soon, and not much larger."""

from __future__ import annotations

import pkgutil
import tracemalloc
from collections.abc import Callable, Iterator
from importlib import import_module
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb import ata
from scsiusb.scsi import reply, sense
from scsiusb.scsi.commands import mmc as multimedia
from scsiusb.scsi.pages import enclosure, inquiry, mode, vpd, vpd_designators
from scsiusb.scsi.pages.vpd_fields import LAYOUTS
from tests.fuzz import profiles
from tests.fuzz.more_parsers import name_of
from tests.fuzz.mutate import EXTREMES, any_of
from tests.fuzz.onwire import wire_parsers
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import all_parsers, command_parser, commands
from tests.fuzz.properties import check, check_error

WITHOUT_WIRE = {parser.name: parser for parser in all_parsers()}
NAMES = list(WITHOUT_WIRE)
WIRE_NAMES = ["CSW", "data and CSW", "INQUIRY on the wire", "GET MAX LUN", "strings in sysfs"]
RANDOMS = st.randoms(use_true_random=False)
LARGE = 1024
MOST_MEMORY = 4 << 20  # bytes, for a reply of 1 KiB


@pytest.fixture
def parsers() -> Iterator[dict[str, Parser]]:
    with wire_parsers() as on_wire:
        yield {**WITHOUT_WIRE, **{parser.name: parser for parser in on_wire}}


@pytest.fixture
def parser(request: pytest.FixtureRequest) -> Parser:
    name: str = request.param
    parsers: dict[str, Parser] = request.getfixturevalue("parsers") if name in WIRE_NAMES else WITHOUT_WIRE
    return parsers[name]


each_parser = pytest.mark.parametrize("parser", [*NAMES, *WIRE_NAMES], indirect=True)


def judge(parser: Parser, data: bytes) -> bool:
    """Whether the bytes were parsed; fails on anything but a typed value or a documented error."""
    try:
        value = parser.parse(data)
    except parser.errors as error:
        check_error(error, data)
        return False
    check(value, data)
    return True


def test_every_command_with_data_in_is_fuzzed() -> None:
    """A new command fails here until tests/fuzz/parsers.py has an example of its reply."""
    for kind in commands():
        parser = command_parser(kind)
        assert any(judge(parser, seed) for seed in parser.seeds), kind.__name__


def test_every_parser_of_replies_is_reached_by_a_command_or_is_fuzzed_itself() -> None:
    parsing = {
        kind
        for module in (inquiry, mode, multimedia, reply, sense, vpd)
        for kind in vars(module).values()
        if isinstance(kind, type) and hasattr(kind, "parse") and kind.__module__.startswith("scsiusb.")
    }
    assert {kind.__name__ for kind in parsing - {reply.Reply}} == {
        "FieldsPage",
        "InquiryData",
        "ModeParameters",
        "MediaEvent",
        "Sense",
        *(kind.__name__ for kind in vpd.PAGES),
    }
    known = {kind.PAGE for kind in vpd.PAGES} | {layout.page for layout in LAYOUTS}
    assert {f"VPD page {page:02X}h" for page in known} <= set(NAMES)


def test_every_parser_of_ata_and_of_enclosures_is_fuzzed() -> None:
    """Those that no SCSI command's reply reaches; a new one needs a row in tests/fuzz/more_parsers.py."""
    homes = [import_module(each.name) for each in pkgutil.iter_modules(ata.__path__, f"{ata.__name__}.")]
    found = {name_of(parse) for home in (*homes, enclosure, vpd_designators) for parse in _parsers_in(home)}
    elsewhere = {
        "enclosure EnclosureStatus.parse": "enclosure status",
        "smart parse_attributes": "SMART",
    }
    assert {elsewhere.get(name, name) for name in found} <= set(NAMES)
    assert {"packets", "UAS pipes", "command line", "command fields"} <= set(NAMES)


def _parsers_in(home: ModuleType) -> Iterator[Callable[..., Any]]:
    for name, value in vars(home).items():
        if getattr(value, "__module__", None) != home.__name__:
            continue
        if name.startswith("parse_"):
            yield value
        elif isinstance(value, type) and "parse" in vars(value):
            yield value.parse  # type: ignore[attr-defined]


def test_all_parsers_on_the_wire_are_named(parsers: dict[str, Parser]) -> None:
    assert set(parsers) == {*NAMES, *WIRE_NAMES}


@each_parser
def test_one_of_the_seeds_is_parsed(parser: Parser) -> None:
    """Otherwise mutations of the seeds would test only errors."""
    assert any(judge(parser, seed) for seed in parser.seeds)


@pytest.mark.slow
@each_parser
@given(data=st.binary(max_size=300))
@profiles.quick(15)
def test_any_bytes_are_a_typed_value_or_the_documented_error(parser: Parser, data: bytes) -> None:
    judge(parser, data)


@each_parser
@given(random=RANDOMS)
@profiles.quick(15)
def test_a_mutated_reply_is_a_typed_value_or_the_documented_error(parser: Parser, random: Random) -> None:
    for _ in range(5):
        judge(parser, any_of(parser.seeds, random))


@pytest.mark.slow
@each_parser
def test_a_reply_cut_anywhere_is_a_typed_value_or_the_documented_error(parser: Parser) -> None:
    for seed in parser.seeds:
        for end in [*range(min(len(seed), 12)), *range(12, min(len(seed), 64), 3)]:
            judge(parser, seed[:end])


@pytest.mark.slow
@each_parser
def test_false_lengths_take_no_memory(parser: Parser) -> None:
    """A reply of 1 KiB never takes many MiB, whatever a length field in it claims."""
    tracemalloc.start()
    try:
        for seed in parser.seeds[:1]:
            for at in range(min(len(seed), 8)):
                for extreme in (EXTREMES[-1] * 4, EXTREMES[0] * 4):
                    judge(parser, (seed[:at] + extreme + seed[at + 4 :]).ljust(LARGE, extreme[:1]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
