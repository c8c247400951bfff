"""``loreg extract``: an adapter out of a fine-tuned model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from loreg_cli.merge_options import PATH, device_option
from loreg_cli.options import Metadata, format_option, open_registry, push_options, wide_options
from loreg_cli.output import print_json, print_pushed, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import ExtractResult

_MAX_ROWS = 12


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
@wide_options
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
    format_: str,
    **metadata: Unpack[Metadata],
) -> None:
    """Take an adapter out of a fine-tuned model: the best factors of what each matrix changed by.

    \b
    loreg extract --base ./llama --tuned ./runs/full --rank 32 --push team/news
    """
    if name is None and any(metadata.values()):
        raise click.UsageError("--task, --metric, --label, --alias and -m go with --push NAME")
    from loreg.entities import VersionMetadata

    with progress_bar() as progress:
        result = open_registry().extract(
            base, tuned, rank=rank, energy=energy, whole=whole, device=device, name=name, folder=folder,
            progress=progress, metadata=VersionMetadata(**metadata),
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
    """Print the modules that keep the least of their change, and how much is kept in all."""
    worst = sorted(result.modules, key=lambda module: module.retained)[:_MAX_ROWS]
    print_table(
        ["MODULE", "SHAPE", "RANK", "‖CHANGE‖", "KEPT"],
        [
            (m.module, "×".join(map(str, m.shape)), str(m.rank), f"{m.norm:.3g}", f"{100 * m.retained:.4g} %")
            for m in worst
        ],
        right=["SHAPE", "RANK", "‖CHANGE‖", "KEPT"],
        drop=["SHAPE"],
    )
    if len(result.modules) > len(worst):
        click.echo(f"and {len(result.modules) - len(worst)} more modules that keep no less")
    click.echo(f"\n{100 * result.retained:.4g} % of the energy of all changes is kept")
