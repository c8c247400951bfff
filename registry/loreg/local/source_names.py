"""Tell whoever pushes a merge that its files name sources to people who may not read these."""

from __future__ import annotations

from loreg.catalog import Transaction
from loreg.catalog.hidden_sources import list_unshared
from loreg.entities import Provenance
from loreg.merging import provenance
from loreg.refs import AdapterName

_MAX_NAMES = 5


def describe_unshared_sources(tx: Transaction, adapter: AdapterName, made_by: Provenance) -> tuple[str, ...]:
    """Return a note on the names that a new version of the adapter publishes, if there are any."""
    labels = list_unshared(tx, adapter.namespace, made_by)
    if not labels:
        return ()
    others = [f"{len(labels) - _MAX_NAMES} more"] if len(labels) > _MAX_NAMES else []
    names = " and ".join([*labels[:_MAX_NAMES], *others])
    return (
        f"{provenance.FILE_NAME} names {names}, which not all may read who read this version: they can download that "
        "file",
    )
