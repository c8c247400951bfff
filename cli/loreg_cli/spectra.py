"""``loreg spectra``: how large the delta of each module is, and over how many directions it spreads."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table


@click.command()
@click.argument("ref")
@table_options
@format_option
def spectra(ref: str, format_: str) -> None:
    """Show how large each module's delta is, and over how many directions it spreads.

    From its singular values; 90 % and 99 % are the ranks that keep as much of the squared norm.

    \b
    loreg spectra team/news:prod
    """
    known = open_registry().spectra(ref)
    if format_ == "json":
        print_json(known)
    elif format_ == "quiet":
        for spectrum in known.modules:
            echo(spectrum.module)
    else:
        numbers = ["RANK", "NORM", "LARGEST", "STABLE RANK", "90 %", "99 %"]
        rows = [
            (
                spectrum.module,
                str(spectrum.rank),
                f"{spectrum.norm:.4g}",
                f"{max(spectrum.sigmas, default=0.0):.4g}",
                f"{spectrum.stable_rank:.3g}",
                *(_rank(spectrum.ranks[share]) for share in ("90", "99")),
            )
            for spectrum in known.modules
        ]
        print_table(["MODULE", *numbers], rows, right=numbers, drop=["LARGEST", "99 %", "90 %", "RANK"])


def _rank(rank: int | None) -> str:
    return "–" if rank is None else str(rank)
