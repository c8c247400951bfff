"""The shape of a search: the query with parameters in place of its words and numbers, in which most searches differ.

SQLAlchemy takes longer to build such a statement than PostgreSQL to run it, and PostgreSQL plans it once if it comes
again: so the statement of each shape is built once.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from loreg.catalog.bases import digest_range, is_digest
from loreg.entities import Comparison, MetricCondition, Query, Sort

BY_NAME, BY_DIGEST = "name", "digest"


def split_query(query: Query) -> tuple[Query, dict[str, object]]:
    """Return the query with parameter names in place of its words, and the values of the parameters.

    Numbers become parameters too, named by their position. ``base`` becomes :data:`BY_NAME` or :data:`BY_DIGEST`.
    What is empty stays empty.
    """
    values: dict[str, object] = {}

    def bind(name: str, value: str) -> str:
        values[name] = value
        return name

    def bind_if_given(name: str, value: str) -> str:
        return bind(name, value) if value else ""

    def bind_comparison(name: str, comparison: Comparison) -> Comparison:
        values[name] = comparison.value
        return Comparison(comparison.operator, 0)

    shape = replace(
        query,
        text=" ".join(bind(f"word_{i}", _escape(word)) for i, word in enumerate(query.text.split())),
        tasks=tuple(bind(f"task_{i}", task) for i, task in enumerate(query.tasks)),
        base=(BY_DIGEST if is_digest(query.base) else BY_NAME) if query.base else "",
        modules=tuple(bind(f"module_{i}", module) for i, module in enumerate(query.modules)),
        ranks=tuple(bind_comparison(f"rank_{i}", comparison) for i, comparison in enumerate(query.ranks)),
        metrics=tuple(
            MetricCondition(
                bind(f"metric_{i}", metric.name),
                bind_comparison(f"metric_{i}_value", metric.comparison),
                bind_if_given(f"metric_{i}_dataset", metric.dataset),
                bind_if_given(f"metric_{i}_split", metric.split),
            )
            for i, metric in enumerate(query.metrics)
        ),
        labels=tuple(
            (bind(f"label_{i}", key), bind(f"label_{i}_value", value)) for i, (key, value) in enumerate(query.labels)
        ),
        author=bind_if_given("author", query.author),
        variant=bind_if_given("variant", query.variant),
        sort=Sort(
            query.sort.by,
            bind_if_given("sort_metric", query.sort.metric),
            bind_if_given("sort_dataset", query.sort.dataset),
            bind_if_given("sort_split", query.sort.split),
        ),
        cursor="cursor" if query.cursor else None,
    )
    values["base"] = query.base
    values["base_digest"], values["base_end"] = digest_range(query.base)
    return shape, values


def cursor_values(key: Sequence[object]) -> dict[str, object]:
    """Return the values of the parameters for the key of a cursor."""
    return {f"cursor_{index}": value for index, value in enumerate(key)}


def _escape(word: str) -> str:
    """Return the LIKE pattern that matches only the word itself; ``/`` escapes."""
    return word.replace("/", "//").replace("%", "/%").replace("_", "/_")
