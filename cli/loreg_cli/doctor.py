"""``loreg doctor``: the settings in force, and whether what they name works."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import print_json, print_table


@click.command()
@table_options
@format_option
@click.pass_context
def doctor(context: click.Context, format_: str) -> None:
    """Show the settings in force and where each comes from, and whether database and store can be reached."""
    checks = open_registry().doctor()
    if format_ == "json":
        print_json(checks)
    elif format_ == "table":
        rows = [("ok" if check.ok else "FAILED", check.name, check.value, check.origin) for check in checks]
        print_table(["", "WHAT", "FOUND", "FROM"], rows, prose=["FOUND"])
    failed = [check for check in checks if not check.ok]
    for check in failed:
        click.echo(f"not well: {check.name}: {check.value}. Hint: {check.hint}", err=True)
    context.exit(1 if failed else 0)
