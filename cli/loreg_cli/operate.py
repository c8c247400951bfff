"""doctor, db and completion."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry
from loreg_cli.output import print_json, print_table


@click.command()
@format_option
@click.pass_context
def doctor(context: click.Context, format_: str) -> None:
    """Show the settings in force and where each comes from, and whether database and store can be reached."""
    checks = open_registry().doctor()
    if format_ == "json":
        print_json(checks)
    elif format_ == "table":
        rows = [("ok" if check.ok else "FAILED", check.name, check.value, check.origin) for check in checks]
        print_table(["", "WHAT", "FOUND", "FROM"], rows, cut=["FOUND"])
    failed = [check for check in checks if not check.ok]
    for check in failed:
        click.echo(f"not well: {check.name}: {check.value}. Hint: {check.hint}", err=True)
    context.exit(1 if failed else 0)


@click.group()
def db() -> None:
    """The catalog's database."""


@db.command()
def upgrade() -> None:
    """Bring the schema up to date. A SQLite catalog does this by itself; a shared one waits for this command."""
    before, after = open_registry().upgrade()
    changed = "no change" if before == after else f"upgraded from {before or 'nothing'}"
    click.echo(f"schema {after}, {changed}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    loreg completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:  # click knows all three
        raise click.UsageError(f"no completion for {shell}")
    root = context.find_root()
    click.echo(kind(root.command, {}, "loreg", "_LOREG_COMPLETE").source())
