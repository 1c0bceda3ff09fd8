"""Errors of files that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def named(path: str | os.PathLike[str], temporary: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Add the path to an OSError that has none, as of a write to a file descriptor.

    `temporary`: the file that is written in place of the path; an error that it cannot be made names the path, too.
    """
    try:
        yield
    except OSError as error:
        is_missing = temporary is not None and error.filename == os.fspath(temporary) and not os.path.lexists(temporary)
        if error.filename is None or is_missing:
            error.filename, error.filename2 = os.fspath(path), None
        raise
