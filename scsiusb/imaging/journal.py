"""The journal of a job: a file of JSON lines beside the image, by which a job goes on after it was interrupted.

The first line says what the job is; each other line says what is done, and is added after that is done. A line that was
cut off at the end of the file, as by a loss of power, does not count.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from scsiusb.base.copying import Uncopyable
from scsiusb.base.files import named
from scsiusb.errors import ImageError
from scsiusb.imaging.identity import BEGIN_ANEW

SUFFIX: Final = ".journal"
VERSION: Final = 1
LARGEST: Final = 256 * 1024 * 1024  # bytes; a journal of a job on 1 TB has some 40
HEAD: Final = b'{"scsiusb_journal"'  # which each journal begins with
Record = dict[str, Any]


def read_journal(path: Path) -> tuple[Record, list[Record], int]:
    """Return the first record, the others, and the length of the file up to the last whole line.

    Raise ImageError if it is no journal of this version, OSError if it cannot be read.
    """
    if path.stat().st_size > LARGEST:
        raise ImageError(f"{path} is too large to be a journal", BEGIN_ANEW)
    data = path.read_bytes()
    length = data.rfind(b"\n") + 1
    records: list[Record] = []
    for line in data[:length].splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ImageError(f"{path}: line {len(records) + 1} is no record of a journal", BEGIN_ANEW)
        records.append(record)
    if not records or records[0].get("scsiusb_journal") != VERSION:
        raise ImageError(f"{path} is no journal of this version of scsiusb", BEGIN_ANEW)
    return records[0], records[1:], length


def read_journal_of(job: str, path: Path) -> tuple[Record, list[Record], int]:
    """Do as `read_journal`; raise ImageError, too, if it is the journal of another job than `job`."""
    found = read_journal(path)
    if found[0].get("job") != job:
        article = "an" if job[0] in "aeiou" else "a"
        raise ImageError(f"{path} is not the journal of {article} {job}", f"give that of the {job}, or {BEGIN_ANEW}")
    return found


def is_begun(path: Path) -> bool:
    """Return whether there is a journal that says what its job is; not if it was interrupted before that."""
    try:
        with open(path, "rb") as file:
            return file.readline(LARGEST).endswith(b"\n")
    except FileNotFoundError:
        return False


def must_be_minded(path: Path, *, resume: bool) -> bool:
    """Return whether a job cannot begin anew: with `resume` if its journal is begun, else if that says what is done."""
    return is_begun(path) and (resume or _has_progress(path))


def _has_progress(path: Path) -> bool:
    with open(path, "rb") as file:
        file.readline(LARGEST)
        return file.readline(LARGEST).endswith(b"\n")


def _check_not_foreign(path: Path) -> None:
    """Raise ImageError if the file has something else than a journal, which a new journal would destroy."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(HEAD))
    except FileNotFoundError:
        return
    if not HEAD.startswith(head):
        raise ImageError(f"{path} is there, and is no journal", "give another name, or remove the file")


class Journal(Uncopyable):
    """Adds records to a journal. `close` it; `remove` it when the job is done."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open the file, and cut it off after `length` bytes: 0 begins a new journal.

        Raise OSError, ImageError if the file has something else.
        """
        self.path = path
        self._descriptor = -1
        if not length:
            _check_not_foreign(path)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            with named(path):
                os.ftruncate(self._descriptor, length)
                os.lseek(self._descriptor, length, os.SEEK_SET)
        except BaseException:
            self.close()
            raise

    def begin(self, **job: Any) -> None:
        """Add the first record: what the job is."""
        self.add(scsiusb_journal=VERSION, **job)

    def add(self, **record: Any) -> None:
        """Add a record. Raise OSError."""
        line = memoryview(json.dumps(record).encode() + b"\n")
        with named(self.path):
            while line:
                line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Close the file; it stays, for another run to go on. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Close and remove the file: the job is done."""
        self.close()
        self.path.unlink(missing_ok=True)


def journal_of(path: Path, key: str = "") -> Path:
    """Return the place of the journal of a job on the image at `path`; `key` tells several jobs on one image apart."""
    return path.with_name(f"{path.name}{key and '.'}{key}{SUFFIX}")
