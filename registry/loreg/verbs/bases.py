"""What adapters are trained on: bases are added, listed, shown, related to one another and matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loreg.adapters.hub import PREFIX
from loreg.bases.hub import identify_on_hub
from loreg.bases.identify import identify, identify_headers, parse_shard_digests
from loreg.bases.model import read_model
from loreg.entities import (
    BaseAdded,
    BaseDetails,
    BaseEdge,
    BaseMatch,
    BaseModel,
    Page,
    Progress,
    no_progress,
)
from loreg.errors import explain_os_errors
from loreg.storage import put_bytes
from loreg.workspace.base_lookup import assess_fit, load_base, trained_adapter
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import resolve_sources


def add_base(
    context: Context,
    where: Path | str,
    names: Sequence[str] = (),
    *,
    header_only: bool = False,
    progress: Progress = no_progress,
) -> BaseAdded:
    """Make the base at a path, or ``hf:NAME[@REV]``, known by content, under ``names``.

    ``header_only`` takes names and shapes without reading a weight, as for the Hub. Raises what identifying raises;
    then nothing is recorded.
    """
    if str(where).startswith(PREFIX):
        identity = identify_on_hub(str(where), tuple(names))
    else:
        path = Path(where).expanduser()
        with explain_os_errors(path, "check the folder of the base and its permissions"):
            if header_only:
                identity = identify_headers(read_model(path), tuple(names))
            else:
                identity = identify(path, tuple(names), progress, context.base_cache)
    put_bytes(context.store, identity.tensor_list)
    return context.backend.add_base(identity.base)


def bases(context: Context, *, limit: int = 50, cursor: str | None = None) -> Page[BaseModel]:
    """A page of the known bases, the newest first."""
    return context.backend.bases(limit, cursor)


def show_base(context: Context, base: str) -> BaseDetails:
    """All that is known of the base of that name or digest. Raises NotFoundError, ConflictError."""
    found = context.backend.base(base)
    return replace(found, files=parse_shard_digests(context.store.read(found.base.digest)))


def relate_bases(
    context: Context, child: str, parent: str, kind: str, detail: Mapping[str, Any] | None = None
) -> BaseEdge:
    """Record that the base ``child`` came from ``parent``: declared, or verified where the two contents prove it.

    ``kind`` is cast_of, quantized_from, renamed_from or finetuned_from. Raises UsageError for another one,
    ConflictError if the contents prove that it is not so, or if both are one base.
    """
    return context.backend.relate(child, parent, kind, detail or {})


def match_bases(context: Context, source: str, *, progress: Progress = no_progress) -> tuple[BaseMatch, ...]:
    """Every known base with its verdict on the adapter, a ref or a folder, the best first."""
    with resolve_sources(context, [source], progress) as (opened,):
        adapter = trained_adapter(context, opened.structure, opened.base)
    matches = []
    cursor: str | None = None
    while True:
        page = bases(context, limit=200, cursor=cursor)
        matches += [BaseMatch(base, assess_fit(context, adapter, load_base(context, base))) for base in page.items]
        cursor = page.cursor
        if cursor is None:
            return tuple(sorted(matches, key=lambda match: match.verdict, reverse=True))
