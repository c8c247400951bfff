"""What adapters are trained on: bases are added, listed, shown, related to one another and matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loreg.adapters.hub import PREFIX
from loreg.bases.hub import identify_on_hub
from loreg.bases.identify import files_of, identify, identify_headers
from loreg.bases.model import read_model
from loreg.bases.verdict import Known
from loreg.catalog import bases as catalog
from loreg.catalog import derivations
from loreg.errors import ConflictError, UsageError, explain_os_errors
from loreg.records import (
    BaseAdded,
    BaseDetails,
    BaseEdge,
    BaseMatch,
    BaseModel,
    Page,
    Progress,
    no_progress,
)
from loreg.verbs.context import Context, store_document
from loreg.verbs.fit import known, names_that_are_taken, trained, verdict_on
from loreg.verbs.sources import open_sources

KINDS = ("cast_of", "quantized_from", "renamed_from", "finetuned_from")


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
                identity = identify(path, tuple(names), progress, context.cache)
    store_document(context, identity.base.digest, identity.leaves)
    with context.catalog.write(context.author) as tx:
        created = catalog.record(tx, identity.base, len(identity.leaves))
        notes = names_that_are_taken(catalog.names_taken(tx, identity.base))
        return BaseAdded(catalog.find(tx, identity.base.digest), created, notes)


def bases(context: Context, *, limit: int = 50, cursor: str | None = None) -> Page[BaseModel]:
    """A page of the known bases, the newest first."""
    with context.catalog.read() as tx:
        return catalog.page(tx, limit, cursor)


def show_base(context: Context, base: str) -> BaseDetails:
    """All that is known of the base of that name or digest. Raises NotFoundError, ConflictError."""
    with context.catalog.read() as tx:
        found = catalog.find(tx, base)
        edges, versions = derivations.of(tx, found), catalog.versions_on(tx, found)
    return BaseDetails(found, edges, versions, files_of(context.store.read(found.digest)))


def relate_bases(
    context: Context, child: str, parent: str, kind: str, detail: Mapping[str, Any] | None = None
) -> BaseEdge:
    """Record that the base ``child`` came from ``parent``: declared, or verified where the two contents prove it.

    ``kind`` is cast_of, quantized_from, renamed_from or finetuned_from. Raises UsageError for another one,
    ConflictError if the contents prove that it is not so, or if both are one base.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is no way to come from a base", hint=f"--kind {' | '.join(KINDS)}")
    with context.catalog.read() as tx:
        one, other = catalog.find(tx, child), catalog.find(tx, parent)
    if one.digest == other.digest:
        if kind in ("cast_of", "renamed_from"):  # proven, and nothing to record: a base is what does not depend on it
            return BaseEdge(one.digest, one.digest, kind, {}, verified=True)
        raise ConflictError(
            f"{child} and {parent} are one base, {one.title}: it cannot be {kind} itself",
            hint=f"loreg base show {child}",
        )
    verified = _proven(known(context, one), known(context, other), kind)
    with context.catalog.write(context.author) as tx:
        return derivations.record(tx, BaseEdge(one.digest, other.digest, kind, dict(detail or {}), verified))


def match_bases(context: Context, source: str, *, progress: Progress = no_progress) -> tuple[BaseMatch, ...]:
    """Every known base with its verdict on the adapter, a ref or a folder, the best first."""
    with open_sources(context, [source], progress) as (opened,):
        adapter = trained(context, opened.layout, opened.base)
    matches = []
    cursor: str | None = None
    while True:
        page = bases(context, limit=200, cursor=cursor)
        matches += [BaseMatch(base, verdict_on(context, adapter, known(context, base))) for base in page.items]
        cursor = page.cursor
        if cursor is None:
            return tuple(sorted(matches, key=lambda match: match.verdict, reverse=True))


def _proven(child: Known, parent: Known, kind: str) -> bool:
    """Whether the contents prove the relation. Raises ConflictError if they prove that it is not so."""
    if not (child.base.complete and parent.base.complete):
        return False
    if kind == "cast_of":
        both = child.leaves.keys() & parent.leaves.keys()
        whole = len(both) == min(len(child.leaves), len(parent.leaves))
        return whole and all(child.leaves[name] == parent.leaves[name] for name in both)
    if kind == "renamed_from":
        one, other = (Counter(leaf["sha256"] for leaf in x.leaves.values()) for x in (child, parent))
        if one != other:
            raise ConflictError(
                f"{child.base.title} is not a renaming of {parent.base.title}: "
                f"{(one - other).total()} of its tensors have other content",
                hint="--kind finetuned_from, or cast_of, declares another relation",
            )
        return True
    return False
