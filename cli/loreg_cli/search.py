"""``loreg search``: find versions by what is in them and how good they are."""

from __future__ import annotations

from typing import Any

import click

from loreg_cli.options import format_option, open_registry, page_options, read_labels, table_options
from loreg_cli.version_table import print_versions


@click.command()
@click.argument("text", nargs=-1)
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="For this task; repeat for several.")
@click.option("--base", default="", metavar="NAME|DIGEST", help="Trained on this base.")
@click.option("--module", "modules", multiple=True, metavar="TYPE", help="Touches q_proj, …; repeat for several.")
@click.option("--rank", "ranks", multiple=True, metavar="COMPARISON", help="The largest rank, e.g. '<=16'.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="COMPARISON[@DATASET]", help="E.g. 'accuracy>=0.9@imdb'; repeatable."
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=read_labels,
    help="Has this label; repeatable.",
)
@click.option("--author", default="", metavar="NAME", help="Pushed by NAME.")
@click.option("--variant", default="", metavar="KIND", help="lora, rslora, dora, …")
@click.option(
    "--sort",
    default="created",
    show_default=True,
    metavar="ORDER",
    help="created, name, rank, size, or metric:NAME[@DATASET[:SPLIT]], the best first.",
)
@click.option("--all-versions", is_flag=True, help="Not only the newest version of each adapter.")
@page_options
@table_options
@format_option
def search(text: tuple[str, ...], format_: str, **conditions: Any) -> None:
    """Find the versions for which every condition holds; TEXT is sought in name, message and card.

    \b
    loreg search --task topics --metric 'accuracy>=0.9' --sort metric:accuracy
    """
    page = open_registry().search(" ".join(text), **conditions)
    print_versions(page, format_)
