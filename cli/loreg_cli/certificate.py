"""Printing the certificate of a merge."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.output import print_table, warn

if TYPE_CHECKING:
    from loreg.entities import Provenance

_MOST_ROWS = 12
_ROUNDING = 1e-12  # below it an error is that of computing in float64


def print_certificate(provenance: Provenance, ref: str) -> None:
    """Print what a merge kept: all modules together, each source, and the modules that lost the most."""
    certificate = provenance.certificate
    whole, modules = certificate["total"], certificate["modules"]
    kept = f"{_percent(whole['retained_energy'])} of the merged delta's energy is kept (ε = {_small(whole['epsilon'])})"
    known = [f"{rank} keeps {share} %" for share, rank in whole["ranks"].items() if rank is not None]
    ranks = f"in every module, rank {', '.join(known)}; " if known else ""
    method = provenance.recipe["method"]
    click.echo(f"\n{method}: {kept} at rank {whole['rank']} of {whole['rank_in']}")
    click.echo(f"{ranks}storing adds an error of {whole['dtype_error']:.1e}")
    click.echo()
    print_table(
        ["SOURCE", "DIGEST", "WEIGHT", "KEPT OF ITS DELTA"],
        [
            (source.label, source.digest[:12], f"{source.weight:g}", _percent(kept))
            for source, kept in zip(provenance.sources, whole["retention"], strict=True)
        ],
        right=["WEIGHT", "KEPT OF ITS DELTA"],
        cut=["SOURCE"],
    )
    click.echo()
    worst = sorted(modules, key=lambda m: (-m["epsilon"], -m["norm"]))[:_MOST_ROWS]
    prefix = _common_prefix([module["module"] for module in modules])
    module_column = f"MODULE {prefix}…" if prefix else "MODULE"
    print_table(
        [module_column, "SHAPE", "RANK", "ε", "σ NEXT", "KEPT PER SOURCE"],
        [_row(module, prefix) for module in worst],
        right=["SHAPE", "RANK", "ε", "σ NEXT", "KEPT PER SOURCE"],
        cut=[module_column],
    )
    if len(modules) > len(worst):
        where = f": loreg show {ref} --format json" if ref else ""
        click.echo(f"and {len(modules) - len(worst)} more modules that lost no more{where}")
    click.echo()
    for text in certificate["warnings"]:
        warn(text)


def _row(module: dict[str, Any], prefix: str) -> tuple[str, ...]:
    return (
        module["module"].removeprefix(prefix),
        "×".join(map(str, module["shape"])),
        f"{module['rank']} of {module['rank_in']}",
        _small(module["epsilon"]),
        _small(module["sigma_next"]),
        ", ".join(_percent(kept, 3) for kept in module["retention"]),
    )


def _common_prefix(names: list[str]) -> str:
    """The dotted beginning that all names share; none for a single name."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return ".".join([*shared, ""]) if len(names) > 1 else ""


def _small(figure: float) -> str:
    return f"{figure:.1e}" if figure > _ROUNDING else "0"


def _percent(share: float | None, digits: int = 4) -> str:
    return "–" if share is None else f"{100 * share:.{digits}g} %"
