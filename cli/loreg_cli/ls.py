"""``loreg ls``: the adapters of a registry, or the versions of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import (
    echo,
    format_share,
    print_json,
    print_page,
    print_table,
)
from loreg_cli.version_table import print_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loreg.entities import AdapterEntry, NearDuplicates


@click.command()
@click.argument("name", required=False)
@click.option(
    "--duplicates", is_flag=True, help="Group versions whose deltas are nearly the same; NAME may be 'team/*'."
)
@page_options
@table_options
@format_option
def ls(name: str | None, duplicates: bool, limit: int, cursor: str | None, format_: str) -> None:
    """List the adapters of the registry, or the versions of the adapter NAME.

    \b
    loreg ls
    loreg ls team/news
    """
    registry = open_registry()
    if duplicates:
        _print_duplicates(registry.near_duplicates(name or "*"), format_)
        return
    if name:
        page = registry.versions(name, limit=limit, cursor=cursor)
        if format_ == "table":
            print_versions(page, format_, registry.canaries(name), registry.promotions(name))
        else:
            print_versions(page, format_)
        return
    adapters = registry.adapters(limit=limit, cursor=cursor)
    if format_ == "table" and adapters.items:
        print_table(
            ["NAME", "NEWEST", "VERSIONS", "ALIASES", "SINCE"],
            [
                (
                    str(entry.adapter),
                    f"v{entry.newest}" if entry.newest else "all yanked" if entry.versions else "none left",
                    str(entry.versions),
                    ", ".join(_aliases(entry)),
                    f"{entry.created_at:%Y-%m-%d}",
                )
                for entry in adapters.items
            ],
            right=["VERSIONS"],
            drop=["SINCE"],
        )
    print_page(adapters, format_, [str(entry.adapter) for entry in adapters.items])


def _aliases(entry: AdapterEntry) -> Iterator[str]:
    """Yield what each alias means, and of which share it means another version."""
    shares = {canary.alias: f" (v{canary.number} {format_share(canary.share)})" for canary in entry.canaries}
    for alias, number in entry.aliases.items():
        yield f"{alias} → v{number}{shares.get(alias, '')}"


def _print_duplicates(groups: tuple[NearDuplicates, ...], format_: str) -> None:
    if format_ == "json":
        print_json(list(groups))
    elif format_ == "quiet":
        for group in groups:
            echo(" ".join(group.refs))
    elif groups:
        rows = [
            (ref if place == 0 else f"  {ref}", f"{cosine:.5f}", f"{scale:.4g}")
            for group in groups
            for place, (ref, cosine, scale) in enumerate(zip(group.refs, group.cosines, group.scales, strict=True))
        ]
        print_table(["NEARLY THE SAME", "COSINE", "SCALE"], rows, right=["COSINE", "SCALE"])
    if not groups:
        click.echo("nothing is nearly the same", err=True)
