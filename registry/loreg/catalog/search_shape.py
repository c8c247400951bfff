"""Searches apart from what they search for: many are alike but for their words and numbers.

SQLAlchemy takes longer to write such a statement than PostgreSQL to run it, and PostgreSQL plans it once if it comes
again: so each shape is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loreg.catalog.bases import digest_range, is_digest
from loreg.entities import Comparison, MetricCondition, Query, Sort

BY_NAME, BY_DIGEST = "name", "digest"


def split_query(query: Query) -> tuple[Query, dict[str, Any]]:
    """The query with names of parameters for its words, and their values; numbers are parameters named the same way.

    ``base`` becomes :data:`BY_NAME` or :data:`BY_DIGEST`; what is empty stays empty.
    """
    values: dict[str, Any] = {}

    def named(name: str, value: str) -> str:
        values[name] = value
        return name

    def named_if_given(name: str, value: str) -> str:
        return named(name, value) if value else ""

    def compared(name: str, comparison: Comparison) -> Comparison:
        values[name] = comparison.value
        return Comparison(comparison.operator, 0)

    shape = replace(
        query,
        text=" ".join(named(f"word_{i}", _literal(word)) for i, word in enumerate(query.text.split())),
        tasks=tuple(named(f"task_{i}", task) for i, task in enumerate(query.tasks)),
        base=(BY_DIGEST if is_digest(query.base) else BY_NAME) if query.base else "",
        modules=tuple(named(f"module_{i}", module) for i, module in enumerate(query.modules)),
        ranks=tuple(compared(f"rank_{i}", comparison) for i, comparison in enumerate(query.ranks)),
        metrics=tuple(
            MetricCondition(
                named(f"metric_{i}", metric.name),
                compared(f"metric_{i}_value", metric.comparison),
                named_if_given(f"metric_{i}_dataset", metric.dataset),
                named_if_given(f"metric_{i}_split", metric.split),
            )
            for i, metric in enumerate(query.metrics)
        ),
        labels=tuple(
            (named(f"label_{i}", key), named(f"label_{i}_value", value)) for i, (key, value) in enumerate(query.labels)
        ),
        author=named_if_given("author", query.author),
        variant=named_if_given("variant", query.variant),
        sort=Sort(
            query.sort.by,
            named_if_given("sort_metric", query.sort.metric),
            named_if_given("sort_dataset", query.sort.dataset),
            named_if_given("sort_split", query.sort.split),
        ),
        cursor="cursor" if query.cursor else None,
    )
    values["base"] = query.base
    values["base_digest"], values["base_end"] = digest_range(query.base)
    return shape, values


def cursor_values(key: Sequence[Any]) -> dict[str, Any]:
    """The values of the parameters that a cursor's key has."""
    return {f"cursor_{index}": value for index, value in enumerate(key)}


def _literal(word: str) -> str:
    """The word as a pattern that matches only itself, with ``/`` as its escape."""
    return word.replace("/", "//").replace("%", "/%").replace("_", "/_")
