"""ls, search, show and lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loreg_cli.options import format_option, open_registry, page_options, read_labels
from loreg_cli.output import (
    echo,
    format_base,
    format_ranks,
    format_size,
    print_json,
    print_page,
    print_pairs,
    print_table,
    summarize_version,
)

if TYPE_CHECKING:
    from loreg.entities import Details, Page, Version


@click.command()
@click.argument("name", required=False)
@page_options
@format_option
def ls(name: str | None, limit: int, cursor: str | None, format_: str) -> None:
    """List the adapters of the registry, or the versions of the adapter NAME."""
    registry = open_registry()
    if name:
        _print_versions(registry.versions(name, limit=limit, cursor=cursor), format_)
        return
    page = registry.adapters(limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        print_table(
            ["NAME", "NEWEST", "VERSIONS", "ALIASES", "SINCE"],
            [
                (
                    str(entry.adapter),
                    f"v{entry.newest}" if entry.newest else "all yanked",
                    str(entry.versions),
                    ", ".join(f"{alias} → v{number}" for alias, number in entry.aliases.items()),
                    f"{entry.created_at:%Y-%m-%d}",
                )
                for entry in page.items
            ],
            right=["VERSIONS"],
            cut=["ALIASES"],
        )
    print_page(page, format_, [str(entry.adapter) for entry in page.items])


@click.command()
@click.argument("text", nargs=-1)
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="For this task; repeat for several.")
@click.option("--base", default="", metavar="NAME|DIGEST", help="Trained on this base.")
@click.option("--module", "modules", multiple=True, metavar="TYPE", help="Touches q_proj, …; repeat for several.")
@click.option("--rank", "ranks", multiple=True, metavar="COMPARISON", help="The largest rank, e.g. '<=16'.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="COMPARISON[@DATASET]", help="E.g. 'accuracy>=0.9@imdb'; repeatable."
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Has this label; repeatable.")
@click.option("--author", default="", metavar="NAME", help="Pushed by NAME.")
@click.option("--variant", default="", metavar="KIND", help="lora, rslora, dora, …")
@click.option(
    "--sort",
    default="created",
    show_default=True,
    metavar="ORDER",
    help="created, name, rank, size, or metric:NAME[@DATASET[:SPLIT]], the best first.",
)
@click.option("--all-versions", is_flag=True, help="Not only the newest version of each adapter.")
@page_options
@format_option
def search(text: tuple[str, ...], labels: tuple[str, ...], format_: str, **conditions: Any) -> None:
    """Find the versions for which every condition holds; TEXT is sought in name, message and card.

    \b
    loreg search --task sentiment --rank '<=16' --metric 'accuracy>=0.9' --sort metric:accuracy
    """
    page = open_registry().search(" ".join(text), labels=read_labels(labels), **conditions)
    _print_versions(page, format_)


@click.command()
@click.argument("ref")
@format_option
def show(ref: str, format_: str) -> None:
    """Show all that is known of the version that REF means."""
    details = open_registry().show(ref)
    if format_ == "json":
        print_json(details)
    elif format_ == "quiet":
        click.echo(details.version.pinned)
    else:
        _print_details(details)


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


def _print_versions(page: Page[Version], format_: str) -> None:
    if format_ == "table" and page.items:
        print_table(
            ["REF", "DIGEST", "BASE", "RANK", "TASKS", "METRICS", "CREATED"],
            [
                (
                    version.ref + "".join(f" ({alias})" for alias in version.aliases) + (" yanked" * version.yanked),
                    version.digest[:12],
                    format_base(version),
                    format_ranks(version).removeprefix("rank "),
                    ", ".join(version.tasks),
                    ", ".join(map(str, version.metrics)),
                    f"{version.created_at:%Y-%m-%d}",
                )
                for version in page.items
            ],
            right=["RANK"],
            cut=["REF", "BASE", "TASKS", "METRICS"],
        )
    print_page(page, format_, [version.ref for version in page.items])


def _print_details(details: Details) -> None:
    version = details.version
    print_pairs(
        [
            ("ref", version.ref + (" (yanked)" if version.yanked else "")),
            ("digest", f"sha256:{version.digest}"),
            ("content", summarize_version(version)),
            ("alpha", f"{version.facts.alpha:g}"),
            ("dtype", version.facts.dtype),
            ("task type", version.facts.task_type),
            ("base", format_base(version)),
            ("tasks", ", ".join(version.tasks)),
            ("metrics", ", ".join(map(str, version.metrics))),
            ("labels", ", ".join(f"{key}={value}" for key, value in version.labels.items())),
            ("aliases", ", ".join(version.aliases)),
            ("message", version.message),
            ("pushed", f"{version.created_at:%Y-%m-%d %H:%M} UTC by {version.author}"),
        ]
    )
    click.echo()
    modules = [(m.name, str(m.count), _span(m.rank_min, m.rank_max)) for m in version.facts.module_types]
    print_table(["MODULE TYPE", "COUNT", "RANK"], modules, right=["COUNT", "RANK"])
    click.echo()
    files = [(file.path, format_size(file.size), file.sha256[:12]) for file in details.files]
    print_table(["FILE", "SIZE", "SHA256"], files, right=["SIZE"])
    if details.provenance:
        from loreg_cli.certificate import print_certificate

        print_certificate(details.provenance, version.ref)
    if details.alias_moves:
        moves = [
            (f"{move.at:%Y-%m-%d %H:%M}", move.alias, f"v{move.number}" if move.number else "removed", move.author)
            for move in details.alias_moves[:10]
        ]
        click.echo()
        print_table(["WHEN", "ALIAS", "TO", "BY"], moves)


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
