"""``loreg db``: the schema of the catalog's database."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry


@click.group()
def db() -> None:
    """Upgrade the catalog's database.

    \b
    loreg db upgrade
    """


@db.command()
def upgrade() -> None:
    """Bring the schema up to date. A SQLite catalog does this by itself; a shared one waits for this command.

    \b
    loreg db upgrade
    """
    before, after = open_registry().upgrade()
    changed = "no change" if before == after else f"upgraded from {before or 'nothing'}"
    click.echo(f"schema {after}, {changed}")
