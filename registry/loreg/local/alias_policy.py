"""Enforce a team's policy where aliases move, versions are yanked and metrics change.

Who may write a namespace may set a guarded alias, to a version that keeps the policy. Removing it, and yanking or
unyanking the version that it last meant, is for an administrator of the namespace: either would leave the clients of
the alias with nothing, or with what the team withdrew. The metrics that others are compared with are guarded too: a
writer adds to them, or makes them better; only an administrator makes one worse.
"""

from __future__ import annotations

from collections.abc import Sequence

from loreg.catalog import aliases, deployments, versions
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.checking import policy
from loreg.checking.findings import raise_first_error
from loreg.checking.policy import Policy
from loreg.entities import Metric, Role
from loreg.errors import NotAllowedError
from loreg.refs import NO_NAMESPACE, AdapterName


def check_alias(tx: Transaction, team_policy: Policy, record: VersionRecord, alias: str) -> None:
    """Raise CheckFailedError if the policy guards the alias and the version breaks it.

    Call it before the alias points to the version, with the adapter locked: later the version is compared with itself.
    """
    if alias not in team_policy.aliases:
        return
    version = record.version
    moves = aliases.list_moves(tx, record.adapter_id, team_policy.against)
    reference = policy.find_reference_version(
        team_policy.against, version, moves, lambda ref: versions.resolve(tx, ref).version
    )
    candidate = policy.build_candidate(version, versions.read_card(tx, record), reference)
    raise_first_error(f"{version.ref} cannot become {alias!r}", policy.check_policy(team_policy, candidate))


def check_removal(tx: Transaction, team_policy: Policy, adapter: AdapterName, alias: str) -> None:
    """Raise NotAllowedError if the policy guards the alias and the caller is no administrator of the namespace."""
    if alias in team_policy.aliases and not tx.access.may(Role.ADMIN, adapter.namespace):
        raise _administrators_only(tx, adapter, alias, "takes it away")


def check_yank(tx: Transaction, team_policy: Policy, record: VersionRecord, *, yanked: bool) -> None:
    """Raise NotAllowedError if a guarded alias last meant the version and the caller is no administrator.

    With ``yanked`` False the alias would mean the version again, so the policy is checked too: CheckFailedError.
    """
    version = record.version
    if team_policy.deployments and yanked and not version.yanked:
        _refuse_deployed(tx, record)
    last_aliases = aliases.list_aliases_last_on(tx, record.adapter_id, record.id)
    guarded = [alias for alias in last_aliases if alias in team_policy.aliases]
    if version.yanked == yanked or not guarded:
        return
    if not tx.access.may(Role.ADMIN, version.adapter.namespace):
        what = f"{'yanks' if yanked else 'unyanks'} v{version.number}, which it last meant"
        raise _administrators_only(tx, version.adapter, guarded[0], what)
    if not yanked:
        for alias in set(guarded) & set(version.aliases):
            check_alias(tx, team_policy, record, alias)


def _refuse_deployed(tx: Transaction, record: VersionRecord) -> None:
    """Raise NotAllowedError if a follower that is not silent has the version and the caller is no administrator."""
    version = record.version
    place = deployments.find_live(tx, record.id)
    if place is not None and not tx.access.may(Role.ADMIN, version.adapter.namespace):
        raise NotAllowedError(
            f"{place} still has {version.ref}, and the policy asks that nobody loses what is served: "
            f"{_administrator(version.adapter)} yanks it",
            hint=f"loreg deployments {version.adapter}",
        )


def check_metrics(tx: Transaction, team_policy: Policy, record: VersionRecord, measured: Sequence[Metric]) -> None:
    """Raise NotAllowedError if a metric that others are compared with gets worse and the caller is no administrator.

    Versions are compared with the one that a guarded alias, or the alias ``against``, last meant. Call it with the
    adapter locked: meanwhile no alias begins to mean the version.
    """
    version = record.version
    if not team_policy.aliases or tx.access.may(Role.ADMIN, version.adapter.namespace):
        return
    metrics_by_key = {(metric.name, metric.dataset, metric.split): metric for metric in version.metrics}
    before = [metrics_by_key.get((metric.name, metric.dataset, metric.split)) for metric in measured]
    worse = [old for old, new in zip(before, measured, strict=True) if old is not None and _is_worse(new, old)]
    last_aliases = aliases.list_aliases_last_on(tx, record.adapter_id, record.id) if worse else ()
    if compared := [alias for alias in last_aliases if alias in (*team_policy.aliases, team_policy.against)]:
        who = _administrator(version.adapter)
        raise NotAllowedError(
            f"the policy compares with {version.ref}, which {compared[0]!r} last meant: {who} makes {worse[0]} worse, "
            f"{tx.author} may only measure it better",
            hint=f"ask for a token with --scope admin:{version.adapter.namespace or NO_NAMESPACE}",
        )


def _is_worse(metric: Metric, before: Metric) -> bool:
    if metric.higher_is_better != before.higher_is_better:
        return True
    return metric.value < before.value if before.higher_is_better else metric.value > before.value


def _administrator(adapter: AdapterName) -> str:
    where = f"the namespace {adapter.namespace!r}" if adapter.namespace else "adapters without a namespace"
    return f"an administrator of {where}"


def _administrators_only(tx: Transaction, adapter: AdapterName, alias: str, what: str) -> NotAllowedError:
    who = _administrator(adapter)
    return NotAllowedError(
        f"the policy guards {alias!r} of {adapter}: {who} {what}, {tx.author} may only move it",
        hint=f"loreg tag {adapter}:vN {alias}",
    )
