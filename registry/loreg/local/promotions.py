"""Promote a version so that its alias goes back by itself: find what it goes back to."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.catalog import Transaction, canaries, promotions, versions
from loreg.catalog.version_json import VersionRecord
from loreg.errors import CheckFailedError, NotFoundError, UsageError
from loreg.refs import Ref


def find_previous(tx: Transaction, record: VersionRecord, alias: str, rollback_if: Sequence[str]) -> tuple[int, int]:
    """Return id and number of the version that ``alias`` goes back to from this one; the adapter is locked.

    That is what it means now, or where this version is watched already, what it meant before. Raises UsageError if
    that is nothing, and CheckFailedError if the alias would go back at once.
    """
    version = record.version
    if (condition := canaries.find_fulfilled(rollback_if, version.metrics)) is not None:
        raise CheckFailedError(
            f"{version.ref} would be taken back at once: {condition} is measured of it already",
            hint=f"loreg show {version.ref}",
        )
    watched = promotions.find(tx, record.adapter_id, alias)
    if watched is not None and watched.version_id == record.id:
        return watched.previous_id, watched.previous_number
    try:
        previous = versions.resolve(tx, Ref(version.adapter, alias))
    except NotFoundError as error:
        raise UsageError(
            f"{version.adapter}:{alias} means no version that could be asked for: there is nothing to go back to",
            hint=f"loreg tag {version.ref} {alias}",
        ) from error
    if previous.id == record.id:
        raise UsageError(
            f"{version.adapter}:{alias} means v{version.number} already: there is nothing to go back to",
            hint=f"loreg log {version.adapter}",
        )
    return previous.id, previous.version.number
