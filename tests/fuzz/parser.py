"""A parser of bytes that come from a device or a file, as fuzzing takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scsiusb.errors import MalformedReply

Seeds = tuple[bytes, ...]


@dataclass(frozen=True)
class Parser:
    """`parse` must return a typed value or raise one of `errors`, whatever the bytes."""

    name: str
    parse: Callable[[bytes], object]
    seeds: Seeds
    errors: tuple[type[Exception], ...] = (MalformedReply,)
