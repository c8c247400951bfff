"""Translate the names of tensors in files to those of weights in memory, by the rules of one class of transformers.

Source: transformers 5.23, ``core_model_loading.py``: ``WeightRenaming``, ``WeightConverter``, ``rename_source_key``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict


@dataclass(frozen=True)
class WeightInFile:
    """What the tensor of a file is of the weight ``weight`` in memory.

    ``conversion`` is empty where it is that very weight. Else it names the operations that make the weight of it:
    ``MergeModulelist(0) Concatenate(1)`` makes one weight of many tensors, of which this is number ``expert`` of source
    ``source``; ``Chunk(0)`` makes many weights of one tensor, of which this is piece ``source`` of ``pieces``.
    """

    weight: str
    conversion: str = ""
    source: int = 0
    pieces: int = 1
    expert: int | None = None


@dataclass(frozen=True)
class Rule:
    """One renaming: the first of ``patterns`` (position, pattern) that matches is replaced.

    ``replacements`` are several in a rule that splits a tensor. With a ``scope`` only names below it are looked at,
    with or without the ``prefix`` of the model inside.
    """

    patterns: Sequence[tuple[int, str]]
    replacements: Sequence[str]
    conversion: str = ""
    scope: str | None = None
    prefix: str = ""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All patterns as one, each in a group of its own."""
        return re.compile("|".join(f"(?P<g{position}>{pattern})" for position, pattern in self.patterns))

    def apply(self, name: str) -> tuple[int, list[str], str] | None:
        """Return the position of the pattern that matches, the new names and the replaced part; None for no match."""
        leading = self._leading_part(name)
        if leading is None:
            return None
        rest = name.removeprefix(leading)
        match = self.pattern.search(rest)
        if match is None:
            return None
        group = next(key for key, value in match.groupdict().items() if value is not None)
        inner = self.pattern.groupindex[group] + 1
        new_names = []
        for replacement in self.replacements:
            new = replacement.replace(r"\1", match.group(inner)) if r"\1" in replacement else replacement
            new_names.append(leading + rest.replace(match.group(0), new, 1))
        return int(group[1:]), new_names, match.group(0)

    def _leading_part(self, name: str) -> str | None:
        """Return what precedes the part of the name that is looked at; None if the name is not in the scope."""
        if self.scope is None:
            return ""
        scope, prefix = (f"{part}." if part else "" for part in (self.scope, self.prefix))
        return next((leading for leading in (prefix + scope, scope) if name.startswith(leading)), None)


def weights_in_file(name: str, rules: Sequence[Rule]) -> Iterator[WeightInFile]:
    """Yield the weights in memory of which the tensor ``name`` of a file is the whole or a part.

    Every renaming is applied in turn, then at most one rule that merges tensors or splits one.
    """
    for rule in rules:
        if not rule.conversion and (renamed := rule.apply(name)):
            name = renamed[1][0]
    for rule in rules:
        if rule.conversion and (converted := rule.apply(name)):
            position, new_names, replaced = converted
            numbers = [int(part) for part in replaced.split(".") if part.isdecimal()]
            expert = numbers[0] if len(numbers) == 1 else None
            if len(new_names) == 1:
                yield WeightInFile(new_names[0], rule.conversion, position, len(rule.patterns), expert)
            else:
                for piece, new in enumerate(new_names):
                    yield WeightInFile(new, rule.conversion, piece, len(new_names))
            return
    yield WeightInFile(name)


class RenameRow(TypedDict):
    """A rename in the table of architectures, as :class:`Rule` says it."""

    match: Sequence[tuple[int, str]]
    to: Sequence[str]
    how: NotRequired[str]
    scope: NotRequired[str]
    prefix: NotRequired[str]


def read_rules(rows: Sequence[RenameRow]) -> tuple[Rule, ...]:
    """Return the rules of a list of renames in the table of architectures."""
    return tuple(
        Rule(row["match"], row["to"], row.get("how", ""), row.get("scope"), row.get("prefix", "")) for row in rows
    )
