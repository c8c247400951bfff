"""The words of versions, kept in the database's own full-text index: a tsvector in PostgreSQL, FTS5 in SQLite.

Both hold the words that :func:`split_words` finds, so both find the same; what a word weighs is decided by where it
stands, not by how often. The names of a base change while versions on it stay: a version has a token for its base, and
a word that is in a name of a base stands for that token too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select, text

from loreg.catalog.schema import (
    adapter_table,
    label_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.version_json import json_rows

TABLE = "search_texts"
_WORD = re.compile(r"[^\W_]+")
_MAX_WORD = 64  # characters
_MAX_BYTES = 200_000  # of the words of one version: PostgreSQL takes a megabyte, with its own overhead
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
        words[TextField.SUBJECT][base_token(row.base_id)] = None
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


def base_token(base_id: int) -> str:
    """Return the word that stands for a base in the index, whose names may change: it begins as no other does."""
    return f"{_PRIVATE}{base_id}"
