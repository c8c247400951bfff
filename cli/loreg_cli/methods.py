"""``loreg methods``: the merge methods and their parameters."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, wide_options
from loreg_cli.output import print_json, print_pairs, print_table


@click.command()
@click.argument("name", metavar="[METHOD]", required=False)
@wide_options
@format_option
def methods(name: str | None, format_: str) -> None:
    """The merge methods; with a name, one of them with its parameters and source.

    \b
    loreg methods
    loreg methods ties
    """
    from loreg.merging.methods import METHODS, find_method

    chosen = [find_method(name)] if name else list(METHODS.values())
    if format_ == "json":
        print_json([method.to_json() for method in chosen])
    elif format_ == "quiet":
        for method in chosen:
            click.echo(method.name)
    elif name is None:
        print_table(
            ["METHOD", "FAMILY", "WHAT"],
            [(m.name, m.family, m.summary) for m in chosen],
            prose=["WHAT"],
            drop=["FAMILY"],
        )
    else:
        method = chosen[0]
        rank = (
            "full: written at --rank N, by default the sources' largest"
            if method.full_rank
            else "kept whole by default"
        )
        data = [("data", "--calibration FILE, from loreg.collect_calibration(model, adapter=[…])")]
        pairs = [("method", method.name), ("what", method.summary), ("source", method.source), ("rank", rank)]
        print_pairs(pairs + data * method.needs_moments)
        if method.parameters:
            click.echo()
            print_table(
                ["PARAMETER", "DEFAULT", "RANGE", "WHAT"],
                [(p.name, str(p.default), p.range, p.about) for p in method.parameters],
                prose=["WHAT"],
            )
