"""Printing the certificate of a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loreg_cli.output import note, print_table

if TYPE_CHECKING:
    from loreg.records import Provenance

_MOST_ROWS = 12


def print_certificate(provenance: Provenance, ref: str) -> None:
    """Print what a merge kept: all modules together, each source, and the modules that lost the most."""
    certificate = provenance.certificate
    whole, modules = certificate["total"], certificate["modules"]
    click.echo(
        f"\n{_percent(whole['retained_energy'])} of the weighted sum is kept (ε = {_small(whole['epsilon'])}), "
        f"rank {whole['rank']} of {whole['rank_in']}, storing it adds {whole['dtype_error']:.1e}"
    )
    ranks = ", ".join(f"{rank} keeps {share} %" for share, rank in whole["ranks"].items())
    click.echo(f"in every module, rank {ranks}")
    click.echo()
    print_table(
        ["SOURCE", "WEIGHT", "KEPT OF ITS DELTA"],
        [
            (source.label, f"{source.weight:g}", _percent(kept))
            for source, kept in zip(provenance.sources, whole["retention"], strict=True)
        ],
        right=["WEIGHT", "KEPT OF ITS DELTA"],
    )
    click.echo()
    worst = sorted(modules, key=lambda m: (-m["epsilon"], -m["norm"]))[:_MOST_ROWS]
    print_table(
        ["MODULE", "SHAPE", "RANK", "ε", "σ NEXT", "NORM", "KEPT PER SOURCE"],
        [_row(module) for module in worst],
        right=["SHAPE", "RANK", "ε", "σ NEXT", "NORM", "KEPT PER SOURCE"],
    )
    if len(modules) > len(worst):
        where = f": loreg show {ref} --format json" if ref else ""
        click.echo(f"and {len(modules) - len(worst)} more modules that lost no more{where}")
    click.echo()
    for text in certificate["warnings"]:
        note(text)


def _row(module: dict[str, Any]) -> tuple[str, ...]:
    return (
        module["module"],
        "×".join(map(str, module["shape"])),
        f"{module['rank']} of {module['rank_in']}",
        _small(module["epsilon"]),
        _small(module["sigma_next"]),
        f"{module['norm']:.3g}",
        ", ".join(_percent(kept) for kept in module["retention"]),
    )


def _small(figure: float) -> str:
    return f"{figure:.2e}" if figure else "0"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.4g} %"
