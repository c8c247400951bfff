"""merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loreg_cli.options import format_option, open_registry, push_options
from loreg_cli.output import note, print_json, print_pushed
from loreg_cli.progress import progress_bar


@click.command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True)
@click.option("--weights", required=True, metavar="W,W,…", help="One number for each source, e.g. 0.7,0.3.")
@click.option("--push", "name", metavar="NAME", help="Push the result as the next version of NAME.")
@click.option("--to", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Write it to a new folder.")
@click.option("--dry-run", is_flag=True, help="Only print the certificate.")
@click.option("--rank", type=click.IntRange(1), metavar="N", help="The best result of rank N. Default: lossless.")
@click.option("--extras", metavar="REF|DIR", help="Take whole tensors, such as a classifier, from this source.")
@push_options
@format_option
def merge(
    sources: tuple[str, ...],
    weights: str,
    name: str | None,
    folder: Path | None,
    dry_run: bool,
    rank: int | None,
    extras: str | None,
    said: dict[str, Any],
    format_: str,
) -> None:
    """Merge adapters: the exact weighted sum of their deltas, with a certificate.

    A source is a ref, or a folder written like a path: ./runs/42.

    \b
    loreg merge team/news team/movies --weights 0.7,0.3 --push team/blend
    """
    from loreg.expressions import parse_weights

    if [name is not None, folder is not None, dry_run].count(True) != 1:
        raise click.UsageError("expected exactly one of --push NAME, --to DIR and --dry-run")
    if folder is not None and (any(said.values())):
        raise click.UsageError("--task, --metric, --label, --alias and -m go with --push NAME")
    with progress_bar() as progress:
        result = open_registry().merge(
            sources,
            parse_weights(weights),
            name=name,
            folder=folder,
            rank=rank,
            extras=extras,
            progress=progress,
            **said,
        )
    for text in result.notes:
        note(text)
    if format_ == "json":
        print_json(result)
        return
    if format_ == "table":
        from loreg_cli.certificate import print_certificate

        print_certificate(result.provenance, result.pushed.version.ref if result.pushed else "")
    if result.pushed:
        print_pushed(result.pushed, format_)
    elif result.folder:
        click.echo(result.folder if format_ == "quiet" else f"wrote {result.folder}")
