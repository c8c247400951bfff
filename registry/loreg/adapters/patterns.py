"""Patterns of a configuration against module names: as PEFT matches them, but never longer than a moment.

A configuration is a stranger's file, a pattern with nested repetition can keep ``re`` busy for years, and thousands of
patterns on thousands of modules for minutes. So all that one adapter's patterns may take together is limited, and those
without operators, which merges write for every module, are looked up instead of tried one by one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import thread_time
from typing import Generic, TypeVar

import regex

from loreg.errors import AdapterFormatError

_ONE = 0.5  # seconds that one match may take
_ALTOGETHER = 3.0  # seconds of processor time for all of an adapter
_LONGEST = 64 * 1024
_MOST_WIDE = 16
_MOST_COPIES = 200_000  # some 50 MB
_PLAIN = re.compile(r"[\w.-]+")
#: A range of characters that ends beyond ASCII: ``re`` makes a table of it, with each of its characters in other cases.
_WIDE = re.compile(r"-(?:[^\x00-\x7f]|\\[xuUN0-7])")
#: A count, and the sign before it: ``regex`` makes a copy of what is repeated for each time, groups in groups too.
_COUNTED = re.compile(r"(.?)\{(\d*),?(\d*)\}", re.DOTALL)
T = TypeVar("T")
V = TypeVar("V")


@dataclass
class PatternBudget:
    """How many seconds of processor time the patterns of one adapter may still take, whoever asks for them."""

    seconds_left: float = _ALTOGETHER

    def spend(self, pattern: str, call: Callable[[float], T]) -> T:
        """What ``call`` returns, which is given how long it may take. Raises AdapterFormatError."""
        if self.seconds_left <= 0:
            raise _refused(pattern, TimeoutError())
        begin = thread_time()
        try:
            return call(min(_ONE, self.seconds_left))
        except (re.error, regex.error, TimeoutError, RecursionError, MemoryError, OverflowError, ValueError) as error:
            raise _refused(pattern, error) from None
        finally:
            self.seconds_left -= thread_time() - begin


def fullmatch(pattern: str, module: str, budget: PatternBudget) -> bool:
    """``re.fullmatch``. Raises AdapterFormatError for a pattern that is invalid or takes too long."""

    def call(seconds: float) -> bool:
        _check(pattern)
        return regex.fullmatch(pattern, module, timeout=seconds) is not None

    return budget.spend(pattern, call)


def match(pattern: str, module: str, budget: PatternBudget) -> regex.Match[str] | None:
    """``re.match``. Raises AdapterFormatError for a pattern that is invalid or takes too long."""

    def call(seconds: float) -> regex.Match[str] | None:
        _check(pattern)
        return regex.match(pattern, module, timeout=seconds)

    return budget.spend(pattern, call)


def endings(name: str) -> Iterator[str]:
    """The name, and what is left of it after each of its dots."""
    start = 0
    while True:
        yield name[start:]
        start = name.find(".", start) + 1
        if not start:
            return


@dataclass(frozen=True)
class Patterns(Generic[V]):
    """``rank_pattern`` or ``alpha_pattern``: values by pattern, in order."""

    values: Mapping[str, V]
    budget: PatternBudget = field(default_factory=PatternBudget, compare=False, repr=False)

    def __post_init__(self) -> None:
        for pattern in self.values:
            if not _PLAIN.fullmatch(pattern):
                self.budget.spend(pattern, functools.partial(_check_end, pattern))

    def first(self, module: str, default: V) -> V:
        """The value of the first pattern with ``re.match(rf"(.*\\.)?({pattern})$", module)``, as in PEFT 0.21."""
        if not self.values:
            return default
        found = min(self._plain.matching(module, self.budget), default=len(self.values))
        for position, pattern in self._others:
            if position > found:
                break
            if self._matches(pattern, module):
                found = position
        return self._by_position[found] if found < len(self.values) else default

    def matching_none(self, modules: Iterable[str]) -> list[str]:
        """The patterns that match none of these."""
        modules = set(modules)
        alive = {position for module in modules for position in self._plain.matching(module, self.budget)}
        alive |= {position for position, p in self._others if any(self._matches(p, module) for module in modules)}
        return [p for position, p in enumerate(self.values) if position not in alive and p not in modules]

    @cached_property
    def _plain(self) -> _PlainPatterns:
        return _PlainPatterns((i, pattern) for i, pattern in enumerate(self.values) if _PLAIN.fullmatch(pattern))

    @cached_property
    def _others(self) -> tuple[tuple[int, str], ...]:
        return tuple((i, pattern) for i, pattern in enumerate(self.values) if not _PLAIN.fullmatch(pattern))

    @cached_property
    def _by_position(self) -> tuple[V, ...]:
        return tuple(self.values.values())

    def _matches(self, pattern: str, module: str) -> bool:
        whole = _suffix(pattern)
        return self.budget.spend(pattern, lambda seconds: bool(regex.match(whole, module, timeout=seconds)))


class _PlainPatterns:
    """Patterns without operators but the dot, which stands for any character: what merges write.

    They lie by their length, by where their dots are, and by their text: a name is asked for once for each of the few
    ways in which the patterns of an adapter are made, and not once for each pattern.
    """

    def __init__(self, patterns: Iterable[tuple[int, str]]) -> None:
        self._ways: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
        for position, pattern in patterns:
            dots = tuple(i for i, sign in enumerate(pattern) if sign == ".")
            self._ways.setdefault(len(pattern), {}).setdefault(dots, {})[pattern] = position

    def matching(self, module: str, patience: PatternBudget) -> list[int]:
        """The positions of those that match the end of the name."""
        return patience.spend("", lambda _: [*self._matching(module)]) if self._ways else []

    def _matching(self, module: str) -> Iterator[int]:
        for ending in endings(module):
            for dots, texts in self._ways.get(len(ending), {}).items():
                text = ending
                if any(ending[dot] != "." for dot in dots):
                    signs = list(ending)
                    for dot in dots:
                        signs[dot] = "."
                    text = "".join(signs)
                if text in texts:
                    yield texts[text]


def _suffix(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _check_end(pattern: str, _: float) -> None:
    _check(_suffix(pattern))


def _check(pattern: str) -> None:
    if len(pattern) > _LONGEST:
        raise OverflowError(f"it has {len(pattern)} characters")
    _refuse_costly(pattern)
    re.compile(pattern)


def _refuse_costly(pattern: str) -> None:
    """Raise OverflowError for what takes long to compile, or much memory: nothing can interrupt that."""
    if len(_WIDE.findall(pattern)) > _MOST_WIDE:
        raise OverflowError(f"it has over {_MOST_WIDE} ranges of characters beyond ASCII")
    once, of_groups = len(pattern), 1
    for before, *counts in _COUNTED.findall(pattern):
        count = max(int(digits[:9] or 1) for digits in counts)
        if before == ")":
            of_groups *= max(count, 1)
        else:
            once += count
    if once * of_groups > _MOST_COPIES:
        raise OverflowError("it repeats too much")


def _refused(pattern: str, error: Exception) -> AdapterFormatError:
    reason = "it takes too long, or all of them do" if isinstance(error, TimeoutError) else str(error)
    return AdapterFormatError(f"invalid pattern {pattern[:80]!r} in adapter_config.json ({reason})", hint="mend it")
