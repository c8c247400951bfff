"""How a weight is called in memory that a file calls otherwise, by the rules of one class of transformers.

Source: transformers 5.23, ``core_model_loading.py``: ``WeightRenaming``, ``WeightConverter``, ``rename_source_key``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class WeightInFile:
    """What the tensor of a file is of the weight ``weight`` in memory.

    ``how`` is empty where it is that very weight. Else it names the operations that make the weight of it:
    ``MergeModulelist(0) Concatenate(1)`` makes one of many, this is number ``expert`` of source ``source``;
    ``Chunk(0)`` makes many of one, the weight is piece ``source`` of ``pieces``.
    """

    weight: str
    how: str = ""
    source: int = 0
    pieces: int = 1
    expert: int | None = None


@dataclass(frozen=True)
class Rule:
    """One renaming: the first of ``match`` (position, pattern) that is found is replaced.

    ``to`` has the replacement, or several of a rule that takes a tensor apart. With a ``scope`` only names below it are
    looked at, with or without the ``prefix`` of the model inside.
    """

    match: Sequence[tuple[int, str]]
    to: Sequence[str]
    how: str = ""
    scope: str | None = None
    prefix: str = ""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All patterns as one, each in a group of its own."""
        return re.compile("|".join(f"(?P<g{position}>{pattern})" for position, pattern in self.match))

    def apply(self, name: str) -> tuple[int, list[str], str] | None:
        """The position of the pattern that was found, the new names and what was replaced; None if none was found."""
        before = self._before(name)
        if before is None:
            return None
        rest = name.removeprefix(before)
        found = self.pattern.search(rest)
        if found is None:
            return None
        group = next(key for key, value in found.groupdict().items() if value is not None)
        inner = self.pattern.groupindex[group] + 1
        news = []
        for target in self.to:
            new = target.replace(r"\1", found.group(inner)) if r"\1" in target else target
            news.append(before + rest.replace(found.group(0), new, 1))
        return int(group[1:]), news, found.group(0)

    def _before(self, name: str) -> str | None:
        """What stands before the part of the name that is looked at; None if the name is not in the scope."""
        if self.scope is None:
            return ""
        scope, prefix = (f"{part}." if part else "" for part in (self.scope, self.prefix))
        return next((before for before in (prefix + scope, scope) if name.startswith(before)), None)


def weights_in_file(name: str, rules: Sequence[Rule]) -> Iterator[WeightInFile]:
    """The weights in memory of which the tensor ``name`` of a file is the whole or a part.

    Every renaming is applied in turn, then at most one rule that puts tensors together or takes one apart.
    """
    for rule in rules:
        if not rule.how and (found := rule.apply(name)):
            name = found[1][0]
    for rule in rules:
        if rule.how and (found := rule.apply(name)):
            position, news, replaced = found
            numbers = [int(part) for part in replaced.split(".") if part.isdecimal()]
            expert = numbers[0] if len(numbers) == 1 else None
            if len(news) == 1:
                yield WeightInFile(news[0], rule.how, position, len(rule.match), expert)
            else:
                for piece, new in enumerate(news):
                    yield WeightInFile(new, rule.how, piece, len(news))
            return
    yield WeightInFile(name)


def read_rules(rows: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules of a row of the table."""
    return tuple(Rule(**row) for row in rows)
