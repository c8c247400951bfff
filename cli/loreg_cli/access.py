"""login, logout, token, namespace and events: a registry behind a server, and who may do what there."""

from __future__ import annotations

import sys

import click

from loreg_cli.options import format_option, open_registry, page_options, read_settings
from loreg_cli.output import echo, print_json, print_table, warn


@click.command()
@click.argument("endpoint", metavar="URL")
@click.option("--token", metavar="TOKEN", help="Asked for if it is not given; - reads it from stdin.")
def login(endpoint: str, token: str | None) -> None:
    """Use the server at URL from now on, with a token.

    \b
    loreg login https://loreg.example.org
    """
    from loreg import credentials
    from loreg.parsing import scopes_of
    from loreg.remote.http import Server
    from loreg.settings import masked

    if token == "-":  # noqa: S105  the usual name of stdin
        token = sys.stdin.readline().strip()
    elif token is None:
        token = click.prompt("token", hide_input=True, default="", show_default=False)
    endpoint = endpoint.rstrip("/")
    access = Server(endpoint, token, "").whoami()
    path = credentials.write(endpoint, token)
    scopes = ", ".join(scopes_of(access.permissions)) or "what is public"
    echo(f"{access.author} at {masked(endpoint)}: {scopes}")
    warn(f"written to {path}")
    settings = read_settings()
    if settings.endpoint != endpoint:
        places = ("home", "database_url", "storage_url", "endpoint")
        named = " and ".join(f"{key} ({origin})" for key in places if (origin := settings.origin[key]) != "default")
        warn(f"not in force here, where {named} goes before it; loreg doctor shows where commands go")


@click.command()
def logout() -> None:
    """Forget server and token; the token itself holds on until somebody revokes it."""
    from loreg import credentials

    echo("logged out" if credentials.remove() else "nobody was logged in")


@click.group()
def token() -> None:
    """Who may do what on a server."""


@token.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="LEVEL:NAMESPACE",
    help="read, write or admin; repeatable.",
)
@click.option("--expires", metavar="SPAN", help="12h, 30d or 8w; never if it is not given.")
def create(name: str, scopes: tuple[str, ...], expires: str | None) -> None:
    """Make a token and print it, this once.

    \b
    loreg token create ci-bot --scope write:team --expires 30d
    loreg token create serving --scope 'read:*'
    """
    made, secret = open_registry().create_token(name, scopes, expires=expires)
    until = f", holds until {made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else ""
    warn(f"token {made.id} of {made.name}{until}; it cannot be shown again")
    click.echo(secret)


@token.command("ls")
@format_option
def tokens(format_: str) -> None:
    """List tokens, without their secrets."""
    from loreg.parsing import scopes_of

    found = open_registry().tokens()
    if format_ == "json":
        print_json(list(found))
        return
    if format_ == "quiet":
        for one in found:
            click.echo(one.id)
        return
    rows = []
    for one in found:
        scopes = " ".join(scopes_of(one.grants))
        state = "revoked" if one.revoked_at else f"{one.expires_at:%Y-%m-%d %H:%M}" if one.expires_at else "never"
        used = f"{one.last_used_at:%Y-%m-%d %H:%M}" if one.last_used_at else "never"
        rows.append((str(one.id), one.name, scopes, one.author, state, used))
    print_table(["ID", "NAME", "SCOPES", "MADE BY", "EXPIRES", "LAST USED"], rows, right=["ID"], cut=["SCOPES"])


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def revoke(token_id: int) -> None:
    """Let a token hold no more, from now on."""
    echo(f"token {token_id} of {open_registry().revoke_token(token_id).name} is revoked")


@click.group()
def namespace() -> None:
    """Who may read a team's adapters on a server."""


@namespace.command("ls")
@format_option
def namespaces(format_: str) -> None:
    """List namespaces and whether they are public."""
    found = open_registry().namespaces()
    if format_ == "json":
        print_json(list(found))
        return
    if format_ == "quiet":
        for one in found:
            click.echo(one.name or "-")
        return
    rows = [(one.name or "-", "everyone" if one.public else "tokens", str(one.adapters)) for one in found]
    print_table(["NAMESPACE", "READ BY", "ADAPTERS"], rows, right=["ADAPTERS"])


@namespace.command("set")
@click.argument("name", metavar="NAMESPACE")
@click.option("--public/--private", required=True, help="Everyone reads it, or only who has a token for it.")
def set_public(name: str, public: bool) -> None:
    """Let everyone read a namespace (- is that of adapters without one), or only who has a token for it."""
    open_registry().set_public("" if name == "-" else name, public)
    echo(f"{name} is {'public' if public else 'private'}")


@click.command()
@page_options
@format_option
def events(limit: int, cursor: str | None, format_: str) -> None:
    """Who did what, the newest first."""
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
        print_table(["AT (UTC)", "WHO", "WHAT", "REF", "DETAIL"], rows, cut=["DETAIL"])
    if page.cursor:
        warn(f"more: --cursor {page.cursor}")
