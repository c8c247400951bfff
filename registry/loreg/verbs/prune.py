"""prune: let versions go that a written policy does not keep; what something kept descends from is kept."""

from __future__ import annotations

from loreg.entities import Progress, PruneDecision, PruneReport, Retention, no_progress
from loreg.refs import AdapterPattern
from loreg.upkeep import Upkeep
from loreg.verbs.verify import First
from loreg.workspace.context import Context

_BATCH = 100  # versions that go in one transaction


def prune(
    context: Context,
    retention: Retention,
    pattern: AdapterPattern,
    *,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> PruneReport:
    """Let versions of the adapters that match go, as ``retention`` says; with ``dry_run`` only say which.

    Their blobs go with the next garbage collections. It may be killed, and goes on when it is called again.
    """
    upkeep = context.backend.upkeep()
    guarded = tuple(filter(None, {*context.policy.aliases, context.policy.against}))
    going: First[PruneDecision] = First()
    kept: First[PruneDecision] = First()
    size = 0
    if not dry_run:
        size = _prune_all(upkeep, retention, pattern, guarded, going, progress)
    for done, adapter in enumerate(upkeep.adapters(pattern)):
        for decision in upkeep.plan_pruning(adapter, retention, pattern, guarded):
            if dry_run and decision.goes:
                going.add(decision)
                size += decision.size
            elif not decision.goes:
                kept.add(decision)
        progress("looking at adapters", done, done + 1)
    return PruneReport(tuple(going.items), going.count, size, tuple(kept.items), kept.count, dry_run)


def _prune_all(
    upkeep: Upkeep,
    retention: Retention,
    pattern: AdapterPattern,
    guarded: tuple[str, ...],
    going: First[PruneDecision],
    progress: Progress,
) -> int:
    """Prune until no version is left that goes; return the bytes of their files.

    A version goes after those that descend from it, which may be of adapters behind its own: then there is a next
    round.
    """
    size = 0
    while True:
        gone_before, waiting = going.count, 0
        for adapter in upkeep.adapters(pattern):
            while True:
                gone, waits = upkeep.prune(adapter, retention, pattern, guarded, _BATCH)
                for decision in gone:
                    going.add(decision)
                    size += decision.size
                progress("pruning", going.count, going.count + 1)
                if len(gone) < _BATCH:
                    waiting += waits
                    break
        if not waiting or going.count == gone_before:
            return size
