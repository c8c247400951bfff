"""``loreg metric``: record measured numbers of a version, list what is measured, declare what is better."""

from __future__ import annotations

import click

from loreg_cli.metric_slips import ask_about_slips
from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import echo, print_json, print_page, print_table


@click.group()
def metric() -> None:
    """Record measured numbers of a version; list and declare what is measured.

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

    registry = open_registry()
    ask_about_slips(registry, metrics, ref)
    measured = [parse_metric(text, lower_is_better=True) for text in metrics] if lower_is_better else metrics
    version = registry.add_metrics(ref, measured)
    echo(f"{version.pinned} has {', '.join(metric.exact for metric in version.metrics)}")


@metric.command("ls")
@page_options
@table_options
@format_option
def metric_ls(limit: int, cursor: str | None, format_: str) -> None:
    """List what is measured on what, the most common first, with the best number and the version that has it.

    \b
    loreg metric ls
    """
    page = open_registry().metrics(limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        rows = [
            (
                row.best.name,
                row.best.dataset + (f":{row.best.split}" if row.best.split else ""),
                "higher" if row.best.higher_is_better else "lower",
                row.unit,
                str(row.versions),
                f"{row.best.value:g}",
                row.ref,
            )
            for row in page.items
        ]
        columns = ["METRIC", "ON", "BETTER", "UNIT", "VERSIONS", "BEST", "OF"]
        print_table(columns, rows, right=["VERSIONS", "BEST"], drop=["UNIT", "BETTER", "VERSIONS"])
    print_page(page, format_, [row.best.measured for row in page.items])


@metric.command("declare")
@click.argument("name")
@click.option("--lower-is-better/--higher-is-better", default=None, help="Which direction is better.")
@click.option("--unit", default="", metavar="UNIT", help="What it is measured in, e.g. '%' or ms.")
@format_option
def metric_declare(name: str, lower_is_better: bool | None, unit: str, format_: str) -> None:
    """Say for everyone which direction of a metric is better, and its unit; for administrators.

    Numbers that were recorded with the other direction are turned; from then on they are refused. Without a direction
    it is the usual one of that name.

    \b
    loreg metric declare carbon --lower-is-better --unit kg
    """
    from loreg.metric_names import usual_metric

    usual = usual_metric(name)
    if lower_is_better is None and usual is None:
        raise click.UsageError(f"which direction of {name} is better? --lower-is-better or --higher-is-better")
    lower = lower_is_better if lower_is_better is not None else usual is not None and not usual.higher_is_better
    result = open_registry().declare_metric(name, lower_is_better=lower, unit=unit)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.declaration.name)
    else:
        turned = f"; {result.turned:,} numbers that said the other were turned" if result.turned else ""
        echo(f"{name}: {'lower' if lower else 'higher'} is better{f', in {unit}' if unit else ''}{turned}")
