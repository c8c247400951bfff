"""tag, untag, yank, unyank and metric."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry
from loreg_cli.output import echo


@click.command()
@click.argument("ref")
@click.argument("alias")
def tag(ref: str, alias: str) -> None:
    """Point ALIAS to the version that REF means; where it pointed before stays in the history.

    \b
    loreg tag team/sentiment:v3 prod
    """
    version = open_registry().tag(ref, alias)
    click.echo(f"{version.adapter}:{alias} is now {version.pinned}")


@click.command()
@click.argument("name")
@click.argument("alias")
def untag(name: str, alias: str) -> None:
    """Forget ALIAS of the adapter NAME; its history stays."""
    open_registry().untag(name, alias)
    click.echo(f"{name} has no alias {alias} any more")


@click.command()
@click.argument("ref")
@click.option("-m", "--reason", default="", metavar="TEXT", help="Why; it is kept in the events.")
def yank(ref: str, reason: str) -> None:
    """Hide a version from search, aliases and refs without a version; nothing is deleted."""
    version = open_registry().yank(ref, reason=reason)
    click.echo(f"yanked {version.pinned}; it can still be pulled as {version.ref}")


@click.command()
@click.argument("ref")
def unyank(ref: str) -> None:
    """Show a yanked version again."""
    click.echo(f"{open_registry().unyank(ref).pinned} is found again")


@click.group()
def metric() -> None:
    """Measured numbers of a version."""


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
