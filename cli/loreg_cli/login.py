"""``loreg login`` and ``loreg logout``: which server later commands ask."""

from __future__ import annotations

import sys

import click

from loreg_cli.options import read_settings
from loreg_cli.output import echo, warn


@click.command()
@click.argument("endpoint", metavar="URL")
@click.option("--token", metavar="TOKEN", help="Asked for if it is not given; - reads it from stdin.")
def login(endpoint: str, token: str | None) -> None:
    """Use the server at URL from now on, with a token.

    \b
    loreg login https://loreg.example.org
    """
    from loreg import credentials
    from loreg.parsing import format_scopes
    from loreg.remote.http import Server
    from loreg.settings import mask_url

    if token == "-":  # noqa: S105  the usual name of stdin
        token = sys.stdin.readline().strip()
    elif token is None:
        token = click.prompt("token", hide_input=True, default="", show_default=False)
    endpoint = endpoint.rstrip("/")
    access = Server(endpoint, token, "").whoami()
    path = credentials.write(endpoint, token)
    scopes = ", ".join(format_scopes(access.permissions)) or "what is public"
    echo(f"{access.author} at {mask_url(endpoint)}: {scopes}")
    warn(f"written to {path}")
    settings = read_settings()
    if settings.endpoint != endpoint:
        places = ("home", "database_url", "storage_url", "endpoint")
        named = " and ".join(f"{key} ({origin})" for key in places if (origin := settings.origin[key]) != "default")
        warn(f"not in force here, where {named} goes before it; loreg doctor shows where commands go")


@click.command()
def logout() -> None:
    """Forget server and token; the token itself holds on until somebody revokes it.

    \b
    loreg logout
    """
    from loreg import credentials

    echo("logged out" if credentials.remove() else "nobody was logged in")
