"""``loreg du``: how much is stored, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import echo, print_json, print_table, warn

if TYPE_CHECKING:
    from loreg.entities import UsageTotals


@click.command()
@click.argument("pattern", metavar="[PATTERN]", default="*")
@click.option(
    "--by",
    type=click.Choice(["namespace", "adapter"]),
    default="namespace",
    show_default=True,
    help="What to count for.",
)
@page_options
@table_options
@format_option
def du(pattern: str, by: str, limit: int, cursor: str | None, format_: str) -> None:
    """Show how much each namespace or adapter stores, and how much of that nobody else has.

    SIZE adds up the files of all versions; OWN is what would be free if it went. For administrators.

    \b
    loreg du --by adapter 'team/*'
    """
    usage = open_registry().usage(pattern, by=by, limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(usage)
        return
    if format_ == "quiet":
        for row in usage.items:
            echo(row.name)
    else:
        columns = [by.upper(), "VERSIONS", "SIZE", "OWN", "SHARED"]
        rows = [
            (row.name, f"{row.versions:,}", format_size(row.size), format_size(row.own), format_size(row.shared))
            for row in usage.items
        ]
        print_table(columns, rows, right=columns[1:], drop=["SHARED"])
        if usage.totals is not None:
            _print_totals(usage.totals)
    if usage.cursor:
        warn(f"more: --cursor {usage.cursor}")


def _print_totals(totals: UsageTotals) -> None:
    sizes = (
        (totals.files, "files of versions"),
        (totals.exports, "exports"),
        (totals.bases, "bases"),
        (totals.other, "of unfinished uploads or of nobody"),
    )
    stored = ", ".join(f"{format_size(size)} {what}" for size, what in sizes if size) or "nothing stored"
    echo(f"{totals.versions:,} versions of {totals.adapters:,} adapters: {stored}")
    if totals.garbage:
        echo(f"{totals.garbage:,} blobs, {format_size(totals.garbage_size)}, are garbage that loreg gc will remove")
