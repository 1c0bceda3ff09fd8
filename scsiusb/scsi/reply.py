"""How a reply is declared: a frozen dataclass beside the construct layout that its bytes have."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from construct import Construct, ConstructError

from scsiusb.base.text import printable
from scsiusb.errors import MalformedReply

R = TypeVar("R", bound="Reply")


class Reply:
    """The base of fixed-layout replies; a field of the dataclass takes the layout's field of the same name."""

    LAYOUT: ClassVar[Construct]

    @classmethod
    def parse(cls: type[R], data: bytes) -> R:
        """Raises MalformedReply where `data` does not have the layout."""
        values = cls.fields_of(data)
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]

    @classmethod
    def fields_of(cls, data: bytes) -> Any:
        """The layout's fields, for replies that are made of them in another way."""
        return parse(cls.LAYOUT, data, cls.__name__)


def parse(layout: Construct, data: bytes, what: str) -> Any:
    """construct's own errors never leave this module."""
    try:
        return layout.parse(data)
    except ConstructError as error:
        raise MalformedReply(f"{what}: {len(data)} bytes came that do not have its layout") from error


def text(field: bytes) -> str:
    """A left-aligned ASCII field (SPC-4 4.4.1), without padding and without what could disturb a terminal."""
    return printable(field.decode("ascii", "replace").split("\0")[0].strip())
