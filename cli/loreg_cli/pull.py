"""``loreg pull``: write a version to a folder."""

from __future__ import annotations

from pathlib import Path

import click

from loreg.byte_sizes import format_size
from loreg_cli.export import print_export_summary
from loreg_cli.options import format_option, open_registry
from loreg_cli.output import print_json
from loreg_cli.progress import progress_bar


@click.command()
@click.argument("ref")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--profile", metavar="SERVER", help="As that server takes it: vllm, vllm:max_lora_rank=64, … or ./mine.toml."
)
@click.option("--verify", is_flag=True, help="With --profile: make the files here, and compare with those stored.")
@click.option("--with-base-path", is_flag=True, help="If you pushed it: write your path of the base into the files.")
@format_option
def pull(ref: str, folder: Path | None, profile: str | None, verify: bool, with_base_path: bool, format_: str) -> None:
    """Write the version that REF means to DIR (default: ./NAME), ready for PEFT or for a server.

    \b
    loreg pull team/sentiment:prod ./adapter
    loreg pull team/sentiment:prod ./adapter --profile vllm
    """
    with progress_bar() as progress:
        registry = open_registry()
        result = registry.pull(
            ref, folder, profile=profile, verify=verify, with_base_hint=with_base_path, progress=progress
        )
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.folder)
    elif result.downloaded:
        click.echo(f"pulled {result.version.pinned} to {result.folder} ({format_size(result.downloaded)})")
    else:
        click.echo(f"{result.folder} is {result.version.pinned} already")
    if format_ == "table" and result.fitted:
        print_export_summary(result.fitted)
