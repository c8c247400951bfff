"""``loreg push``: store an adapter as the next version of a name."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from loreg_cli.metric_slips import ask_about_slips
from loreg_cli.options import Metadata, format_option, open_registry, push_options, refuse_empty
from loreg_cli.output import print_pushed
from loreg_cli.progress import progress_bar


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("name")
@click.option(
    "--base",
    callback=refuse_empty,
    metavar="PATH|NAME|DIGEST",
    help="The base model that it was trained on: ./a/folder, or one that the registry knows.",
)
@click.option(
    "--checkpoint", default="", metavar="best|last|N", help="DIR is a training run: this one, with what the run says."
)
@push_options
@format_option
def push(
    folder: Path, name: str, base: str | None, checkpoint: str, format_: str, **metadata: Unpack[Metadata]
) -> None:
    """Store the adapter in DIR as the next version of NAME.

    \b
    loreg push ./runs/42 team/news --task topics --metric f1=0.93 --alias prod
    loreg push ./runs/42 team/news --checkpoint best
    """
    registry = open_registry()
    ask_about_slips(registry, metadata["metrics"], name)
    with progress_bar() as progress:
        result = registry.push(folder, name, base=base, checkpoint=checkpoint, progress=progress, **metadata)
    print_pushed(result, format_)
