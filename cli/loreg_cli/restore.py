"""``loreg restore``: an empty registry becomes what a backup has."""

from __future__ import annotations

import click

from loreg_cli.backup import describe_copied, print_snapshots
from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, print_json, warn
from loreg_cli.progress import progress_bar
from loreg_cli.verify import BROKEN, print_damages


@click.command()
@click.argument("source", metavar="DIR|s3://BUCKET/PREFIX")
@click.option("--snapshot", default="", metavar="NAME", help="Which one, or how its name begins; default: the newest.")
@click.option("--incomplete", is_flag=True, help="Restore the rest also where blobs are missing or damaged.")
@click.option("--list", "lists", is_flag=True, help="Only list the snapshots.")
@format_option
@click.pass_context
def restore(context: click.Context, source: str, snapshot: str, incomplete: bool, lists: bool, format_: str) -> None:
    """Fill the registry in force, which must be empty, from a backup, and verify it.

    The database may be another one than that of the backup. A restore that was interrupted leaves the registry empty
    and is gone on with by the next. Exit code 6 if something is not whole.

    \b
    loreg restore /mnt/backup/loreg --list
    loreg --home ./restored restore /mnt/backup/loreg
    loreg restore s3://backup/loreg --snapshot 20261126T15
    """
    if lists:
        print_snapshots(open_registry().list_backup(source), format_)
        return
    with progress_bar() as progress:
        report = open_registry().restore(source, snapshot=snapshot, incomplete=incomplete, progress=progress)
    if format_ == "json":
        print_json(report, ok=report.ok)
    elif format_ == "quiet":
        echo(report.snapshot.name)
    else:
        echo(f"restored {report.snapshot.name}: {report.snapshot.rows.get('versions', 0):,} versions")
        echo(describe_copied(report.new, report.new_size, report.known, report.seconds))
        if report.verified.damages:
            print_damages(report.verified.damages)
    if report.webhooks:
        count = len(report.webhooks)
        what = "1 webhook is" if count == 1 else f"{count} webhooks are"
        which = "it" if count == 1 else "the first"
        warn(
            f"{what} disabled in what was restored; {which} tells again after: "
            f"loreg webhook enable {report.webhooks[0]}"
        )
    if report.verified.damage_count:
        warn(f"{report.verified.damage_count:,} blobs are not whole")
    context.exit(0 if report.ok else BROKEN)
