"""``loreg compare``: how alike adapters are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg_cli.merge_options import base_option, device_option, initial_option, plot_option
from loreg_cli.options import format_option, open_registry
from loreg_cli.output import print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import AdapterSimilarity

_FEW = 4  # adapters, whose pairs stay in the order in which they were named


@click.command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True)
@initial_option
@base_option
@device_option
@plot_option
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

    Of many, the most alike pairs come first, and the picture has them in an order in which alike ones are neighbours.
    """
    from loreg.verbs.compare import group_near_duplicates

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
        ordered = sorted(pairs, key=lambda pair: -pair.cosine) if len(sources) > _FEW else pairs
        print_table(["A", "B", *numbers], [_row(pair) for pair in ordered], right=numbers, cut=["A", "B"])
        click.echo("\ncolumns, rows: shared subspaces, 0 to 1; signs: share of entries of opposite sign")
    labels = [pairs[0].a, *(pair.b for pair in pairs[: len(sources) - 1])]
    for group in group_near_duplicates(len(sources), pairs):
        *names, last = (labels[place] for place in group)
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
