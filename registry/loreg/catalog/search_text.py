"""The words of versions, kept in the database's own full-text index: a tsvector in PostgreSQL, FTS5 in SQLite.

Both hold the words that :func:`split_words` finds, so both find the same; what a word weighs is decided by where it
stands, not by how often. The names of a base change while versions on it stay: a version has a token for its base, and
a word that is in a name of a base stands for that token too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Boolean, Connection, Integer, Row, or_, select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from loreg.catalog.schema import (
    adapter_table,
    base_name_table,
    label_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.version_json import json_rows
from loreg.errors import UsageError

TABLE = "search_texts"
_WORD = re.compile(r"[^\W_]+")
_MAX_WORD = 64  # characters
_MAX_QUERY_WORDS = 32  # each is looked up in four places, and SQLite takes a thousand terms in a sum
_MAX_BYTES = 200_000  # of the words of one version: PostgreSQL takes a megabyte, with its own overhead
_MAX_BASES = 1000  # names of bases that a search looks at
_BATCH = 1000  # versions
_PRIVATE = "\ue000"  # for private use (Unicode): no word begins with it


class TextField(StrEnum):
    """Where a word of a version stands; SQLite's columns are called so."""

    NAME = "name"
    SUBJECT = "subject"  # tasks and base
    FEATURES = "features"  # module types, labels and variant
    PROSE = "prose"  # message and card


#: What a word counts where it stands, and the weight by which PostgreSQL knows the place.
WEIGHTS: Mapping[TextField, tuple[int, str]] = {
    TextField.NAME: (8, "A"),
    TextField.SUBJECT: (4, "B"),
    TextField.FEATURES: (2, "C"),
    TextField.PROSE: (1, "D"),
}

_UPSERT = {
    "postgresql": text(
        f"INSERT INTO {TABLE} (version_id, document) VALUES (:id, CAST(:document AS tsvector)) "  # noqa: S608
        "ON CONFLICT (version_id) DO UPDATE SET document = excluded.document"
    ),
    "sqlite": text(
        f"INSERT OR REPLACE INTO {TABLE} (rowid, name, subject, features, prose) "  # noqa: S608
        "VALUES (:id, :name, :subject, :features, :prose)"
    ),
}
_DELETE = {
    "postgresql": text(f"DELETE FROM {TABLE} WHERE version_id = :id"),  # noqa: S608
    "sqlite": text(f"DELETE FROM {TABLE} WHERE rowid = :id"),  # noqa: S608
}
_IS_MISSING = {
    "postgresql": text(f"NOT EXISTS (SELECT FROM {TABLE} WHERE version_id = versions.id)"),
    "sqlite": text(f"NOT EXISTS (SELECT 1 FROM {TABLE} WHERE {TABLE}.rowid = versions.id)"),  # noqa: S608
}


def split_words(text: str) -> list[str]:
    """Return the words of a text as the index has them: ``News-topics_r8`` has news, topics and r8."""
    return [word[:_MAX_WORD] for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]


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


def refresh(connection: Connection, version_id: int) -> None:
    """Write the words of a version into the index; call it after anything that it tells of has changed."""
    row = connection.execute(_select_texts().where(version_table.c.id == version_id)).one()
    connection.execute(_UPSERT[connection.dialect.name], _document(connection, row))


def remove(connection: Connection, version_id: int) -> None:
    """Remove a version from the index."""
    connection.execute(_DELETE[connection.dialect.name], {"id": version_id})


def fill_missing(connection: Connection) -> None:
    """Write the words of all versions that the index lacks: after an upgrade, or a restore from a backup."""
    missing = _select_texts().where(_IS_MISSING[connection.dialect.name]).order_by(version_table.c.id).limit(_BATCH)
    last = 0
    while rows := connection.execute(missing.where(version_table.c.id > last)).all():
        connection.execute(_UPSERT[connection.dialect.name], [_document(connection, row) for row in rows])
        last = rows[-1].id


def _select_texts() -> Any:
    version = version_table.c
    children = (
        json_rows(task_table, task_table.c.task, on=task_table.c.version_id == version.id).label("tasks"),
        json_rows(label_table, label_table.c.key, label_table.c.value, on=label_table.c.version_id == version.id).label(
            "labels"
        ),
        json_rows(module_type_table, module_type_table.c.name, on=module_type_table.c.version_id == version.id).label(
            "modules"
        ),
    )
    columns = (version.id, version.base_id, version.base_hint, version.variant, version.message, version.card)
    query: Any = select(*columns, adapter_table.c.namespace, adapter_table.c.name, *children).join_from(
        version_table, adapter_table, adapter_table.c.id == version.adapter_id
    )
    return query


