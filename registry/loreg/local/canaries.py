"""Begin and end canaries: for those who may move the alias, and by the policy that guards it."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.catalog import Transaction, canaries, versions
from loreg.catalog.version_json import VersionRecord
from loreg.checking.policy import Policy
from loreg.entities import AliasShares, Canary
from loreg.errors import CheckFailedError, NotAllowedError, UsageError
from loreg.local.alias_policy import check_alias
from loreg.refs import AdapterName, Ref


def shares(tx: Transaction, adapter: AdapterName, alias: str) -> AliasShares:
    """Return what an alias means to a router. Raises NotFoundError if it means nothing."""
    record = versions.resolve(tx, Ref(adapter, alias))
    canary = canaries.find_version_id(tx, record.adapter_id, alias)
    if canary is None:
        return AliasShares(alias, record.version)
    return AliasShares(alias, record.version, versions.by_id(tx, canary[0]), canary[1])


def begin(
    tx: Transaction, policy: Policy, record: VersionRecord, alias: str, share: float, rollback_if: Sequence[str]
) -> AliasShares:
    """Let a version have a share of an alias that means another; the adapter is locked.

    Raises NotAllowedError for a yanked version, UsageError for the one that the alias means, CheckFailedError if the
    policy guards the alias and the version breaks it, or if it fulfills one of ``rollback_if`` already.
    """
    version = record.version
    main = versions.resolve(tx, Ref(version.adapter, alias))
    if version.yanked:
        raise NotAllowedError(f"{version.ref} is yanked: it can be no canary", hint=f"loreg unyank {version.ref}")
    if main.id == record.id:
        raise UsageError(
            f"{version.adapter}:{alias} means v{version.number} already, for all who ask",
            hint=f"loreg ls {version.adapter}",
        )
    if (condition := canaries.find_fulfilled(rollback_if, version.metrics)) is not None:
        raise CheckFailedError(
            f"{version.ref} would be taken back at once: {condition} is measured of it already",
            hint=f"loreg show {version.ref}",
        )
    check_alias(tx, policy, record, alias)
    canary = Canary(alias, version.number, share, tuple(rollback_if), tx.author, tx.at)
    canaries.put(tx, record.adapter_id, record.id, canary)
    return shares(tx, version.adapter, alias)


def end(tx: Transaction, adapter: AdapterName, adapter_id: int, alias: str) -> AliasShares:
    """Let an alias mean its main version alone again. Raises UsageError if it has no canary."""
    main = shares(tx, adapter, alias)
    if not canaries.end(tx, adapter_id, alias, "ended"):
        raise UsageError(f"{adapter}:{alias} has no canary", hint=f"loreg ls {adapter}")
    return AliasShares(alias, main.main)
