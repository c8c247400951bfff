"""Print the certificate of a merge."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.output import print_table, warn

if TYPE_CHECKING:
    from loreg.entities import Provenance

_MAX_ROWS = 12
_ROUNDING = 1e-12  # below it an error is that of computing in float64


def print_certificate(provenance: Provenance, ref: str) -> None:
    """Print what a merge kept: all modules together, each source, and the modules that lost the most."""
    certificate = provenance.certificate
    total, modules = certificate["total"], certificate["modules"]
    energy, error = _format_percent(total["retained_energy"]), _format_error(total["epsilon"])
    ranks_by_share = [f"{rank} keeps {share} %" for share, rank in total["ranks"].items() if rank is not None]
    ranks = f"in every module, rank {', '.join(ranks_by_share)}; " if ranks_by_share else ""
    method = provenance.recipe["method"]
    retained = f"{energy} of the merged delta's energy is kept (ε = {error})"
    click.echo(f"\n{method}: {retained} at rank {total['rank']} of {total['rank_in']}")
    click.echo(f"{ranks}storing adds an error of {total['dtype_error']:.1e}")
    click.echo()
    print_table(
        ["SOURCE", "DIGEST", "WEIGHT", "KEPT OF ITS DELTA"],
        [
            (source.label, source.digest[:12], f"{source.weight:g}", _format_percent(share))
            for source, share in zip(provenance.sources, total["retention"], strict=True)
        ],
        right=["WEIGHT", "KEPT OF ITS DELTA"],
        drop=["DIGEST"],
    )
    click.echo()
    worst = sorted(modules, key=lambda m: (-m["epsilon"], -m["norm"]))[:_MAX_ROWS]
    prefix = _common_prefix([module["module"] for module in modules])
    module_column = f"MODULE {prefix}…" if prefix else "MODULE"
    print_table(
        [module_column, "SHAPE", "RANK", "ε", "σ NEXT", "KEPT PER SOURCE"],
        [_row(module, prefix) for module in worst],
        right=["SHAPE", "RANK", "ε", "σ NEXT", "KEPT PER SOURCE"],
        drop=["SHAPE", "σ NEXT"],
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
        _format_error(module["epsilon"]),
        _format_error(module["sigma_next"]),
        ", ".join(_format_percent(share, 3) for share in module["retention"]),
    )


def _common_prefix(names: list[str]) -> str:
    """Return the dotted beginning that all names share; empty for a single name."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return ".".join([*shared, ""]) if len(names) > 1 else ""


def _format_error(figure: float) -> str:
    return f"{figure:.1e}" if figure > _ROUNDING else "0"


def _format_percent(share: float | None, digits: int = 4) -> str:
    return "–" if share is None else f"{100 * share:.{digits}g} %"
