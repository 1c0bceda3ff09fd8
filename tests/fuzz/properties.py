"""What must be true of the result of any parser for hostile bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, Final

from scsiusb.cli.output import jsonable

OVERHEAD: Final = 4000  # characters of a repr that do not come from the device


def check(value: object, data: bytes) -> None:
    """Check what was parsed.

    It can be printed and written as JSON, is not much larger than the data, and holds only bytes of the data.
    """
    for text in texts(value):
        assert text.isprintable(), f"{text!r} has characters that cannot be printed"
    assert len(repr(value)) <= OVERHEAD + 400 * len(data), "the reply is much larger than what was received"
    json.dumps(jsonable(plain(value)))
    for piece in pieces(value):
        assert piece in data, f"{piece!r} was not received"


def check_error(error: BaseException, data: bytes) -> None:
    """Check that the text of an error is one line, and not much longer than the data."""
    assert str(error).isprintable(), f"{str(error)!r} has characters that cannot be printed"
    assert len(str(error)) <= OVERHEAD + 8 * len(data)


def plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def texts(value: object) -> Iterator[str]:
    """Yield every string in a value, and every string that its properties return."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from texts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield str(value)
        for name in _names(type(value)):
            yield from texts(getattr(value, name))


def pieces(value: object) -> Iterator[bytes]:
    """Yield all bytes in a value."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from pieces(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from pieces(getattr(value, field.name))


@cache
def _names(kind: type) -> tuple[str, ...]:
    """Return the names of the fields and properties."""
    found = {name for base in kind.__mro__ for name, what in vars(base).items() if isinstance(what, property)}
    return (*(field.name for field in fields(kind)), *sorted(found))
