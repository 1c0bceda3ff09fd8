"""What must hold of whatever a parser makes of hostile bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, Final

from scsiusb.cli.output import jsonable

OVERHEAD: Final = 4000  # characters of a reply's repr that are the reply's own, and not the device's


def check(value: object, data: bytes) -> None:
    """A typed reply can be printed and told as JSON, is no larger than what came, and has nothing else in it."""
    for text in texts(value):
        assert text.isprintable(), f"{text!r} would disturb a terminal"
    assert len(repr(value)) <= OVERHEAD + 400 * len(data), "the reply is larger than what came"
    json.dumps(jsonable(plain(value)))
    for piece in pieces(value):
        assert piece in data, f"{piece!r} did not come"


def check_error(error: BaseException, data: bytes) -> None:
    """Its text is one line, and no longer than a few times what it speaks of."""
    assert str(error).isprintable(), f"{str(error)!r} would disturb a terminal"
    assert len(str(error)) <= OVERHEAD + 8 * len(data)


def plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def texts(value: object) -> Iterator[str]:
    """Every text that is in it or can be had from it."""
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
    """All bytes in it."""
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
    """Its fields and its properties."""
    found = {name for base in kind.__mro__ for name, what in vars(base).items() if isinstance(what, property)}
    return (*(field.name for field in fields(kind)), *sorted(found))
