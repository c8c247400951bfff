"""Options of the commands that merge: methods, ranks, devices, and where the result goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loreg_cli.options import Metadata, push_options

Command = Callable[..., Any]

PATH = click.Path(path_type=Path)

device_option = click.option("--device", metavar="DEVICE", default="auto", help="cpu, cuda, cuda:1; by default a GPU.")

plot_option = click.option("--plot", type=PATH, metavar="FILE.png", help="Draw it to a file (needs loreg[plot]).")

initial_option = click.option("--initial", multiple=True, metavar="REF|DIR", help="Where PiSSA-like training started.")

base_option = click.option("--base", type=PATH, metavar="DIR", help="The base model, which DoRA sources need.")

calibration_option = click.option(
    "--calibration", type=PATH, metavar="FILE", help="From loreg.collect_calibration(model)."
)


def rank_options(command: Command) -> Command:
    """Add the rank rules; the command gets the chosen one as ``rank``, None if there is none."""

    @click.option("--rank", "fixed", type=click.IntRange(1), metavar="N", help="The best result of rank N.")
    @click.option("--energy", type=click.FloatRange(0, 1), metavar="E", help="Keep this share of each ‖delta‖².")
    @click.option("--tolerance", type=click.FloatRange(0, 1), metavar="ε", help="Lose no more of each ‖delta‖.")
    @click.option("--budget", metavar="N", help="Parameters to spend where most is kept: 2M.")
    @click.option("--fit", metavar="SERVER:N", help="What that server loads, e.g. vllm:16.")
    @functools.wraps(command)
    def with_options(
        fixed: int | None,
        energy: float | None,
        tolerance: float | None,
        budget: str | None,
        fit: str | None,
        **others: object,
    ) -> Any:
        from loreg.parsing import parse_count

        rules = {"fixed": fixed, "energy": energy, "tolerance": tolerance, "fit": fit}
        rules["budget"] = parse_count(budget) if budget is not None else None
        chosen = {name: value for name, value in rules.items() if value is not None}
        if len(chosen) > 1:
            raise click.UsageError("--rank, --energy, --tolerance, --budget and --fit exclude each other")
        return command(rank=chosen or None, **others)

    return with_options


def method_options(command: Command) -> Command:
    """Add how adapters are merged; the command gets what was given of it as ``how``."""

    @click.option("--weights", metavar="W,W,…", help="One a source: 0.7,0.3. Default: 1 each.")
    @click.option("--method", metavar="METHOD", help="See loreg methods. Default: linear.")
    @click.option("--density", type=float, metavar="D", help="Share of entries kept, if it drops some.")
    @click.option(
        "--seed", type=int, metavar="N", hidden=True, help="For methods that draw: the same as --param seed=N."
    )
    @click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Any parameter of the method.")
    @click.option("--weights-for", multiple=True, metavar="PATTERN=W,W,…", help="For some modules, e.g. 'mlp.*=1,0'.")
    @click.option("--lambda", "scale", type=float, metavar="λ", help="Multiply the merged delta.")
    @click.option("--extras", metavar="REF|DIR", help="Whole tensors (classifiers) come from it.")
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
        **others: object,
    ) -> Any:
        from loreg.parsing import parse_pairs, parse_weights, parse_weights_for

        how = given_options(
            weights=parse_weights(weights) if weights is not None else None,
            method=method,
            parameters={**parse_pairs(params), **given_options(density=density, seed=seed)} or None,
            weights_for=parse_weights_for(weights_for) or None,
            scale=scale,
            extras=extras,
        )
        return command(how=how, **others)

    return with_options


def output_options(command: Command) -> Command:
    """Add where a result goes, and what is said of it if it is pushed."""
    for option in (
        click.option("--push", "name", metavar="NAME", help="Push it as the next version of NAME."),
        click.option("--to", "folder", metavar="DIR", type=PATH, help="Write it to a new folder."),
        click.option("--dry-run", is_flag=True, help="Only print the certificate."),
    ):
        command = option(command)
    return push_options(command)


def given_options(**options: Any) -> dict[str, object]:
    """Return the options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def require_one_output(name: str | None, folder: Path | None, dry_run: bool, metadata: Metadata) -> None:
    """Raise click.UsageError unless the result has exactly one place to go, and metadata only if it is pushed."""
    if [name is not None, folder is not None, dry_run].count(True) != 1:
        raise click.UsageError("expected exactly one of --push NAME, --to DIR and --dry-run")
    if name is None and any(metadata.values()):
        raise click.UsageError("--task, --metric, --label, --alias and -m go with --push NAME")
