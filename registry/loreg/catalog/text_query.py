"""Ask the full-text index: the words of a search as each database's query, and the conditions and ranks made of them.

What a statement does with a text depends on how many versions have it. The index lists them all, in no order, before
the newest can be taken: of a word that half of a million have, that takes seconds. To walk the newest versions and test
each takes milliseconds then, but seconds for a rare word. In between the index is asked for the versions that are not
too old. So a sample decides first, see :func:`sample_text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Integer,
    TableValuedAlias,
    Text,
    bindparam,
    column,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from loreg.catalog.schema import base_name_table
from loreg.catalog.search_text import TABLE, WEIGHTS, TextField, base_token, split_words
from loreg.errors import UsageError

_MAX_QUERY_WORDS = 32  # each is looked up in four places, and SQLite takes a thousand terms in a sum
_MAX_BASES = 1000  # names of bases that a search looks at
_UNCOMMON, _COMMON, _FREQUENT = 0.01, 0.025, 0.1  # of all versions
OLDEST = "text_oldest"  # the parameter
_LAST_ID = 2**63 - 1
_NEWEST = 400  # versions that are sampled
_SPARE = 1.6  # as many more of the newest are looked through as are expected to be needed
_SAMPLE = text(f"""
SELECT sum((document @@ query)::int) FILTER (WHERE is_newest), count(*) FILTER (WHERE is_newest),
       sum((document @@ query)::int) FILTER (WHERE NOT is_newest), count(*) FILTER (WHERE NOT is_newest),
       max(version_id)
FROM CAST(:text AS tsquery) AS query,
  ((SELECT version_id, document, true AS is_newest FROM {TABLE} ORDER BY version_id DESC LIMIT {_NEWEST})
   UNION ALL
   SELECT version_id, document, false FROM {TABLE} TABLESAMPLE SYSTEM (0.1) REPEATABLE (1)) AS sampled
