"""The shape of a search: the query with parameters in place of its words and numbers, in which most searches differ.

SQLAlchemy takes longer to build such a statement than PostgreSQL to run it, and PostgreSQL plans it once if it comes
again: so the statement of each shape is built once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from msgspec.structs import replace

from loreg.catalog.bases import digest_range, is_digest
from loreg.catalog.text_query import TextShare, split_query_words
from loreg.entities import Comparison, MetricCondition, Query, SearchTerm, Sort, TermMatch
from loreg.refs import NO_NAMESPACE

#: The namespace of a shape whose adapters are few: they are parameters themselves.
FEW_ADAPTERS = "few adapters"
BY_NAME, BY_DIGEST, BY_NEAR_NAMES = "name", "digest", "near names"
_NEAR = "near_"
_NEAR_ORDER = " near "


def split_query(query: Query, matches: Sequence[TermMatch], share: TextShare) -> tuple[Query, dict[str, object]]:
    """Return the query with parameter names in place of its words, and the values of the parameters.

    Numbers become parameters too, named by their position. ``base`` becomes :data:`BY_NAME` or :data:`BY_DIGEST`.
    What is empty stays empty. A task or base among the ``matches`` becomes a parameter for all names that it may mean,
    see :func:`is_near`, and :data:`BY_NEAR_NAMES`. The text becomes its ``share`` and a name for each word; its
    parameters are not among the values. Raises UsageError for a text that is none to search for.
    """
    near = {(match.term, match.word): match.names for match in matches if match.names}
    values: dict[str, object] = {}

    def bind(name: str, value: str) -> str:
        values[name] = value
        return name

    def bind_if_given(name: str, value: str) -> str:
        return bind(name, value) if value else ""

    def bind_comparison(name: str, comparison: Comparison) -> Comparison:
        values[name] = comparison.value
        return Comparison(comparison.operator, 0)

    def bind_task(index: int, task: str) -> str:
        names = near.get((SearchTerm.TASK, task))
        if names is None:
            return bind(f"task_{index}", task)
        values[f"{_NEAR}task_{index}"] = names
        return f"{_NEAR}task_{index}"

    words = split_query_words(query.text)
    base_names = near.get((SearchTerm.BASE, query.base))
    by_one_name = (BY_DIGEST if is_digest(query.base) else BY_NAME) if query.base else ""
    shape = replace(
        query,
        text=" ".join([share, *(f"word_{i}" for i, _ in enumerate(words))]) if words else "",
        tasks=tuple(bind_task(i, task) for i, task in enumerate(query.tasks)),
        base=BY_NEAR_NAMES if base_names is not None else by_one_name,
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
        namespace=bind("namespace", query.namespace.removeprefix(NO_NAMESPACE)) if query.namespace else "",
        author=bind_if_given("author", query.author),
        variant=bind_if_given("variant", query.variant),
        loads_in="loads_in" if query.loads_in else "",
        without_findings=(),
        sort=Sort(
            query.sort.by,
            bind_if_given("sort_metric", query.sort.metric),
            bind_if_given("sort_dataset", query.sort.dataset),
            bind_if_given("sort_split", query.sort.split),
        ),
        cursor="cursor" if query.cursor else None,
    )
    values["without_findings"] = query.without_findings
    values["base"] = query.base if base_names is None else base_names
    values["base_digest"], values["base_end"] = digest_range(query.base)
    return shape, values


def cursor_values(key: Sequence[object]) -> dict[str, object]:
    """Return the values of the parameters for the key of a cursor."""
    return {f"cursor_{index}": value for index, value in enumerate(key)}


def is_near(task: str) -> bool:
    """Whether a task of a shape is a parameter for several names."""
    return task.startswith(_NEAR)


def text_share(shape: Query) -> TextShare:
    """Return how many versions have the text of a shape that has one."""
    return TextShare(shape.text.split()[0])


def with_text_share(shape: Query, share: TextShare) -> Query:
    """Return the same shape for a text that so many versions have."""
    return replace(shape, text=" ".join([share, *shape.text.split()[1:]]))


def word_count(shape: Query) -> int:
    """Return how many words the text of a shape has."""
    return max(len(shape.text.split()) - 1, 0)


def has_only_words(shape: Query) -> bool:
    """Whether a shape has no condition but its text."""
    bare = Query(text=shape.text, all_versions=shape.all_versions, sort=shape.sort, limit=shape.limit)
    return bool(shape.text) and replace(shape, cursor=None) == bare


def order_of_near_names(order: str, matches: Sequence[TermMatch]) -> str:
    """Return what a cursor names as its order: with the names that were taken for what was written."""
    names = [name for match in matches for name in (match.word, *match.names)]
    return f"{order}{_NEAR_ORDER}{hashlib.sha256(repr(names).encode()).hexdigest()[:16]}" if names else order


def is_order_of_near_names(order: str) -> bool:
    """Whether a cursor with that order is of a search by near names."""
    return _NEAR_ORDER in order
