"""``loreg token``: create, list and revoke tokens."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table, warn


@click.group()
def token() -> None:
    """Make, list and revoke the tokens of a server.

    \b
    loreg token ls
    """


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
    made, secret = open_registry().tokens.create(name, scopes, expires=expires)
    until = f", holds until {made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else ""
    warn(f"token {made.id} of {made.name}{until}; it cannot be shown again")
    click.echo(secret)


@token.command("ls")
@table_options
@format_option
def tokens(format_: str) -> None:
    """List tokens, without their secrets.

    \b
    loreg token ls --wide
    """
    from loreg.parsing import format_scopes

    entries = open_registry().tokens.list()
    if format_ == "json":
        print_json(list(entries))
        return
    if format_ == "quiet":
        for entry in entries:
            click.echo(entry.id)
        return
    rows = []
    for entry in entries:
        scopes = " ".join(format_scopes(entry.grants))
        state = "revoked" if entry.revoked_at else f"{entry.expires_at:%Y-%m-%d %H:%M}" if entry.expires_at else "never"
        used = f"{entry.last_used_at:%Y-%m-%d %H:%M}" if entry.last_used_at else "never"
        rows.append((str(entry.id), entry.name, scopes, entry.author, state, used))
    print_table(
        ["ID", "NAME", "SCOPES", "MADE BY", "EXPIRES", "LAST USED"], rows, right=["ID"], drop=["LAST USED", "MADE BY"]
    )


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def revoke(token_id: int) -> None:
    """Let a token hold no more, from now on.

    \b
    loreg token revoke 3
    """
    echo(f"token {token_id} of {open_registry().tokens.revoke(token_id).name} is revoked")
