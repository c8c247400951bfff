"""bake and extract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.jobs import do_remotely, remote_option
from loreg_cli.merging import PATH, device_option, initial_option, method_options, rank_options
from loreg_cli.options import format_option, open_registry, push_options
from loreg_cli.output import echo, format_size, print_json, print_pushed, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import BakeResult, ExtractResult

_MOST_ROWS = 12


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
    rank: dict[str, Any] | None,
    device: str,
    remote: bool,
    format_: str,
) -> None:
    """Write adapters and their base as one model, shard by shard. The same command goes on where it was stopped.

    \b
    loreg bake team/news:prod --base ./models/llama --to ./llama-news
    loreg bake team/news team/movies --weights 0.7,0.3 --base ./models/llama --to ./blend --dtype bfloat16
    """
    if remote:
        what = {"sources": sources, "base": str(base), "name": str(folder), "rank": rank, "initial": initial}
        told = {"dtype": dtype, "verify": verify, "allow_derived": allow_derived}
        done = do_remotely("bake", {**how, **what, **told})
        if format_ == "json":
            print_json(done)
        else:
            echo(str(done.result["model"]))
        return
    with progress_bar() as progress:
        result = open_registry().bake(
            sources,
            base,
            folder,
            **how,
            initial=initial,
            rank=rank,
            dtype=dtype,
            verify=verify,
            allow_derived=allow_derived,
            device=device,
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


@click.command()
@click.option("--base", type=PATH, required=True, metavar="PATH", help="The model that the other was trained from.")
@click.option("--tuned", type=PATH, required=True, metavar="PATH", help="The fine-tuned model.")
@click.option("--rank", type=click.IntRange(1), metavar="N", help="The rank of every module.")
@click.option("--energy", type=click.FloatRange(0, 1), metavar="E", help="Keep this share of each module's change.")
@click.option(
    "--whole",
    type=click.Choice(["keep", "refuse"]),
    default="keep",
    show_default=True,
    help="Norms, biases and resized matrices: take them along whole, or refuse.",
)
@click.option("--push", "name", metavar="NAME", help="Push the adapter as the next version of NAME, with its base.")
@click.option("--to", "folder", metavar="DIR", type=PATH, help="Write it to a new folder.")
@device_option
@push_options
@format_option
def extract(
    base: Path,
    tuned: Path,
    rank: int | None,
    energy: float | None,
    whole: str,
    name: str | None,
    folder: Path | None,
    device: str,
    said: dict[str, Any],
    format_: str,
) -> None:
    """Take an adapter out of a fine-tuned model: the best factors of what each matrix changed by.

    \b
    loreg extract --base ./models/llama --tuned ./runs/full --rank 32 --push team/news
    """
    if name is None and any(said.values()):
        raise click.UsageError("--task, --metric, --label, --alias and -m go with --push NAME")
    with progress_bar() as progress:
        result = open_registry().extract(
            base, tuned, rank=rank, energy=energy, whole=whole, device=device, name=name, folder=folder,
            progress=progress, **said,
        )  # fmt: skip
    for text in result.notes:
        warn(text)
    if format_ == "json":
        print_json(result)
        return
    if format_ == "table":
        _print_modules(result)
    if result.pushed:
        print_pushed(result.pushed, format_)
    else:
        click.echo(result.folder if format_ == "quiet" else f"wrote {result.folder}")


def _print_modules(result: ExtractResult) -> None:
    """The modules that keep the least."""
    worst = sorted(result.modules, key=lambda module: module.retained)[:_MOST_ROWS]
    print_table(
        ["MODULE", "SHAPE", "RANK", "‖CHANGE‖", "KEPT"],
        [
            (m.module, "×".join(map(str, m.shape)), str(m.rank), f"{m.norm:.3g}", f"{100 * m.retained:.4g} %")
            for m in worst
        ],
        right=["SHAPE", "RANK", "‖CHANGE‖", "KEPT"],
        cut=["MODULE"],
    )
    if len(result.modules) > len(worst):
        click.echo(f"and {len(result.modules) - len(worst)} more modules that keep no less")
    click.echo(f"\n{100 * result.retained:.4g} % of the energy of all changes is kept")


def _summary(result: BakeResult) -> str:
    if result.already and not result.verified:
        return f"{result.folder} is this very model already"
    text = (
        f"baked {result.folder}: {result.changed} tensors changed, {result.copied} copied, {format_size(result.size)}"
    )
    if result.resumed:
        text += f"; {result.resumed} shards were there already"
    return text + (f"; {result.verified} tensors computed again: the same" if result.verified else "")
