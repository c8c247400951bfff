"""Patterns of a configuration against module names: as PEFT matches them, but never longer than a moment.

A configuration is a stranger's file, and a pattern with nested repetition can keep ``re`` busy for years.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import regex

from loreg.errors import AdapterFormatError

_PATIENCE = 0.5  # seconds that one match may take
_PLAIN = re.compile(r"[\w.-]+")
V = TypeVar("V")


def fullmatch(pattern: str, module: str) -> bool:
    """``re.fullmatch``. Raises AdapterFormatError for a pattern that is invalid or takes too long."""
    _check(pattern, pattern)
    try:
        return regex.fullmatch(pattern, module, timeout=_PATIENCE) is not None
    except (regex.error, TimeoutError, RecursionError, MemoryError, OverflowError) as error:
        raise _refused(pattern, error) from None


def match(pattern: str, module: str) -> regex.Match[str] | None:
    """``re.match``. Raises AdapterFormatError for a pattern that is invalid or takes too long."""
    _check(pattern, pattern)
    try:
        return regex.match(pattern, module, timeout=_PATIENCE)
    except (regex.error, TimeoutError, RecursionError, MemoryError, OverflowError) as error:
        raise _refused(pattern, error) from None


@dataclass(frozen=True)
class Patterns(Generic[V]):
    """``rank_pattern`` or ``alpha_pattern``: values by pattern, in order."""

    values: Mapping[str, V]

    def __post_init__(self) -> None:
        for pattern in self.values:
            if not _PLAIN.fullmatch(pattern):
                _check(pattern, _suffix(pattern))

    def first(self, module: str, default: V) -> V:
        """The value of the first pattern with ``re.match(rf"(.*\\.)?({pattern})$", module)``, as in PEFT 0.21."""
        for pattern, value in self.values.items():
            if _is_suffix(pattern, module):
                return value
        return default

    def matching_none(self, modules: Iterable[str]) -> list[str]:
        """The patterns that match none of these."""
        modules = set(modules)
        return [
            pattern
            for pattern in self.values
            if pattern not in modules and not any(_is_suffix(pattern, module) for module in modules)
        ]


def _is_suffix(pattern: str, module: str) -> bool:
    if _PLAIN.fullmatch(pattern):
        return _is_plain_suffix(pattern, module)
    try:
        return regex.match(_suffix(pattern), module, timeout=_PATIENCE) is not None
    except (regex.error, TimeoutError, RecursionError, MemoryError, OverflowError) as error:
        raise _refused(pattern, error) from None


def _is_plain_suffix(pattern: str, module: str) -> bool:
    """The same for a pattern without operators but the dot, which stands for any character: what merges write."""
    before = len(module) - len(pattern)
    if before < 0 or (before and module[before - 1] != "."):
        return False
    tail = module[before:]
    return tail == pattern or ("." in pattern and all(p in (".", c) for p, c in zip(pattern, tail, strict=True)))


def _suffix(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _check(pattern: str, whole: str) -> None:
    try:
        re.compile(whole)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise _refused(pattern, error) from None


def _refused(pattern: str, error: Exception) -> AdapterFormatError:
    reason = "it takes too long" if isinstance(error, TimeoutError) else str(error)
    return AdapterFormatError(f"invalid pattern {pattern[:80]!r} in adapter_config.json ({reason})", hint="mend it")
