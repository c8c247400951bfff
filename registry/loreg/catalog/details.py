"""All that is known of a version, in one SELECT: what it is, its files, how it was made, how its aliases moved."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, join

from loreg.catalog.projection import json_rows, to_version
from loreg.catalog.schema import AliasMoveRow, BlobRow, FileRow, LineageRow, MergeRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.catalog.versions import located, row_of
from loreg.manifest import File
from loreg.records import AliasMove, Details, Provenance, Source
from loreg.refs import Ref


def details(tx: Transaction, ref: Ref) -> Details:
    """Everything about the version that ``ref`` means. Raises what :func:`loreg.catalog.versions.resolve` raises."""
    row = row_of(tx, ref, _detailed)
    made_by = None
    if row.recipe is not None:
        sources = tuple(Source(label, digest, float(weight)) for _, label, digest, weight in sorted(row.sources))
        made_by = Provenance(sources, row.recipe, row.certificate)
    moves = sorted(row.moves, reverse=True)
    return Details(
        version=to_version(row),
        files=tuple(File(*cells) for cells in sorted(row.files)),
        card=row.card,
        provenance=made_by,
        alias_moves=tuple(AliasMove(alias, number, author, _time(at)) for _, alias, number, author, at in moves),
    )


@functools.cache
def _detailed(sees_all: bool, by: str) -> Select[Any]:
    mine = VersionRow.id
    moved = VersionRow.__table__.alias("moved")
    return (
        located(sees_all, by)
        .add_columns(
            VersionRow.card,
            MergeRow.recipe,
            MergeRow.certificate,
            json_rows(
                LineageRow,
                LineageRow.position,
                LineageRow.parent_label,
                LineageRow.parent_digest,
                LineageRow.weight,
                on=LineageRow.child_id == mine,
            ).label("sources"),
            json_rows(
                join(FileRow, BlobRow, BlobRow.digest == FileRow.digest),
                FileRow.path,
                FileRow.digest,
                BlobRow.size,
                on=FileRow.version_id == mine,
            ).label("files"),
            json_rows(
                join(AliasMoveRow, moved, moved.c.id == AliasMoveRow.version_id, isouter=True),
                AliasMoveRow.id,
                AliasMoveRow.alias,
                moved.c.number,
                AliasMoveRow.author,
                AliasMoveRow.at,
                on=AliasMoveRow.adapter_id == VersionRow.adapter_id,
            ).label("moves"),
        )
        .outerjoin(MergeRow, MergeRow.version_id == mine)
    )


def _time(text: str) -> datetime:
    """A point in time as the databases write it into JSON: SQLite without a zone."""
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
