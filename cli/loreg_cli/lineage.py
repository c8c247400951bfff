"""``loreg lineage``: what a version was merged from."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry
from loreg_cli.output import (
    echo,
    print_json,
)


@click.command()
@click.argument("ref")
@format_option
def lineage(ref: str, format_: str) -> None:
    """Show which versions the one that REF means was merged from, with their weights."""
    version, edges = open_registry().lineage(ref)
    if format_ == "json":
        print_json({"ref": version.ref, "digest": version.digest, "edges": edges})
    elif format_ == "quiet":
        for edge in edges:
            echo(edge.parent_ref or edge.parent.label)
    elif not edges:
        click.echo(f"{version.pinned} was pushed from a folder, not merged here")
    else:
        click.echo(version.pinned)
        for edge in edges:
            parent = edge.parent_ref or f"{edge.parent.label} (not in this registry)"
            made = f"  in {edge.child}" if edge.depth > 1 else ""
            echo(f"{'  ' * edge.depth}{edge.parent.weight:+g} × {parent}@sha256:{edge.parent.digest[:12]}{made}")
