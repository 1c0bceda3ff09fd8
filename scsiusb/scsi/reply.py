"""Base of SCSI replies: a reply is a frozen dataclass with the construct layout of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from construct import Construct, ConstructError

from scsiusb.base.packing import parsed
from scsiusb.base.text import printable
from scsiusb.errors import MalformedReply

R = TypeVar("R", bound="Reply")
E = TypeVar("E")


class Reply:
    """Base of replies with a fixed layout; each dataclass field takes the value of the layout field with its name."""

    LAYOUT: ClassVar[Construct]

    @classmethod
    def parse(cls: type[R], data: bytes) -> R:
        """Return the typed reply. Raises MalformedReply if `data` does not have the layout."""
        values = cls.fields_of(data)
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]

    @classmethod
    def fields_of(cls, data: bytes) -> Any:
        """Return the parsed layout fields, for subclasses with their own `parse`. Raises MalformedReply."""
        return parse(cls.LAYOUT, data, cls.__name__)


def parse(layout: Construct, data: bytes, what: str) -> Any:
    """Parse `data`; `what` names it in the error. Raises MalformedReply, never an error of construct."""
    try:
        return parsed(layout, data)
    except ConstructError as error:
        raise MalformedReply(f"{what}: the {len(data)} bytes received do not have its layout") from error


def listed(data: bytes, start: int, length: int) -> tuple[bytes, int]:
    """Return the bytes of a list of `length` bytes from `start` on, and how many of them did not come."""
    end = start + length
    return data[start:end], max(end - max(len(data), start), 0)


def entries(layout: Construct, body: bytes, kind: Callable[..., E]) -> tuple[E, ...]:
    """Return `kind` made of each whole entry of a list; the bytes of an entry that was cut are not used.

    Fields of the layout without a name, and those that begin with "_", are left out.
    """
    size = layout.sizeof()
    whole = range(0, len(body) - size + 1, size)
    return tuple(kind(**_named(parsed(layout, body[at : at + size]))) for at in whole)


def _named(fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not name.startswith("_")}


def text(field: bytes) -> str:
    """Return a left-aligned ASCII field (SPC-4 4.4.1) without padding and with only printable characters."""
    return printable(field.decode("ascii", "replace").split("\0")[0].strip())
