"""``loreg deployments``: which folders and servers have which versions."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import print_json, print_table, warn


@click.command()
@click.argument("pattern", default="*")
@page_options
@table_options
@format_option
def deployments(pattern: str, limit: int, cursor: str | None, format_: str) -> None:
    """Which folders and servers have which versions, as they tell: since when, and whether that is what it should be.

    \b
    loreg deployments 'team/*'
    """
    page = open_registry().deployments(pattern, limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(page)
    elif format_ == "quiet":
        for place in page:
            click.echo(f"{place.server} {place.replica} {place.name} {place.ref}")
    else:
        rows = [
            (
                place.server,
                place.replica,
                place.name,
                place.ref,
                f"{place.since:%Y-%m-%d %H:%M}",
                place.state,
            )
            for place in page
        ]
        print_table(["SERVER", "REPLICA", "NAME", "REF", "SINCE (UTC)", "STATE"], rows, drop=["SINCE (UTC)", "REPLICA"])
    if page.cursor:
        warn(f"more: --cursor {page.cursor}")
