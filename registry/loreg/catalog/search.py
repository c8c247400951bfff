"""Search versions by task, base, rank, metric, text, …: one SQL statement per page, never a scan in Python."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog import relevance
from loreg.catalog.near_names import resolve_terms
from loreg.catalog.paging import decode, encode, order_of
from loreg.catalog.schema import adapter_table, version_table
from loreg.catalog.search_ids import BY_RELEVANCE, order_of_shape, select_ids, sort_columns
from loreg.catalog.search_shape import (
    FEW_ADAPTERS,
    cursor_values,
    has_only_words,
    is_order_of_near_names,
    order_of_near_names,
    split_query,
    text_share,
    with_text_share,
)
from loreg.catalog.text_query import (
    OLDEST,
    TextSample,
    TextShare,
    sample_text,
    split_query_words,
    text_parameters,
)
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import select_versions, to_version
from loreg.entities import Query, SearchPage, SortKey, TermMatch
from loreg.errors import UsageError

_MAX_FEW = 500  # adapters of a namespace


def search(tx: Transaction, query: Query) -> SearchPage:
    """Return a page of the versions that fulfill every condition. Raises UsageError for a cursor of another search.

    Tasks and base are taken as they are written. Only if that finds nothing, and they are the name of none, names that
    are near are taken instead, and the page says which.
    """
    if query.cursor is None or not is_order_of_near_names(order_of(query.cursor)):
        page = _select(tx, query, ())
        if page.items or not (query.tasks or query.base):
            return page
    matches = resolve_terms(tx, query)
    if query.cursor is not None or (matches and all(match.names for match in matches)):
        return _select(tx, query, matches)
    return replace(page, matches=matches)


def _select(tx: Transaction, query: Query, matches: Sequence[TermMatch]) -> SearchPage:
    if query.limit < 1:
        raise UsageError(f"a page of {query.limit} versions is not possible", hint="--limit 50")
    if query.best and query.sort.by != SortKey.METRIC:
        raise UsageError(f"the best by {query.sort} is no one version: expected a metric", hint="--best accuracy")
    shape, values = split_for(tx, query, matches)
    # Run by SQLAlchemy a page took 18 to 21 % longer (SQLite, median).
    rows = tx.select_compiled(select_page(shape, tx.sees_all), **values)
    is_ranked = query.sort.by == SortKey.RELEVANCE
    ranks_words = is_ranked and has_only_words(shape)
    if ranks_words and text_share(shape) == TextShare.UNCOMMON and (not rows or rows[0][-1] < relevance.MAX_RANKED):
        shape = with_text_share(shape, TextShare.RARE)  # older ones have the words, too
        rows = tx.select_compiled(select_page(shape, tx.sees_all), **values)
    is_cut_off = not rows or rows[0][-1] == relevance.MAX_RANKED
    if ranks_words and len(rows) <= query.limit and is_cut_off:
        rows = tx.select_compiled(select_page(shape, tx.sees_all, by_words=False), **values)
    shown = rows[: query.limit]
    ranked = shown[0][-1] if shown and is_ranked else 0
    order = order_of_near_names(query.order, matches)
    cursor = encode(order, list(shown[-1][1 : -1 if is_ranked else None])) if len(rows) > query.limit else None
    return SearchPage(
        tuple(to_version(document) for document, *_ in shown),
        cursor,
        query.reads_all_versions,
        query.best,
        tuple(matches),
        ranked if ranked == relevance.MAX_RANKED else None,
    )


def split_for(tx: Transaction, query: Query, matches: Sequence[TermMatch] = ()) -> tuple[Query, dict[str, object]]:
    """Return the shape of the query, and the values of all its parameters, in this database.

    Those of the text depend on the database, and on the names of bases. Raises UsageError for a text that is none to
    search for, and for the cursor of another search.
    """
    words = split_query_words(query.text)
    of_text = text_parameters(tx.connection, words) if words else {}
    sample = sample_text(tx.connection, of_text, relevance.MAX_RANKED) if words else TextSample(TextShare.RARE)
    shape, values = split_query(query, matches, sample.share)
    values[OLDEST] = sample.oldest
    if query.namespace:
        # In the order of a page a database looks for them among all versions: long, if it is to find but a few.
        of_namespace = select(adapter_table.c.id).where(adapter_table.c.namespace == values["namespace"])
        adapter_ids = tx.connection.execute(of_namespace.limit(_MAX_FEW + 1)).scalars().all()
        if len(adapter_ids) <= _MAX_FEW:
            shape, values["adapter_ids"] = replace(shape, namespace=FEW_ADAPTERS), adapter_ids
    if query.cursor:
        order = order_of_near_names(query.order, matches)
        values |= cursor_values(decode(query.cursor, order, order_of_shape(shape).types))
    return shape, values | of_text


@functools.lru_cache(maxsize=256)
def select_page(shape: Query, sees_all: bool, *, by_words: bool = True) -> ReturnsRows:
    """Select the versions of a page, one more than the limit, to know of a next; then their sort keys.

    The ids are selected first, in an order that an index has, so that no more is read. By relevance each row has how
    many versions were ranked as well; ``by_words`` is for :func:`loreg.catalog.relevance.select_by_words`, where it is
    possible.
    """
    order = order_of_shape(shape)
    if order is not BY_RELEVANCE:
        page = select_ids(shape, sees_all, shape.limit + 1)
    elif by_words and has_only_words(shape):
        page = relevance.select_by_words(shape, sees_all)
    else:
        page = relevance.select_by_conditions(shape, sees_all)
    keys = sort_columns(page)
    extra = [page.c.ranked] if order is BY_RELEVANCE else []
    statement = select_versions().add_columns(*keys, *extra).join(page, page.c.id == version_table.c.id)
    return statement.order_by(*order.clauses(keys))