""")  # noqa: S608


class TextShare(StrEnum):
    """How many of all versions have the words of a search."""

    RARE = "rare"
    UNCOMMON = "uncommon"  # one in a hundred
    COMMON = "common"  # one in forty
    FREQUENT = "frequent"  # one in ten


class TextSample(NamedTuple):
    """What a sample says of a text: its share, and the id from which on enough versions are expected to have it.

    ``oldest`` is 0 for a text that is not ``UNCOMMON``.
    """

    share: TextShare
    oldest: int = 0


def sample_text(connection: Connection, parameters: Mapping[str, object], wanted: int) -> TextSample:
    """Estimate how many versions have the text of these parameters, by the newest ones and by some of all.

    ``wanted`` are enough. A text that only the newest have, or only the others, is rare. In SQLite every text is: its
    index is in the order of age, so that the newest can be taken from it.
    """
    if connection.dialect.name != "postgresql":
        return TextSample(TextShare.RARE)
    *counts, last = connection.execute(_SAMPLE, {"text": parameters["text"]}).one()
    pairs = [(hits, versions) for hits, versions in zip(counts[::2], counts[1::2], strict=True) if versions]
    share = min((hits / versions for hits, versions in pairs), default=0)  # of few versions there is no sample of all
    if share >= _COMMON:
        return TextSample(TextShare.COMMON if share < _FREQUENT else TextShare.FREQUENT)
    # Fewer errors of chance are in all that was sampled than in the lesser part.
    of_both = min(sum(hits for hits, _ in pairs) / max(sum(versions for _, versions in pairs), 1), _COMMON)
    if not share or of_both < _UNCOMMON:
        return TextSample(TextShare.RARE)
    return TextSample(TextShare.UNCOMMON, max(last - int(_SPARE * wanted / of_both), 0))


def split_query_words(text: str) -> list[str]:
    """Return the words that a search asks for, none for an empty text.

    Raises UsageError for a text without a word, and for one of more than 32.
    """
    words = split_words(text)
    if text.strip() and not words:
        raise UsageError(f"{text!r:.80} has no letter and no digit to search for", hint="loreg search news")
    if len(words) > _MAX_QUERY_WORDS:
        raise UsageError(
            f"a search has at most {_MAX_QUERY_WORDS} words, this one has {len(words):,}",
            hint=f"loreg search {' '.join(words[:3])}",
        )
    return words


def text_parameters(connection: Connection, words: Sequence[str]) -> dict[str, object]:
    """Return the parameters of the conditions and ranks for the words of a search.

    They are ``text`` for all words together, and ``text_0_name`` and so on for one word in one place. The last word
    also stands for longer ones that begin with it.
    """
    to_query = _to_tsquery if connection.dialect.name == "postgresql" else _to_fts5
    tokens = _find_base_tokens(connection, words)
    parameters: dict[str, object] = {}
    for index, word in enumerate(words):
        is_prefix = index == len(words) - 1
        for field in TextField:
            own_tokens = tokens[index] if field == TextField.SUBJECT else ()
            parameters[f"text_{index}_{field}"] = to_query(word, is_prefix, own_tokens, field)
    everywhere = [to_query(word, i == len(words) - 1, tokens[i], None) for i, word in enumerate(words)]
    parameters["text"] = (" & " if to_query is _to_tsquery else " AND ").join(everywhere)
    return parameters


def _find_base_tokens(connection: Connection, words: Sequence[str]) -> list[list[str]]:
    """Return for each word the tokens of the bases that have it in a name."""
    name = base_name_table.c.name
    query = select(name, base_name_table.c.base_id).where(or_(*(name.icontains(word) for word in words)))
    rows = connection.execute(query.order_by(base_name_table.c.base_id).limit(_MAX_BASES)).all()
    tokens: list[list[str]] = [[] for _ in words]
    for row in rows:
        of_base = split_words(row.name)
        for index, word in enumerate(words):
            is_last = index == len(words) - 1
            if any(other.startswith(word) if is_last else other == word for other in of_base):
                tokens[index].append(base_token(row.base_id))
    return tokens


def _to_tsquery(word: str, is_prefix: bool, tokens: Sequence[str], field: TextField | None) -> str:
    weight = WEIGHTS[field][1] if field else ""
    suffix = ("*" if is_prefix else "") + weight
    terms = [f"'{word}'" + (f":{suffix}" if suffix else "")]
    terms += [f"'{token}'" + (f":{weight}" if weight else "") for token in tokens]
    return f"({' | '.join(terms)})"


def _to_fts5(word: str, is_prefix: bool, tokens: Sequence[str], field: TextField | None) -> str:
    terms = [f'"{word}"' + (" *" if is_prefix else ""), *(f'"{token}"' for token in tokens)]
    return (f"{{{field}}} : " if field else "") + f"({' OR '.join(terms)})"


def has_text(version_id: ColumnElement[int], share: TextShare) -> ColumnElement[bool]:
    """Return the condition that a version has the words of the search."""
    kind = HasFrequentText if share == TextShare.FREQUENT else HasText
    return kind(version_id, bindparam("text", type_=Text()))


def text_rank(version_id: ColumnElement[int], words: int) -> ColumnElement[int]:
    """Return the sum of the weights of the places in which a version has one of so many words."""
    return TextRank(version_id, *_weights(words))


def newest_matches(share: TextShare, words: int, limit: int) -> TableValuedAlias:
    """Return the newest versions that have the words, ``limit`` at most, in no order: rows of ``id`` and ``weight``.

    Of an uncommon text there may be more that are older than the parameter :data:`OLDEST`, if these are fewer.
    """
    wanted: tuple[ColumnElement[object], ...] = (literal_column(str(limit)), bindparam("text", type_=Text()))
    matches: NewestMatches | RecentMatches | NewestFrequentMatches
    if share == TextShare.UNCOMMON:
        matches = RecentMatches(*wanted, bindparam(OLDEST, type_=BigInteger()), *_weights(words))
    else:
        kind = NewestMatches if share == TextShare.RARE else NewestFrequentMatches
        matches = kind(*wanted, *_weights(words))
    return matches.table_valued(column("id", Integer), column("weight", Integer))


def _weights(words: int) -> Iterator[ColumnElement[object]]:
    """Yield the query of each word in each place, each followed by what the word counts there."""
    for index in range(words):
        for field in TextField:
            yield bindparam(f"text_{index}_{field}", type_=Text())
            yield literal_column(str(WEIGHTS[field][0]))


class HasText(FunctionElement[bool]):
    """The condition ``HasText(version_id, query)``: a version has the words of the query."""

    name = "has_text"
    type = Boolean()
    inherit_cache = True


class HasFrequentText(FunctionElement[bool]):
    """The same, tested version by version, and never looked up in the index."""

    name = "has_frequent_text"
    type = Boolean()
    inherit_cache = True


@compiles(HasText, "postgresql")
def _compile_has_text_postgresql(element: HasText, compiler: SQLCompiler, **options: object) -> str:
    version_id, query = (compiler.process(clause, **options) for clause in element.clauses)
    return f"EXISTS (SELECT FROM {TABLE} WHERE {TABLE}.version_id = {version_id} AND {_matches(query)})"


@compiles(HasFrequentText, "postgresql")
def _compile_has_frequent_text(element: HasFrequentText, compiler: SQLCompiler, **options: object) -> str:
    version_id, query = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(SELECT {_matches(query)} FROM {TABLE} WHERE {TABLE}.version_id = {version_id})"  # noqa: S608


@compiles(HasText, "sqlite")
def _compile_has_text_sqlite(element: HasText, compiler: SQLCompiler, **options: object) -> str:
    version_id, query = (compiler.process(clause, **options) for clause in element.clauses)
    return _is_among_matches(version_id, query)


class TextRank(FunctionElement[int]):
    """``TextRank(version_id, query, weight, …)``: the sum of the weights of those queries that match the version."""

    name = "text_rank"
    type = Integer()
    inherit_cache = True


@compiles(TextRank, "postgresql")
def _compile_rank_postgresql(element: TextRank, compiler: SQLCompiler, **options: object) -> str:
    version_id, *weights = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(SELECT {_sum_of_matches(weights)} FROM {TABLE} WHERE {TABLE}.version_id = {version_id})"  # noqa: S608


@compiles(TextRank, "sqlite")
def _compile_rank_sqlite(element: TextRank, compiler: SQLCompiler, **options: object) -> str:
    version_id, *weights = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({_sum_of_rows(version_id, weights)})"


class NewestMatches(FunctionElement[int]):
    """The rows ``NewestMatches(limit, text, query, weight, …)``: the newest that have the text, found by the index."""

    name = "newest_matches"
    inherit_cache = True


class RecentMatches(FunctionElement[int]):
    """The rows ``RecentMatches(limit, text, oldest, query, weight, …)``: those of the index that are not too old."""

    name = "recent_matches"
    inherit_cache = True


class NewestFrequentMatches(FunctionElement[int]):
    """The same, by testing the newest versions until there are enough."""

    name = "newest_frequent_matches"
    inherit_cache = True


@compiles(NewestMatches, "postgresql")
def _compile_matches_postgresql(element: NewestMatches, compiler: SQLCompiler, **options: object) -> str:
    limit, query, *weights = (compiler.process(clause, **options) for clause in element.clauses)
    return (  # the 0 keeps PostgreSQL from walking the newest
        f"(SELECT version_id AS id, {_sum_of_matches(weights)} AS weight FROM {TABLE} "  # noqa: S608
        f"WHERE {_matches(query)} ORDER BY version_id + 0 DESC LIMIT {limit})"
    )


@compiles(RecentMatches, "postgresql")
def _compile_recent_matches(element: RecentMatches, compiler: SQLCompiler, **options: object) -> str:
    limit, query, oldest, *weights = (compiler.process(clause, **options) for clause in element.clauses)
    return (  # PostgreSQL expects few between two bounds, and many above one: two make it use both of its indexes
        f"(SELECT version_id AS id, {_sum_of_matches(weights)} AS weight FROM {TABLE} "  # noqa: S608
        f"WHERE {_matches(query)} AND version_id BETWEEN {oldest} AND {_LAST_ID} "
        f"ORDER BY version_id + 0 DESC LIMIT {limit})"
    )


@compiles(NewestFrequentMatches, "postgresql")
def _compile_frequent_matches(element: NewestFrequentMatches, compiler: SQLCompiler, **options: object) -> str:
    limit, query, *weights = (compiler.process(clause, **options) for clause in element.clauses)
    return (  # OFFSET keeps PostgreSQL from looking up the words
        f"(SELECT version_id AS id, {_sum_of_matches(weights)} AS weight FROM "  # noqa: S608
        f"(SELECT version_id, document FROM {TABLE} ORDER BY version_id DESC OFFSET 0) AS {TABLE} "
        f"WHERE {_matches(query)} ORDER BY version_id DESC LIMIT {limit})"
    )


@compiles(NewestMatches, "sqlite")
def _compile_matches_sqlite(element: NewestMatches, compiler: SQLCompiler, **options: object) -> str:
    limit, query, *weights = (compiler.process(clause, **options) for clause in element.clauses)
    return (
        f"(SELECT rowid AS id, {_sum_of_rows('rowid', weights)} AS weight FROM {TABLE} "  # noqa: S608
        f"WHERE {TABLE} MATCH {query} ORDER BY rowid DESC LIMIT {limit})"
    )


def _sum_of_matches(weights: Sequence[str]) -> str:
    pairs = zip(weights[::2], weights[1::2], strict=True)
    return " + ".join(f"CASE WHEN {_matches(query)} THEN {weight} ELSE 0 END" for query, weight in pairs)


def _sum_of_rows(version_id: str, weights: Sequence[str]) -> str:
    pairs = zip(weights[::2], weights[1::2], strict=True)
    return " + ".join(f"({_is_among_matches(version_id, query)}) * {weight}" for query, weight in pairs)


def _matches(query: str) -> str:
    return f"{TABLE}.document @@ CAST({query} AS tsquery)"


def _is_among_matches(version_id: str, query: str) -> str:
    return f"{version_id} IN (SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH {query})"  # noqa: S608
