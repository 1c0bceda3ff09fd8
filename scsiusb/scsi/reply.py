"""Base of SCSI replies: a reply is a frozen dataclass with the construct layout of its bytes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from construct import Construct, ConstructError

from scsiusb.base.text import printable
from scsiusb.errors import MalformedReply

R = TypeVar("R", bound="Reply")


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
        return layout.parse(data)
    except ConstructError as error:
        raise MalformedReply(f"{what}: the {len(data)} bytes received do not have its layout") from error


def text(field: bytes) -> str:
    """Return a left-aligned ASCII field (SPC-4 4.4.1) without padding and with only printable characters."""
    return printable(field.decode("ascii", "replace").split("\0")[0].strip())
