"""format, sanitize, unmap, write-same, reassign: nothing is done without a confirmation, and progress is followed."""

from __future__ import annotations

import pytest

from scsiusb.cli import ata_sanitize
from scsiusb.scsi import operation
from scsiusb.scsi.sense import Sense
from scsiusb.virtual import Memory, Stick, Unit
from scsiusb.virtual.target.ata import AtaDisk
from tests.cli.conftest import Attached, Cli

BLOCKS = 64


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "FIRST_PAUSE", 0.0)


@pytest.fixture
def medium() -> Memory:
    return Memory(b"\xaa" * 512 * BLOCKS)


@pytest.fixture
def unit(medium: Memory, attach: Attached) -> Unit:
    unit = Unit(medium, thin=True)
    attach(Stick([unit]))
    return unit


COMMANDS = [
    ["format"],
    ["sanitize", "--method", "block"],
    ["unmap", "--lba", "0", "--blocks", "8"],
    ["write-same", "--lba", "0", "--blocks", "8"],
    ["reassign", "--lba", "0"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_nothing_is_done_without_a_confirmation(unit: Unit, medium: Memory, cli: Cli, words: list[str]) -> None:
    name, *options = words
    assert cli(name, "1-1", *options).failed(1, "--yes")
    assert bytes(medium.data) == b"\xaa" * 512 * BLOCKS


def test_a_format_is_followed_to_its_end(unit: Unit, medium: Memory, cli: Cli) -> None:
    assert cli("format", "1-1", "--yes", "--json").record == {"done": True}
    assert unit.operation is None
    assert not any(medium.data)


def test_a_sanitize_writes_the_pattern(unit: Unit, medium: Memory, cli: Cli) -> None:
    words = ("sanitize", "1-1", "--method", "overwrite", "--pattern", "55", "--yes")
    assert cli(*words, "--json").record == {"done": True, "method": "overwrite"}
    assert bytes(medium.data) == b"\x55" * 512 * BLOCKS
    assert cli("sanitize", "1-1", "--yes").failed(1, "--method")
    assert cli("sanitize", "1-1", "--method", "block", "--pattern", "55", "--yes").failed(1, "--pattern")


def test_an_operation_goes_on_after_ctrl_c_and_is_taken_up_again(
    unit: Unit, medium: Memory, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        patch.setattr("scsiusb.scsi.operation.time.sleep", interrupted)
        ended = cli("format", "1-1", "--yes")
        assert ended.failed(130, "goes on by itself; all devices were released; `scsiusb format --wait` shows when")
        assert "again" not in ended.err, "which would begin it anew"
    assert unit.operation is not None
    assert cli("format", "1-1", "--wait", "--json").record == {"done": True}
    assert not any(medium.data)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["format", "--yes"], "--yes"),
        (["format", "--forget-defects", "--yes"], "--forget-defects, --yes"),
        (["sanitize", "--method", "block"], "--method"),
        (["sanitize", "--pattern", "55"], "--pattern"),
        (["sanitize", "--passes", "1", "--yes"], "--passes, --yes"),
    ],
)
def test_wait_is_refused_with_options_that_would_begin_an_operation(
    unit: Unit, medium: Memory, cli: Cli, words: list[str], named: str
) -> None:
    """These were taken without a word, began nothing, and reported "sanitized"."""
    assert cli(words[0], "1-1", *words[1:], "--wait").failed(1, "--wait begins nothing", named)
    assert bytes(medium.data) == b"\xaa" * 512 * BLOCKS


@pytest.mark.parametrize("name", ["format", "sanitize"])
@pytest.mark.parametrize("kind", ["disk", "empty", "cd"])
def test_wait_without_an_operation_claims_no_success(attach: Attached, cli: Cli, name: str, kind: str) -> None:
    units = {
        "disk": lambda: Unit(Memory(512 * BLOCKS)),
        "empty": lambda: Unit(None),
        "cd": lambda: Unit.cd_rom(Memory(2048 * BLOCKS, 2048)),
    }
    attach(Stick([units[kind]()]))
    ended = cli(name, "1-1", "--wait", "--json")
    assert (ended.status, ended.record["done"]) == (99, False)
    ended = cli(name, "1-1", "--wait")
    assert (ended.status, ended.text) == (99, "")
    assert ended.err.startswith("no operation is in progress")


