"""``loreg repair``: bring back what is broken, from any place that has it."""

from __future__ import annotations

from typing import Unpack

import click

from loreg_cli.options import format_option, open_registry, token_env_option, wide_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar
from loreg_cli.verify import BROKEN, Selected, broken_refs, print_damages, selection_options


@click.command()
@click.argument("refs", metavar="[REF]...", nargs=-1)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="DIR|REGISTRY|URL",
    help="Where to look: a folder with adapters, a store or a registry, s3://…, or a server; may be repeated.",
)
@token_env_option
@click.option("--dry-run", is_flag=True, help="Only look for it; store nothing.")
@selection_options
@wide_options
@format_option
@click.pass_context
def repair(
    context: click.Context,
    refs: tuple[str, ...],
    sources: tuple[str, ...],
    token_env: str,
    dry_run: bool,
    format_: str,
    **selected: Unpack[Selected],
) -> None:
    """Bring back what verify finds missing or damaged; nothing is taken that has not the right hash.

    Manifests are made again from the catalog alone. Exit code 6 if something stays broken.

    \b
    loreg repair --from ./pulled
    loreg repair --from s3://backup/loreg --from https://loreg.example.org
    loreg repair --read-data --from ~/.local/share/loreg
    """
    with progress_bar() as progress:
        report = open_registry().repair(
            sources,
            refs,
            read_data=selected["read_data"] or False,
            since=selected["since"],
            trust_checksums=selected["trust_checksums"],
            dry_run=dry_run,
            token_env=token_env,
            progress=progress,
        )
    if format_ == "json":
        print_json(report, ok=report.ok)
    elif format_ == "quiet":
        for ref in broken_refs(report.broken):
            echo(ref)
    else:
        if report.repaired:
            rows = [(item.damage.sha256[:12], item.damage.kind, item.source) for item in report.repaired]
            print_table(["BLOB", "WAS", "FROM"], rows, drop=["BLOB"])
        done = "can be repaired" if dry_run else "repaired"
        echo(f"{report.repaired_count:,} {done}, {report.broken_count:,} stay broken")
        if report.broken:
            print_damages(report.broken)
    if report.broken_count and not sources:
        warn("only manifests can be made again without --from DIR")
    context.exit(0 if report.ok else BROKEN)
