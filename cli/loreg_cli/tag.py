"""``loreg tag`` and ``loreg untag``: move, share and remove aliases."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry
from loreg_cli.output import echo, format_share


@click.command()
@click.argument("ref")
@click.argument("alias")
@click.option("--share", metavar="10%", help="For this part of those whom a router asks for; 0 ends that.")
@click.option(
    "--rollback-if",
    "rollback_if",
    multiple=True,
    metavar="CONDITION",
    help="Take it back when that is measured of it, as accuracy<0.8; may be repeated.",
)
def tag(ref: str, alias: str, share: str | None, rollback_if: tuple[str, ...]) -> None:
    """Point ALIAS to the version that REF means; where it pointed before stays in the history.

    With --share it is a canary: routers give it a part of ALIAS, which stays what it is for all others. Without, ALIAS
    means it for all, and a canary ends. With --rollback-if it is taken back by itself when that is measured of it: a
    canary ends, and an ALIAS that means it for all means again what it meant before, unless it has moved since.

    \b
    loreg tag team/sentiment:v3 prod
    loreg tag team/sentiment:v4 prod --share 10% --rollback-if 'accuracy<0.8'
    loreg tag team/sentiment:v4 prod --rollback-if 'accuracy<0.8@live'
    """
    if share is None:
        version = open_registry().tag(ref, alias, rollback_if=rollback_if)
        until = f", unless {' or '.join(rollback_if)}" if rollback_if else ""
        click.echo(f"{version.adapter}:{alias} is now {version.pinned}{until}")
        return
    from loreg.parsing import parse_share
    from loreg.refs import parse_ref

    part = parse_share(share)
    if part == 0:
        ended = open_registry().end_canary(str(parse_ref(ref).adapter), alias)
        echo(f"{ended.main.adapter}:{alias} is {ended.main.pinned} for all")
        return
    shares = open_registry().begin_canary(ref, alias, part, rollback_if=rollback_if)
    canary = shares.canary.pinned if shares.canary is not None else ""
    name = f"{shares.main.adapter}:{alias}"
    echo(f"{name} is {canary} for {format_share(part)} by routers, {shares.main.ref} for all others")


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
