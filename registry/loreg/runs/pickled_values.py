"""Read the plain values of an object out of a pickle without loading it: nothing that it names is imported or called.

The instructions of a pickle are followed over values of our own: where it would import, call or build something, a
:class:`PickledObject` stands in its place. Source: CPython ``Lib/pickletools.py``, protocols 2 to 5.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Instructions that push what they carry, and those that push the same each time.
_CARRIED = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SIZED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMOIZED = frozenset({"BINPUT", "LONG_BINPUT"})
_RECALLED = frozenset({"BINGET", "LONG_BINGET"})
_UNREMARKABLE = frozenset({"PROTO", "FRAME"})
_KEYS = (str, int, float, bytes, type(None))  # of dictionaries


@dataclass
class PickledObject:
    """What a pickle would make of a class or function, ``name`` (``module name``): its arguments and attributes."""

    name: str
    arguments: tuple[Any, ...] = ()
    attributes: Mapping[Any, Any] = field(default_factory=dict)


def read_pickled(content: bytes) -> object:
    """Return the pickled value, with a :class:`PickledObject` for everything but plain values.

    Raises ValueError for what is no pickle, or uses instructions that no dataclass of plain values needs.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return reader.stack[-1]
            reader.follow(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"it is no pickle of plain values: {error!r}") from error
    raise ValueError("the pickle has no end")


class _Reader:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in _CARRIED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self._marks.append(len(self.stack))
        elif name in _MEMOIZED:
            self._memory[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = self.stack[-1]
        elif name in _RECALLED:
            self.stack.append(self._memory[argument])
        elif name not in _UNREMARKABLE:
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        """Follow an instruction that makes a container or an object, or fills one."""
        stack = self.stack
        if name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in _SIZED_TUPLES:
            stack.append(tuple(self._pop(len(stack) - _SIZED_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._pop_to_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(len(stack) - 2) if name == "SETITEM" else self._pop_to_mark()
            if not all(isinstance(key, _KEYS) for key in items[::2]):  # tuples in tuples may take for ever to hash
                raise TypeError("a key is no text and no number")
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(PickledObject(argument))
        elif name == "STACK_GLOBAL":
            module, qualified_name = self._pop(len(stack) - 2)
            stack.append(PickledObject(f"{module} {qualified_name}"))
        elif name in ("REDUCE", "NEWOBJ"):
            made, arguments = self._pop(len(stack) - 2)
            stack.append(PickledObject(made.name, arguments))
        elif name == "BUILD":
            attributes = stack.pop()
            stack[-1].attributes = attributes
        else:
            raise ValueError(f"the instruction {name} is not followed")

    def _pop_to_mark(self) -> list[Any]:
        return self._pop(self._marks.pop())

    def _pop(self, start: int) -> list[Any]:
        """Remove what lies on the stack from ``start`` on, and return it."""
        if start < 0:
            raise IndexError("the stack is empty")
        items = self.stack[start:]
        del self.stack[start:]
        return items
