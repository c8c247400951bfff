"""push and pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loreg_cli.options import format_option, open_registry, push_options
from loreg_cli.output import print_json, print_pushed, size
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
def push(folder: Path, name: str, base: str | None, said: dict[str, Any], format_: str) -> None:
    """Store the adapter in DIR as the next version of NAME.

    \b
    loreg push ./runs/42 team/sentiment --task sentiment --metric accuracy=0.93@imdb --alias prod
    """
    with progress_bar() as progress:
        result = open_registry().push(folder, name, base=base, progress=progress, **said)
    print_pushed(result, format_)


@click.command()
@click.argument("ref")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--with-base-path", is_flag=True, help="Write the pusher's path of the base into adapter_config.json.")
@format_option
def pull(ref: str, folder: Path | None, with_base_path: bool, format_: str) -> None:
    """Write the version that REF means to DIR (default: ./NAME), ready for PEFT.

    \b
    loreg pull team/sentiment:prod ./adapter
    """
    with progress_bar() as progress:
        result = open_registry().pull(ref, folder, with_base_hint=with_base_path, progress=progress)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.folder)
    elif result.downloaded:
        click.echo(f"pulled {result.version.pinned} to {result.folder} ({size(result.downloaded)})")
    else:
        click.echo(f"{result.folder} is {result.version.pinned} already")
