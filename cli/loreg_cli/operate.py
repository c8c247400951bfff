"""serve, doctor, db and completion."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, read_settings
from loreg_cli.output import print_json, print_table


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", default=8470, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 64), help="How many answer at once.")
@click.option("--init", is_flag=True, help="Make the first token that may do everything, print it, and leave.")
@click.option("--require-tokens", is_flag=True, help="On loopback too, where nobody needs one otherwise.")
@click.option("--allow-anonymous", is_flag=True, help="Everybody who reaches the server may do everything.")
def serve(host: str, port: int, processes: int, init: bool, require_tokens: bool, allow_anonymous: bool) -> None:
    """Answer over HTTP: everybody's loreg, training jobs and CI share one registry.

    \b
    loreg serve --init                                # once: the administrator's token
    loreg serve --host 0.0.0.0                        # behind a proxy with TLS
    LOREG_ENDPOINT=http://127.0.0.1:8470 loreg ls     # on another machine, with LOREG_TOKEN
    """
    import os

    from loreg.errors import MissingExtraError

    try:
        from loreg.server import run as serving
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the server needs {error.name}, which is not installed", hint="pip install 'loreg[server]'"
        ) from None
    settings = read_settings()
    if init:
        click.echo(serving.make_administrator(settings, os.environ.get("LOREG_ADMIN_TOKEN", "")))
        return
    serving.serve(
        settings,
        host=host,
        port=port,
        processes=processes,
        require_tokens=require_tokens,
        allow_anonymous=allow_anonymous,
    )


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
