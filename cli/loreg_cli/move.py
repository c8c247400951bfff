"""``loreg move``: the registry in another database and store."""

from __future__ import annotations

import click

from loreg_cli.backup import describe_copied
from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, print_json, warn
from loreg_cli.progress import progress_bar


@click.command()
@click.option("--to-database", metavar="URL", help="sqlite:///… or postgresql://…, without a registry in it.")
@click.option("--to-storage", metavar="URL", help="A folder or s3://bucket/prefix.")
@click.option("--to-storage-endpoint", default="", metavar="URL", help="An S3 server other than AWS.")
@click.option("--undo", is_flag=True, help="Open this registry again: it was moved, or a move did not end.")
@format_option
def move(to_database: str | None, to_storage: str | None, to_storage_endpoint: str, undo: bool, format_: str) -> None:
    """Move the registry in force to another database and store; it can then only be read here.

    Others may push while blobs are copied; then they are refused, and told where the registry is. The same command
    again finishes a move that was interrupted.

    \b
    loreg move --to-database postgresql://loreg@db/loreg --to-storage s3://loreg
    loreg move --undo
    """
    if undo:
        if to_database or to_storage:
            raise click.UsageError("--undo goes with nothing else")
        place = open_registry().undo_move()
        echo(f"this registry can be written again; what was written to {place} is not here")
        return
    if not to_database or not to_storage:
        raise click.UsageError("a registry moves with its store: --to-database URL --to-storage URL")
    with progress_bar() as progress:
        report = open_registry().move(to_database, to_storage, storage_endpoint=to_storage_endpoint, progress=progress)
    if format_ == "json":
        print_json(report)
    elif format_ == "quiet":
        echo(report.target)
    else:
        echo(f"moved {report.rows.get('versions', 0):,} versions to {report.target} and {report.storage}")
        echo(describe_copied(report.new, report.new_size, report.known, report.seconds))
    warn("this registry can only be read from now on: set LOREG_DATABASE_URL and LOREG_STORAGE_URL to the new one")
