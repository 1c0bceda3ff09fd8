"""The index of .xz files: what lzma has made is measured exactly, and what is damaged is not believed."""

from __future__ import annotations

import io
import lzma
import random
import struct
import zlib

import pytest

from scsiusb.imaging import xz_index
from scsiusb.imaging.xz_index import FOOTER, HEADER, XzContents, read_xz_index

DATA = random.Random(1).randbytes(100_001)
CHECKS = [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]


def found(packed: bytes) -> XzContents | None:
    return read_xz_index(io.BytesIO(packed))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("length", [0, 1, 127, 128, 16384, len(DATA)])
def test_a_stream_is_measured(check: int, length: int) -> None:
    assert found(lzma.compress(DATA[:length], check=check)) == XzContents(length, is_whole=True)


@pytest.mark.parametrize("padding", [0, 4, 512])
def test_several_streams_are_measured_with_their_padding(padding: int) -> None:
    parts = [DATA[:1000], b"", DATA, bytes(300_000)]
    packed = b"".join(lzma.compress(part) + bytes(padding) for part in parts)
    assert found(packed) == XzContents(sum(map(len, parts)), is_whole=True)


def test_what_is_before_the_last_good_stream_makes_it_a_lower_bound() -> None:
    first, last = bytearray(lzma.compress(DATA)), lzma.compress(DATA[:5000])
    first[-1] ^= 1
    assert found(bytes(first) + last) == XzContents(5000, is_whole=False)


def test_more_streams_than_are_looked_at_make_it_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xz_index, "MOST_STREAMS", 2)
    assert found(lzma.compress(bytes(100)) * 3) == XzContents(200, is_whole=False)


def test_an_end_that_is_no_stream_is_not_believed() -> None:
    packed = lzma.compress(DATA[:1000])
    for cut in range(1, len(packed)):
        assert found(packed[:-cut]) is None
    assert found(b"") is None
    assert found(bytes(64)) is None
    assert found(packed + b"more") is None


def test_a_changed_byte_of_the_end_is_not_believed() -> None:
    packed = lzma.compress(DATA[:1000])
    index = (FOOTER.unpack(packed[-HEADER:])[1] + 1) * 4
    for at in range(len(packed) - HEADER - index, len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= 0x41
        assert found(bytes(damaged)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"\x01\x00",  # no index
        b"\x00\x05\x10\x10",  # fewer records than it says
        b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01",  # a block that is longer than the file
        b"\x00\x01" + b"\xff" * 10,  # a number without an end
        b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # too many records
        b"\x00\x00\x00\x07",  # padding that is not zeros
        b"\x00\x00\x00\x00\x00\x00\x00\x00",  # too much padding
    ],
)
def test_a_hostile_index_with_a_right_crc_is_not_believed(body: bytes) -> None:
    body = body.ljust(-(-len(body) // 4) * 4, b"\0")
    index = body + zlib.crc32(body).to_bytes(4, "little")
    rest = struct.pack("<I", len(index) // 4 - 1) + b"\x00\x04"
    footer = zlib.crc32(rest).to_bytes(4, "little") + rest + b"YZ"
    assert found(lzma.compress(b"")[:HEADER] + index + footer) is None


def test_a_backward_size_beyond_the_file_is_not_believed() -> None:
    rest = struct.pack("<I", 0xFFFFFFFF) + b"\x00\x04"
    footer = zlib.crc32(rest).to_bytes(4, "little") + rest + b"YZ"
    assert found(lzma.compress(b"")[:HEADER] + bytes(8) + footer) is None
