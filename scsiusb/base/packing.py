"""Quick packers derived from construct declarations, which stay the truth."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from construct import (
    BitsInteger,
    Bytes,
    Const,
    Construct,
    Flag,
    FormatField,
    Padded,
    Pass,
    Renamed,
    Struct,
    Transformed,
)

BYTE_BITS = 8
CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}  # struct's, by width


class BitPacker:
    """Packs the attributes of an object as a `BitStruct` does, most significant bit first."""

    def __init__(self, layout: Construct) -> None:
        if not isinstance(layout, Transformed):
            raise TypeError(f"{layout!r} is not a BitStruct")
        self.length: int = layout.sizeof()
        constants = 0
        self._fields: list[tuple[str, int, int]] = []  # name, place from the right, width in bits
        shift = self.length * BYTE_BITS
        for name, width, constant in _bit_fields(layout.subcon):
            shift -= width
            if name is not None and constant is None:
                self._fields.append((name, shift, width))
            else:
                constants |= (constant or 0) << shift
        self._constants = constants

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self._fields]

    def positional(self, *names: str) -> Callable[..., bytes]:
        """Packs these fields' values, in their order, with 0 in all others: quick, as they must be whole bytes.

        What it returns raises struct.error where a value does not fit.
        """
        code, at = "", self.length * BYTE_BITS
        places = {name: (shift, width) for name, shift, width in self._fields}
        for name in names:
            shift, width = places[name]
            padding, part = divmod(at - shift - width, BYTE_BITS)
            if part or width not in CODES:
                raise TypeError(f"{name} is not one of whole bytes")
            code += f"{padding}x{CODES[width]}"
            at = shift
        first, _, rest = code.partition("x")
        head = self._constants.to_bytes(self.length, "big")[: int(first)]
        if self._constants != int.from_bytes(head.ljust(self.length, b"\0"), "big"):
            raise TypeError("there is a constant behind a value")
        return partial(struct.Struct(f">{len(head)}s{rest}{at // BYTE_BITS}x").pack, head)

    def pack(self, source: object) -> bytes:
        """Raises ValueError where a value does not fit its field."""
        word = self._constants
        for name, shift, width in self._fields:
            value = getattr(source, name)
            if value:
                if value >> width:  # -1 where it is negative
                    raise ValueError(f"{name}={value} does not fit: 0 to {(1 << width) - 1} does")
                word |= value << shift
        return word.to_bytes(self.length, "big")


def _bit_fields(layout: Construct) -> Iterator[tuple[str | None, int, int | None]]:
    """The name, width in bits and constant value of each field."""
    for field in layout.subcons:
        name, inner = _unwrap(field)
        if isinstance(inner, Const):
            yield name, inner.subcon.sizeof(), int(inner.value)
        elif inner is Flag or _is_plain(inner):
            yield name, inner.sizeof(), None
        else:
            raise TypeError(f"no quick packer for the field {field!r}")


def _is_plain(field: Construct) -> bool:
    if isinstance(field, BitsInteger):
        return not field.signed and not field.swapped
    return isinstance(field, Padded) and field.subcon is Pass


def _unwrap(field: Construct) -> tuple[str | None, Construct]:
    return (field.name, field.subcon) if isinstance(field, Renamed) else (None, field)


class ByteCodec:
    """Packs and unpacks a byte-wise `Struct` of fixed size; values go by position, without the leading constants."""

    def __init__(self, layout: Struct) -> None:
        columns = [_byte_column(field) for field in layout.subcons]
        orders = {order for _, order, _ in columns} - {""}
        self._constants = [value for _, _, value in columns if value is not None]
        if any(value is not None for _, _, value in columns[len(self._constants) :]):
            raise TypeError(f"{layout!r} has a constant behind a value")
        if len(orders) > 1:
            raise TypeError(f"{layout!r} mixes byte orders")
        order = orders.pop() if orders else ">"
        codes = [code for code, _, _ in columns]
        self._leading = struct.Struct(order + "".join(codes[: len(self._constants)]))
        values = struct.Struct(order + "".join(codes[len(self._constants) :]))
        whole = struct.Struct(order + "".join(codes))
        self.length = whole.size
        self.values_offset = self._leading.size
        self.pack_values_into = values.pack_into
        """Packs the values alone, into a buffer at `values_offset`. Raises struct.error where one does not fit."""
        self.unpack_from = whole.unpack_from
        """Every field of a buffer, the constants too: whoever asks checks them."""

    def put_constants(self, buffer: memoryview) -> None:
        """Once for a buffer into which values are packed again and again."""
        self._leading.pack_into(buffer, 0, *self._constants)

    def pack_into(self, buffer: memoryview, *values: Any) -> None:
        """Raises struct.error where a value does not fit its field."""
        self.put_constants(buffer)
        self.pack_values_into(buffer, self.values_offset, *values)


def _byte_column(field: Construct) -> tuple[str, str, Any]:
    """The field's struct code, its byte order and its constant value."""
    _, inner = _unwrap(field)
    constant = None
    if isinstance(inner, Const):
        constant, inner = inner.value, inner.subcon
    if isinstance(inner, FormatField):
        return inner.fmtstr[1], inner.fmtstr[0] if inner.length > 1 else "", constant
    if isinstance(inner, Bytes):
        return f"{inner.length}s", "", constant
    raise TypeError(f"no quick packer for the field {field!r}")
