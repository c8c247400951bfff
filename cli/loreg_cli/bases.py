"""``loreg bases``: what the adapters were trained on."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import print_page, print_table


@click.command()
@page_options
@table_options
@format_option
def bases(limit: int, cursor: str | None, format_: str) -> None:
    """List the bases that versions were trained on, those of the most versions first.

    One that is known by name only has no digest; loreg base ls has all whose content is known.

    \b
    loreg bases
    loreg search --base minilm
    """
    page = open_registry().bases.summaries(limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        rows = [
            (
                row.name or (row.digest[:12] if row.digest else "(not named, or by a path)"),
                row.digest[:12] or "by name only",
                str(row.adapters),
                str(row.versions),
            )
            for row in page.items
        ]
        print_table(
            ["BASE", "DIGEST", "ADAPTERS", "VERSIONS"],
            rows,
            right=["ADAPTERS", "VERSIONS"],
            paths=["BASE"],
            drop=["DIGEST", "ADAPTERS"],
        )
    print_page(page, format_, [row.name or row.digest for row in page.items if row.name or row.digest])
