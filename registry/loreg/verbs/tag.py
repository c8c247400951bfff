"""tag, untag, yank, unyank and metric add: what may be said of a version after it was pushed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from loreg.catalog import aliases, versions
from loreg.catalog import metrics as catalog_metrics
from loreg.catalog.transaction import Transaction
from loreg.checking import policy
from loreg.checking.run import refuse_errors
from loreg.errors import NotAllowedError, NotFoundError
from loreg.expressions import parse_metric
from loreg.records import Metric, Version
from loreg.refs import Ref, parse_adapter_name, parse_alias, parse_ref
from loreg.verbs.context import Context


def tag(context: Context, ref: str, alias: str) -> Version:
    """Let ``alias`` mean the version of ``ref`` from now on.

    Raises NotAllowedError if that version is yanked, CheckFailedError if it breaks the policy that guards the alias.
    """
    parsed, name = parse_ref(ref), parse_alias(alias)
    with context.catalog.write(context.author) as tx:
        version = versions.resolve(tx, parsed)
        if version.yanked:
            raise NotAllowedError(
                f"{version.ref} is yanked: no alias may point to it", hint=f"loreg unyank {version.ref}"
            )
        guard_alias(context, tx, version, name)
        version_id = versions.id_of(tx, version)
        aliases.point(tx, versions.adapter_id_of(tx, version.adapter), version_id, name)
        return versions.by_id(tx, version_id)


def guard_alias(context: Context, tx: Transaction, version: Version, alias: str) -> None:
    """Raise CheckFailedError if the policy guards the alias and the version breaks it."""
    if alias in context.policy.aliases:
        found = policy.findings(context.policy, held_against(tx, version, context.policy.against))
        refuse_errors(f"{version.ref} cannot become {alias!r}", found)


def held_against(tx: Transaction, version: Version, against: str) -> policy.Candidate:
    """The version for the policy, beside the one that the alias or ref ``against`` means, if that is another one."""
    other: Version | None = None
    if against:
        with contextlib.suppress(NotFoundError):
            ref = parse_ref(against) if ":" in against else Ref(version.adapter, alias=parse_alias(against))
            found = versions.resolve(tx, ref)
            other = found if found.pinned != version.pinned else None
    card = versions.card(tx, version)
    license_ = version.base.license if version.base else ""
    return policy.Candidate(
        version.facts.rank_max, version.facts.base_hint, version.size, card, version.base, license_, version, other
    )


def untag(context: Context, name: str, alias: str) -> None:
    """Forget an alias of the adapter ``name``; its history stays. Raises NotFoundError."""
    adapter = parse_adapter_name(name)
    with context.catalog.write(context.author) as tx:
        aliases.remove(tx, versions.adapter_id_of(tx, adapter), parse_alias(alias))


def yank(context: Context, ref: str, *, reason: str = "") -> Version:
    """Hide a version from search, aliases and refs without a version; an exact ref still pulls it."""
    return _set_yanked(context, ref, True, reason)


def unyank(context: Context, ref: str) -> Version:
    """Show a yanked version again."""
    return _set_yanked(context, ref, False, "")


def add_metrics(context: Context, ref: str, metrics: Sequence[str | Metric]) -> Version:
    """Record measured numbers of a version; one measured on the same data before is replaced."""
    parsed = parse_ref(ref)
    measured = [metric if isinstance(metric, Metric) else parse_metric(metric) for metric in metrics]
    with context.catalog.write(context.author) as tx:
        version = versions.resolve(tx, parsed)
        version_id = versions.id_of(tx, version)
        for metric in sorted(measured, key=lambda m: (m.name, m.dataset, m.split)):  # one order: no deadlock
            catalog_metrics.put(tx, versions.adapter_id_of(tx, version.adapter), version_id, metric)
        return versions.by_id(tx, version_id)


def _set_yanked(context: Context, ref: str, yanked: bool, reason: str) -> Version:
    parsed = parse_ref(ref)
    with context.catalog.write(context.author) as tx:
        return versions.set_yanked(tx, versions.resolve(tx, parsed), yanked, reason)
