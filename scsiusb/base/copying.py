"""What pickle and copy do with exceptions, which survive both, and with objects that hold a device, which refuse."""

from __future__ import annotations

from typing import Any, NoReturn, SupportsIndex


class PicklableError(Exception):
    """Base of exceptions whose constructor takes other arguments than `args` has; pickle and copy keep all of it.

    Without this, `multiprocessing.Pool.map` waits forever for a result that its parent process cannot unpickle.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if isinstance(self, OSError):  # its fields are not in __dict__
            state |= {name: getattr(self, name) for name in ("errno", "strerror", "filename")}
        return _blank, (type(self), self.args), state


def _blank(kind: type[PicklableError], arguments: tuple[Any, ...]) -> PicklableError:
    """Return an exception of that kind, made without its constructor."""
    error = kind.__new__(kind)
    error.args = arguments
    return error


class Uncopyable:
    """Base of objects that hold a device or a thread: copy and pickle raise TypeError."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(
            f"a {kind} cannot be copied or pickled, because it holds a device or a thread of this process; "
            f"share the {kind} between threads, or open the device again where it is needed"
        )
