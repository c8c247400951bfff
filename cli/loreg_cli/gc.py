"""``loreg gc``: remove what nothing refers to, and what nobody needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, wide_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from datetime import datetime

    from loreg.entities import GcReport


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go now; change nothing.")
@click.option(
    "--grace",
    default="24h",
    show_default=True,
    metavar="SPAN",
    help="How long garbage waits, as 90m, 24h or 7d: longer than the longest push.",
)
@click.option("--caches", is_flag=True, help="Also exports and copies for servers, which are made again.")
@wide_options
@format_option
def gc(dry_run: bool, grace: str, caches: bool, format_: str) -> None:
    """Remove from the store what nothing refers to, a grace after an earlier run found it; others may push meanwhile.

    Also what interrupted writers and killed commands left, uploads that expired, and what was made of yanked
    versions for servers. quiet prints the bytes that were freed.

    \b
    loreg gc --dry-run
    loreg gc
    loreg gc --caches --grace 30d
    """
    with progress_bar() as progress:
        report = open_registry().gc(grace=grace, caches=caches, dry_run=dry_run, progress=progress)
    if format_ == "json":
        print_json(report, freed_size=report.freed_size)
    elif format_ == "quiet":
        echo(str(report.freed_size))
    else:
        _print_report(report)


def _print_report(report: GcReport) -> None:
    if report.freed:
        rows = [(item.kind, item.namespace, f"{item.count:,}", format_size(item.size)) for item in report.freed]
        print_table(["WOULD GO" if report.dry_run else "REMOVED", "NAMESPACE", "COUNT", "SIZE"], rows, right=_NUMBERS)
    verb = "would be freed" if report.dry_run else "freed"
    echo(f"{format_size(report.freed_size)} {verb}, {report.new:,} blobs newly found to be garbage")
    if report.waiting:
        waiting = [
            (item.kind, item.namespace, f"{item.count:,}", format_size(item.size), _time(item.since), _time(item.due))
            for item in report.waiting
        ]
        print_table(
            ["WAITS", "NAMESPACE", "COUNT", "SIZE", "SINCE", "GOES FROM"], waiting, right=_NUMBERS, drop=["SINCE"]
        )
    if any(item.kind.is_row for item in report.freed):
        warn("the blobs of uploads and exports go as blobs, a grace later, unless something else has them")


_NUMBERS = ("COUNT", "SIZE")


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
