"""Leave out the names of sources that the caller may not read, where a version or a job tells what it was made from.

Files are not changed: ``loreg_merge.json`` names every source to whoever may download it, see :func:`list_unshared`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import select

from loreg.catalog.schema import namespace_table, token_table
from loreg.catalog.tokens import is_live
from loreg.catalog.transaction import Transaction
from loreg.entities import HIDDEN_SOURCE, Job, LineageEdge, Provenance
from loreg.refs import is_path

_REF_LISTS, _SINGLE_REFS = ("sources", "initial"), ("source", "extras")  # of a job's request


def hide_in_provenance(tx: Transaction, provenance: Provenance) -> Provenance:
    """Return how a version was merged, with :data:`HIDDEN_SOURCE` for each name that the caller may not read."""
    recipe_sources = provenance.recipe.get("sources", ())
    labels = [*(source.label for source in provenance.sources), *(source["label"] for source in recipe_sources)]
    hidden = _find_hidden(tx, {label: _namespace_of(label) for label in labels})
    if not hidden:
        return provenance
    sources = [{**source, "label": _name(source["label"], hidden)} for source in recipe_sources]
    warnings = [_without(hidden, text) for text in provenance.certificate.get("warnings", ())]
    return Provenance(
        tuple(replace(source, label=_name(source.label, hidden)) for source in provenance.sources),
        {**provenance.recipe, "sources": sources},
        {**provenance.certificate, "warnings": warnings},
    )


def hide_in_edges(tx: Transaction, edges: Sequence[LineageEdge]) -> tuple[LineageEdge, ...]:
    """Return the edges of a lineage, with :data:`HIDDEN_SOURCE` for each name that the caller may not read."""
    hidden = _find_hidden(tx, {edge.parent.label: _namespace_of(edge.parent.label) for edge in edges})
    if not hidden:
        return tuple(edges)
    return tuple(replace(edge, parent=replace(edge.parent, label=_name(edge.parent.label, hidden))) for edge in edges)


def hide_in_jobs(tx: Transaction, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return the jobs, with :data:`HIDDEN_SOURCE` for each version in a request that the caller may not read.

    What such a job is doing, noted or failed for may name its sources too, and is left out. Whoever asked for it wrote
    the names, and is told.
    """
    refs = {job.id: () if tx.is_by_caller(job.author) else _list_refs(job.request) for job in jobs}
    hidden = _find_hidden(tx, {ref: _namespace_of_ref(ref) for of_job in refs.values() for ref in of_job})
    return tuple(_hide_in_job(job, hidden) if hidden.intersection(refs[job.id]) else job for job in jobs)


def list_unshared(tx: Transaction, namespace: str, provenance: Provenance) -> tuple[str, ...]:
    """Return the sources whose namespace somebody may not read who may read ``namespace``, each once.

    That is everybody where it is public, else who has a token.
    """
    labels = dict.fromkeys(source.label for source in provenance.sources)
    namespaces = {label: other for label in labels if (other := _namespace_of(label)) not in (None, namespace)}
    if not namespaces:
        return ()
    public = _list_public(tx, {namespace, *namespaces.values()})
    readers = [frozenset[str]()] if namespace in public else _list_readers(tx, namespace)
    return tuple(
        label
        for label, other in namespaces.items()
        if other not in public and any(other not in permitted for permitted in readers)
    )


def _list_readers(tx: Transaction, namespace: str) -> list[frozenset[str]]:
    """Return what each token may read that may read the namespace, but not all of them."""
    grants = tx.connection.execute(select(token_table.c.grants).where(is_live(tx.at))).scalars()
    return [frozenset(permitted) for permitted in grants if namespace in permitted and "*" not in permitted]


def _find_hidden(tx: Transaction, namespaces: Mapping[str, str | None]) -> frozenset[str]:
    """Return those of the names that are of a namespace which the caller may not read."""
    if tx.sees_all:
        return frozenset()
    private = {namespace for namespace in namespaces.values() if namespace is not None}
    private -= tx.access.permissions.keys()
    private -= _list_public(tx, private)
    return frozenset(name for name, namespace in namespaces.items() if namespace in private)


def _list_public(tx: Transaction, names: Collection[str]) -> set[str]:
    """Return those of the namespaces that everybody may read."""
    if not names:
        return set()
    is_one = namespace_table.c.name.in_(sorted(names))
    return set(tx.connection.execute(select(namespace_table.c.name).where(is_one, namespace_table.c.public)).scalars())


def _namespace_of(label: str) -> str | None:
    """Return the namespace that a source's label names, as ``ns/name:v1`` or ``name:v1``; None for a folder's name."""
    is_folder = is_path(label) or not any(sign in label for sign in "/:@")
    return None if is_folder else _namespace_of_ref(label)


def _namespace_of_ref(ref: str) -> str:
    namespace, slash, _ = ref.partition("/")
    return namespace if slash else ""


def _name(name: str, hidden: Collection[str]) -> str:
    return HIDDEN_SOURCE if name in hidden else name


def _without(hidden: Collection[str], text: str) -> str:
    for label in sorted(hidden, key=len, reverse=True):  # a:v10 before a:v1
        text = text.replace(label, HIDDEN_SOURCE)
    return text


def _list_refs(request: Mapping[str, Any]) -> list[str]:
    lists = [ref for field in _REF_LISTS for ref in request.get(field) or ()]
    return [*lists, *(request[field] for field in _SINGLE_REFS if request.get(field))]


def _hide_in_job(job: Job, hidden: Collection[str]) -> Job:
    request = dict(job.request)
    for field in _REF_LISTS:
        if request.get(field):
            request[field] = [_name(ref, hidden) for ref in request[field]]
    for field in _SINGLE_REFS:
        if request.get(field):
            request[field] = _name(request[field], hidden)
    result = {name: value for name, value in job.result.items() if name != "notes"}
    untold = {"message": "why is told to those who may read all of its sources", "hint": ""}
    return replace(job, request=request, what="", result=result, error={**job.error, **untold} if job.error else {})