def _document(connection: Connection, row: Row[Any]) -> dict[str, object]:
    """Return the parameters that put a version into the index."""
    # A base may be declared by the path on the machine of whoever pushed it: of that, the last part is a name.
    hint = re.split(r"[/\\]", row.base_hint)[-1] if row.base_hint[:1] in "/.~" else row.base_hint
    texts = {
        TextField.NAME: [row.namespace, row.name],
        TextField.SUBJECT: [*(task for (task,) in row.tasks), hint],
        TextField.FEATURES: [*(name for (name,) in row.modules), *(" ".join(pair) for pair in row.labels), row.variant],
        TextField.PROSE: [row.message, row.card],
    }
    words = {
        field: dict.fromkeys(word for part in parts for word in split_words(part)) for field, parts in texts.items()
    }
    if row.base_id is not None:
        words[TextField.SUBJECT][_base_token(row.base_id)] = None
    room = _MAX_BYTES
    fields: dict[str, list[str]] = {field: [] for field in TextField}
    for field in TextField:
        for word in words[field]:
            room -= len(word.encode())
            if room > 0:
                fields[field].append(word)
    if connection.dialect.name == "sqlite":
        return {"id": row.id, **{field: " ".join(kept) for field, kept in fields.items()}}
    lexemes = (f"'{word}':1{WEIGHTS[TextField(field)][1]}" for field, kept in fields.items() for word in kept)
    return {"id": row.id, "document": " ".join(lexemes)}


def _base_token(base_id: int) -> str:
    return f"{_PRIVATE}{base_id}"


def text_parameters(connection: Connection, words: Sequence[str]) -> dict[str, object]:
    """Return the parameters of :class:`HasText` and :class:`TextRank` for the words of a search.

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


def text_parameter_names(count: int) -> Iterator[tuple[str, int]]:
    """Yield the parameters of each of ``count`` words in each place, with what a word counts there."""
    for index in range(count):
        yield from ((f"text_{index}_{field}", WEIGHTS[field][0]) for field in TextField)


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
                tokens[index].append(_base_token(row.base_id))
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


class HasText(FunctionElement[bool]):
    """The condition ``HasText(version_id, query)``: a version has the words of the query."""

    name = "has_text"
    type = Boolean()
    inherit_cache = True


@compiles(HasText, "postgresql")
def _compile_has_text_postgresql(element: HasText, compiler: SQLCompiler, **options: object) -> str:
    version_id, query = (compiler.process(clause, **options) for clause in element.clauses)
    return (
        f"EXISTS (SELECT FROM {TABLE} WHERE {TABLE}.version_id = {version_id} "
        f"AND {TABLE}.document @@ CAST({query} AS tsquery))"
    )


@compiles(HasText, "sqlite")
def _compile_has_text_sqlite(element: HasText, compiler: SQLCompiler, **options: object) -> str:
    version_id, query = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{version_id} IN (SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH {query})"  # noqa: S608


class TextRank(FunctionElement[int]):
    """``TextRank(version_id, query, weight, …)``: the sum of the weights of those queries that match the version."""

    name = "text_rank"
    type = Integer()
    inherit_cache = True


@compiles(TextRank, "postgresql")
def _compile_rank_postgresql(element: TextRank, compiler: SQLCompiler, **options: object) -> str:
    version_id, *rest = (compiler.process(clause, **options) for clause in element.clauses)
    terms = (
        f"CASE WHEN {TABLE}.document @@ CAST({query} AS tsquery) THEN {weight} ELSE 0 END"
        for query, weight in zip(rest[::2], rest[1::2], strict=True)
    )
    return f"(SELECT {' + '.join(terms)} FROM {TABLE} WHERE {TABLE}.version_id = {version_id})"  # noqa: S608


@compiles(TextRank, "sqlite")
def _compile_rank_sqlite(element: TextRank, compiler: SQLCompiler, **options: object) -> str:
    version_id, *rest = (compiler.process(clause, **options) for clause in element.clauses)
    terms = (
        f"({version_id} IN (SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH {query})) * {weight}"  # noqa: S608
        for query, weight in zip(rest[::2], rest[1::2], strict=True)
    )
    return f"({' + '.join(terms)})"
