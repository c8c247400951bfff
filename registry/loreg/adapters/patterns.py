"""Match the patterns of a configuration with module names as PEFT does, but never for longer than some seconds.

A configuration is untrusted: a pattern with nested repetition can keep ``re`` busy for years, and thousands of
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

from loreg.errors import AdapterFormatError, LoregError

_MAX_MATCH_SECONDS = 0.5  # seconds that one match may take
_MAX_TOTAL_SECONDS = 3.0  # seconds of processor time for all of an adapter
_MAX_PATTERN_CHARACTERS = 64 * 1024
_MAX_WIDE_RANGES = 16  # of one pattern
_MAX_COPIES = 200_000  # of characters, by counted repetition: some 50 MB
_PLAIN_PATTERN = re.compile(r"[\w.-]+")
#: A range of characters that ends beyond ASCII: ``re`` makes a table of it, with each of its characters in other cases.
_WIDE_RANGE = re.compile(r"-(?:[^\x00-\x7f]|\\[xuUN0-7])")
#: A count, and the character before it: ``regex`` copies what is repeated as many times, groups in groups too.
_REPETITION = re.compile(r"(.?)\{(\d*),?(\d*)\}", re.DOTALL)
T = TypeVar("T")
V = TypeVar("V")


@dataclass
class PatternBudget:
    """The seconds of processor time that the patterns of one adapter, or of one recipe, may still take.

    ``field`` is where a message says that they stand, ``error`` what is raised for one that is invalid.
    """

    seconds_left: float = _MAX_TOTAL_SECONDS
    field: str = "adapter_config.json"
    error: type[LoregError] = AdapterFormatError

    def spend(self, pattern: str, call: Callable[[float], T]) -> T:
        """Return what ``call`` returns, which is given the seconds that it may take.

        Raises ``error`` for a ``pattern`` that is invalid or takes too long, or if the budget is spent.
        """
        if self.seconds_left <= 0:
            raise self._invalid_pattern_error(pattern, TimeoutError())
        begin = thread_time()
        try:
            return call(min(_MAX_MATCH_SECONDS, self.seconds_left))
        except (re.error, regex.error, TimeoutError, RecursionError, MemoryError, OverflowError, ValueError) as error:
            raise self._invalid_pattern_error(pattern, error) from error
        finally:
            self.seconds_left -= thread_time() - begin

    def _invalid_pattern_error(self, pattern: str, error: Exception) -> LoregError:
        reason = "it takes too long, or all of them do" if isinstance(error, TimeoutError) else str(error)
        return self.error(f"invalid pattern {pattern[:80]!r} in {self.field} ({reason})", hint="mend it")


def fullmatch(pattern: str, module: str, budget: PatternBudget) -> bool:
    """Return whether ``re.fullmatch`` matches.

    Raises AdapterFormatError for a pattern that is invalid or takes too long.
    """

    def call(seconds: float) -> bool:
        _check(pattern)
        return regex.fullmatch(pattern, module, timeout=seconds) is not None

    return budget.spend(pattern, call)


def match(pattern: str, module: str, budget: PatternBudget) -> regex.Match[str] | None:
    """Return what ``re.match`` returns.

    Raises AdapterFormatError for a pattern that is invalid or takes too long.
    """

    def call(seconds: float) -> regex.Match[str] | None:
        _check(pattern)
        return regex.match(pattern, module, timeout=seconds)

    return budget.spend(pattern, call)


def endings(name: str) -> Iterator[str]:
    """Yield the name, and what is left of it after each of its dots: ``a.b.c``, ``b.c``, ``c``."""
    start = 0
    while True:
        yield name[start:]
        start = name.find(".", start) + 1
        if not start:
            return


@dataclass(frozen=True)
class Patterns(Generic[V]):
    """The values by pattern of ``rank_pattern``, ``alpha_pattern`` or a recipe's ``weights_for``, in order.

    Every function raises the ``error`` of the budget for a pattern that is invalid or takes too long.
    """

    values: Mapping[str, V]
    budget: PatternBudget = field(default_factory=PatternBudget, compare=False, repr=False)

    def __post_init__(self) -> None:
        for pattern in self.values:
            if not _PLAIN_PATTERN.fullmatch(pattern):
                self.budget.spend(pattern, functools.partial(_check_suffix, pattern))

    def first(self, module: str, default: V) -> V:
        """Return the value of the first pattern that matches the end of the name, else ``default``.

        As in PEFT 0.21: ``re.match(rf"(.*\\.)?({pattern})$", module)``.
        """
        if not self.values:
            return default
        first = min(self._plain.match_positions(module, self.budget), default=len(self.values))
        for position, pattern in self._with_operators:
            if position > first:
                break
            if self._matches(pattern, module):
                first = position
        return self._by_position[first] if first < len(self.values) else default

    def unmatched(self, modules: Iterable[str]) -> list[str]:
        """Return the patterns that match none of ``modules``."""
        modules = set(modules)
        matched = {i for module in modules for i in self._plain.match_positions(module, self.budget)}
        matched |= {i for i, pattern in self._with_operators if any(self._matches(pattern, m) for m in modules)}
        return [pattern for i, pattern in enumerate(self.values) if i not in matched and pattern not in modules]

    @cached_property
    def _plain(self) -> _PlainPatterns:
        return _PlainPatterns(
            (i, pattern) for i, pattern in enumerate(self.values) if _PLAIN_PATTERN.fullmatch(pattern)
        )

    @cached_property
    def _with_operators(self) -> tuple[tuple[int, str], ...]:
        return tuple((i, pattern) for i, pattern in enumerate(self.values) if not _PLAIN_PATTERN.fullmatch(pattern))

    @cached_property
    def _by_position(self) -> tuple[V, ...]:
        return tuple(self.values.values())

    def _matches(self, pattern: str, module: str) -> bool:
        suffix_pattern = _as_suffix(pattern)
        return self.budget.spend(pattern, lambda seconds: bool(regex.match(suffix_pattern, module, timeout=seconds)))


class _PlainPatterns:
    """Patterns without operators but the dot, which stands for any character: what merges write for every module.

    They are kept by their length, by where their dots are, and by their text: a name is looked up once for each of the
    few placements of dots in the patterns of an adapter, and not compared with each pattern.
    """

    def __init__(self, patterns: Iterable[tuple[int, str]]) -> None:
        self._by_length_and_dots: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
        for position, pattern in patterns:
            dots = tuple(i for i, character in enumerate(pattern) if character == ".")
            self._by_length_and_dots.setdefault(len(pattern), {}).setdefault(dots, {})[pattern] = position

    def match_positions(self, module: str, budget: PatternBudget) -> list[int]:
        """Return the positions of the patterns that match the end of the name."""
        return budget.spend("", lambda _: [*self._iter_positions(module)]) if self._by_length_and_dots else []

    def _iter_positions(self, module: str) -> Iterator[int]:
        for ending in endings(module):
            for dots, texts in self._by_length_and_dots.get(len(ending), {}).items():
                text = ending
                if any(ending[dot] != "." for dot in dots):
                    characters = list(ending)
                    for dot in dots:
                        characters[dot] = "."
                    text = "".join(characters)
                if text in texts:
                    yield texts[text]


def _as_suffix(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _check_suffix(pattern: str, _: float) -> None:
    _check(_as_suffix(pattern))


def _check(pattern: str) -> None:
    if len(pattern) > _MAX_PATTERN_CHARACTERS:
        raise OverflowError(f"it has {len(pattern)} characters")
    _refuse_costly(pattern)
    re.compile(pattern)


def _refuse_costly(pattern: str) -> None:
    """Raise OverflowError for a pattern that takes long to compile, or much memory: nothing can interrupt that."""
    if len(_WIDE_RANGE.findall(pattern)) > _MAX_WIDE_RANGES:
        raise OverflowError(f"it has over {_MAX_WIDE_RANGES} ranges of characters beyond ASCII")
    characters, group_copies = len(pattern), 1
    for before, *counts in _REPETITION.findall(pattern):
        count = max(int(digits[:9] or 1) for digits in counts)
        if before == ")":
            group_copies *= max(count, 1)
        else:
            characters += count
    if characters * group_copies > _MAX_COPIES:
        raise OverflowError("it repeats too much")
