"""push, pull and export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.options import format_option, open_registry, push_options
from loreg_cli.output import echo, format_size, print_json, print_pushed
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import ExportSummary


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
@click.option(
    "--profile", metavar="SERVER", help="As that server takes it: vllm, vllm:max_lora_rank=64, … or ./mine.toml."
)
@click.option("--verify", is_flag=True, help="With --profile: make the files here, and compare with those stored.")
@click.option("--with-base-path", is_flag=True, help="Write the pusher's path of the base into adapter_config.json.")
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
        _print_fitted(result.fitted)


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
@click.option("--base", metavar="NAME|PATH", help="The model it was trained on, if it was not pushed with it.")
@click.option("--dtype", metavar="DTYPE", help="float32, float16 or bfloat16. Default: as the tensors are.")
@format_option
def export(
    source: str, profile: str, folder: Path | None, drop: bool, base: str | None, dtype: str | None, format_: str
) -> None:
    """Write an adapter as one server takes it, and say what was changed. What cannot be mended is refused.

    \b
    loreg export team/news:prod --profile sglang --to ./for-sglang
    loreg export ./runs/42 --profile vllm:max_lora_rank=16 --base ./models/llama --to ./for-vllm
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
        _print_fitted(result.fitted)


def _print_fitted(fitted: ExportSummary) -> None:
    """What was changed for the server, and what that did to the deltas."""
    echo(f"for {fitted.server}:" + ("" if fitted.changes else " nothing had to be changed"))
    for change in fitted.changes:
        echo(f"  {change}")
    if not fitted.moved:
        echo("  every delta is the same, to the last bit")
    else:
        deltas = "1 delta" if fitted.moved == 1 else f"{fitted.moved} deltas"
        echo(f"  {deltas} moved: ε = {fitted.epsilon:.1e} in all, {fitted.worst_epsilon:.1e} at {fitted.worst}")
