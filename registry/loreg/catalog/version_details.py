"""Show a version: its description, files, provenance and alias moves, from one SELECT."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from sqlalchemy import Select, select

from loreg.catalog import deployments
from loreg.catalog.hidden_sources import hide_in_provenance
from loreg.catalog.schema import (
    alias_move_table,
    canary_table,
    file_table,
    lineage_table,
    merge_table,
    promotion_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonCells, JsonRow, json_rows, parse_time, to_canary
from loreg.catalog.versions import SelectedBy, find_version, select_version
from loreg.entities import AliasMove, Details, Promotion, Provenance, Source, Version
from loreg.manifest import File
from loreg.refs import Ref

_MAX_MOVES = 1000  # of all aliases together, the newest
_FILES = json_rows(
    file_table,
    file_table.c.path,
    file_table.c.digest,
    file_table.c.size,
    on=file_table.c.version_id == version_table.c.id,
)


def version_details(tx: Transaction, ref: Ref) -> Details:
    """Return everything about the version that ``ref`` means.

    Raises what :func:`loreg.catalog.versions.resolve` raises.
    """
    row, details = find_version(tx, ref, _select_details)
    card, base_path, recipe, certificate, sources, files, moves, places, shares, watched = details
    provenance = None
    if recipe is not None:
        by_position = (Source(label, digest, float(weight)) for _, label, digest, weight in sorted(sources))
        provenance = hide_in_provenance(tx, Provenance(tuple(by_position), recipe, certificate))
    return Details(
        version=row.version,
        files=tuple(File(*cells) for cells in sorted(files)),
        card=card,
        provenance=provenance,
        canaries=tuple(map(to_canary, sorted(shares))),
        promotions=tuple(
            Promotion(alias, number, previous, tuple(rollback_if), author, parse_time(at))
            for alias, number, previous, rollback_if, author, at in sorted(watched)
        ),
        alias_moves=tuple(
            AliasMove(alias, number, author, parse_time(at))
            for _, alias, number, author, at in sorted(moves, reverse=True)
        ),
        base_path=base_path if tx.is_by_caller(row.version.author) else "",
        deployments=deployments.of_version(tx, row.version, places),
    )


def version_files(tx: Transaction, ref: Ref) -> tuple[Version, tuple[File, ...]]:
    """Return the version that ``ref`` means, and its files.

    Raises what :func:`loreg.catalog.versions.resolve` raises.
    """
    row, files = find_version(tx, ref, _select_files)
    return row.version, tuple(File(*cells) for cells in sorted(files))


@functools.cache
def _select_files(sees_all: bool, by: SelectedBy) -> Select[JsonCells, Sequence[JsonCells]]:
    return select_version(sees_all, by).add_columns(_FILES.label("files"))


@functools.cache
def _select_details(sees_all: bool, by: SelectedBy) -> Select[JsonCells, JsonCells]:
    details = JsonRow(
        version_table.c.card,
        version_table.c.base_path,
        merge_table.c.recipe,
        merge_table.c.certificate,
        json_rows(
            lineage_table,
            lineage_table.c.position,
            lineage_table.c.parent_label,
            lineage_table.c.parent_digest,
            lineage_table.c.weight,
            on=lineage_table.c.child_id == version_table.c.id,
        ),
        _FILES,
        json_rows(
            alias_move_table,
            alias_move_table.c.id,
            alias_move_table.c.alias,
            alias_move_table.c.number,
            alias_move_table.c.author,
            alias_move_table.c.at,
            on=alias_move_table.c.id.in_(_select_newest_moves()),
        ),
        deployments.OF_VERSION,
        json_rows(
            canary_table,
            canary_table.c.alias,
            canary_table.c.number,
            canary_table.c.share,
            canary_table.c.rollback_if,
            canary_table.c.author,
            canary_table.c.at,
            on=canary_table.c.adapter_id == version_table.c.adapter_id,
        ),
        json_rows(
            promotion_table,
            promotion_table.c.alias,
            promotion_table.c.number,
            promotion_table.c.previous_number,
            promotion_table.c.rollback_if,
            promotion_table.c.author,
            promotion_table.c.at,
            on=promotion_table.c.adapter_id == version_table.c.adapter_id,
        ),
    )
    version = select_version(sees_all, by).add_columns(details.label("details"))
    return version.outerjoin(merge_table, merge_table.c.version_id == version_table.c.id)


def _select_newest_moves() -> Select[int]:
    move = alias_move_table.alias()
    of_adapter = select(move.c.id).where(move.c.adapter_id == version_table.c.adapter_id).correlate(version_table)
    return of_adapter.order_by(move.c.id.desc()).limit(_MAX_MOVES)
