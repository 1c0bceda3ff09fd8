"""A UAS device that says anything: random information units, tags, lengths and order, at both speeds."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any

import pytest

import scsiusb
from scsiusb.opening import open_on
from scsiusb.transport import recovery
from scsiusb.transport.uas import tasks
from scsiusb.virtual import Bus, Identity, Memory, Stick, Unit, uas_interface

DATA = random.Random(5).randbytes(1 << 20)
IDS = (0, 1, 3, 3, 3, 4, 5, 6, 6, 7, 7, 0xFF)
ROUNDS = 12


def babbling(function: Any, chance: random.Random) -> None:
    """Have the function put random units among its answers, in place of them, or leave them out."""
    answer = function.answer

    def anything(tag: int, unit: bytes) -> None:
        for _ in range(chance.randrange(3)):
            told = chance.choice((tag, tag, 0, 1, 0xFFFF, chance.randrange(0x10000)))
            head = bytes((chance.choice(IDS), 0)) + told.to_bytes(2, "big")
            rest = chance.randbytes(chance.choice((0, 1, 4, 12, 12, 12, 30, 268, 2000)))
            answer(tag, (head + rest)[chance.choice((0, 0, 0, 1)) :])
        kind = chance.randrange(5)
        if kind == 0:
            return
        if kind == 1:
            at = chance.randrange(len(unit))
            unit = unit[:at] + bytes((chance.randrange(256),)) + unit[at + 1 :]
        answer(tag, unit)

    function.answer = anything


@pytest.mark.parametrize("speed", ["high", "super"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, ROUNDS))])
def test_whatever_it_says_ends_in_time_and_never_hangs_or_grows(
    seed: int, speed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LEAST_CONTROL_TIMEOUT", 0.05)
    monkeypatch.setattr(tasks, "GRACE", 0.01)
    chance = random.Random(seed)
    stick = Stick([Unit(Memory(bytearray(DATA)))], Identity(speed=speed), [uas_interface(alternate=0)])
    bus = Bus(stick)
    began = time.monotonic()
    with open_on(bus, timeout=0.05) as disk:
        disk.read(0, 1)
        function: Any = stick.function_of_interface(0)
        babbling(function, chance)
        for _ in range(6):
            lba = chance.randrange(1000)
            for blocks in (3, 900):  # alone, and several at once
                with suppress(scsiusb.ScsiUsbError):
                    disk.read(lba, blocks)
        del function.answer
        deadline = time.monotonic() + 30
        while True:  # correct again: it recovers, with the data that is there
            try:
                assert disk.read(0, 2000) == DATA[: 2000 * 512]
                break
            except scsiusb.ScsiUsbError:
                assert time.monotonic() < deadline
    assert time.monotonic() - began < 60
    assert not bus.handles
    bus.close()
