"""Locks on files, as far as they can be tried on every platform; the leases' tests have the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scsiusb.base.locks import LOCK_AT, at_lock, is_refused, try_lock, unlock


def test_the_position_of_a_windows_lock_is_left_again(tmp_path: Path) -> None:
    """A trace would otherwise begin 1 GiB into its file."""
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"abc")
        with pytest.raises(KeyboardInterrupt), at_lock(file.fileno()):
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == LOCK_AT
            raise KeyboardInterrupt
        assert file.tell() == 3
        file.truncate()
    assert (tmp_path / "file").stat().st_size == 3


def test_a_lock_keeps_out_another_open_of_the_file_and_no_position_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    with path.open("r+b", buffering=0) as one, path.open("r+b", buffering=0) as other:
        one.seek(2)
        other.seek(3)
        assert try_lock(one.fileno())
        assert is_refused(other.fileno(), shared=False)
        assert (one.tell(), other.tell()) == (2, 3)
        unlock(one.fileno())
        assert not is_refused(other.fileno(), shared=False)
        unlock(other.fileno())
        assert (one.read(), other.read()) == (b"cdef", b"def")
