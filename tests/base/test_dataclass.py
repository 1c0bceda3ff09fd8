"""scsiusb's dataclasses behave like those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import types
from collections.abc import Callable, Iterator
from dataclasses import field
from functools import partial
from typing import Any, ClassVar

import pytest

import scsiusb
from scsiusb.base import dataclass as values
from scsiusb.base.dataclass import dataclass
from scsiusb.scsi.command import Command
from scsiusb.scsi.commands.sbc import Read10, WriteCommand
from tests.sticks import frequent_thread_switches, run_all

ATTEMPTS = 50


def declared() -> Iterator[Any]:
    """Yield every dataclass of the package."""
    for module in pkgutil.walk_packages(scsiusb.__path__, "scsiusb."):
        if not module.name.endswith("__main__"):
            for kind in vars(importlib.import_module(module.name)).values():
                if isinstance(kind, type) and kind.__module__ == module.name and dataclasses.is_dataclass(kind):
                    yield kind


def parameters(init: Callable[..., object]) -> list[tuple[str, object, object]]:
    """Return the name, kind and default of each parameter."""
    found = inspect.signature(init).parameters.values()
    return [(each.name, each.kind, None if "factory" in repr(each.default) else each.default) for each in found]


def with_factories_unnamed(found: list[tuple[str, object, object]]) -> list[tuple[str, object, object]]:
    return [(name, kind, None if default is dataclasses.MISSING else default) for name, kind, default in found]


def test_each_has_the_parameters_that_the_standard_library_would_give_it() -> None:
    kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in declared()}
    assert len(kinds) > 50
    found = {name: with_factories_unnamed(parameters(values._init(kind))) for name, kind in kinds.items()}
    assert found == {name: parameters(by_the_standard_library(kind)) for name, kind in kinds.items()}


def by_the_standard_library(kind: Any) -> Callable[..., object]:
    """Return the `__init__` that dataclasses makes for the same fields."""
    words = {"abstract": True} if issubclass(kind, Command) else {}
    child = types.new_class("Child", (kind,), words, lambda names: names.update(__doc__="It has the same fields."))
    expected: Any = dataclasses.dataclass(frozen=kind.__dataclass_params__.frozen)(child)
    made: Callable[..., object] = expected.__init__
    return made


@dataclass(frozen=True)
class Point:
    """Two numbers."""

    ORIGIN: ClassVar[str] = "top left"
    x: int
    y: int = 0
    label: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Circle(Point):
    """A dataclass with every kind of field."""

    radius: int = field(kw_only=True)
    tags: list[str] = field(default_factory=list)
    area: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "area", 3 * self.radius**2)


@dataclass
class Counter:
    """A dataclass that is not frozen."""

    count: int = 0


@dataclass(eq=False)
class Thing:
    """A dataclass that is compared by identity."""

    name: str


def test_values_are_compared_hashed_and_shown() -> None:
    assert Point(1, 2, "a") == Point(1, 2, "b")
    assert hash(Point(1, 2, "a")) == hash(Point(1, 2, "b"))
    assert Point(1) != Point(2)
    assert Point(1).__eq__((1, 0)) is NotImplemented
    assert Point(1) != Circle(1, radius=2)
    assert repr(Point(1, label="a")) == "Point(x=1, y=0)"
    assert repr(Circle(1, radius=2)) == "Circle(x=1, y=0, radius=2, tags=[], area=12)"
    assert len({Thing("a"), Thing("a")}) == 2


def test_a_frozen_one_cannot_be_changed() -> None:
    point = Point(1)
    for name in ("x", "another"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(point, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert point == Point(1)


def test_one_that_is_not_frozen_can_be_changed_and_has_no_hash() -> None:
    counter = Counter()
    counter.count += 1
    assert counter == Counter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


def test_a_default_factory_is_called_for_each_object() -> None:
    first, second = Circle(1, radius=1), Circle(1, radius=1)
    first.tags.append("a")
    assert second.tags == []


@pytest.mark.parametrize(("arguments", "named"), [((), {}), ((1, 2, "", 3), {}), ((), {"z": 1})])
def test_wrong_arguments_are_a_type_error_that_names_the_class(
    arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=r"Point\.__init__\(\)"):
        Point(*arguments, **named)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'radius'"):
        Circle(1)  # type: ignore[call-arg]


def test_the_standard_librarys_functions_accept_it() -> None:
    point = Point(1, 2)
    assert dataclasses.is_dataclass(Point)
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "label": ""}
    assert dataclasses.replace(point, y=3) == Point(1, 3)
    assert copy.copy(point) == pickle.loads(pickle.dumps(point)) == point
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_the_standard_librarys_dataclasses_may_inherit_from_it() -> None:
    @dataclasses.dataclass(frozen=True)
    class ReadAhead(Read10):
        depth: int = 1

    command = ReadAhead(1, 2, block_size=512, depth=3)
    assert (command.lba, command.length, command.depth) == (1, 1024, 3)
    assert command == ReadAhead(1, 2, block_size=512, depth=3)
    assert issubclass(WriteCommand, scsiusb.Command)


def test_many_threads_may_make_the_first_object_at_once() -> None:
    for _ in range(ATTEMPTS):
        fresh: Any = type("Fresh", (), {"__annotations__": {"x": "int"}, "__doc__": ""})
        dataclass(frozen=True)(fresh)
        make = partial(fresh, 7)
        with frequent_thread_switches():
            assert run_all(make, make, make, make) == [make()] * 4


def test_a_field_may_have_any_name() -> None:
    @dataclass(frozen=True)
    class Odd:
        values: int
        name: str
        values_: int = 3
        name_: tuple[int, ...] = field(default_factory=lambda: (4,))
        name__: tuple[int, ...] = field(default_factory=lambda: (5,))

    odd = Odd(1, "two")
    assert (odd.values, odd.name, odd.values_, odd.name_, odd.name__) == (1, "two", 3, (4,), (5,))
    assert vars(odd).keys() == {"values", "name", "values_", "name_", "name__"}
