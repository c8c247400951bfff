"""What a team's policy says before one of its aliases is set, taken away, or hidden with the version that it means.

Whoever may write a namespace sets a guarded alias, to a version that keeps the policy. To take it away, and to yank
or unyank the version that it last meant, is for an administrator of the namespace: either would leave whoever asks
for the alias with nothing, or with what the team withdrew. So are the metrics of what others are compared with: a
writer adds to them, or measures better.
"""

from __future__ import annotations

from collections.abc import Sequence

from loreg.catalog import aliases, versions
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.checking import policy
from loreg.checking.findings import raise_first_error
from loreg.checking.policy import Policy
from loreg.entities import Metric, Role
from loreg.errors import NotAllowedError
from loreg.refs import NO_NAMESPACE, AdapterName


def check_alias(tx: Transaction, asked: Policy, found: VersionRecord, alias: str) -> None:
    """Raise CheckFailedError if the policy guards the alias and the version breaks it.

    Asked before the alias points to the version, with the adapter locked: afterwards it would be compared with itself.
    """
    if alias not in asked.aliases:
        return
    version = found.version
    moves = aliases.list_moves(tx, found.adapter_id, asked.against)
    other = policy.find_reference_version(asked.against, version, moves, lambda ref: versions.resolve(tx, ref).version)
    candidate = policy.build_candidate(version, versions.read_card(tx, found), other)
    raise_first_error(f"{version.ref} cannot become {alias!r}", policy.check_policy(asked, candidate))


def check_removal(tx: Transaction, asked: Policy, adapter: AdapterName, alias: str) -> None:
    """Raise NotAllowedError if the policy guards the alias and who acts is no administrator of the namespace."""
    if alias in asked.aliases and not tx.access.may(Role.ADMIN, adapter.namespace):
        raise _require_administrator(tx, adapter, alias, "takes it away")


def check_yank(tx: Transaction, asked: Policy, found: VersionRecord, *, yanked: bool) -> None:
    """Raise NotAllowedError if a guarded alias last meant the version and who acts is no administrator.

    With ``yanked`` False the alias would mean the version again, so that the policy is asked too: CheckFailedError.
    """
    version = found.version
    last_on_it = aliases.list_aliases_last_on(tx, found.adapter_id, found.id)
    guarded = [alias for alias in last_on_it if alias in asked.aliases]
    if version.yanked == yanked or not guarded:
        return
    if not tx.access.may(Role.ADMIN, version.adapter.namespace):
        what = f"{'yanks' if yanked else 'unyanks'} v{version.number}, which it last meant"
        raise _require_administrator(tx, version.adapter, guarded[0], what)
    if not yanked:
        for alias in set(guarded) & set(version.aliases):
            check_alias(tx, asked, found, alias)


def check_metrics(tx: Transaction, asked: Policy, found: VersionRecord, measured: Sequence[Metric]) -> None:
    """Raise NotAllowedError if a metric that others are compared with becomes worse, and who acts is no administrator.

    They are compared with the version that a guarded alias, or the alias ``against``, last meant. Asked with the
    adapter locked: meanwhile no alias begins to mean the version.
    """
    version = found.version
    if not asked.aliases or tx.access.may(Role.ADMIN, version.adapter.namespace):
        return
    known = {(metric.name, metric.dataset, metric.split): metric for metric in version.metrics}
    before = [known.get((metric.name, metric.dataset, metric.split)) for metric in measured]
    worse = [old for old, new in zip(before, measured, strict=True) if old is not None and _is_worse(new, old)]
    meant = aliases.list_aliases_last_on(tx, found.adapter_id, found.id) if worse else ()
    if compared := [alias for alias in meant if alias in (*asked.aliases, asked.against)]:
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


def _require_administrator(tx: Transaction, adapter: AdapterName, alias: str, what: str) -> NotAllowedError:
    who = _administrator(adapter)
    return NotAllowedError(
        f"the policy guards {alias!r} of {adapter}: {who} {what}, {tx.author} may only move it",
        hint=f"loreg tag {adapter}:vN {alias}",
    )
