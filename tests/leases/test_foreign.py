"""Which users may open a device's node: only their leases are believed by root."""

from __future__ import annotations

import os
import stat
import struct
import sys
from pathlib import Path

import pytest

from scsiusb.leases import foreign
from tests.leases.leasing import NOBODY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such nodes")


@pytest.mark.parametrize(
    ("uid", "mode", "may"),
    [(0, 0o000, True), (NOBODY, 0o666, True), (NOBODY, 0o664, False), (NOBODY, 0o662, False), (12345678, 0o666, True)],
)
def test_the_mode_of_the_node_says_who_may_open_it(tmp_path: Path, uid: int, mode: int, may: bool) -> None:
    node = tmp_path / "007"
    node.write_text("")
    node.chmod(mode)
    assert foreign.may_open(str(node), uid) == may
    assert not foreign.may_open(str(tmp_path / "missing"), uid)


@pytest.mark.parametrize(
    ("owner", "group", "mode", "may"),
    [
        (NOBODY, 0, 0o600, True),
        (NOBODY, 0, 0o066, False),
        (0, 4, 0o660, True),
        (0, 4, 0o606, False),
        (0, 5, 0o660, False),
    ],
)
def test_owner_and_group_of_the_node_come_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int, may: bool
) -> None:
    found = os.stat_result((stat.S_IFCHR | mode, 1, 1, 1, owner, group, 0, 0, 0, 0))
    monkeypatch.setattr(foreign, "_groups", lambda uid: {4})
    monkeypatch.setattr(os, "stat", lambda path: found)
    assert foreign.may_open("node", NOBODY) == may


@pytest.mark.parametrize(
    ("entries", "may"),
    [
        ([(foreign.USER, 6, NOBODY), (foreign.MASK, 6, -1)], True),  # what udev's "uaccess" makes
        ([(foreign.USER, 6, NOBODY), (foreign.MASK, 4, -1)], False),
        ([(foreign.USER, 4, NOBODY), (foreign.MASK, 6, -1)], False),
        ([(foreign.USER, 6, 1), (foreign.MASK, 6, -1)], False),
        ([(foreign.GROUP, 6, 4), (foreign.MASK, 6, -1)], True),
        ([(foreign.GROUP, 6, 5), (foreign.MASK, 6, -1)], False),
        ([(foreign.GROUP_OBJ, 0, -1), (foreign.GROUP, 6, 4), (foreign.MASK, 2, -1)], False),
    ],
)
def test_the_access_control_list_of_the_node_counts(
    monkeypatch: pytest.MonkeyPatch, entries: list[tuple[int, int, int]], may: bool
) -> None:
    value = b"\2\0\0\0" + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    found = os.stat_result((stat.S_IFCHR | 0o660, 1, 1, 1, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(foreign, "_groups", lambda uid: {4})
    monkeypatch.setattr(os, "stat", lambda path: found)
    monkeypatch.setattr(os, "getxattr", lambda path, name: value)
    assert foreign.may_open("node", NOBODY) == may
