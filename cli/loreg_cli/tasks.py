"""``loreg tasks``: what the adapters are for, and how good the best is."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import print_page, print_table


@click.command()
@page_options
@table_options
@format_option
def tasks(limit: int, cursor: str | None, format_: str) -> None:
    """List the tasks, those of the most versions first, with the best number of the metric that most of them have.

    \b
    loreg tasks
    loreg search --task sentiment --best accuracy
    """
    page = open_registry().tasks(limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        rows = [
            (
                row.task,
                str(row.adapters),
                str(row.versions),
                str(row.metric.best) if row.metric else "",
                row.metric.ref if row.metric else "",
            )
            for row in page.items
        ]
        print_table(
            ["TASK", "ADAPTERS", "VERSIONS", "BEST", "OF"],
            rows,
            right=["ADAPTERS", "VERSIONS"],
            paths=["BEST"],
            drop=["ADAPTERS", "VERSIONS"],
        )
    print_page(page, format_, [row.task for row in page.items])
