"""``loreg metric``: record measured numbers of a version."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry
from loreg_cli.output import echo


@click.group()
def metric() -> None:
    """Record measured numbers of a version.

    \b
    loreg metric add team/news accuracy=0.94@imdb
    """


@metric.command("add")
@click.argument("ref")
@click.argument("metrics", metavar="NAME=VALUE[@DATASET[:SPLIT]]...", nargs=-1, required=True)
@click.option("--lower-is-better", is_flag=True, help="For a metric whose name does not say so, as loss or wer do.")
def metric_add(ref: str, metrics: tuple[str, ...], lower_is_better: bool) -> None:
    """Record measured numbers; one measured on the same data before is replaced.

    \b
    loreg metric add team/sentiment:v3 accuracy=0.94@imdb:test
    """
    from loreg.parsing import parse_metric

    measured = [parse_metric(text, lower_is_better=lower_is_better) for text in metrics]
    version = open_registry().add_metrics(ref, measured)
    echo(f"{version.pinned} has {', '.join(map(str, version.metrics))}")
