"""``loreg merge`` and ``loreg rerank``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from loreg_cli.merge_options import (
    PATH,
    base_option,
    calibration_option,
    device_option,
    given_options,
    initial_option,
    method_options,
    output_options,
    plot_option,
    rank_options,
    require_one_output,
)
from loreg_cli.options import Metadata, format_option, on_option, open_registry, wide_options
from loreg_cli.output import echo, print_json, print_pushed, warn
from loreg_cli.progress import progress_bar
from loreg_cli.remote_jobs import do_remotely, refuse_remote_on, remote_option

if TYPE_CHECKING:
    from loreg.entities import MergeResult


@click.command()
@click.argument("sources", metavar="[REF|DIR]...", nargs=-1)
@method_options
@initial_option
@base_option
@click.option("--allow-derived", is_flag=True, help="One base may come from the other.")
@calibration_option
@click.option("--recipe", type=PATH, metavar="FILE.toml", help="All of these from a file.")
@rank_options
@output_options
@device_option
@on_option
@plot_option
@remote_option
@wide_options
@format_option
def merge(
    sources: tuple[str, ...],
    how: dict[str, object],
    initial: tuple[str, ...],
    base: Path | None,
    allow_derived: bool,
    calibration: Path | None,
    recipe: Path | None,
    rank: dict[str, object] | None,
    name: str | None,
    folder: Path | None,
    dry_run: bool,
    device: str,
    on: str,
    plot: Path | None,
    remote: bool,
    format_: str,
    **metadata: Unpack[Metadata],
) -> None:
    """Merge refs or folders (./runs/42): by default their exact weighted sum.

    \b
    loreg merge team/news ./runs/42 --weights 0.7,0.3 --rank 16 --push team/blend
    """
    how = given_options(
        **how,
        sources=sources or None,
        initial=initial or None,
        base=str(base) if base is not None else None,
        allow_derived=allow_derived or None,
        rank=rank,
    )
    if recipe is not None:
        from loreg.workspace.recipe_file import read_recipe_file

        if how:
            raise click.UsageError(f"--recipe says it all: leave out {', '.join(how)}, or write it into {recipe}")
        how = read_recipe_file(recipe)
    if "sources" not in how:
        raise click.UsageError("expected refs or folders to merge, or --recipe FILE.toml")
    require_one_output(name, folder, dry_run, metadata)
    if remote:
        refuse_remote_on(on)
        _do_remotely("merge", {**how, "calibration": calibration, "name": name, "plot": plot, **metadata}, format_)
        return
    from loreg.requests import read_request

    with progress_bar() as progress:
        request = read_request("merge", {**how, **metadata}, where=str(recipe or ""), hint="loreg merge --help")
        result = open_registry().merge(
            request.sources,
            request.options,
            base=request.base,
            calibration=calibration,
            name=name,
            metadata=request.metadata,
            folder=folder,
            device=device,
            on=on,
            plot=plot,
            progress=progress,
        )
    _print_merged(result, format_)


@click.command()
@click.argument("source", metavar="REF|DIR")
@calibration_option
@rank_options
@output_options
@device_option
@on_option
@plot_option
@remote_option
@wide_options
@format_option
def rerank(
    source: str,
    calibration: Path | None,
    rank: dict[str, object] | None,
    name: str | None,
    folder: Path | None,
    dry_run: bool,
    device: str,
    on: str,
    plot: Path | None,
    remote: bool,
    format_: str,
    **metadata: Unpack[Metadata],
) -> None:
    """The best approximation of an adapter at other ranks; a higher rank pads with zeros.

    \b
    loreg rerank team/news --energy 0.99 --push team/news-small
    loreg rerank ./run --fit vllm:16 --to ./served
    """
    if rank is None:
        raise click.UsageError("expected one of --rank, --energy, --tolerance, --budget and --fit")
    require_one_output(name, folder, dry_run, metadata)
    if remote:
        refuse_remote_on(on)
        request = {"source": source, "rank": rank, "calibration": calibration, "name": name, "plot": plot, **metadata}
        _do_remotely("rerank", request, format_)
        return
    from loreg.entities import VersionMetadata

    with progress_bar() as progress:
        result = open_registry().rerank(
            source,
            rank,
            calibration=calibration,
            name=name,
            folder=folder,
            device=device,
            on=on,
            plot=plot,
            progress=progress,
            metadata=VersionMetadata(**metadata),
        )
    _print_merged(result, format_)


def _do_remotely(kind: str, request: dict[str, object], format_: str) -> None:
    """Let a worker do it; then print the version that it pushed."""
    if not request["name"]:
        raise click.UsageError("--remote pushes what it makes: it needs --push NAME")
    done = do_remotely(kind, request)
    if format_ == "json":
        print_json(done)
    elif format_ == "quiet":
        click.echo(done.result["version"])
    else:
        echo(f"{done.result['version']}@sha256:{done.result['digest'][:12]}")


def _print_merged(result: MergeResult, format_: str) -> None:
    from msgspec import structs

    for text in result.notes:
        warn(text)
    if format_ == "json":
        document = structs.asdict(result)
        del document["spectra"]  # what --plot draws
        print_json(document)
        return
    if format_ == "table":
        from loreg_cli.certificate import print_certificate

        print_certificate(result.provenance, result.pushed.version.ref if result.pushed else "")
    if result.pushed:
        print_pushed(result.pushed, format_)
    elif result.folder:
        wrote = f"{result.folder} is this very merge already" if result.already else f"wrote {result.folder}"
        click.echo(result.folder if format_ == "quiet" else wrote)
