"""``loreg k-merge``: keep K adapters out of many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg_cli.merge_options import PATH, base_option, device_option, rank_options
from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import print_json, print_pushed, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import KeptAdapter


@click.command(name="k-merge")
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True)
@click.option("--keep", type=click.IntRange(1), metavar="K", required=True, help="How many adapters are kept.")
@base_option
@rank_options
@click.option("--push", "name", metavar="PREFIX", help="Push them as the next versions of PREFIX-1, PREFIX-2, ….")
@click.option("--to", "folder", metavar="DIR", type=PATH, help="Write them to DIR/1, DIR/2, ….")
@click.option("--dry-run", is_flag=True, help="Only print which goes where.")
@device_option
@table_options
@format_option
def k_merge_command(
    sources: tuple[str, ...],
    keep: int,
    base: Path | None,
    rank: dict[str, object] | None,
    name: str | None,
    folder: Path | None,
    dry_run: bool,
    device: str,
    format_: str,
) -> None:
    """Keep K adapters out of a stream, in the order in which they are named.

    The first K are kept; each later one joins the one that its delta is most similar to. What is kept is the mean of
    those that joined it: an ordinary merge, with recipe and certificate.

    \b
    loreg k-merge team/news team/sport ./runs/42 --keep 2 --push team/kept
    """
    if [name is not None, folder is not None, dry_run].count(True) != 1:
        raise click.UsageError("expected exactly one of --push PREFIX, --to DIR and --dry-run")
    with progress_bar() as progress:
        kept = open_registry().k_merge(
            sources, keep, rank=rank, base=base, name=name, folder=folder, device=device, progress=progress
        )
    for text in dict.fromkeys(note for adapter in kept for note in adapter.merged.notes):
        warn(text)
    if format_ == "json":
        print_json([_to_json(adapter) for adapter in kept])
        return
    if format_ == "table":
        rows = [row for number, adapter in enumerate(kept, 1) for row in _rows(number, adapter)]
        print_table(["ADAPTER", "SOURCE", "COSINE", "KEPT OF ITS DELTA"], rows, right=["COSINE", "KEPT OF ITS DELTA"])
        click.echo("\ncosine: with the mean of those that the adapter held before")
    for adapter in kept:
        if adapter.merged.pushed:
            print_pushed(adapter.merged.pushed, format_)
        elif adapter.merged.folder:
            click.echo(adapter.merged.folder if format_ == "quiet" else f"wrote {adapter.merged.folder}")


def _rows(number: int, adapter: KeptAdapter) -> list[tuple[str, ...]]:
    retention = adapter.merged.provenance.certificate["total"]["retention"]
    return [
        (
            str(number),
            source,
            "–" if cosine is None else f"{cosine:.3f}",
            "–" if share is None else f"{100 * share:.1f} %",
        )
        for source, cosine, share in zip(adapter.sources, adapter.cosines, retention, strict=True)
    ]


def _to_json(adapter: KeptAdapter) -> dict[str, object]:
    merged = adapter.merged
    return {
        "sources": adapter.sources,
        "cosines": adapter.cosines,
        "retention": merged.provenance.certificate["total"]["retention"],
        "version": merged.pushed.version.ref if merged.pushed else None,
        "folder": merged.folder,
    }


globals()["k-merge"] = k_merge_command  # the name that is typed, which no statement can bind
