"""Select a page of the versions that have the words of a search, by what the words count where they stand."""

from __future__ import annotations

from msgspec.structs import replace
from sqlalchemy import Integer, Label, Select, Subquery, bindparam, func, select, tuple_

from loreg.catalog.schema import adapter_table, version_table
from loreg.catalog.search_conditions import is_newest
from loreg.catalog.search_ids import limit_to, select_ids
from loreg.catalog.search_shape import text_share, word_count
from loreg.catalog.text_query import newest_matches, text_rank
from loreg.catalog.transaction import visible_to
from loreg.entities import Query, Sort

MAX_RANKED = 2000  # versions, the newest that match


def select_by_words(shape: Query, sees_all: bool) -> Subquery:
    """Select the ids of a page: the newest that have the words are ranked, then those not wanted are left out.

    For a search that has no condition but its words. It is fast, but where :data:`MAX_RANKED` versions are ranked, of
    which too few may be read, are the newest of their adapters and not yanked, there are others.
    """
    matches = newest_matches(text_share(shape), word_count(shape), MAX_RANKED)
    columns = (matches.c.weight.label("sort_0"), matches.c.id.label("sort_1"), _count())
    ranks = select(*columns).order_by(matches.c.weight.desc(), matches.c.id.desc()).subquery()
    statement = (
        select(version_table.c.id, *ranks.c)
        .join_from(ranks, version_table, version_table.c.id == ranks.c.sort_1)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(visible_to(sees_all, adapter_table.c.namespace), version_table.c.yanked_at.is_(None))
    )
    return _page(statement if shape.reads_all_versions else statement.where(is_newest()), ranks, shape)


def select_by_conditions(shape: Query, sees_all: bool) -> Subquery:
    """Select the ids of a page: the newest that fulfill every condition are ranked, :data:`MAX_RANKED` at most."""
    newest = select_ids(replace(shape, sort=Sort(), cursor=None), sees_all, MAX_RANKED)
    weight = text_rank(newest.c.id, word_count(shape))
    ranks = select(newest.c.id, weight.label("sort_0"), newest.c.id.label("sort_1"), _count()).subquery()
    return _page(select(ranks), ranks, shape)


def _count() -> Label[int]:
    return func.count().over().label("ranked")


def _page(statement: Select[*tuple[object, ...]], ranks: Subquery, shape: Query) -> Subquery:
    """Select of ranked ids those of the page: what counts the most first, of as many the newest."""
    keys = (ranks.c.sort_0, ranks.c.sort_1)
    if shape.cursor:
        cursor = tuple_(*(bindparam(f"cursor_{i}", type_=Integer()) for i in (0, 1)))
        statement = statement.where(tuple_(*keys) < cursor)
    return statement.order_by(*(key.desc() for key in keys)).limit(limit_to(shape.limit + 1)).subquery()
