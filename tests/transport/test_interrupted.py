"""Ctrl-C at any point of the code that has the turn: the turn is given back."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import partial
from typing import Any

from scsiusb.transport.base import Enter, Story, leaving
from scsiusb.transport.drivers import Driver
from scsiusb.transport.turns import Turn, Turns
from scsiusb.usb.backend import Code
from tests.interrupts import CtrlC

ENDPOINT = 0x81


def everywhere(function: Any) -> Iterator[CtrlC]:
    """Yield one Ctrl-C for each instruction that a function runs."""
    for count in range(1, 10_000):
        ctrl_c = CtrlC(lambda frame: frame.f_code is function.__code__, count)
        yield ctrl_c
        if ctrl_c.at < 0:
            assert count > 1
            return
    raise AssertionError("it does not end")


def command(turns: Turns, transfers: int = 2) -> Story[int]:
    turn = Turn(turns, None)
    with leaving(turn):
        if not turn.try_enter():
            yield Enter(turn)
        for _ in range(transfers):
            yield ENDPOINT, memoryview(bytes(4)), 7.0
        return transfers


def driver() -> Driver:
    def bulk(endpoint: int, buffer: memoryview, deadline: float) -> tuple[Code, int]:
        return Code.OK, len(buffer)

    return Driver(bulk, bulk)


def test_ctrl_c_while_the_turn_is_left_leaves_it() -> None:
    notes: list[bool] = []
    turns = Turns("a device", notes.append)
    for ctrl_c in everywhere(Turn.leave):
        turns.is_interrupted = True
        ctrl_c.run(lambda: driver().drive(command(turns)))
        assert turns.current is None, ctrl_c.at
        assert not turns.is_interrupted
        assert notes[-1] is False


def test_ctrl_c_between_two_steps_leaves_the_turn() -> None:
    turns = Turns("a device", lambda on: None)
    held = []
    for ctrl_c in everywhere(Driver.drive):
        story = command(turns)
        ctrl_c.run(partial(driver().drive, story))
        if turns.current is not None:
            held.append(ctrl_c.at)
            story.close()
    names = {place.offset: place.opname for place in dis.get_instructions(Driver.drive)}
    assert not {names[at] for at in held} & {"JUMP_BACKWARD", "STORE_FAST"}  # where Python looks for signals
