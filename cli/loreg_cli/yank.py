"""``loreg yank`` and ``loreg unyank``: hide a version, and show it again."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry
from loreg_cli.output import warn


@click.command()
@click.argument("ref")
@click.option("-m", "--reason", default="", metavar="TEXT", help="Why; it is kept in the events.")
def yank(ref: str, reason: str) -> None:
    """Hide a version from search, aliases and refs without a version; nothing is deleted.

    \b
    loreg yank team/news:v1 -m 'trained on the test set'
    """
    registry = open_registry()
    version = registry.yank(ref, reason=reason)
    click.echo(f"yanked {version.pinned}; it can still be pulled as {version.ref}")
    for place in registry.show(version.ref).deployments:
        warn(f"{place.server} ({place.replica}) still has it as {place.name}, since {place.since:%Y-%m-%d %H:%M} UTC")


@click.command()
@click.argument("ref")
def unyank(ref: str) -> None:
    """Show a yanked version again.

    \b
    loreg unyank team/news:v1
    """
    click.echo(f"{open_registry().unyank(ref).pinned} is found again")
