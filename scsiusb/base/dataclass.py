"""Dataclasses that are declared faster than those of the standard library.

The package has more than seventy dataclasses, of which a command uses a few, and the standard library takes about a
millisecond to declare one, because it compiles each method from text. Here only `__init__` is compiled, and only when
it is first called.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

MISSING: Final = dataclasses.MISSING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True):
        """Declare a dataclass, with the options `frozen` and `eq` of the standard library."""
        return _declare(cls, frozen, eq) if cls is not None else lambda cls: _declare(cls, frozen, eq)


def _declare(cls: Any, frozen: bool, eq: bool) -> Any:
    """Add the methods of a dataclass to the class."""
    methods: dict[str, Any] = {"__init__": _first_init(cls), "__repr__": _repr}
    if eq:
        methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
    if frozen:
        methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
    own = set(vars(cls))
    # The standard library refuses a class that is frozen if its base is not, and the reverse, so `frozen` is passed on
    # to it if there is a base. Without one, it would only add two more methods, which takes time.
    inherits = any(map(dataclasses.is_dataclass, cls.__bases__))
    dataclasses.dataclass(init=False, repr=False, eq=False, frozen=frozen and inherits)(cls)
    cls.__dataclass_params__.frozen = frozen
    for name in methods.keys() - own:
        setattr(cls, name, methods[name])
    return cls


def _first_init(cls: Any) -> Any:
    """Return an `__init__` that, when it is first called, replaces itself by the compiled one.

    Several threads may do so at the same time: each compiles an equal one.
    """

    def __init__(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: N807
        cls.__init__ = init = _init(cls)
        init(self, *arguments, **named)

    return __init__


def _init(cls: Any) -> Any:
    """Compile the class's `__init__`."""
    # A loop over the fields at each call would be slow, and one object is made per command that is sent.
    scope: dict[str, Any] = {"MISSING": MISSING}
    parameters, keywords, body = ["self"], ["*"], ["_fields_of_self = self.__dict__"]
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        name, default, value = field.name, "", field.name
        if field.default is not MISSING:
            scope[f"_default_of_{name}"], default = field.default, f"=_default_of_{name}"
        elif field.default_factory is not MISSING:
            scope[f"_default_of_{name}"], default = field.default_factory, "=MISSING"
            value = f"_default_of_{name}() if {name} is MISSING else {name}"
        (keywords if field.kw_only else parameters).append(name + default)
        body.append(f"_fields_of_self[{name!r}] = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    head = ", ".join(parameters + (keywords if len(keywords) > 1 else []))
    exec(f"def __init__({head}):\n " + "\n ".join(body), scope)
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"  # for the text of a TypeError about wrong arguments
    return init


def _values(value: Any) -> tuple[Any, ...]:
    """Return the values of the fields that are compared."""
    return tuple([getattr(value, field.name) for field in dataclasses.fields(value) if field.compare])


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, value: object = None) -> None:
    """Refuse to set or delete an attribute of a frozen dataclass."""
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
