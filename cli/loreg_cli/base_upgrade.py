"""Print what an upgrade of a base means for its adapters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from loreg_cli.output import echo, print_json, print_table, warn

if TYPE_CHECKING:
    from loreg.entities import AdapterUpgrade, ProbeLoss, UpgradeReport

_FAILED, _LEFT = 1, 5  # exit codes
_MAX_OTHERS = 5  # versions of other bases that are named


def print_upgrade(report: UpgradeReport, format_: str) -> int:
    """Print the report; return the exit code."""
    for text in report.notes:
        warn(text)
    if format_ == "json":
        print_json(report)
    elif format_ == "quiet":
        for adapter in report.adapters:
            if adapter.moved_to or adapter.verdict in ("exact", "copy"):
                click.echo(adapter.moved_to or adapter.version.ref)
    else:
        _print_table(report)
    for other in report.others[:_MAX_OTHERS]:
        warn(f"left out: {other.ref}: {other.reason}")
    if len(report.others) > _MAX_OTHERS:
        warn(f"left out: {len(report.others) - _MAX_OTHERS} more of other bases")
    for problem in report.unreadable:
        warn(f"{problem.ref}: {problem.reason}")
    if report.unreadable:
        return _FAILED
    is_left = any(adapter.verdict in ("retrain", "unknown") and not adapter.moved_to for adapter in report.adapters)
    return _LEFT if is_left else 0


def _print_table(report: UpgradeReport) -> None:
    amount = f", by {100 * report.change:.3g} % of their norm" if report.change is not None else ""
    echo(f"{report.old.title} → {report.new.title}: {report.changed:,} of {report.tensors:,} tensors changed{amount}")
    counts = Counter(adapter.verdict for adapter in report.adapters)
    echo(", ".join(f"{count:,} {verdict.in_words}" for verdict, count in counts.items()))
    if not report.adapters:
        return
    columns = ["VERDICT", "ADAPTER", "CHANGED", "READS", "WRITES", "TAKEN IN"]
    right = ["CHANGED", "READS", "WRITES", "TAKEN IN"]
    has_losses = any(adapter.losses for adapter in report.adapters)
    has_moved = any(adapter.moved_to for adapter in report.adapters)
    columns += ["LOSS"] if has_losses else []
    columns += ["MOVED TO"] if has_moved else []
    rows = [
        (
            *_figures(adapter),
            *(["; ".join(map(_loss, adapter.losses))] if has_losses else []),
            *([adapter.moved_to] if has_moved else []),
            adapter.reason,
        )
        for adapter in report.adapters
    ]
    click.echo()
    drop = ["TAKEN IN", "WRITES", "WHY", "CHANGED"]
    print_table([*columns, "WHY"], rows, right=right, prose=["WHY"], drop=drop)


def _figures(adapter: AdapterUpgrade) -> tuple[str, ...]:
    shares = (adapter.read, adapter.written, adapter.overlap)
    return (
        adapter.verdict.in_words,
        adapter.version.ref,
        f"{adapter.changed} of {adapter.tensors}",
        *("–" if share is None else f"{100 * share:.3g} %" for share in shares),
    )


def _loss(loss: ProbeLoss) -> str:
    kept = f", {100 * loss.gain_kept:.0f} % of the gain" if loss.gain_kept is not None else ""
    return f"{loss.task} {loss.before:.3f} → {loss.after:.3f}{kept}"
