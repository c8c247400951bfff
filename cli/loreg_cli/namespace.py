"""``loreg namespace``: who may read a team's adapters."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table


@click.group()
def namespace() -> None:
    """Say who may read a team's adapters on a server.

    \b
    loreg namespace ls
    """


@namespace.command("ls")
@table_options
@format_option
def namespaces(format_: str) -> None:
    """List namespaces and whether they are public.

    \b
    loreg namespace ls
    """
    entries = open_registry().namespaces.list()
    if format_ == "json":
        print_json(list(entries))
        return
    if format_ == "quiet":
        for entry in entries:
            click.echo(entry.name or "-")
        return
    rows = [(entry.name or "-", "everyone" if entry.public else "tokens", str(entry.adapters)) for entry in entries]
    print_table(["NAMESPACE", "READ BY", "ADAPTERS"], rows, right=["ADAPTERS"])


@namespace.command("set")
@click.argument("name", metavar="NAMESPACE")
@click.option("--public/--private", required=True, help="Everyone reads it, or only who has a token for it.")
def set_public(name: str, public: bool) -> None:
    """Let everyone read a namespace (- is that of adapters without one), or only who has a token for it.

    \b
    loreg namespace set team --private
    """
    open_registry().namespaces.set_public("" if name == "-" else name, public)
    echo(f"{name} is {'public' if public else 'private'}")
