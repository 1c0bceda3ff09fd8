"""The fast packers give the same result as construct with the same declaration."""

from __future__ import annotations

import io
import struct
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from construct import (
    Array,
    BitsInteger,
    BitStruct,
    Byte,
    Bytes,
    Const,
    Construct,
    ConstructError,
    Flag,
    Int8ub,
    Int16ub,
    Int16ul,
    Padded,
    Padding,
    Struct,
)
from hypothesis import example, given
from hypothesis import strategies as st

from scsiusb.base.packing import BitPacker, ByteCodec, parsed
from scsiusb.disk.medium import READ, WRITE, BlockTransfer, Medium
from scsiusb.scsi import reply
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands import mmc as multimedia
from scsiusb.scsi.commands import sbc as block
from scsiusb.scsi.commands import spc as primary
from scsiusb.scsi.sense import Sense
from scsiusb.transport.bot.formats import CBW, CBW_CODEC, CSW, CSW_CODEC

COMMANDS = [
    kind
    for module in (primary, block, multimedia)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Command) and "CDB" in vars(kind)
]


def field_values(kind: type[Command[Any]]) -> st.SearchStrategy[dict[str, int]]:
    widths = {name: width for name, _, width in kind._packer._fields}
    return st.fixed_dictionaries({name: st.integers(0, (1 << width) - 1) for name, width in widths.items()})


def test_all_commands_are_tested() -> None:
    assert len(COMMANDS) == 19


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_packed_cdb_equals_what_construct_builds(kind: type[Command[Any]], data: st.DataObject) -> None:
    values = data.draw(field_values(kind))
    assert kind._packer.pack(SimpleNamespace(**values)) == kind.CDB.build(values)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_cdb_is_an_attribute_of_its_command(kind: type[Command[Any]]) -> None:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    assert set(kind._packer.names) <= names | {"length"}


@pytest.mark.parametrize("access", [READ, WRITE])
@given(lba=st.integers(0, 2**64 - 0x10000), blocks=st.integers(0, 0xFFFF))
@example(lba=2**32 - 8, blocks=8)
@example(lba=2**32 - 8, blocks=9)
def test_a_cdb_packed_by_position_equals_the_commands(access: BlockTransfer, lba: int, blocks: int) -> None:
    medium = Medium(blocks=2**64, block_size=512, max_blocks=0xFFFF, changes=0, alone_from=2**64 - 1)
    assert access.cdb(lba, blocks) == access.command(medium, lba, blocks).cdb()


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (BitStruct("a" / BitsInteger(4), "b" / BitsInteger(4)), ["a"]),
        (BitStruct("a" / BitsInteger(24)), ["a"]),
        (BitStruct("a" / BitsInteger(8), "b" / Const(1, BitsInteger(8))), ["a"]),
    ],
    ids=["half a byte", "three bytes", "a constant after a value"],
)
def test_a_layout_that_cannot_be_packed_by_position_is_refused(layout: Construct, names: list[str]) -> None:
    with pytest.raises(TypeError):
        BitPacker(layout).positional(*names)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(min_size=16, max_size=16))
def test_a_packed_cbw_equals_what_construct_builds(tag: int, length: int, lun: int, cdb: bytes) -> None:
    buffer = memoryview(bytearray(31))
    CBW_CODEC.pack_into(buffer, tag, length, 0x80, lun, 16, cdb)
    values = {"tag": tag, "length": length, "flags": 0x80, "lun": lun, "cdb_length": 16, "cdb": cdb}
    assert bytes(buffer) == CBW.build(values)


@given(st.binary(min_size=13, max_size=13))
def test_an_unpacked_csw_equals_what_construct_parses(data: bytes) -> None:
    parsed = CSW.parse(data)
    assert CSW_CODEC.unpack_from(memoryview(data)) == (parsed.signature, parsed.tag, parsed.residue, parsed.status)


@pytest.mark.parametrize("value", [-1, 4])
def test_a_value_that_does_not_fit_its_bits_is_refused(value: int) -> None:
    packer = BitPacker(BitStruct(Padding(6), "two" / BitsInteger(2)))
    with pytest.raises(ValueError, match=f"two={value} does not fit"):
        packer.pack(SimpleNamespace(two=value))


def test_a_value_that_does_not_fit_its_bytes_is_refused() -> None:
    with pytest.raises(struct.error):
        ByteCodec(Struct("n" / Int8ub)).pack_into(memoryview(bytearray(1)), 256)


@pytest.mark.parametrize(
    "layout",
    [
        Struct("n" / Int8ub),
        BitStruct("f" / Array(8, Flag)),
        BitStruct("n" / Byte),
        BitStruct("n" / BitsInteger(8, signed=True)),
        BitStruct("n" / BitsInteger(16, swapped=True)),
        BitStruct("n" / Padded(8, BitsInteger(4))),
    ],
    ids=["bytes", "array", "byte", "signed", "swapped", "padded"],
)
def test_an_unsupported_bit_layout_is_refused(layout: Any) -> None:
    with pytest.raises(TypeError):
        BitPacker(layout)


@pytest.mark.parametrize("layout", [Struct("a" / Int16ub, "b" / Int16ul), Struct("a" / Array(2, Byte))])
def test_an_unsupported_struct_is_refused(layout: Struct) -> None:
    with pytest.raises(TypeError):
        ByteCodec(layout)


def test_constants_are_packed_and_must_come_first() -> None:
    buffer = memoryview(bytearray(4))
    ByteCodec(Struct(Const(b"xy"), "a" / Int8ub, "b" / Bytes(1))).pack_into(buffer, 1, b"z")
    assert bytes(buffer) == b"xy\x01z"
    with pytest.raises(TypeError, match="constant"):
        ByteCodec(Struct("a" / Int8ub, Const(b"xy")))


def test_a_lack_of_memory_while_parsing_is_no_error_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """construct makes a StreamError of it, which would be taken for a malformed reply."""

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise MemoryError("no more")

    layout = Struct("flags" / BitStruct("n" / BitsInteger(8)), "a" / Int16ub)
    with pytest.raises(ConstructError):
        parsed(layout, b"x")
    monkeypatch.setattr(io, "BytesIO", Stream)
    with pytest.raises(MemoryError, match="no more"):
        parsed(layout, b"xyz")
    with pytest.raises(MemoryError, match="no more"):
        reply.parse(layout, b"xyz", "a reply")
    with pytest.raises(MemoryError, match="no more"):
        Sense.parse(bytes.fromhex("70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 00 00 00"))
