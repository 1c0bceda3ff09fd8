"""The command `command`: every declared SCSI command by its name and its fields."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scsiusb.cli.commands.command import PARSERS, Named, all_named, reply_record
from scsiusb.scsi import catalog
from scsiusb.scsi.command import Command
from scsiusb.virtual import Memory, Stick, Unit
from tests.cli.conftest import Attached, Cli
from tests.cli.test_blocks import Person, held
from tests.sticks import stick

DISK = "virtual:"
SSD, SMR, CD, FLOPPY = (f"virtual:?profile={each}" for each in ("sat-ssd", "smr", "cd-rw", "floppy"))
SAMPLES = {"N": "1", "yes|no": "yes", "HEX": "00", "N,N": "1,0x2"}
DECLARED = [Named(each.kind) for each in catalog.declared()]


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch, screen: Cli) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr(sys, "stdin", Person(text))


def test_each_declaration_is_made_from_words() -> None:
    known = all_named()
    for named in DECLARED:
        assert known[named.word.replace("-", "")] == named
        words = [f"{name}={SAMPLES[PARSERS[str(each.type)][0]]}" for name, each in named.fields.items()]
        command = named.make(named.parse(words), 512)
        least = named.make(named.parse([word for word in words if word.split("=")[0] in needed(named)]), 512)
        for each in (command, least):
            assert type(each) is named.kind
            assert catalog.describe(named.kind).matches(each.cdb())


def needed(named: Named) -> set[str]:
    return {name for name, each in named.fields.items() if each.default is each.default_factory}  # both are missing


def test_each_word_is_the_name_of_one_command() -> None:
    assert len({named.word for named in DECLARED}) == len(DECLARED)
    for name, word in {"VERIFY(16)": "verify-16", "Compare and Write": "compare-and-write", "blank": "blank"}.items():
        assert all_named()[name.lower().translate({ord(each): None for each in " ()-"})].word == word


@pytest.mark.parametrize(
    ("device", "words", "reply"),
    [
        (DISK, ["verify-16", "lba=0", "blocks=0x10"], None),
        (DISK, ["VERIFY(10)", "lba=8", "blocks=8"], None),
        (DISK, ["pre-fetch-10", "lba=0", "blocks=8"], None),
        (DISK, ["report-luns"], [0]),
        (DISK, ["read-10", "lba=16383", "blocks=1"], "00" * 512),
        (DISK, ["persistent-reserve-read-keys"], {"generation": 0, "keys": [], "missing": 0}),
        (DISK, ["reassign-blocks", "lbas=7,0x9", "--yes"], None),
        (FLOPPY, ["send-diagnostic", "default_test=yes"], None),
        (DISK, ["seek-10", "lba=5"], None),
        (DISK, ["persistent-reserve-out", "action=0", "new-key=7", "--yes"], None),
        (SSD, ["unmap", "lba=8", "blocks=8", "--yes"], None),
        (SMR, ["open-zone", "lba=4096", "--yes"], None),
        (CD, ["blank", "kind=1", "--yes"], None),
        (CD, ["close-track-session", "function=2", "--yes"], None),
        (CD, ["read-toc"], {"first": 1, "last": 1}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_commands_on_virtual_devices(cli: Cli, device: str, words: list[str], reply: Any) -> None:
    ended = cli("command", device, *words, "--json")
    assert ended.status == 0, ended.err
    found = ended.record["reply"]
    assert (found.items() >= reply.items()) if isinstance(reply, dict) else (found == reply)
    assert cli("command", device, *words).status == 0


def test_a_command_that_receives_needs_no_confirmation_though_its_code_changes_other_devices(cli: Cli) -> None:
    assert cli("command", CD, "read-sub-channel").failed(9, "READ SUB-CHANNEL")


def test_a_reply_is_shown_with_a_table_of_its_lists(cli: Cli) -> None:
    lines = cli("command", SMR, "report-zones", "options=0").text.splitlines()
    assert lines[:2] == ["last lba  16383", "missing   0"]
    assert lines[3:5] == ["zones", "lba    blocks  kind  condition  write_pointer         reset_recommended"]
    assert cli("command", SMR, "report-zones", "--json").record["reply"]["zones"][8]["kind"] == 3
    assert "Power on, reset" in cli("command", DISK, "request-sense").text
    assert cli("command", DISK, "read-10", "lba=0", "blocks=1").text.count("\n") == 32
    assert cli("command", DISK, "verify-16", "lba=0", "blocks=1").err == "VERIFY(16): done\n"


def test_data_come_from_a_file_or_the_command_line_and_go_to_a_file(cli: Cli, attach: Attached, tmp_path: Path) -> None:
    target, path = stick(), tmp_path / "two"
    attach(target)
    path.write_bytes(held(target)[:512] + b"n" * 512)
    words = ("command", "1-1", "compare-and-write", "lba=0", "blocks=1", "--yes")
    assert cli(*words, "--out", path).status == 0
    assert held(target)[:512] == b"n" * 512
    assert cli(*words, "--out", path).failed(14, "COMPARE AND WRITE")
    saved = tmp_path / "saved"
    assert cli("command", "1-1", "read-10", "lba=0", "blocks=1", "--save", saved).status == 0
    assert saved.read_bytes() == b"n" * 512
    assert cli("command", "report-luns", "--save", "-").out == bytes((0, 0, 0, 8)) + bytes(12)
    assert cli("command", "write-same-10", "lba=0", "blocks=2", "--data", "5a" * 512, "--yes").status == 0
    assert held(target)[:1025] == b"Z" * 1024 + b"\0"


def test_the_block_size_is_that_of_the_medium(cli: Cli) -> None:
    assert len(cli("command", CD, "read-12", "lba=0", "blocks=1", "--json").record["reply"]) == 2 * 2048
    assert cli("command", DISK, "read-10", "lba=0", "blocks=1", "block-size=100", "--timeout", "1").status != 0


def test_what_may_change_something_asks_and_says_who_the_device_is(
    cli: Cli, screen: Cli, attach: Attached, person: Callable[[str], None]
) -> None:
    bus = attach(stick())
    write = ("command", "1-1", "write-10", "lba=0", "blocks=1", "--data", "00" * 512)
    assert cli(*write).failed(1, "cannot ask to confirm the command", "give --yes")
    assert cli("command", "1-1", "format-unit").failed(1, "give --yes")
    assert bus.wire.log == []
    person("n\n")
    ended = screen(*write)
    assert ended.status == 1
    question = "Send WRITE(10) of 1 block at LBA 0 [2a 00 00 00 00 00 00 00 01 00] with 512 bytes of data to "
    assert question + "scsiusb Virtual Stick, 1-1? [y/N]" in ended.err
    assert "cbw 2a" not in bus.wire.log
    person("y\n")
    assert screen(*write).status == 0
    assert "cbw 2a" in bus.wire.log


def test_a_command_of_another_type_of_device_is_refused(cli: Cli, attach: Attached) -> None:
    bus = attach(stick(), Stick([Unit.cd_rom(Memory(2048 * 4, 2048))]))
    assert cli("command", "1-1", "blank", "--yes").failed(1, "BLANK is not a command of a disk", "ATA PASS-THROUGH(12)")
    assert cli("command", "1-2", "unmap", "lba=0", "blocks=1", "--yes").failed(1, "is READ SUB-CHANNEL")
    assert not {"cbw a1", "cbw 42"} & set(bus.wire.log)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no NAME of a command"),
        (["1-1"], "no NAME of a command"),
        (["1-1", "verify-61"], "did you mean verify-16?"),
        (["1-1", "qqq"], "scsiusb command --list"),
        (["verify-16"], "verify-16 needs lba=VALUE, blocks=VALUE"),
        (["verify-16", "lba=0", "blocks"], "is not FIELD=VALUE"),
        (["verify-16", "lba=0", "lba=1"], "once for each"),
        (["verify-16", "nonsense=0"], "verify-16 has: lba, blocks, data, byte_check, dpo"),
        (["verify-16", "lba=x", "blocks=1"], "lba: 'x' is not a whole number"),
        (["verify-16", "lba=0", "blocks=1", "dpo=maybe"], "neither yes nor no"),
        (["verify-16", "lba=0", "blocks=1", "data=xy"], "bytes in hex"),
        (["verify-10", "lba=0x100000000", "blocks=1"], "does not fit"),
        (["verify-10", "lba=-1", "blocks=1"], "does not fit"),
        (["reassign-blocks", "lbas=0x10000000000000000"], "reassign-blocks: "),
        (["read-16", "lba=0", "blocks=0xffffffff"], "limited to 64 MiB"),
        (["verify-10", "lba=0", "blocks=1", "--data", "00"], "has no data to send"),
        (["verify-16", "lba=0", "blocks=1", "data=00", "--data", "00"], "data is given twice"),
        (["verify-16", "--data", "00", "--out", "file"], "cannot be used together"),
        (["inquiry", "--save", "-", "--json"], "both write to stdout"),
        (["write-10", "lba=0", "blocks=1", "--data", "00", "--yes"], "1 bytes of data for a command of 512"),
    ],
)
def test_wrong_words_are_named_before_a_command_is_sent(
    cli: Cli, attach: Attached, words: list[str], text: str
) -> None:
    bus = attach(stick())
    assert cli("command", *words).failed(1, text)
    assert "cbw 2a" not in bus.wire.log


def test_the_list_has_every_command_with_its_fields(cli: Cli) -> None:
    records = cli("command", "--list", "--json").json
    assert len(records) == len(DECLARED)
    (verify,) = [each for each in records if each["name"] == "verify-16"]
    assert (verify["opcode"], verify["section"]) == (0x8F, "SBC-3 5.31")
    assert verify["fields"][0] == {"name": "lba", "kind": "N", "default": None}
    lines = cli("command", "--list", "zone").text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["close-zone", "finish-zone", "open-zone", "report-zones"]
    assert lines[1].endswith("[lba=N] [all_zones=yes|no]")
    assert cli("command", "--list", "nonsense").err == "no command has that in its name\n"


def test_each_example_of_a_reply_can_be_shown() -> None:
    from tests.scsi.command_rows import ROWS

    for row in ROWS:
        for text in row.replies:
            command: Command[Any] = row.command
            assert reply_record(command.reply(bytes.fromhex(text))) is not None
