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
    """Show the settings in force and where each comes from, and whether database and store can be reached.

    A setting comes from an option before the command, else a variable, loreg.toml or loreg login. --home DIR or
    LOREG_HOME: the registry in that folder. --database-url and --storage-url, LOREG_DATABASE_URL and
    LOREG_STORAGE_URL: another one, with --storage-endpoint for an S3 that is not of AWS. --endpoint or LOREG_ENDPOINT:
    a server, with LOREG_TOKEN. --author or LOREG_AUTHOR: who acts. --debug or LOREG_DEBUG: log what is asked.

    \b
    loreg doctor
    loreg --home ./registry doctor
    """
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
