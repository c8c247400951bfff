"""Record the report of an upgrade: the verdicts on versions of one known base for another."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loreg.entities import AdapterUpgrade, NewUpgrade, NewVerdict, UpgradeReport
from loreg.entities.display.text import printable
from loreg.errors import LoregError
from loreg.workspace.context import Context

# As many verdicts as a registry takes at once, and as many characters.
_BATCH, _MAX_REASON, _MAX_TASK = 100, 1000, 128


def record_report(context: Context, report: UpgradeReport) -> tuple[int, tuple[str, ...]]:
    """Record the verdicts of a report; return of how many versions, and notes on why of others not."""
    recorded = 0
    verdicts = [_to_verdict(adapter) for adapter in report.adapters]
    try:
        for start in range(0, len(verdicts), _BATCH):
            batch = _to_upgrade(report, verdicts[start : start + _BATCH])
            recorded += context.backend.record_upgrade(batch)
    except LoregError as error:  # the report is there: what is not is its page
        return recorded, (f"the report was not recorded: {error.message}",)
    left = len(verdicts) - recorded
    return recorded, (f"for {left} of the adapters it was not recorded: you may not write there",) if left else ()


def _to_upgrade(report: UpgradeReport, verdicts: Sequence[NewVerdict]) -> NewUpgrade:
    figures = report.tensors, report.changed, report.change
    return NewUpgrade(report.old.digest, report.new.digest, *figures, tuple(verdicts))


def _to_verdict(adapter: AdapterUpgrade) -> NewVerdict:
    return NewVerdict(
        adapter.version.ref,
        adapter.version.digest,
        adapter.verdict,
        printable(adapter.reason, _MAX_REASON),
        adapter.tensors,
        adapter.changed,
        adapter.read,
        adapter.written,
        adapter.change,
        adapter.overlap,
        tuple(msgspec.structs.replace(loss, task=printable(loss.task, _MAX_TASK)) for loss in adapter.losses),
    )
