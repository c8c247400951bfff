"""Decode documents that others wrote into typed values; what does not fit becomes one line that names the place."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from types import EllipsisType
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")
#: One step from a value into it: a field, a position, or ``...`` for a value of an object with free names.
_Step = str | int | EllipsisType
_COMPLAINT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(?P<field>[^.\[]+)|\[(?:(?P<position>\d+)|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?P<constraint>.*?)(?:, got `(?P<actual>[^`]+)`)?", re.DOTALL)
#: msgspec's names of types in words, one of them and several.
_IN_WORDS = {
    "array": ("a list", "lists"),
    "object": ("an object", "objects"),
    "str": ("text", "texts"),
    "int": ("a whole number", "whole numbers"),
    "float": ("a number", "numbers"),
    "bool": ("true or false", "truth values"),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def decode(document: object, type_: type[T]) -> T:
    """Return the parsed JSON or TOML ``document`` as a ``type_``, of any kind that msgspec knows.

    Raises ValueError, whose text is one line: the place in the document, what is there, and what was expected.

    >>> decode([1, "x"], list[float])
    Traceback (most recent call last):
    ...
    ValueError: it is [1, 'x'], expected a list of numbers
    """
    try:
        return msgspec.convert(document, type_)
    except msgspec.ValidationError as error:
        raise ValueError(_describe_mismatch(str(error), document, type_)) from error


def _describe_mismatch(complaint: str, document: object, type_: type) -> str:
    """Return msgspec's complaint in the words of this house: the place, what it is, and what was expected."""
    parts = _COMPLAINT.fullmatch(complaint)
    what, path = (parts["what"], parts["path"] or "") if parts else (complaint, "")
    steps = [_read_step(step) for step in _STEP.finditer(path)]
    place = path.removeprefix(".")
    if missing := _MISSING.fullmatch(what):
        return f"{place or 'it'} lacks {missing[1]!r}"
    if unknown := _UNKNOWN.fullmatch(what):
        known = ", ".join(sorted(field.encode_name for field in getattr(_type_at(type_, steps), "fields", ())))
        return f"{place and f'{place}.'}{_SHORT.repr(unknown[1])[1:-1]} is not known; there are {known}"
    expected = _EXPECTED.fullmatch(what)
    choices = _choices(_type_at(type_, steps)) if what.startswith("Invalid enum value") else ""
    if expected is None and not choices and what != "Number out of range":
        return complaint
    inner: list[_Step] = []  # values of lists and of objects with free names are shown with all that lie beside them
    while steps and not isinstance(steps[-1], str):
        inner.insert(0, steps.pop())
    if expected:
        words = " or ".join(_in_words(word, inner) for word in expected["types"].split(" | ") if word != "null")
        words += _describe_constraint(expected["constraint"])
    else:
        words = choices or "a number of 64 bits"
    if ... in steps:  # the complaint does not say which of its values it is about
        last = len(steps) - 1 - steps[::-1].index(...)
        actual = expected["actual"] if expected else ""
        return f"{_name(steps[last + 1 :])} of one of {_name(steps[:last])} is {actual or 'wrong'}, expected {words}"
    return f"{_name(steps) or 'it'} is {_SHORT.repr(_value_at(document, steps))[:80]}, expected {words}"


def _read_step(match: re.Match[str]) -> _Step:
    if match["field"]:
        return match["field"]
    return int(match["position"]) if match["position"] else ...


def _name(steps: Sequence[_Step]) -> str:
    """Return the place as it is written: ``rules[1].effect``."""
    return "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in steps).removeprefix(".")


def _value_at(document: Any, steps: Sequence[_Step]) -> object:
    for step in steps:
        document = document[step]
    return document


def _in_words(word: str, inner: Sequence[_Step]) -> str:
    """Return a type in words, with the lists and objects that a value of it lies in: ``a list of numbers``."""
    names = ["object" if step is ... else "array" for step in inner] + [word]
    return " of ".join(_IN_WORDS.get(name, (name, name))[place > 0] for place, name in enumerate(names))


def _describe_constraint(constraint: str) -> str:
    pattern = re.fullmatch(r" matching regex (.*)", constraint, re.DOTALL)
    return f" matching {pattern[1]}" if pattern else constraint.replace(".0", "")


def _type_at(type_: type, steps: Sequence[_Step]) -> object:
    """Return what msgspec knows of the type at a place; None where that is not one type."""
    types: list[Any] = [inspect.type_info(type_)]
    for step in steps:
        members = [member for one in types for member in getattr(one, "types", (one,))]
        if step is ...:
            types = [member.value_type for member in members if hasattr(member, "value_type")]
        elif isinstance(step, int):
            types = [member.item_type for member in members if hasattr(member, "item_type")]
        else:
            fields = [field for member in members for field in getattr(member, "fields", ())]
            types = [field.type for field in fields if field.encode_name == step]
    return types[0] if len(types) == 1 else None


def _choices(type_: object) -> str:
    """Return the values that an enumeration or a literal has, in words."""
    for member in getattr(type_, "types", (type_,)):
        if isinstance(member, inspect.EnumType):
            return _join_choices([str(choice.value) for choice in member.cls])
        if isinstance(member, inspect.LiteralType):
            return _join_choices([repr(value) for value in member.values])
    return ""


def _join_choices(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
