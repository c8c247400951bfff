"""``loreg export``: write an adapter as one server takes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry, refuse_empty
from loreg_cli.output import echo, print_json
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import ExportSummary


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option(
    "--profile",
    required=True,
    metavar="SERVER",
    help="vllm, vllm:max_lora_rank=64, sglang, lorax, tgi, tensorrt-llm, llama.cpp, ollama, transformers, peft:0.10 or "
    "./mine.toml.",
)
@click.option("--to", "folder", metavar="DIR", type=click.Path(path_type=Path), help="A new folder.")
@click.option("--drop", is_flag=True, help="Instead: forget what the registry made of REF for that server.")
@click.option(
    "--base",
    metavar="NAME|PATH",
    help="The model it was trained on, if it was not pushed with it.",
    callback=refuse_empty,
)
@click.option("--dtype", metavar="DTYPE", help="float32, float16 or bfloat16. Default: as the tensors are.")
@format_option
def export(
    source: str, profile: str, folder: Path | None, drop: bool, base: str | None, dtype: str | None, format_: str
) -> None:
    """Write an adapter as one server takes it, and say what was changed. What cannot be mended is refused.

    \b
    loreg export team/news:prod --profile sglang --to ./for-sglang
    loreg export ./runs/42 --profile vllm:max_lora_rank=16 --to ./for-vllm
    loreg export team/news:v1 --profile vllm --drop
    """
    if drop == (folder is not None):
        raise click.UsageError("expected one of --to DIR and --drop")
    if folder is None:
        if base is not None or dtype is not None:
            raise click.UsageError("--drop forgets what pull --profile stored: it takes no --base and no --dtype")
        open_registry().drop_export(source, profile)
        echo(f"dropped what the registry made of {source} for {profile}")
        return
    with progress_bar() as progress:
        result = open_registry().export(source, profile, folder, base=base, dtype=dtype, progress=progress)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.folder)
    else:
        echo(f"exported {result.source} to {result.folder}")
        print_export_summary(result.fitted)


def print_export_summary(fitted: ExportSummary) -> None:
    """Print what was changed for the server, and what that did to the deltas."""
    echo(f"for {fitted.server}:" + ("" if fitted.changes else " nothing had to be changed"))
    for change in fitted.changes:
        echo(f"  {change}")
    if not fitted.moved:
        echo("  every delta is the same, to the last bit")
    else:
        deltas = "1 delta" if fitted.moved == 1 else f"{fitted.moved} deltas"
        echo(f"  {deltas} moved: ε = {fitted.epsilon:.1e} in all, {fitted.worst_epsilon:.1e} at {fitted.worst}")
