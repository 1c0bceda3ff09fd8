"""The quirks that apply to a device: the letters, the table, the user's rows, and what is learned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb.quirks import user as quirks_user
from scsiusb.quirks.lookup import TABLE, quirks_for, tabled
from scsiusb.quirks.model import (
    BY_LETTER,
    MEANINGS,
    Applied,
    Quirk,
    Quirks,
    letters,
    parse_letters,
    split,
)
from scsiusb.quirks.table import rows_for, table
from scsiusb.quirks.user import parse_rows, row_for

LINUX = "abcdefghijklmnoprstuwy"


pytestmark = pytest.mark.usefixtures("users_file")

# --- letters ------------------------------------------------------------------------------------


def test_linux_has_the_small_letters_and_each_stands_for_one_quirk() -> None:
    assert "".join(meaning.letter for meaning in MEANINGS if meaning.is_linux) == LINUX
    assert len(BY_LETTER) == len(MEANINGS) == len({meaning.quirk for meaning in MEANINGS})
    assert {quirk for quirk in Quirk if quirk} == {meaning.quirk for meaning in MEANINGS}


@given(st.lists(st.sampled_from([meaning.letter for meaning in MEANINGS])))
def test_letters_are_read_in_any_order(some: list[str]) -> None:
    quirks = parse_letters("".join(some))
    assert set(letters(quirks)) == set(some)
    assert parse_letters(letters(quirks)) is quirks or parse_letters(letters(quirks)) == quirks
    assert len(split(quirks)) == len(set(some))


@pytest.mark.parametrize(("text", "hint"), [("q", "--list"), ("r1", "--list"), ("R M", "'m' means: moves at most 64")])
def test_an_unknown_letter_is_named_in_the_error(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="is not the letter of a quirk") as caught:
        parse_letters(text)
    assert hint in str(caught.value) or " " in text


# --- the table ----------------------------------------------------------------------------------


def test_the_table_has_the_known_families() -> None:
    rows = table()
    assert len(rows) > 200
    used = {quirk for row in rows for quirk in split(row.quirks)}
    rare = {Quirk.MAX_SECTORS_240, Quirk.LAST_SECTOR_ALONE}
    assert used | rare == {meaning.quirk for meaning in MEANINGS if not meaning.unused}


def test_each_row_is_complete_and_is_found() -> None:
    for row in table():
        assert row in rows_for(row.vid, row.pid or 0, row.first)
        assert row.first <= row.last
        assert row.device
        assert row.source
        assert row.quirks


def test_a_row_is_for_a_range_of_releases() -> None:
    assert tabled(0x04CE, 0x0002, 0x026B).flags == parse_letters("cT")
    assert tabled(0x04CE, 0x0002, 0x026C).flags == parse_letters("c")
    assert tabled(0x04CE, 0x0002, 0x026D).flags == Quirk.NONE
    assert tabled(0x04CE, 0x0002, None).flags == parse_letters("cT")


def test_a_vendors_row_is_for_all_its_products() -> None:
    assert tabled(0x0421, 0xBEEF, 0x0100).flags == Quirk.CAPACITY_HEURISTICS
    assert tabled(0x0421, 0x0433, 0x0100).flags == parse_letters("crh")


def test_a_row_gives_its_reason() -> None:
    applied = tabled(0x090C, 0x3350, 0x0100).applied
    assert [each.quirk for each in applied] == [Quirk.BAD_SENSE]
    assert applied[0].source == TABLE
    for word in ("SM3350", "18 bytes", "Icenowy Zheng", "unusual_devs.h"):
        assert word in applied[0].why


def test_the_virtual_stick_has_no_quirks() -> None:
    assert tabled(0x1209, 0x0001, 0x0100) == Quirks()
    assert tabled(0x0525, 0xA4A5, 0x0504).flags == Quirk.CAPACITY_OK


def test_importing_the_model_does_not_load_the_table() -> None:
    script = "import sys, scsiusb.quirks.model; print('scsiusb.quirks.table' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout.strip() == b"False"


# --- the user's rows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "identity", "quirks"),
    [
        ("152d:2329:r", (0x152D, 0x2329), "r"),
        ("0x152D:0x2329:rG", (0x152D, 0x2329), "rG"),
        (" 1:2:m ", (1, 2), "m"),
        ("152d:2329:", (0x152D, 0x2329), ""),
    ],
)
def test_a_row_of_the_user_is_parsed(text: str, identity: tuple[int, int], quirks: str) -> None:
    (row,) = parse_rows(text, "here")
    assert (row.vid, row.pid) == identity
    assert letters(row.quirks) == quirks


@pytest.mark.parametrize("text", ["x", "152d:2329", "152d2329:r", "12345:1:r", "1:2:r:s", "g:1:r", "1:2:q", "1:2:r,1"])
def test_an_invalid_row_is_an_error_that_names_its_source(text: str) -> None:
    with pytest.raises(ValueError, match=r"^here: "):
        parse_rows(text, "here")


def sources(vid: int = 0x0421, pid: int = 0x0433, given: str | None = None) -> tuple[str, list[str]]:
    quirks = quirks_for(vid, pid, 0x0100, given)
    return letters(quirks.flags), [each.source for each in quirks.applied]


def test_only_the_first_source_that_names_the_device_counts(monkeypatch: pytest.MonkeyPatch, users_file: Path) -> None:
    """The order is: option, variable, file, table. A row for another device does not count."""
    assert sources() == ("chr", [TABLE] * 3)
    users_file.write_text("# mine\n\n0421:0433:G  # it is slow\n0421:0434:m\n")
    assert sources() == ("G", [f"{users_file}, line 3"])
    assert quirks_for(0x0421, 0x0433).why(Quirk.GO_SLOW) == f"{users_file}, line 3: it is slow"
    monkeypatch.setenv(quirks_user.VARIABLE, "0421:0433:V,0421:0434:b")
    assert sources() == ("V", ["SCSIUSB_QUIRKS"])
    assert sources(given="0421:0433:s,0421:0433:m") == ("s", ["--quirks"])
    assert sources(given="0421:9999:s") == ("V", ["SCSIUSB_QUIRKS"])
    assert sources(given="rm") == ("mr", ["quirks= of open"] * 2)
    assert sources(given="0421:0433:") == sources(given="") == ("", [])
    assert sources(pid=0x0434) == ("b", ["SCSIUSB_QUIRKS"])


def test_an_invalid_row_in_the_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(quirks_user.VARIABLE, "0421:0433:V,junk")
    with pytest.raises(ValueError, match=r"^SCSIUSB_QUIRKS: 'junk' is not VID:PID:letters, such as"):
        quirks_for(1, 2)


def test_an_invalid_row_in_the_file_is_an_error(users_file: Path) -> None:
    users_file.write_text("0421:0433:V\n1:2:V  # fine\n1:2:Vz\n")
    for vid, pid in ((0x0421, 0x0433), (5, 6)):
        with pytest.raises(ValueError, match=r"quirks, line 3: '1:2:Vz': 'z' is not the letter of a quirk"):
            quirks_for(vid, pid)


def test_a_file_that_cannot_be_read_is_an_error(users_file: Path) -> None:
    users_file.mkdir()
    with pytest.raises(OSError, match="quirks"):
        row_for(1, 2)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("sign", ["", "\ufeff"])
def test_a_line_of_the_file_ends_where_an_editor_shows_it(users_file: Path, sign: str, end: str) -> None:
    """A byte order mark is ignored."""
    comments = "\u2028 \x0c \x85 1:2:Vz"
    users_file.write_bytes(f"{sign}421:433:G  # a {comments}{end}{end}421:434:m{end}".encode())
    assert sources() == ("G", [f"{users_file}, line 1"])
    assert sources(pid=0x0434) == ("m", [f"{users_file}, line 3"])


def test_a_fifo_instead_of_the_file_does_not_block(users_file: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no FIFO here")
    os.mkfifo(users_file)
    with pytest.raises(OSError, match=r"not a regular file: '.*quirks'"):
        row_for(1, 2)


def test_a_file_that_is_too_large_is_not_read(users_file: Path) -> None:
    users_file.write_bytes(b"#" * quirks_user.LARGEST)
    assert row_for(1, 2) is None
    users_file.write_bytes(b"#" * (quirks_user.LARGEST + 1))
    with pytest.raises(ValueError, match=r"has more than 1048576 bytes"):
        row_for(1, 2)


def test_the_file_is_in_the_users_configuration_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert Path(quirks_user.path()).parts[-2:] == ("scsiusb", "quirks")


# --- what is learned ----------------------------------------------------------------------------


def test_a_learned_quirk_is_added_to_the_known_ones() -> None:
    known = Quirks((Applied(Quirk.GO_SLOW, TABLE, "slow"),))
    learned = known.learning(Quirk.IGNORE_RESIDUE, "seen").learning(Quirk.GO_SLOW, "seen too")
    assert letters(learned.flags) == "rG"
    assert learned.why(Quirk.IGNORE_RESIDUE) == "learned: seen"
    assert learned.why(Quirk.GO_SLOW) == "table: slow"
    assert learned.unlearned() == known.flags
    assert known.remembering(learned).flags == learned.flags
    assert Quirks().remembering(learned).flags == Quirk.IGNORE_RESIDUE


def test_a_learned_signature_is_kept_only_if_any_signature_is_allowed() -> None:
    learned = Quirks((Applied(Quirk.ANY_SIGNATURE, "--quirks"),)).learning(Quirk.ANY_SIGNATURE, "seen", b"USBU")
    assert learned.signature == b"USBU"
    assert Quirks((Applied(Quirk.ANY_SIGNATURE, "--quirks"),)).remembering(learned).signature == b"USBU"
    assert Quirks().remembering(learned).signature is None