@pytest.mark.parametrize(
    ("raw", "is_operation"),
    [
        ("70 00 02 00000000 0a 00000000 04 04", True),  # format in progress
        ("70 00 02 00000000 0a 00000000 04 01 00 80 8000", True),  # a progress is reported
        ("70 00 02 00000000 0a 00000000 04 01", False),  # the disk only spins up
    ],
)
def test_a_unit_that_starts_up_is_in_no_operation(
    unit: Unit, attach: Attached, monkeypatch: pytest.MonkeyPatch, raw: str, is_operation: bool
) -> None:
    senses = [Sense.parse(bytes.fromhex(raw)), Sense.parse(b"")]
    with attach.open("1-1", lun=0, timeout=None, trace=None) as disk:
        monkeypatch.setattr(disk.unit, "request_sense", lambda: senses.pop(0))
        assert operation.follow(disk.unit, "format", lambda part: None) is is_operation
    assert not senses


def test_passes_are_for_overwrite(unit: Unit, cli: Cli) -> None:
    assert cli("sanitize", "1-1", "--method", "block", "--passes", "3", "--yes").failed(1, "--passes is for")


def test_unmap_and_write_same(unit: Unit, medium: Memory, cli: Cli) -> None:
    assert cli("unmap", "1-1", "--lba", "2", "--blocks", "3", "--yes", "--json").record == {
        "done": True,
        "lba": 2,
        "blocks": 3,
    }
    assert bytes(medium.data[1024:2560]) == bytes(1536)
    assert cli("write-same", "1-1", "--lba", "0", "--blocks", "2", "--pattern", "1122", "--yes").status == 0
    assert bytes(medium.data[:1024]) == b"\x11\x22" * 512
    assert cli("write-same", "1-1", "--lba", "60", "--blocks", "5", "--yes").failed(22)


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        ("70 00 02 00000000 0a 00000000 04 04 00 80 8000", 0.5),
        ("72 02 04 04 000000 08 02 06 0000 80 4000 00", 0.25),
        ("70 00 02 00000000 0a 00000000 04 04 00 00 8000", None),
        ("70 00 05 00000000 0a 00000000 24 00 00 c0 0001", None),
        ("72 02 04 04 000000 00", None),
        ("70 00 02", None),
        ("", None),
    ],
)
def test_progress_is_read_from_both_formats(raw: str, part: float | None) -> None:
    assert operation.progress_of(Sense.parse(bytes.fromhex(raw))) == part


@pytest.fixture
def ssd(medium: Memory, attach: Attached) -> AtaDisk:
    """A SATA disk, by whose own commands the medium is erased."""
    made = AtaDisk()
    attach(Stick([Unit(medium, ata=made, removable=False)]))
    return made


@pytest.fixture
def _no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ata_sanitize, "POLL", 0.0)


@pytest.mark.parametrize("words", [["sanitize", "--method", "block"], ["unmap", "--lba", "0", "--blocks", "8"]])
def test_nothing_is_done_to_a_sata_disk_without_a_confirmation(
    ssd: AtaDisk, medium: Memory, cli: Cli, words: list[str]
) -> None:
    name, *options = words
    assert cli(name, "1-1", "--ata", *options).failed(1, "--yes")
    assert bytes(medium.data) == b"\xaa" * 512 * BLOCKS
    assert ssd.sanitizer.count() == 0


@pytest.mark.usefixtures("_no_poll")
def test_a_sata_disk_sanitizes_itself_and_is_followed(ssd: AtaDisk, medium: Memory, cli: Cli) -> None:
    assert cli("sanitize", "1-1", "--ata", "--wait").status == 99
    words = ("sanitize", "1-1", "--ata", "--method", "overwrite", "--pattern", "55", "--yes")
    assert cli(*words, "--json").record == {"done": True, "method": "overwrite"}
    assert bytes(medium.data) == b"\x55" * 512 * BLOCKS
    ssd.sanitizer.progress = 0
    assert cli(*words).failed(15, "runs already")
    ssd.sanitizer.progress = 0
    assert cli("sanitize", "1-1", "--ata", "--wait", "--json").record == {"done": True, "method": None}
    assert cli("sanitize", "1-1", "--ata", "--method", "exit-failure", "--yes").failed(1, "block, crypto")


def test_a_sata_disk_trims(ssd: AtaDisk, medium: Memory, cli: Cli) -> None:
    words = ("unmap", "1-1", "--ata", "--lba", "8", "--blocks", "4", "--yes")
    assert cli(*words, "--json").record == {"done": True, "lba": 8, "blocks": 4}
    assert bytes(medium.data) == b"\xaa" * 512 * 8 + bytes(512 * 4) + b"\xaa" * 512 * (BLOCKS - 12)


def test_a_stick_has_no_ata_commands(unit: Unit, medium: Memory, cli: Cli) -> None:
    assert cli("unmap", "1-1", "--ata", "--lba", "8", "--blocks", "4", "--yes").status == 9
    assert cli("sanitize", "1-1", "--ata", "--method", "block", "--yes").status == 9
    assert bytes(medium.data) == b"\xaa" * 512 * BLOCKS
