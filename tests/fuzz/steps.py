"""The steps of an exchange; their arguments are chosen by a function, from bytes or by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.fuzz.devices import Bytes
from tests.fuzz.exchange import BLOCKS, Exchange, exchange
from tests.fuzz.faults import Choose, any_fault, any_host_fault

Step = Callable[[Exchange, Choose], None]


def choosing(source: Bytes) -> Choose:
    def choose(some: Sequence[Any]) -> Any:
        return some[source.number() % len(some)]

    return choose


def _extent(choose: Choose) -> tuple[int, int]:
    lba = choose(range(BLOCKS))
    return lba, min(1 + choose(range(20)), BLOCKS - lba)


STEPS: Final[tuple[Step, ...]] = (
    lambda made, choose: made.inject(any_fault(choose)),
    lambda made, choose: made.inject(any_fault(choose)),
    lambda made, choose: made.inject(any_fault(choose)),
    lambda made, choose: made.inject(any_host_fault(choose)),
    lambda made, choose: made.read(*_extent(choose)),
    lambda made, choose: made.readinto(*_extent(choose)),
    lambda made, choose: made.write(*_extent(choose)),
    lambda made, choose: made.write(*_extent(choose)),
    lambda made, choose: made.inquiry(),
    lambda made, choose: made.capacity(),
    lambda made, choose: made.flush(),
    lambda made, choose: made.execute(choose(range(16))),
    lambda made, choose: made.close(),
    lambda made, choose: made.open(),
    lambda made, choose: made.unplug(),
    lambda made, choose: made.plug(),
    lambda made, choose: made.settle(),
)


def play(data: bytes) -> Exchange:
    """Run the steps that the bytes stand for, then finish."""
    source = Bytes(data)
    with exchange() as made:
        made.open()
        while source.left:
            STEPS[source.number() % len(STEPS)](made, choosing(source))
        made.finish()
    return made
