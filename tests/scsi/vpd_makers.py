"""Vital product data pages with random contents, in the form of their standards."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from scsiusb.scsi.pages.vpd_designators import EUI_64, NAA, UUID


def policy(random: Random) -> bytes:
    return bytes((random.randrange(64), random.randrange(256), random.choice((0, 0x80)) | random.randrange(4), 0))


def address(random: Random) -> bytes:
    text = f"http://10.{random.randrange(256)}.0.{random.randrange(256)}/".encode()
    text = text.ljust((len(text) + 4) // 4 * 4, b"\0")
    return bytes((random.randrange(3) << 5 | random.randrange(5), 0)) + len(text).to_bytes(2, "big") + text


def port(random: Random) -> bytes:
    designator = bytes.fromhex("61930008") + b"\x50" + random.randbytes(7)
    number = random.randrange(1, 1 << 16).to_bytes(2, "big")
    return bytes(2) + number + bytes(6) + len(designator).to_bytes(2, "big") + designator


def consumption(random: Random) -> bytes:
    value = random.randrange(1000)  # sg_vpd writes more in a larger unit
    return bytes((random.randrange(256), random.randrange(6))) + value.to_bytes(2, "big")


def preset(random: Random) -> bytes:
    return random.randbytes(4) + bytes((random.choice((1, 5)),)) + bytes(2) + random.randbytes(57)


def positioning(random: Random) -> bytes:
    return random.randbytes(32)


UNLIMITED = 0xFFFFFFFF
LETTERS = b"ABCDEFGHIJ0123456789"
SUPPORTED = (0x00, *range(0x80, 0x94), *range(0xB0, 0xBA), *range(0xC0, 0x100))
VALUES: dict[int, Callable[[Random], bytes]] = {  # of a designator, by its type
    0x1: lambda random: letters(random, 8) + letters(random, random.randrange(1, 20)),
    EUI_64: lambda random: random.randbytes(random.choice((8, 12, 16))),
    NAA: lambda random: named(random, random.choice((2, 3, 5, 6))),
    0x4: lambda random: bytes(2) + random.randbytes(2),
    0x5: lambda random: bytes(2) + random.randbytes(2),
    0x6: lambda random: bytes(2) + random.randbytes(2),
    0x7: lambda random: random.randbytes(16),
    0x8: lambda random: b"iqn." + letters(random, 8) + bytes(4),
    UUID: lambda random: b"\x10\0" + random.randbytes(16),
}
CODE_SETS = {0x1: 2, 0x8: 3}  # ASCII, UTF-8; of the others: binary
ASSOCIATIONS = {0x4: (1,), 0x5: (1,), 0x6: (0,), 0x7: (0,)}  # of the others: any


def letters(random: Random, length: int) -> bytes:
    return bytes(random.choices(LETTERS, k=length))


def named(random: Random, naa: int) -> bytes:
    return bytes((naa << 4 | random.randrange(16),)) + random.randbytes(15 if naa == 6 else 7)


def designator(random: Random) -> bytes:
    kind = random.choice(tuple(VALUES))
    value, association = VALUES[kind](random), random.choice(ASSOCIATIONS.get(kind, (0, 1, 2)))
    protocol = random.choice((0, 5, 6, 9))
    head = bytes((protocol << 4 | CODE_SETS.get(kind, 1), random.choice((0, 0x80)) | association << 4 | kind, 0))
    return head + bytes((len(value),)) + value


COPIES = {  # operation code, number of service actions, service action
    b"\x83\1\0": "Extended copy(LID1)",
    b"\x83\1\1": "Extended copy",
    b"\x83\1\x10": "Populate token",
    b"\x84\1\5": "Receive copy status",
}


def copying(random: Random) -> bytes:
    """Return a third-party copy descriptor: supported commands, or limits of the parameter data."""
    if random.random() < 0.5:
        data = b"".join(command for command in COPIES if random.random() < 0.5)
        data = bytes((len(data),)) + data
        return b"\0\1" + padded(data)
    return b"\0\4" + padded(bytes(4) + random.randbytes(12) + bytes(12))


def padded(data: bytes) -> bytes:
    """Return data with their length before them, and zeros up to a multiple of four."""
    data += bytes(-len(data) % 4)
    return len(data).to_bytes(2, "big") + data


def serial_number(random: Random) -> bytes:
    return random.choice((b"", b"  ")) + letters(random, random.randrange(1, 30)) + random.choice((b"", b"   "))


def supported(random: Random) -> bytes:
    return bytes(sorted(random.sample(SUPPORTED, random.randrange(1, 20))))


def words(text: str, count: int) -> bytes:
    """Return a text as ATA has it: the two letters of each word swapped (ACS-3 3.3.10)."""
    data = text.ljust(2 * count).encode()
    return bytes(data[at ^ 1] for at in range(2 * count))


def ata(random: Random) -> bytes:
    identity = bytearray(random.randbytes(512))
    for at, count in ((10, 10), (23, 4), (27, 20)):
        identity[2 * at : 2 * (at + count)] = words(letters(random, random.randrange(1, 2 * count)).decode(), count)
    signature = bytes((random.choice((0x00, 0x34)),)) + random.randbytes(19)
    names = letters(random, 8) + letters(random, 16) + letters(random, 4)
    return bytes(4) + names + signature + b"\xec\0\0\0" + bytes(identity)


def limits(random: Random) -> bytes:
    data = random.randbytes(60)
    return data if random.random() < 0.8 else data[:16] + UNLIMITED.to_bytes(4, "big") * 2 + data[24:]


def provisioning(random: Random) -> bytes:
    group = b"\1\3\0" + bytes((8,)) + named(random, 5) if random.random() < 0.5 else b""
    flags = random.randbytes(1)[0] & 0xFE | bool(group)
    return (
        bytes((random.randrange(256), flags, random.randrange(32) << 3 | random.randrange(3), *random.randbytes(1)))
        + group
    )


def characteristics(random: Random) -> bytes:
    rate = random.choice((0, 1, random.randrange(0x401, 0xFFFF)))
    return rate.to_bytes(2, "big") + random.randbytes(58)


MAKERS: dict[int, tuple[int, Callable[[Random], bytes] | int]] = {
    # the page: bytes before its list, and what makes an entry; or the length of a page without one
    0x8F: (0, copying),
    0x85: (0, address),
    0x86: (0, 60),
    0x87: (0, policy),
    0x88: (0, port),
    0x8A: (0, 14),
    0x8D: (0, consumption),
    0xB3: (0, 12),
    0xB5: (0, 124),
    0xB7: (0, 12),
    0xB8: (0, preset),
    0xB9: (60, positioning),
}


WHOLE: dict[int, Callable[[Random], bytes]] = {  # what makes all of a page but its header
    0x00: supported,
    0x80: serial_number,
    0x83: lambda random: b"".join(designator(random) for _ in range(random.randrange(1, 6))),
    0x89: ata,
    0xB0: limits,
    0xB1: characteristics,
    0xB2: provisioning,
}


def made(page: int, random: Random) -> bytes:
    if page in WHOLE:
        body = WHOLE[page](random)
        return bytes((0, page)) + len(body).to_bytes(2, "big") + body
    start, maker = MAKERS[page]
    if isinstance(maker, int):
        body = random.randbytes(maker)
    else:
        body = bytes(start) + b"".join(maker(random) for _ in range(random.randrange(1, 4)))
    return bytes((0, page)) + len(body).to_bytes(2, "big") + body
