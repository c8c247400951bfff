"""``loreg compare``: how alike adapters are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg_cli.merge_options import base_option, device_option, initial_option, plot_option
from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import AdapterSimilarity


@click.command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True)
@initial_option
@base_option
@device_option
@plot_option
@table_options
@format_option
def compare(
    sources: tuple[str, ...],
    initial: tuple[str, ...],
    base: Path | None,
    device: str,
    plot: Path | None,
    format_: str,
) -> None:
    """How alike adapters are: angles, shared subspaces, sign conflicts, norms.

    Of many, the most alike pairs come first; in the picture, alike adapters are neighbours.

    \b
    loreg compare team/news:v1 team/news:v2 ./runs/42
    """
    from loreg.identity.likeness import FEW, group_near_duplicates

    with progress_bar() as progress:
        pairs = open_registry().compare(
            sources, initial=initial, base=base, device=device, plot=plot, progress=progress
        )
    if format_ == "json":
        print_json(list(pairs))
    elif format_ == "quiet":
        for pair in pairs:
            click.echo(f"{pair.cosine:.6f}")
    else:
        numbers = ["COSINE", "COLUMNS", "ROWS", "SIGNS", "NORM B/A"]
        ordered = sorted(pairs, key=lambda pair: -pair.cosine) if len(sources) > FEW else pairs
        print_table(["A", "B", *numbers], [_row(pair) for pair in ordered], right=numbers, drop=numbers[:0:-1])
        click.echo("\ncolumns, rows: shared subspaces, 0 to 1; signs: share of entries of opposite sign")
    for group in group_near_duplicates(pairs):
        *names, last = (pairs.labels[place] for place in group)
        warn(f"{', '.join(names)} and {last} are nearly the same: merging them adds little")


def _row(pair: AdapterSimilarity) -> tuple[str, ...]:
    return (
        pair.a,
        pair.b,
        f"{pair.cosine:.3f}",
        f"{pair.left_overlap:.3f}",
        f"{pair.right_overlap:.3f}",
        f"{100 * pair.sign_conflict:.1f} %",
        "–" if pair.norm_ratio is None else f"{pair.norm_ratio:.3g}",
    )
