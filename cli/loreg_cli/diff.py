"""``loreg diff``: how two adapters differ, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry, wide_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import AdapterDiff, ModuleDiff

_MAX_MODULES = 12


@click.command()
@click.argument("a", metavar="REF|DIR")
@click.argument("b", metavar="REF|DIR")
@click.option("--all-modules", is_flag=True, help="Not only those that differ the most.")
@wide_options
@format_option
def diff(a: str, b: str, all_modules: bool, format_: str) -> None:
    """Show how two adapters differ: metrics, configuration, ranks, the delta of each module, and the card.

    A folder is written like a path: ./runs/42. quiet prints the names of the fields and modules that differ.

    \b
    loreg diff team/news:v1 team/news:v2
    loreg diff team/news:prod ./runs/42
    """
    with progress_bar() as progress:
        difference = open_registry().diff(a, b, progress=progress)
    if format_ == "json":
        print_json(difference)
    elif format_ == "quiet":
        changed = [module.name for module in difference.modules if _differs(module)]
        for name in (*(f.name for f in (*difference.metrics, *difference.configuration)), *changed):
            echo(name)
    else:
        _print_difference(difference, len(difference.modules) if all_modules else _MAX_MODULES)
    for note in difference.notes:
        warn(note)


def _print_difference(difference: AdapterDiff, limit: int) -> None:
    """Print a table for each kind of difference; then how many modules are the same."""
    echo(f"{difference.a} → {difference.b}")
    for title, fields in (("METRIC", difference.metrics), ("CONFIGURATION", difference.configuration)):
        if fields:
            click.echo()
            print_table([title, "A", "B"], [(field.name, field.a or "–", field.b or "–") for field in fields])
    changed = sorted(filter(_differs, difference.modules), key=_likeness)
    if changed:
        click.echo()
        rows = [_module_row(module) for module in changed[:limit]]
        numbers = ["RANK A", "RANK B", "COSINE", "NORM A", "NORM B"]
        print_table(["MODULE", *numbers], rows, right=numbers, drop=["NORM A", "NORM B"])
    if (more := len(changed) - limit) > 0:
        click.echo(f"and {more} more modules that differ less: --all-modules")
    same = len(difference.modules) - len(changed)
    click.echo(f"{same} of {len(difference.modules)} modules are the same")
    if difference.card:
        click.echo()
        for line in difference.card:
            echo(line)


def _differs(module: ModuleDiff) -> bool:
    same_delta = module.cosine is None or (module.cosine > 1 - 1e-9 and _close(module.norm_a, module.norm_b))
    return module.rank_a != module.rank_b or not same_delta


def _close(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and abs(a - b) <= 1e-9 * max(a, b)


def _likeness(module: ModuleDiff) -> float:
    return -2.0 if 0 in (module.rank_a, module.rank_b) else 1.0 if module.cosine is None else module.cosine


def _module_row(module: ModuleDiff) -> tuple[str, ...]:
    from loreg.entities.display.text import tell_apart

    norms = (module.norm_a, module.norm_b)
    numbers: Sequence[str] = [f"{n:.3g}" if n is not None else "–" for n in norms]
    if module.norm_a is not None and module.norm_b is not None and not _close(*norms):
        numbers = tell_apart(module.norm_a, module.norm_b, 3)
    cosine = _cosine(module.cosine) if module.cosine is not None else "–"
    return module.name, str(module.rank_a or "–"), str(module.rank_b or "–"), cosine, *numbers


def _cosine(cosine: float) -> str:
    """Return a cosine with three decimals, or with as many as tell it from 1, from which it is by 1e-9 or more."""
    texts = (f"{cosine:.{decimals}f}" for decimals in range(3, 10))
    return next((text for text in texts if abs(float(text)) != 1), f"{cosine:.3f}")
