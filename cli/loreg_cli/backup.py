"""``loreg backup``: the registry as it is now, added to a folder or to S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, format_size, print_json, print_table, warn
from loreg_cli.progress import progress_bar
from loreg_cli.verify import BROKEN, print_damages

if TYPE_CHECKING:
    from loreg.entities import Snapshot


@click.command()
@click.argument("target", metavar="DIR|s3://BUCKET/PREFIX")
@click.option("--verify", is_flag=True, help="Hash what the backup has already, and mend it.")
@click.option("--list", "lists", is_flag=True, help="Only list the snapshots that it has.")
@format_option
@click.pass_context
def backup(context: click.Context, target: str, verify: bool, lists: bool, format_: str) -> None:
    """Add a snapshot of the registry to a backup: the catalog, and every blob that is not there yet.

    Others may push meanwhile; nothing is collected until it ends. An interrupted backup is gone on with by the next.
    Exit code 6 if the registry itself has not everything whole: the rest is backed up.

    \b
    loreg backup /mnt/backup/loreg
    loreg backup s3://backup/loreg
    loreg backup /mnt/backup/loreg --list
    """
    if lists:
        print_snapshots(open_registry().list_backup(target), format_)
        return
    with progress_bar() as progress:
        report = open_registry().backup(target, verify=verify, progress=progress)
    if format_ == "json":
        from msgspec.structs import asdict

        print_json({"ok": report.ok, **asdict(report)})
    elif format_ == "quiet":
        echo(report.snapshot.name)
    else:
        if report.damages:
            print_damages(report.damages)
        echo(f"snapshot {report.snapshot.name} in {report.target}")
        echo(describe_copied(report.new, report.new_size, report.known, report.seconds))
    if report.damage_count:
        warn(f"the registry has {report.damage_count:,} blobs not whole: the snapshot is without them")
    context.exit(0 if report.ok else BROKEN)


def describe_copied(new: int, size: int, known: int, seconds: float) -> str:
    """Return one line on what was copied, and how fast."""
    rate = format_size(round(size / max(seconds, 1e-3)))
    return f"{new:,} new blobs, {format_size(size)}, {rate}/s; {known:,} were there"


def print_snapshots(snapshots: tuple[Snapshot, ...], format_: str) -> None:
    """Print the snapshots of a backup."""
    if format_ == "json":
        print_json(snapshots)
    elif format_ == "quiet":
        for snapshot in snapshots:
            echo(snapshot.name)
    else:
        columns = ["SNAPSHOT", "VERSIONS", "BLOBS", "SIZE", "NOT WHOLE", "SCHEMA"]
        rows = [
            (
                snapshot.name,
                f"{snapshot.rows.get('versions', 0):,}",
                f"{snapshot.blobs:,}",
                format_size(snapshot.size),
                f"{snapshot.missing:,}",
                snapshot.revision,
            )
            for snapshot in snapshots
        ]
        print_table(columns, rows, right=["VERSIONS", "BLOBS", "SIZE", "NOT WHOLE"])
