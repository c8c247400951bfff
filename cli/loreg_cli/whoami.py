"""``loreg whoami``: who acts here, where, and what they may do."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, print_json, print_pairs


@click.command()
@format_option
def whoami(format_: str) -> None:
    """Show who acts, in which registry, what they may do there, and until when their token holds.

    \b
    loreg whoami
    loreg whoami --format quiet
    """
    from loreg.parsing import format_scopes
    from loreg.settings import mask_url

    registry = open_registry()
    caller = registry.whoami()
    settings = registry.settings
    where = mask_url(settings.endpoint or settings.database_url)
    if format_ == "json":
        print_json(caller, registry=where)
    elif format_ == "quiet":
        echo(caller.author)
    else:
        is_administrator = caller.permissions.get("*") == "admin"
        scopes = (
            "everything" if is_administrator else ", ".join(format_scopes(caller.permissions)) or "read what is public"
        )
        ends = f"until {caller.expires_at:%Y-%m-%d %H:%M} UTC" if caller.expires_at else "without an end"
        token = "none is needed" if caller.permissions else "none: loreg login URL"
        if caller.token_id is not None:
            token = f"{caller.token_id}, {ends}"
        print_pairs([("who", caller.author), ("registry", where), ("may", scopes), ("token", token)])
