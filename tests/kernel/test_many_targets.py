"""One image to four sticks at once, over the kernel's own USB stack; and when one of them fails in the middle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from scsiusb.virtual import Identity, Memory, Stick, Unit

from .command import scsiusb as cli
from .served import Served, serving

pytestmark = pytest.mark.native("no device of QEMU's takes part: under emulation they only take longer")

SIZE = 3 << 20  # bytes
CONTENT = Random(4).randbytes(SIZE)


class Worn(Memory):
    """A medium that cannot be written from its middle on."""

    def write(self, offset: int, view: memoryview) -> None:
        if offset + len(view) > SIZE // 2:
            raise OSError("worn out")
        super().write(offset, view)


@contextmanager
def four(*media: Memory) -> Iterator[list[Served]]:
    with ExitStack() as held:
        sticks = [Stick([Unit(medium)], Identity(serial=f"FOUR{at:08d}")) for at, medium in enumerate(media)]
        yield [held.enter_context(serving(held.enter_context(stick))) for stick in sticks]


def test_four_sticks_become_the_same(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(CONTENT)
    media = [Memory(SIZE) for _ in range(4)]
    with four(*media) as there:
        done = cli("restore", image, *(each.address for each in there), "--yes", "--json").json()
        for each in there:
            each.wait()
        assert [(row["verified"], row["error"]) for row in done] == [("medium", None)] * 4
        assert {row["serial"] for row in done} == {f"FOUR{at:08d}" for at in range(4)}
    assert {hashlib.sha256(medium.data).digest() for medium in media} == {hashlib.sha256(CONTENT).digest()}


def test_one_that_fails_is_named_and_the_three_others_are_right(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(CONTENT)
    media = [Memory(SIZE), Memory(SIZE), Worn(SIZE), Memory(SIZE)]
    with four(*media) as there:
        ended = cli("restore", image, *(each.address for each in there), "--yes", "--json")
        for each in there:
            each.wait()
    assert ended.status == 3, ended.err
    errors = {row["serial"]: row["error"] for row in json.loads(ended.out)}
    assert [serial for serial, error in errors.items() if error] == ["FOUR00000002"]
    for at in (0, 1, 3):
        assert bytes(media[at].data) == CONTENT
    assert bytes(media[2].data) != CONTENT
