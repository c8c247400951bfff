"""All that is known of a version, in one SELECT: what it is, its files, how it was made, how its aliases moved."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import Select

from loreg.catalog.projection import JsonRow, json_rows, time_of
from loreg.catalog.schema import AliasMoveRow, FileRow, LineageRow, MergeRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.catalog.versions import locate, located
from loreg.manifest import File
from loreg.records import AliasMove, Details, Provenance, Source
from loreg.refs import Ref


def details(tx: Transaction, ref: Ref) -> Details:
    """Everything about the version that ``ref`` means. Raises what :func:`loreg.catalog.versions.resolve` raises."""
    found, (card, recipe, certificate, sources, files, moves) = locate(tx, ref, _detailed)
    made_by = None
    if recipe is not None:
        by_position = (Source(label, digest, float(weight)) for _, label, digest, weight in sorted(sources))
        made_by = Provenance(tuple(by_position), recipe, certificate)
    return Details(
        version=found.version,
        files=tuple(File(*cells) for cells in sorted(files)),
        card=card,
        provenance=made_by,
        alias_moves=tuple(
            AliasMove(alias, number, author, time_of(at))
            for _, alias, number, author, at in sorted(moves, reverse=True)
        ),
    )


@functools.cache
def _detailed(sees_all: bool, by: str) -> Select[Any]:
    mine = VersionRow.id
    more = JsonRow(
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
        ),
        json_rows(
            FileRow,
            FileRow.path,
            FileRow.digest,
            FileRow.size,
            on=FileRow.version_id == mine,
        ),
        json_rows(
            AliasMoveRow,
            AliasMoveRow.id,
            AliasMoveRow.alias,
            AliasMoveRow.number,
            AliasMoveRow.author,
            AliasMoveRow.at,
            on=AliasMoveRow.adapter_id == VersionRow.adapter_id,
        ),
    )
    return located(sees_all, by).add_columns(more.label("more")).outerjoin(MergeRow, MergeRow.version_id == mine)
