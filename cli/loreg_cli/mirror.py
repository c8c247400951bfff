"""``loreg mirror``: bring adapters with their history to or from another registry, or a bundle."""

from __future__ import annotations

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, token_env_option, wide_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

CONFLICT = 7


@click.command()
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@click.option("--to", metavar="TARGET", help="A server's URL, a registry's home folder, or FILE.loreg, a bundle.")
@click.option("--from", "source", metavar="SOURCE", help="The same, to read from.")
@click.option("--since", metavar="FILE", help="With --to FILE.loreg: leave out blobs that this earlier bundle has.")
@click.option("--force", is_flag=True, help="Also move aliases, and yank, where the target did so itself since.")
@token_env_option
@wide_options
@format_option
@click.pass_context
def mirror(
    context: click.Context,
    patterns: tuple[str, ...],
    to: str | None,
    source: str | None,
    since: str | None,
    force: bool,
    token_env: str,
    format_: str,
) -> None:
    """Bring the adapters that match PATTERN to TARGET, or from SOURCE, with their numbers, authors, times and history.

    A second run brings only what is new. Nothing is taken that has not the right hash. Conflicts are named, and what
    they are about is left as it is; exit code 7.

    \b
    loreg mirror 'team/*' --to https://loreg.example.org
    loreg mirror 'team/*' --to team.loreg
    loreg mirror '*' --from team.loreg
    """
    with progress_bar() as progress:
        report = open_registry().mirror(
            patterns, to=to, source=source, since=since, force=force, token_env=token_env, progress=progress
        )
    if format_ == "json":
        print_json(report, ok=report.ok)
    elif format_ == "quiet":
        for ref in report.refs:
            echo(ref)
    else:
        rows = [
            ("adapters", f"{report.adapters:,}"),
            ("versions new", f"{report.new:,}"),
            ("versions changed", f"{report.changed:,}"),
            ("versions known", f"{report.known:,}"),
            ("blobs sent", f"{report.blobs:,}"),
            ("bytes sent", format_size(report.size)),
            ("aliases moved", f"{report.aliases:,}"),
        ]
        print_table(["MIRRORED", "COUNT"], rows, right=["COUNT"])
        if report.conflicts:
            print_table(
                ["CONFLICT", "REASON"], [(item.ref, item.reason) for item in report.conflicts], prose=["REASON"]
            )
    for note in report.notes:
        warn(note)
    context.exit(0 if report.ok else CONFLICT)
