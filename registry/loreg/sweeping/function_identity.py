"""Tell one evaluating function from another: what one has measured is no answer of another.

Functions of one source text differ by what they carry: ``[lambda folder: score(folder, task) for task in tasks]``.
"""

from __future__ import annotations

import dis
import functools
import inspect
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import CodeType
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None), PurePath)
_ASSIGNING = {"STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR"}  # a counter of its calls does not make a function another


def identify_function(function: Callable[..., object]) -> list[str]:
    """Return name and source text of a function, and what it carries: arguments, attributes, and names from outside.

    Text, numbers, paths and tuples of them count by value, and functions by their own identity. Any other object, which
    may change while it is the same, counts by its place among the objects of its type that were asked about, so that a
    program that runs again finds what it measured.
    """
    return list(_describe(function, frozenset()))


def _describe(function: Any, outer: frozenset[int]) -> Iterator[str]:
    within = outer | {id(function)}  # a recursive function carries itself
    if isinstance(function, functools.partial):
        yield from _describe(function.func, within)
        yield _value((function.args, *sorted(function.keywords.items())), within)
        return
    owner = getattr(function, "__self__", None)
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        yield from (str(function.__module__), function.__qualname__, _source(function))
        if owner is not None:
            yield from _attributes(owner, code, within)
        inner = getattr(function, "__func__", function)
        yield _value((inner.__defaults__ or (), *sorted((inner.__kwdefaults__ or {}).items())), within)
        yield from (f"{name}={_value(value, within)}" for name, value in _names_from_outside(inner))
    else:
        kind = type(function)
        yield from (kind.__module__, kind.__qualname__, _source(kind))
        yield from _attributes(function, getattr(vars(kind).get("__call__"), "__code__", None), within)


def _attributes(owner: object, code: CodeType | None, within: frozenset[int]) -> Iterator[str]:
    """Yield the object itself, and those of its attributes that count by value and that its code does not assign."""
    yield _object(owner)
    attributes: Mapping[str, object] = {} if isinstance(owner, type) else getattr(owner, "__dict__", {})
    assigned = _assigned(code) if code is not None else set()
    for name, value in sorted(attributes.items()):
        if name not in assigned and _is_plain(value):
            yield f"{name}={_value(value, within)}"


def _assigned(code: CodeType) -> set[str]:
    return {step.argval for step in dis.get_instructions(code) if step.opname in _ASSIGNING}


def _names_from_outside(function: Any) -> Iterator[tuple[str, object]]:
    """Yield what a function reads from round it, but for what it assigns: closures whole, and plain global names."""
    code: CodeType = function.__code__
    assigned = _assigned(code)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in assigned:
            try:
                yield name, cell.cell_contents
            except ValueError:  # not assigned yet
                continue
    for name in sorted(({*code.co_names} - assigned) & function.__globals__.keys()):
        if _is_plain(value := function.__globals__[name]):
            yield name, value


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _value(value: object, within: frozenset[int]) -> str:
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple):
        return f"({','.join(_value(part, within) for part in value)})"
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return "" if id(value) in within else repr([*_describe(value, within)])
    return _object(value)


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed into a prompt, or made by a program
        return ""


class _Places:
    """Numbers objects by type, in the order in which they are asked about while the process lives."""

    def __init__(self) -> None:
        self._counts: Counter[type] = Counter()
        self._known: dict[int, tuple[Callable[[], object], int]] = {}

    def place_of(self, value: object) -> int:
        """Return the place of an object among those of its type."""
        known = self._known.get(id(value))
        if known is not None and known[0]() is value:
            return known[1]
        self._counts[type(value)] += 1
        try:
            reference: Callable[[], object] = weakref.ref(value)
        except TypeError:  # a list or the like is kept: another would get its address
            reference = functools.partial(_same, value)
        self._known[id(value)] = reference, self._counts[type(value)]
        return self._counts[type(value)]


_places = _Places()


def _same(value: object) -> object:
    return value


def _object(value: object) -> str:
    if isinstance(value, type) or inspect.ismodule(value):
        return str(value.__name__)
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__} {_places.place_of(value)}"
