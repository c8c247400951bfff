"""``loreg events``: who did what."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import print_json, print_table, warn


@click.command()
@page_options
@table_options
@format_option
def events(limit: int, cursor: str | None, format_: str) -> None:
    """Who did what, the newest first.

    \b
    loreg events --limit 10
    """
    page = open_registry().events(limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(page)
        return
    if format_ == "quiet":
        for event in page.items:
            click.echo(event.id)
    else:
        rows = [
            (f"{e.at:%Y-%m-%d %H:%M:%S}", e.author, e.action, e.ref, ", ".join(f"{k}={v}" for k, v in e.detail.items()))
            for e in page.items
        ]
        print_table(["AT (UTC)", "WHO", "WHAT", "REF", "DETAIL"], rows, prose=["DETAIL"], drop=["AT (UTC)", "WHO"])
    if page.cursor:
        warn(f"more: --cursor {page.cursor}")
