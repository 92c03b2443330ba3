"""Module ``dataclasses``, as far as the helper's code uses it, without its cost at every start.

The standard library's decorator writes the source of each class's methods and compiles it, and for that it
imports ``inspect``: under emulation that is 1.5 of the seconds in which a helper starts. Here the methods are
closures over the names of the fields. Calls are a little slower, definitions fifty times faster.

Only ``@dataclass(frozen=True, slots=True)``, with or without ``kw_only``, without ``__post_init__`` and
``InitVar``: whatever else is asked for is a :class:`TypeError` where it is defined. What must be equal is in
https://docs.python.org/3.11/library/dataclasses.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

_FIELDS: Final = "__dataclass_fields__"


class FrozenInstanceError(AttributeError):
    """Somebody tried to change what is decided."""


class _Missing:
    """No default; a value of its own, because None is one."""


MISSING: Final = _Missing()


class Field:
    """One field: ``default`` and ``default_factory`` are MISSING where there is none."""

    __slots__ = ("default", "default_factory", "kw_only", "name")

    def __init__(self, default: Any = MISSING, default_factory: Any = MISSING) -> None:
        self.name = ""
        self.default = default
        self.default_factory = default_factory
        self.kw_only = False


def field(*, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
    """A field with a default that has to be made anew for each instance."""
    return Field(default, default_factory)


def fields(thing: Any) -> tuple[Field, ...]:
    """The fields of a class or of an instance, in the order of their definition."""
    if not is_dataclass(thing):
        raise TypeError("must be called with a dataclass type or instance")
    return tuple(getattr(thing, _FIELDS).values())


def is_dataclass(thing: object) -> bool:
    return hasattr(thing if isinstance(thing, type) else type(thing), _FIELDS)


def replace(thing: Any, /, **changes: Any) -> Any:
    """The same with other values in some fields."""
    return type(thing)(**{one.name: getattr(thing, one.name) for one in fields(thing)} | changes)


def dataclass(*, frozen: bool, slots: bool, kw_only: bool = False) -> Callable[[type], type]:
    """The decorator; see the module for what it does not know."""
    if not (frozen and slots):
        raise TypeError("the helper's dataclasses are frozen and have slots")
    return lambda kind: _complete(kind, kw_only=kw_only)


def _complete(kind: type, *, kw_only: bool) -> type:
    if "__post_init__" in kind.__dict__:
        raise TypeError(f"{kind.__qualname__}: __post_init__ is not supported")
    inherited = _inherited(kind)
    own = {one.name: one for one in _defined(kind, kw_only=kw_only)}
    every = inherited | own
    space = {name: value for name, value in kind.__dict__.items() if name not in ("__dict__", "__weakref__")}
    for name in own:
        space.pop(name, None)
    space |= {_FIELDS: every, "__slots__": tuple(name for name in own if name not in inherited)}
    methods = _methods(tuple(every.values()))
    space |= {name: method for name, method in methods.items() if name not in space}
    # A class with __eq__ of its own has __hash__ None in its namespace, unless it defines that too.
    space["__hash__"] = space.get("__hash__") or methods["__hash__"]
    made = type(kind)(kind.__name__, kind.__bases__, space)
    made.__qualname__ = kind.__qualname__
    return made


def _inherited(kind: type) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for base in reversed(kind.__mro__[1:]):
        found |= base.__dict__.get(_FIELDS, {})
    return found


def _defined(kind: type, *, kw_only: bool) -> Iterator[Field]:
    # Python 3.10 and later make an empty one for each class: https://docs.python.org/3/howto/annotations.html
    for name, annotation in kind.__annotations__.items():
        if annotation.startswith(("ClassVar", "typing.ClassVar")):
            continue
        given = kind.__dict__.get(name, MISSING)
        one = given if isinstance(given, Field) else Field(given)
        one.name = name
        one.kw_only = kw_only
        yield one


def _methods(every: tuple[Field, ...]) -> dict[str, Any]:
    names = tuple(one.name for one in every)

    def values(self: Any) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in names])

    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def shown(self: Any) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({inner})"

    def refuse_to_set(_: Any, name: str, __: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def refuse_to_delete(_: Any, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    return {
        "__init__": _initialiser(every),
        "__eq__": equal,
        "__hash__": lambda self: hash(values(self)),
        "__repr__": shown,
        "__setattr__": refuse_to_set,
        "__delattr__": refuse_to_delete,
        "__match_args__": tuple(one.name for one in every if not one.kw_only),
    }


def _initialiser(every: tuple[Field, ...]) -> Callable[..., None]:
    positional = tuple(one.name for one in every if not one.kw_only)
    put = object.__setattr__

    def initialise(self: Any, /, *given: Any, **named: Any) -> None:
        if given:
            if len(given) > len(positional):
                raise TypeError(f"{type(self).__qualname__} takes {len(positional)} positional arguments")
            for name, value in zip(positional, given, strict=False):
                if name in named:
                    raise TypeError(f"{type(self).__qualname__} got multiple values for argument {name!r}")
                named[name] = value
        for one in every:
            name = one.name
            if name in named:
                put(self, name, named.pop(name))
            elif one.default is not MISSING:
                put(self, name, one.default)
            elif one.default_factory is not MISSING:
                put(self, name, one.default_factory())
            else:
                raise TypeError(f"{type(self).__qualname__} misses argument {name!r}")
        if named:
            raise TypeError(f"{type(self).__qualname__} got an unexpected argument {next(iter(named))!r}")

    return initialise
