"""A lease that was written is read back; any other content is a valid record or is refused."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scsiusb.leases import record
from scsiusb.leases.lease import Lease, leases
from scsiusb.leases.record import MAX_COMMAND_LENGTH, parse
from scsiusb.usb.interface import InterfaceInfo
from tests.leases.leasing import NOBODY, is_root
from tests.leases.usbfs import RECORD

if sys.platform == "win32":
    pytest.skip("descriptors of folders", allow_module_level=True)


GOOD = replace(RECORD, boot="0c15-ab", uid=1000)


def text(**changes: Any) -> bytes:
    return json.dumps({"in_command": 0, **asdict(GOOD), **changes}).encode() + b"\n"


def test_a_record_that_was_written_is_parsed() -> None:
    assert parse(text()) == GOOD
    assert parse(text() + b"the rest of a longer one\n") == GOOD
    assert parse(text(new="from a later version")) == GOOD
    nothing: Any = dict.fromkeys(("started", "boot", "serial", "driver", "uid"))
    assert parse(text(**nothing)) == replace(GOOD, **nothing)
    assert parse(text(address="2-1:1.0")) == replace(GOOD, address="2-1:1.0")


HOSTILE: dict[str, list[object]] = {
    "pid": [0, -1, True, 1.5, "1", None, [1], {}, 1 << 31],
    "started": [-1, "x", 1e99],
    "boot": ["../..", "", 5],
    "command": ["a\x1b[2J", "a\n", "x" * (MAX_COMMAND_LENGTH + 1), None, 7],
    "since": ["\x07", "yesterday", ""],
    "address": ["2-2", "../2-1", "", None, "2-1:1.1"],
    "name": ["2-1", "3-1:1.0", "../../etc/passwd", "2-1/:1.0", "2-1:1.0/..", "٢-1:1.0", "2-1:1.0\n", None],
    "bus": [3, -1, "2"],
    "number": [-1, 1000, None],
    "interface": [256, "0"],
    "vendor_id": [65536, "x"],
    "product_id": [-1],
    "serial": ["\x00", "x" * 256, 5],
    "driver": ["a\x1b", "x" * 65, 0],
    "bulk_in": [256, -1],
    "bulk_out": ["x"],
    "uid": [-1, 1 << 32],
    "in_command": [2, "0", None],
    "pid_namespace": [0, -1, True, "4026531836", 1.5, 1 << 65],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_with_an_invalid_field_is_refused(name: str) -> None:
    assert [value for value in HOSTILE[name] if parse(text(**{name: value})) is not None] == []


def test_a_record_with_a_missing_field_is_refused() -> None:
    whole = json.loads(text())
    without = {name: {key: value for key, value in whole.items() if key != name} for name in asdict(GOOD)}
    accepted = [name for name in without if parse(json.dumps(without[name]).encode() + b"\n") is not None]
    assert accepted == ["pid_namespace"], "which older versions did not write"


@given(st.binary())
def test_random_bytes_are_refused(content: bytes) -> None:
    assert parse(content) is None
    assert parse(content + b"\n") is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists), st.sampled_from(list(HOSTILE)))
def test_any_json_is_refused_or_gives_printable_text(value: object, name: str) -> None:
    assert parse(json.dumps(value).encode() + b"\n") is None
    found = parse(text(**{name: value}))
    assert found is None or (found.command + (found.serial or "") + (found.driver or "")).isprintable()


@pytest.mark.parametrize("content", [b"", text()[:-1], b"[" * 60000 + b"\n", b"9" * 60000 + b"\n"])
def test_a_truncated_or_endless_line_is_refused(content: bytes) -> None:
    assert parse(content) is None


def test_files_that_are_not_leases_are_left_out_and_not_changed(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    name = "002-007-0.json"
    (folder / "elsewhere.json").write_bytes(text())
    (folder / "002-007-00.json").write_bytes(text())
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "003-001-0.json")
    (folder / "004-001-0.json").symlink_to("elsewhere.json")
    with (folder / "005-001-0.json").open("wb") as file:
        file.truncate(1 << 40)
    os.link(folder / "elsewhere.json", folder / name)
    before = sorted(folder.iterdir())
    assert leases() == []
    assert sorted(folder.iterdir()) == before
    (folder / "elsewhere.json").unlink()
    assert [seen.record for seen in leases()] == [GOOD]


@is_root
def test_another_users_file_in_the_folder_is_left_out(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    path = folder / GOOD.file_name
    path.write_bytes(text())
    os.chown(path, NOBODY, NOBODY)
    assert leases() == []


@pytest.mark.parametrize("content", [b"", b"\xff", text(), b"x" * 100000])
def test_a_file_with_invalid_content_is_overwritten(folder: Path, info: InterfaceInfo, content: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / "001-002-0.json").write_bytes(content)
    held = Lease.acquire(info)
    assert [seen.record for seen in leases()] == [held.record]
    held.release()
    assert list(folder.iterdir()) == []


def test_the_command_is_printable_and_limited(info: InterfaceInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "a\x1b[2J\n\udcff", "x" * 500])
    command = record.record_of(info).command
    assert command.isprintable()
    assert len(command) == MAX_COMMAND_LENGTH
