"""Invalid descriptors: functions that take a valid descriptor's bytes and return invalid ones, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

_CONFIGURATION, _STRING, _INTERFACE, _ENDPOINT = 2, 3, 4, 5  # bDescriptorType (USB 2.0 table 9-5)
_LENGTHS = {_INTERFACE: 9, _ENDPOINT: 7}
_HEADER = 9  # bytes of a configuration descriptor without the descriptors that follow it
_NUM_INTERFACES = 4
_NUM_ENDPOINTS = 4
_ADDRESS, _ATTRIBUTES, _PACKET = 2, 3, slice(4, 6)
_INTERRUPT = 0x03

Change = Callable[[bytes], bytes]


def _offsets(data: bytes | bytearray, kind: int) -> Iterator[int]:
    """Yield the offset of each complete descriptor of type `kind`, up to the first malformed one."""
    at = 0
    while at + 2 <= len(data) and 2 <= data[at] <= len(data) - at:
        if data[at + 1] == kind and data[at] >= _LENGTHS[kind]:
            yield at
        at += data[at]


def _with_total(data: bytes | bytearray) -> bytes:
    return bytes(data[:2]) + len(data).to_bytes(2, "little") + bytes(data[4:])


def _with_first_length(data: bytes, kind: int, length: int) -> bytes:
    """Set bLength of the first descriptor of type `kind`."""
    at = next(_offsets(data, kind), 0)
    return data[:at] + bytes((length,)) + data[at + 1 :]


def _truncated(data: bytes) -> bytes:
    return data[:-4]


def _long_total_length(data: bytes) -> bytes:
    return data[:2] + b"\xff\xff" + data[4:]


def _short_total_length(data: bytes) -> bytes:
    return data[:2] + _HEADER.to_bytes(2, "little") + data[4:]


def _zero_length_descriptor(data: bytes) -> bytes:
    return _with_first_length(data, _ENDPOINT, 0)


def _overlong_descriptor(data: bytes) -> bytes:
    return _with_first_length(data, _INTERFACE, 0xFF)


def _no_endpoints(data: bytes) -> bytes:
    kept = bytearray(data[:_HEADER])
    for at in _offsets(data, _INTERFACE):
        kept += data[at : at + _NUM_ENDPOINTS] + b"\0" + data[at + _NUM_ENDPOINTS + 1 : at + data[at]]
    return _with_total(kept)


def _each(kind: int, change: Callable[[bytearray, int], None], data: bytes) -> bytes:
    wrong = bytearray(data)
    for at in list(_offsets(data, kind)):
        change(wrong, at)
    return bytes(wrong)


def _zero_packet(data: bytearray, at: int) -> None:
    data[at + _PACKET.start : at + _PACKET.stop] = bytes(2)


def _wrong_type(data: bytearray, at: int) -> None:
    data[at + _ATTRIBUTES] = _INTERRUPT


def _many_endpoints(data: bytearray, at: int) -> None:
    data[at + _NUM_ENDPOINTS] = 0xFF


def _duplicate_endpoints(data: bytes) -> bytes:
    first = next(_offsets(data, _ENDPOINT), None)
    if first is None:
        return data

    def copy_address(wrong: bytearray, at: int) -> None:
        wrong[at + _ADDRESS] = data[first + _ADDRESS]

    return _each(_ENDPOINT, copy_address, data)


def _interface_count(data: bytes) -> bytes:
    return data[:_NUM_INTERFACES] + b"\xff" + data[_NUM_INTERFACES + 1 :]


def _garbage(seed: int, data: bytes) -> bytes:
    """Replace everything after the configuration descriptor's header by random bytes."""
    from random import Random

    return data[:_HEADER] + Random(seed).randbytes(max(len(data) - _HEADER, 0))


def _huge_string(data: bytes) -> bytes:
    return bytes((0xFF, _STRING)) + (data[2:] * 253 if len(data) > 2 else bytes(253))[:253]


def _odd_string(data: bytes) -> bytes:
    return bytes((len(data) - 1,)) + data[1:-1] if len(data) > 2 else data


def _surrogate_string(data: bytes) -> bytes:
    """Fill the string with high surrogates, each of which is only half of a UTF-16 character."""
    return data[:2] + b"\x00\xd8" * (len(data) // 2 - 1)


def _empty_string(data: bytes) -> bytes:
    return bytes((2, _STRING))


DESCRIPTOR_FAULTS: Mapping[str, tuple[int, Change]] = {
    "truncated": (_CONFIGURATION, _truncated),
    "long-total-length": (_CONFIGURATION, _long_total_length),
    "short-total-length": (_CONFIGURATION, _short_total_length),
    "zero-length-descriptor": (_CONFIGURATION, _zero_length_descriptor),
    "overlong-descriptor": (_CONFIGURATION, _overlong_descriptor),
    "no-endpoints": (_CONFIGURATION, _no_endpoints),
    "endpoint-count": (_CONFIGURATION, partial(_each, _INTERFACE, _many_endpoints)),
    "endpoint-zero-packet": (_CONFIGURATION, partial(_each, _ENDPOINT, _zero_packet)),
    "duplicate-endpoints": (_CONFIGURATION, _duplicate_endpoints),
    "wrong-types": (_CONFIGURATION, partial(_each, _ENDPOINT, _wrong_type)),
    "interface-count": (_CONFIGURATION, _interface_count),
    "garbage": (_CONFIGURATION, partial(_garbage, 0)),
    "huge-string": (_STRING, _huge_string),
    "odd-string": (_STRING, _odd_string),
    "surrogate-string": (_STRING, _surrogate_string),
    "empty-string": (_STRING, _empty_string),
}


def find(name: str) -> tuple[int, Change]:
    """Return the descriptor type that is changed (bDescriptorType), and the function that changes it.

    `name` is a key of `DESCRIPTOR_FAULTS`, or "garbage:N" with a seed N. Raises ValueError for any other name.
    """
    plain, _, seed = name.partition(":")
    if plain not in DESCRIPTOR_FAULTS or (":" in name and (plain != "garbage" or not seed.isdecimal())):
        raise ValueError(name)
    kind, change = DESCRIPTOR_FAULTS[plain]
    return kind, partial(_garbage, int(seed)) if seed else change
