"""``loreg push``: store an adapter as the next version of a name."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from loreg_cli.options import Metadata, format_option, open_registry, push_options
from loreg_cli.output import print_pushed
from loreg_cli.progress import progress_bar


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("name")
@click.option(
    "--base",
    metavar="PATH|NAME|DIGEST",
    help="The base model that it was trained on: ./a/folder, or one that the registry knows.",
)
@push_options
@format_option
def push(folder: Path, name: str, base: str | None, format_: str, **metadata: Unpack[Metadata]) -> None:
    """Store the adapter in DIR as the next version of NAME.

    \b
    loreg push ./runs/42 team/news --task topics --metric f1=0.93 --alias prod
    """
    with progress_bar() as progress:
        result = open_registry().push(folder, name, base=base, progress=progress, **metadata)
    print_pushed(result, format_)
