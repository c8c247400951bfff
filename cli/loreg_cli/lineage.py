"""``loreg lineage``: what a version was merged from, and what was made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, print_json

if TYPE_CHECKING:
    from loreg.entities import LineageEdge, Version


@click.command()
@click.argument("ref")
@click.option("--descendants", is_flag=True, help="Only what was made of it; with quiet its refs, each once.")
@format_option
def lineage(ref: str, descendants: bool, format_: str) -> None:
    """Show which versions the one that REF means was merged from, with their weights, and what was made of it.

    Merges that you may not read are left out.

    \b
    loreg lineage team/blend
    loreg lineage team/news:v1 --descendants
    """
    registry = open_registry()
    if format_ == "quiet" and not descendants:
        _, edges = registry.lineage(ref)
        for edge in edges:
            echo(edge.parent_ref or edge.parent.label)
        return
    version, below = registry.descendants(ref)
    if format_ == "quiet":
        for child in dict.fromkeys(edge.child for edge in below):
            echo(child)
        return
    above = () if descendants else registry.lineage(ref)[1]
    if format_ == "json":
        print_json({"ref": version.ref, "digest": version.digest, "edges": above, "descendants": below})
        return
    if not descendants:
        _print_ancestors(version, above)
    if below:
        click.echo(f"{version.ref} is in:")
        for edge in below:
            of = f"  through {edge.parent_ref or edge.parent.label}" if edge.depth > 1 else ""
            echo(f"{'  ' * edge.depth}{edge.child}  {edge.parent.weight:+g} ×{of}")
    elif descendants:
        click.echo(f"nothing was made of {version.pinned}")


def _print_ancestors(version: Version, edges: Sequence[LineageEdge]) -> None:
    if not edges:
        click.echo(f"{version.pinned} was pushed from a folder, not merged here")
        return
    click.echo(version.pinned)
    for edge in edges:
        parent = edge.parent_ref or edge.parent.label + ("" if edge.parent.is_hidden else " (not in this registry)")
        made = f"  in {edge.child}" if edge.depth > 1 else ""
        echo(f"{'  ' * edge.depth}{edge.parent.weight:+g} × {parent}@sha256:{edge.parent.digest[:12]}{made}")
