"""Checks of the arguments of public functions: a wrong type is a TypeError with the parameter's name."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable


def wrong_type(name: str, needed: str, value: object) -> TypeError:
    """Return the error for a value of the wrong type; a class given in place of an object is named."""
    given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    return TypeError(f"{name} must be {needed}, not {given}")


def integer(name: str, value: object) -> int:
    """Return `value` as an int, also if it is another whole number, as one of numpy is. Raises TypeError."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise wrong_type(name, "an int", value) from None


def number_or_none(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a number or None, ValueError for one that is not a number (NaN)."""
    if value is not None and not isinstance(value, (int, float)):
        raise wrong_type(name, "a number of seconds or None", value)
    if value is not None and math.isnan(value):  # a wait for it would never end
        raise ValueError(f"{name} is not a number of seconds: {value}")


def timeout_or_none(name: str, value: float | None) -> None:
    """Raise TypeError unless `value` is a number or None, ValueError for one that leaves no time, and for NaN."""
    if value is not None and isinstance(value, (int, float)) and not value > 0:
        raise ValueError(f"a {name} of {value} seconds is not possible; give more than 0, or None")
    number_or_none(name, value)


def function(name: str, value: object) -> None:
    """Raise TypeError unless `value` can be called."""
    if not isinstance(value, Callable):  # type: ignore[arg-type]
        raise wrong_type(name, "a function", value)


def text_or_none(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a str or None."""
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "a str or None", value)


def function_or_none(name: str, value: object) -> None:
    """Raise TypeError unless `value` can be called or is None."""
    if value is not None and not isinstance(value, Callable):  # type: ignore[arg-type]
        raise wrong_type(name, "a function or None", value)


def buffer(name: str, value: object) -> memoryview:
    """Return a view of bytes, a bytearray or the like, with its own items and shape. Raises TypeError."""
    try:
        return memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        raise wrong_type(name, "bytes, a bytearray or another buffer", value) from None
