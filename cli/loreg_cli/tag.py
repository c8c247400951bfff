"""``loreg tag`` and ``loreg untag``: move and remove aliases."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry


@click.command()
@click.argument("ref")
@click.argument("alias")
def tag(ref: str, alias: str) -> None:
    """Point ALIAS to the version that REF means; where it pointed before stays in the history.

    \b
    loreg tag team/sentiment:v3 prod
    """
    version = open_registry().tag(ref, alias)
    click.echo(f"{version.adapter}:{alias} is now {version.pinned}")


@click.command()
@click.argument("name")
@click.argument("alias")
def untag(name: str, alias: str) -> None:
    """Forget ALIAS of the adapter NAME; its history stays.

    \b
    loreg untag team/news prod
    """
    open_registry().untag(name, alias)
    click.echo(f"{name} has no alias {alias} any more")
