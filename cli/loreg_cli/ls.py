"""``loreg ls``: the adapters of a registry, or the versions of one."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import (
    print_page,
    print_table,
)
from loreg_cli.version_table import print_versions


@click.command()
@click.argument("name", required=False)
@page_options
@table_options
@format_option
def ls(name: str | None, limit: int, cursor: str | None, format_: str) -> None:
    """List the adapters of the registry, or the versions of the adapter NAME.

    \b
    loreg ls
    loreg ls team/news
    """
    registry = open_registry()
    if name:
        print_versions(registry.versions(name, limit=limit, cursor=cursor), format_)
        return
    page = registry.adapters(limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        print_table(
            ["NAME", "NEWEST", "VERSIONS", "ALIASES", "SINCE"],
            [
                (
                    str(entry.adapter),
                    f"v{entry.newest}" if entry.newest else "all yanked" if entry.versions else "none left",
                    str(entry.versions),
                    ", ".join(f"{alias} → v{number}" for alias, number in entry.aliases.items()),
                    f"{entry.created_at:%Y-%m-%d}",
                )
                for entry in page.items
            ],
            right=["VERSIONS"],
            drop=["SINCE"],
        )
    print_page(page, format_, [str(entry.adapter) for entry in page.items])
