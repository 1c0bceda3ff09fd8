"""Fast packers that are derived from construct declarations.

construct interprets a declaration each time it builds or parses bytes, which is too slow for every command. The
declaration stays the only definition of a layout: the packers here are made from it once, when a module is loaded.
"""

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
    ConstructError,
    Flag,
    FormatField,
    Padded,
    Pass,
    Renamed,
    Struct,
    Transformed,
)

BYTE_BITS = 8
CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}  # struct's format characters, by width in bits


def parsed(layout: Construct, data: bytes) -> Any:
    """Parse `data`. Raises ConstructError if it does not have the layout, MemoryError.

    construct takes any exception of its streams for an error of the data.
    """
    try:
        return layout.parse(data)
    except ConstructError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise MemoryError(*cause.args) from error
            cause = cause.__context__
        raise


class BitPacker:
    """A packer for the layout of a `BitStruct`, most significant bit first. `length` is in bytes."""

    def __init__(self, layout: Construct) -> None:
        """Derive the packer. Raises TypeError for a layout that it does not support."""
        if not isinstance(layout, Transformed):
            raise TypeError(f"{layout!r} is not a BitStruct")
        self.length: int = layout.sizeof()
        constants = 0
        self._fields: list[tuple[str, int, int]] = []  # name, shift to the left, width in bits
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
        """Return the names of the fields that have a value."""
        return [name for name, _, _ in self._fields]

    def positional(self, *names: str) -> Callable[..., bytes]:
        """Return a function that packs the values of these fields, in this order; all other fields are 0.

        It is faster than `pack`, as it is a single call of struct. Its result are `length` bytes; it raises
        struct.error if a value does not fit. Raises TypeError if a field is not of 1, 2, 4 or 8 whole bytes, or if a
        constant follows a value.
        """
        code, at = "", self.length * BYTE_BITS
        places = {name: (shift, width) for name, shift, width in self._fields}
        for name in names:
            shift, width = places[name]
            padding, part = divmod(at - shift - width, BYTE_BITS)
            if part or width not in CODES:
                raise TypeError(f"the field {name} does not have 1, 2, 4 or 8 whole bytes")
            code += f"{padding}x{CODES[width]}"
            at = shift
        first, _, rest = code.partition("x")
        head = self._constants.to_bytes(self.length, "big")[: int(first)]
        if self._constants != int.from_bytes(head.ljust(self.length, b"\0"), "big"):
            raise TypeError("a constant follows a value")
        return partial(struct.Struct(f">{len(head)}s{rest}{at // BYTE_BITS}x").pack, head)

    def pack(self, source: object) -> bytes:
        """Pack the attributes of `source` with the fields' names. Raises ValueError if a value does not fit."""
        word = self._constants
        for name, shift, width in self._fields:
            value = getattr(source, name)
            if value:
                if value >> width:  # not 0 if the value is too large; -1 if it is negative
                    raise ValueError(f"{name}={value} does not fit: 0 to {(1 << width) - 1} does")
                word |= value << shift
        return word.to_bytes(self.length, "big")


def _bit_fields(layout: Construct) -> Iterator[tuple[str | None, int, int | None]]:
    """Yield the name, the width in bits and the constant value, if any, of each field."""
    for field in layout.subcons:
        name, inner = _unwrap(field)
        if isinstance(inner, Const):
            yield name, inner.subcon.sizeof(), int(inner.value)
        elif inner is Flag or _is_plain(inner):
            yield name, inner.sizeof(), None
        else:
            raise TypeError(f"the field {field!r} is not supported by the packer")


def _is_plain(field: Construct) -> bool:
    """Return whether the field is an unsigned big-endian integer, or padding."""
    if isinstance(field, BitsInteger):
        return not field.signed and not field.swapped
    return isinstance(field, Padded) and field.subcon is Pass


def _unwrap(field: Construct) -> tuple[str | None, Construct]:
    """Return the field's name, None if it has none, and its type."""
    return (field.name, field.subcon) if isinstance(field, Renamed) else (None, field)


class ByteCodec:
    """A packer and unpacker for a `Struct` of fixed size.

    Values are passed by position, without padding, and without the constants, which must come first. `length` and
    `values_offset` are in bytes.
    """

    def __init__(self, layout: Struct) -> None:
        """Derive the codec. Raises TypeError for a layout that it does not support."""
        columns = [_byte_column(field) for field in layout.subcons]
        orders = {order for _, order, _ in columns} - {""}
        self._constants = [value for _, _, value in columns if value is not None]
        if any(value is not None for _, _, value in columns[len(self._constants) :]):
            raise TypeError(f"in {layout!r} a constant follows a value")
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
        """Pack only the values into a buffer, at `values_offset`. Raises struct.error if a value does not fit."""
        self.unpack_from = whole.unpack_from
        """Unpack all fields of a buffer, also the constants, which are not checked."""

    def put_constants(self, buffer: memoryview) -> None:
        """Write the constants into a buffer, once; after that, `pack_values_into` can be used with it repeatedly."""
        self._leading.pack_into(buffer, 0, *self._constants)

    def pack_into(self, buffer: memoryview, *values: Any) -> None:
        """Pack constants and values into a buffer. Raises struct.error if a value does not fit its field."""
        self.put_constants(buffer)
        self.pack_values_into(buffer, self.values_offset, *values)


def _byte_column(field: Construct) -> tuple[str, str, Any]:
    """Return the field's struct code, its byte order ("" for single bytes) and its constant value, if any."""
    _, inner = _unwrap(field)
    constant = None
    if isinstance(inner, Const):
        constant, inner = inner.value, inner.subcon
    if isinstance(inner, FormatField):
        return inner.fmtstr[1], inner.fmtstr[0] if inner.length > 1 else "", constant
    if isinstance(inner, Bytes):
        return f"{inner.length}s", "", constant
    if isinstance(inner, Padded) and inner.subcon is Pass:
        return f"{inner.length}x", "", None
    raise TypeError(f"the field {field!r} is not supported by the codec")
