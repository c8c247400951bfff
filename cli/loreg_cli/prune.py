"""``loreg prune``: let versions go that a written policy does not keep."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.confirmation import require_consent, yes_option
from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import PruneDecision, PruneReport


@click.command()
@click.argument("pattern", metavar="[PATTERN]", default="*")
@click.option("--dry-run", is_flag=True, help="Only show what would go, and why the others stay.")
@yes_option
@table_options
@format_option
def prune(pattern: str, dry_run: bool, yes: bool, format_: str) -> None:
    """Let versions go that [retention] in loreg.toml does not keep, of all adapters or those that match: 'team/*'.

    Through a server a worker does it, for administrators, by the [retention] in the file of the server.

    What an alias means, the newest version, what an open job needs, and what something kept was merged from always
    stays. The same content may be pushed again. loreg gc frees the space.

    \b
    loreg prune 'team/*' --dry-run
    """
    registry = open_registry()
    if not dry_run and not yes:
        with progress_bar() as progress:
            planned = registry.prune(pattern, dry_run=True, progress=progress)
        if not planned.going_count:
            _print(planned, format_)
            return
        endpoint = registry.settings.endpoint
        _warn_of(planned, f"the file of {endpoint}" if endpoint else registry.settings.origin["retention"])
        command = f"loreg prune {shlex.quote(pattern)} --yes"
        require_consent(f"prune {planned.going_count:,} versions?", str(planned.going_count), command)
    with progress_bar() as progress:
        report = registry.prune(pattern, dry_run=dry_run, progress=progress)
    _print(report, format_)


def _print(report: PruneReport, format_: str) -> None:
    decisions = (*report.going, *report.kept)
    if format_ == "json":
        print_json(report)
    elif format_ == "quiet":
        for decision in report.going:
            echo(decision.ref)
    else:
        if decisions:
            state = "would go" if report.dry_run else "gone"
            print_table(
                ["VERSION", "SIZE", "", "WHY"],
                [_row(decision, state) for decision in decisions],
                prose=["WHY"],
                drop=["SIZE"],
            )
        done = "would go" if report.dry_run else "are gone"
        echo(f"{report.going_count:,} versions {done}, {format_size(report.size)}; {report.kept_count:,} stay")
    if (more := report.going_count + report.kept_count - len(decisions)) > 0:
        warn(f"{more:,} more are not listed")
    if format_ == "table" and report.going_count and not report.dry_run:
        warn("loreg gc frees what they leave, a day after it found it")


def _row(decision: PruneDecision, state: str) -> tuple[str, str, str, str]:
    return decision.ref, format_size(decision.size), state if decision.goes else "stays", decision.reason


def _warn_of(planned: PruneReport, origin: str) -> None:
    """Say on stderr what would go, by the rules of which file."""
    warn(f"by the rules in {origin}:")
    for decision in planned.going:
        warn(f"{decision.ref} goes: {decision.reason}")
    if (more := planned.going_count - len(planned.going)) > 0:
        warn(f"and {more:,} more go")
    warn(f"{planned.going_count:,} versions go, {format_size(planned.size)}; {planned.kept_count:,} stay")
