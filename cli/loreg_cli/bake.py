"""``loreg bake``: adapters and their base become one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loreg.byte_sizes import format_size
from loreg_cli.merge_options import PATH, device_option, initial_option, method_options, rank_options
from loreg_cli.options import format_option, on_option, open_registry
from loreg_cli.output import echo, print_json, warn
from loreg_cli.progress import progress_bar
from loreg_cli.remote_jobs import do_remotely, refuse_remote_on, remote_option

if TYPE_CHECKING:
    from loreg.entities import BakeResult


@click.command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True)
@click.option("--base", type=PATH, required=True, metavar="PATH", help="The model that they were trained on.")
@click.option("--to", "folder", type=PATH, required=True, metavar="DIR", help="A new folder for the model.")
@click.option("--dtype", metavar="DTYPE", help="float32, float16, bfloat16 or float64. Default: that of the base.")
@click.option("--verify", is_flag=True, help="Compute a sample of tensors again and compare; also for an older bake.")
@click.option("--allow-derived", is_flag=True, help="Take a base that is known to come from the right one.")
@method_options
@initial_option
@rank_options
@device_option
@on_option
@remote_option
@format_option
def bake(
    sources: tuple[str, ...],
    base: Path,
    folder: Path,
    dtype: str | None,
    verify: bool,
    allow_derived: bool,
    how: dict[str, Any],
    initial: tuple[str, ...],
    rank: dict[str, object] | None,
    device: str,
    on: str,
    remote: bool,
    format_: str,
) -> None:
    """Write adapters and their base as one model, shard by shard. The same command goes on where it was stopped.

    With --on the shards are written by the machines of a cluster, in folders that all of them have.

    \b
    loreg bake team/news:prod --base ./models/llama --to ./llama-news
    loreg bake team/news team/movies --base ./llama --weights 0.7,0.3 --to ./blend
    """
    if remote:
        refuse_remote_on(on)
        arguments = {"sources": sources, "base": str(base), "name": str(folder), "rank": rank, "initial": initial}
        flags = {"dtype": dtype, "verify": verify, "allow_derived": allow_derived}
        done = do_remotely("bake", {**how, **arguments, **flags})
        if format_ == "json":
            print_json(done)
        else:
            echo(str(done.result["model"]))
        return
    from loreg.entities import MergeOptions

    with progress_bar() as progress:
        result = open_registry().bake(
            sources,
            base,
            folder,
            MergeOptions(**how, initial=initial, rank=rank, allow_derived=allow_derived),
            dtype=dtype,
            verify=verify,
            device=device,
            on=on,
            progress=progress,
        )
    for text in result.notes:
        warn(text)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.folder)
    else:
        echo(_summary(result))


def _summary(result: BakeResult) -> str:
    if result.already and not result.verified:
        return f"{result.folder} is this very model already"
    text = (
        f"baked {result.folder}: {result.changed} tensors changed, {result.copied} copied, {format_size(result.size)}"
    )
    if result.resumed:
        text += f"; {result.resumed} shards were there already"
    return text + (f"; {result.verified} tensors computed again: the same" if result.verified else "")
