"""A count of events that several users share."""

from __future__ import annotations


class EventCounter:
    """A count of events on a device, shared by all its users: each remembers the count that it has dealt with."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0
