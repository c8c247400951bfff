"""Count what the versions of a search have: tasks, bases, ranks, modules, variants, namespaces, servers and metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from loreg.catalog.facet_counts import CHECKED, FINDINGS, MAX_COUNTED, TOTAL, select_facets, select_ranges
from loreg.catalog.near_names import is_public_name, resolve_terms
from loreg.catalog.search import split_for
from loreg.catalog.transaction import Transaction
from loreg.entities import FacetCount, FacetKind, Facets, MetricRange, Query, Sort, TermMatch


def count_facets(
    tx: Transaction, query: Query, servers: Mapping[str, Collection[str]] = MappingProxyType({})
) -> Facets:
    """Return how many of the versions that fulfill every condition have which value, of the newest if there are many.

    Tasks and base are taken as :func:`loreg.catalog.search.search` takes them. ``servers`` are the codes of findings
    that keep an adapter from being served, by the server's name.
    """
    facets = _count(tx, query, (), servers)
    if facets.versions or not (query.tasks or query.base):
        return facets
    matches = resolve_terms(tx, query)
    if matches and all(match.names for match in matches):
        return _count(tx, query, matches, servers)
    return replace(facets, matches=matches)


def _count(
    tx: Transaction, query: Query, matches: Sequence[TermMatch], servers: Mapping[str, Collection[str]]
) -> Facets:
    query = replace(query, sort=Sort(), best=False, cursor=None, all_versions=query.reads_all_versions)
    shape, values = split_for(tx, query, matches)
    values["keeping_codes"] = sorted({code for codes in servers.values() for code in codes})
    rows = tx.select_compiled(select_facets(shape, tx.sees_all), **values)
    totals = {kind: versions for kind, _, versions, *_ in rows if kind in (TOTAL, CHECKED)}
    counts: Counter[tuple[FacetKind, str]] = Counter()
    for kind, value, versions, *_ in rows:
        if kind in set(FacetKind):
            is_hidden = kind == FacetKind.BASE and not is_public_name(value)
            counts[FacetKind(kind), "" if is_hidden else value] += versions
    findings = [
        ({code for (code,) in json.loads(value)}, versions) for kind, value, versions, *_ in rows if kind == FINDINGS
    ]
    for server, codes in servers.items():
        kept_out = sum(versions for of_version, versions in findings if not of_version.isdisjoint(codes))
        if loading := totals[CHECKED] - kept_out:
            counts[FacetKind.LOADS_IN, server] = loading
    if query.metrics:
        shape, values = split_for(tx, replace(query, metrics=()), matches)
        rows = tx.select_compiled(select_ranges(shape, tx.sees_all), **values)
    ordered = sorted(counts.items(), key=lambda item: (tuple(FacetKind).index(item[0][0]), -item[1], item[0][1]))
    return Facets(
        min(totals[TOTAL], MAX_COUNTED),
        totals[TOTAL] > MAX_COUNTED,
        tuple(FacetCount(kind, value, versions) for (kind, value), versions in ordered),
        tuple(matches),
        tuple(
            MetricRange(value, low, high, better >= 0.5)  # undeclared, it may be told both ways: as the most are
            for kind, value, _, low, high, better in rows
            if kind == FacetKind.METRIC
        ),
        totals[TOTAL] - totals[CHECKED],
    )
