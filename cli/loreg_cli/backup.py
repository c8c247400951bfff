"""``loreg backup``: the registry as it is now, added to a folder or to S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar
from loreg_cli.verify import BROKEN, print_damages

if TYPE_CHECKING:
    from loreg.entities import ForgetReport, Snapshot
    from loreg.registry import Registry


@click.command()
@click.argument("target", metavar="DIR|s3://BUCKET/PREFIX")
@click.option("--verify", is_flag=True, help="Hash what the backup has already, and mend it.")
@click.option("--list", "lists", is_flag=True, help="Only list the snapshots that it has.")
@click.option("--forget", is_flag=True, help="Take no snapshot: let old ones go, and what only they need.")
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="With --forget: keep the newest N.")
@click.option("--keep-newer", metavar="SPAN", help="With --forget: keep those younger than 12h, 30d or 8w.")
@click.option("--dry-run", is_flag=True, help="With --forget: only show which would go, and why the others stay.")
@table_options
@format_option
@click.pass_context
def backup(
    context: click.Context,
    target: str,
    verify: bool,
    lists: bool,
    forget: bool,
    keep_last: int | None,
    keep_newer: str | None,
    dry_run: bool,
    format_: str,
) -> None:
    """Add a snapshot of the registry to a backup: the catalog, and every blob that is not there yet.

    Others may push meanwhile; nothing is collected until it ends. An interrupted backup is gone on with by the next.
    Exit code 6 if the registry itself has not everything whole: the rest is backed up. Through a server a worker does
    it, for administrators, in a place that its --backup-to names.

    \b
    loreg backup /mnt/backup/loreg
    loreg backup s3://backup/loreg
    loreg backup /mnt/backup/loreg --list
    loreg backup /mnt/backup/loreg --forget --keep-last 7 --keep-newer 30d
    """
    if sum((verify, lists, forget)) > 1:
        raise click.UsageError("--verify, --list and --forget exclude one another")
    if not forget and (keep_last is not None or keep_newer is not None or dry_run):
        raise click.UsageError("--keep-last, --keep-newer and --dry-run go with --forget")
    registry = open_registry()
    if lists:
        _list(registry, target, format_)
        return
    if forget:
        with progress_bar() as progress:
            forgotten = registry.forget_snapshots(
                target, keep_last=keep_last, keep_newer=keep_newer, dry_run=dry_run, progress=progress
            )
        _print_forgotten(forgotten, format_)
        return
    with progress_bar() as progress:
        report = registry.backup(target, verify=verify, progress=progress)
    if format_ == "json":
        print_json(report, ok=report.ok)
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


def _list(registry: Registry, target: str, format_: str) -> None:
    snapshots = registry.list_backup(target)
    print_snapshots(snapshots, format_)
    if registry.settings.endpoint:
        from loreg.verbs.upkeep_jobs import MAX_LISTED

        if len(snapshots) >= MAX_LISTED:
            warn(f"through a server no more than the newest {MAX_LISTED} are listed")


def _print_forgotten(report: ForgetReport, format_: str) -> None:
    if format_ == "json":
        print_json(report)
    elif format_ == "quiet":
        for decision in report.decisions:
            if decision.goes:
                echo(decision.name)
    else:
        gone, are_gone = ("would go", "would go") if report.dry_run else ("gone", "are gone")
        rows = [(item.name, gone if item.goes else "stays", item.reason) for item in report.decisions]
        print_table(["SNAPSHOT", "", "WHY"], rows, prose=["WHY"])
        echo(
            f"{report.going_count:,} snapshots {are_gone}, {report.kept_count:,} stay; {report.removed:,} blobs "
            f"{are_gone}, {format_size(report.removed_size)}"
        )
    if (more := report.going_count + report.kept_count - len(report.decisions)) > 0:
        warn(f"{more:,} more are not listed")


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
        columns = ["SNAPSHOT", "VERSIONS", "BLOBS", "SIZE", "LACKS", "SCHEMA"]
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
        print_table(columns, rows, right=["VERSIONS", "BLOBS", "SIZE", "LACKS"], drop=["SCHEMA", "BLOBS"])
