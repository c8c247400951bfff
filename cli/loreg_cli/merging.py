"""merge, rerank, reproduce, compare, methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.jobs import do_remotely, remote_option
from loreg_cli.options import format_option, open_registry, push_options
from loreg_cli.output import echo, print_json, print_pairs, print_pushed, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import AdapterSimilarity, MergeResult

Command = Callable[..., Any]
PATH = click.Path(path_type=Path)

device_option = click.option(
    "--device", metavar="DEVICE", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU."
)
plot_option = click.option("--plot", type=PATH, metavar="FILE.png", help="Draw it to a file (needs loreg[plot]).")
initial_option = click.option(
    "--initial", multiple=True, metavar="REF|DIR", help="Where PiSSA-like training of a source started."
)
base_option = click.option("--base", type=PATH, metavar="DIR", help="The base model, which DoRA sources need.")
calibration_option = click.option(
    "--calibration", type=PATH, metavar="FILE", help="Second moments of the data: loreg.collect_calibration(model)."
)


def rank_options(command: Command) -> Command:
    """Add the rank rules; the command gets the chosen one as ``rank``, None if there is none."""

    @click.option("--rank", "fixed", type=click.IntRange(1), metavar="N", help="The best result of rank N.")
    @click.option("--energy", type=click.FloatRange(0, 1), metavar="E", help="Keep this share of ‖delta‖² per module.")
    @click.option("--tolerance", type=click.FloatRange(0, 1), metavar="ε", help="Lose at most this share of ‖delta‖.")
    @click.option("--budget", metavar="N", help="Spend this many parameters where they keep most, e.g. 2M.")
    @click.option("--fit", metavar="SERVER:N", help="What a server started with rank N loads, e.g. vllm:16.")
    @functools.wraps(command)
    def with_options(
        fixed: int | None,
        energy: float | None,
        tolerance: float | None,
        budget: str | None,
        fit: str | None,
        **others: Any,
    ) -> Any:
        from loreg.parsing import parse_count

        rules = {"fixed": fixed, "energy": energy, "tolerance": tolerance, "fit": fit}
        rules["budget"] = parse_count(budget) if budget is not None else None
        given = {name: value for name, value in rules.items() if value is not None}
        if len(given) > 1:
            raise click.UsageError("--rank, --energy, --tolerance, --budget and --fit exclude each other")
        return command(rank=given or None, **others)

    return with_options


def method_options(command: Command) -> Command:
    """Add how adapters are merged; the command gets what was given of it as ``how``."""

    @click.option("--weights", metavar="W,W,…", help="One number for each source, e.g. 0.7,0.3. Default: 1 each.")
    @click.option("--method", metavar="METHOD", help="How to merge: loreg methods. Default: linear.")
    @click.option(
        "--density", type=float, metavar="D", help="The share of entries that is kept, for methods that drop."
    )
    @click.option("--seed", type=int, metavar="N", help="For methods that draw.")
    @click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Any parameter of the method.")
    @click.option(
        "--weights-for", multiple=True, metavar="PATTERN=W,W,…", help="Other weights for modules, e.g. 'mlp.*=1,0'."
    )
    @click.option("--lambda", "scale", type=float, metavar="λ", help="Multiply the merged delta.")
    @click.option("--extras", metavar="REF|DIR", help="Take whole tensors, such as a classifier, from this source.")
    @functools.wraps(command)
    def with_options(
        weights: str | None,
        method: str | None,
        density: float | None,
        seed: int | None,
        params: tuple[str, ...],
        weights_for: tuple[str, ...],
        scale: float | None,
        extras: str | None,
        **others: Any,
    ) -> Any:
        from loreg.parsing import parse_pairs, parse_weights, parse_weights_for

        how = _given(
            weights=parse_weights(weights) if weights is not None else None,
            method=method,
            parameters={**parse_pairs(params), **_given(density=density, seed=seed)} or None,
            weights_for=parse_weights_for(weights_for) or None,
            scale=scale,
            extras=extras,
        )
        return command(how=how, **others)

    return with_options


def output_options(command: Command) -> Command:
    """Add where a result goes, and what is said of it if it is pushed."""
    for option in (
        click.option("--push", "name", metavar="NAME", help="Push the result as the next version of NAME."),
        click.option("--to", "folder", metavar="DIR", type=PATH, help="Write it to a new folder."),
        click.option("--dry-run", is_flag=True, help="Only print the certificate."),
    ):
        command = option(command)
    return push_options(command)


@click.command()
@click.argument("sources", metavar="[REF|DIR]...", nargs=-1)
@method_options
@initial_option
@base_option
@click.option("--allow-derived", is_flag=True, help="Merge adapters of a base and of what was made from it.")
@click.option("--recipe", type=PATH, metavar="FILE.toml", help="All of these from a file.")
@rank_options
@output_options
@device_option
@plot_option
@remote_option
@format_option
def merge(
    sources: tuple[str, ...],
    how: dict[str, Any],
    initial: tuple[str, ...],
    base: Path | None,
    allow_derived: bool,
    recipe: Path | None,
    rank: dict[str, Any] | None,
    name: str | None,
    folder: Path | None,
    dry_run: bool,
    said: dict[str, Any],
    device: str,
    plot: Path | None,
    remote: bool,
    format_: str,
) -> None:
    """Merge adapters, by default into the exact weighted sum of their deltas, with a certificate.

    A source is a ref, or a folder written like a path: ./runs/42.

    \b
    loreg merge team/news team/movies --weights 0.7,0.3 --push team/blend
    loreg merge a b c --method ties --density 0.2 --rank 16 --to ./merged
    """
    how = _given(
        **how,
        sources=sources or None,
        initial=initial or None,
        base=base,
        allow_derived=allow_derived or None,
        rank=rank,
    )
    if recipe is not None:
        from loreg.verbs.recipe_file import read_recipe_file

        if how:
            raise click.UsageError(f"--recipe says it all: leave out {', '.join(how)}, or write it into {recipe}")
        how = read_recipe_file(recipe)
    if "sources" not in how:
        raise click.UsageError("expected refs or folders to merge, or --recipe FILE.toml")
    _refuse_wrong_output(name, folder, dry_run, said)
    if remote:
        _do_remotely("merge", {**how, "name": name, "plot": plot, **said}, format_)
        return
    with progress_bar() as progress:
        result = open_registry().merge(
            **how, name=name, folder=folder, device=device, plot=plot, progress=progress, **said
        )
    _print_merged(result, format_)


@click.command()
@click.argument("source", metavar="REF|DIR")
@calibration_option
@rank_options
@output_options
@device_option
@plot_option
@remote_option
@format_option
def rerank(
    source: str,
    calibration: Path | None,
    rank: dict[str, Any] | None,
    name: str | None,
    folder: Path | None,
    dry_run: bool,
    said: dict[str, Any],
    device: str,
    plot: Path | None,
    remote: bool,
    format_: str,
) -> None:
    """The best approximation of an adapter at other ranks; a higher rank pads with zeros.

    \b
    loreg rerank team/news --energy 0.99 --push team/news-small
    loreg rerank ./run --fit vllm:16 --to ./served
    """
    if rank is None:
        raise click.UsageError("expected one of --rank, --energy, --tolerance, --budget and --fit")
    _refuse_wrong_output(name, folder, dry_run, said)
    if remote:
        request = {"source": source, "rank": rank, "calibration": calibration, "name": name, "plot": plot, **said}
        _do_remotely("rerank", request, format_)
        return
    with progress_bar() as progress:
        result = open_registry().rerank(
            source,
            rank,
            calibration=calibration,
            name=name,
            folder=folder,
            device=device,
            plot=plot,
            progress=progress,
            **said,
        )
    _print_merged(result, format_)


def _do_remotely(kind: str, request: dict[str, Any], format_: str) -> None:
    """Let a worker do it; then show the version that it pushed."""
    if not request["name"]:
        raise click.UsageError("--remote pushes what it makes: it needs --push NAME")
    done = do_remotely(kind, request)
    if format_ == "json":
        print_json(done)
    elif format_ == "quiet":
        click.echo(done.result["version"])
    else:
        echo(f"{done.result['version']}@sha256:{done.result['digest'][:12]}")


@click.command()
@click.argument("ref")
@click.option("--to", "folder", metavar="DIR", type=PATH, help="Keep the result in a new folder.")
@base_option
@calibration_option
@device_option
@format_option
def reproduce(
    ref: str, folder: Path | None, base: Path | None, calibration: Path | None, device: str, format_: str
) -> None:
    """Do a stored merge again, from the digests in its recipe, and compare the result."""
    with progress_bar() as progress:
        result = open_registry().reproduce(
            ref, folder, base=base, calibration=calibration, device=device, progress=progress
        )
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.version.ref)
    elif result.identical:
        echo(f"{result.version.pinned} is reproduced, bit for bit")
    else:
        echo(
            f"{result.version.pinned} is reproduced: no delta differs by more than {result.difference:.1e} of its norm"
        )


@click.command()
@click.argument("sources", metavar="REF|DIR...", nargs=-1, required=True)
@initial_option
@base_option
@device_option
@plot_option
@format_option
def compare(
    sources: tuple[str, ...],
    initial: tuple[str, ...],
    base: Path | None,
    device: str,
    plot: Path | None,
    format_: str,
) -> None:
    """How alike adapters are: angles, shared subspaces, sign conflicts, norms."""
    with progress_bar() as progress:
        pairs = open_registry().compare(
            sources, initial=initial, base=base, device=device, plot=plot, progress=progress
        )
    if format_ == "json":
        print_json(list(pairs))
    elif format_ == "quiet":
        for pair in pairs:
            click.echo(f"{pair.cosine:.6f}")
    else:
        numbers = ["COSINE", "COLUMNS", "ROWS", "SIGNS", "NORM B/A"]
        print_table(["A", "B", *numbers], [_row(pair) for pair in pairs], right=numbers, cut=["A", "B"])
        click.echo("\ncolumns, rows: shared subspaces, 0 to 1; signs: share of entries of opposite sign")
    for pair in pairs:
        if pair.near_duplicate:
            warn(f"{pair.a} and {pair.b} are nearly the same: merging them adds little")


@click.command()
@click.argument("name", metavar="[METHOD]", required=False)
@format_option
def methods(name: str | None, format_: str) -> None:
    """The merge methods; with a name, one of them with its parameters and source."""
    from loreg.merging.methods import METHODS, find_method

    chosen = [find_method(name)] if name else list(METHODS.values())
    if format_ == "json":
        print_json([method.to_json() for method in chosen])
    elif format_ == "quiet":
        for method in chosen:
            click.echo(method.name)
    elif name is None:
        print_table(["METHOD", "FAMILY", "WHAT"], [(m.name, m.family, m.summary) for m in chosen], cut=["WHAT"])
    else:
        method = chosen[0]
        rank = (
            "full: written at --rank N, by default the sources' largest"
            if method.full_rank
            else "kept whole by default"
        )
        print_pairs([("method", method.name), ("what", method.summary), ("source", method.source), ("rank", rank)])
        if method.parameters:
            click.echo()
            print_table(
                ["PARAMETER", "DEFAULT", "RANGE", "WHAT"],
                [(p.name, str(p.default), p.range, p.about) for p in method.parameters],
                cut=["WHAT"],
            )


def _row(pair: AdapterSimilarity) -> tuple[str, ...]:
    return (
        pair.a,
        pair.b,
        f"{pair.cosine:.3f}",
        f"{pair.left_overlap:.3f}",
        f"{pair.right_overlap:.3f}",
        f"{100 * pair.sign_conflict:.1f} %",
        "–" if pair.norm_ratio is None else f"{pair.norm_ratio:.3g}",
    )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse_wrong_output(name: str | None, folder: Path | None, dry_run: bool, said: dict[str, Any]) -> None:
    if [name is not None, folder is not None, dry_run].count(True) != 1:
        raise click.UsageError("expected exactly one of --push NAME, --to DIR and --dry-run")
    if name is None and any(said.values()):
        raise click.UsageError("--task, --metric, --label, --alias and -m go with --push NAME")


def _print_merged(result: MergeResult, format_: str) -> None:
    for text in result.notes:
        warn(text)
    if format_ == "json":
        print_json(result)
        return
    if format_ == "table":
        from loreg_cli.certificate import print_certificate

        print_certificate(result.provenance, result.pushed.version.ref if result.pushed else "")
    if result.pushed:
        print_pushed(result.pushed, format_)
    elif result.folder:
        wrote = f"{result.folder} is this very merge already" if result.already else f"wrote {result.folder}"
        click.echo(result.folder if format_ == "quiet" else wrote)
