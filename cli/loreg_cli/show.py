"""``loreg show``: all that is known of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, wide_options
from loreg_cli.output import (
    echo,
    explain_declared_bases,
    format_base,
    format_share,
    print_json,
    print_pairs,
    print_table,
    summarize_version,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loreg.entities import Canary, Deployment, Details, Promotion


@click.command()
@click.argument("ref")
@wide_options
@format_option
def show(ref: str, format_: str) -> None:
    """Show all that is known of the version that REF means.

    \b
    loreg show team/news:prod
    """
    details = open_registry().show(ref)
    if format_ == "json":
        print_json(details)
    elif format_ == "quiet":
        click.echo(details.version.pinned)
    else:
        _print_details(details)
        _print_deployments(details.deployments)


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
            ("base path", f"{details.base_path} (told to you alone)" if details.base_path else ""),
            ("tasks", ", ".join(version.tasks)),
            ("metrics", ", ".join(metric.exact for metric in version.metrics)),
            ("labels", ", ".join(f"{key}={value}" for key, value in version.labels.items())),
            ("aliases", ", ".join(version.aliases)),
            ("canaries", "; ".join(map(_canary, details.canaries))),
            ("rollback", "; ".join(map(_promotion, details.promotions))),
            ("message", version.message),
            ("pushed", f"{version.created_at:%Y-%m-%d %H:%M} UTC by {version.author}"),
        ]
    )
    explain_declared_bases([version])
    click.echo()
    modules = [(m.name, str(m.count), _span(m.rank_min, m.rank_max)) for m in version.facts.module_types]
    print_table(["MODULE TYPE", "COUNT", "RANK"], modules, right=["COUNT", "RANK"])
    click.echo()
    files = [(file.path, format_size(file.size), file.sha256[:12]) for file in details.files]
    print_table(["FILE", "SIZE", "SHA256"], files, right=["SIZE"], drop=["SHA256"])
    if details.provenance and details.provenance.is_move:
        click.echo()
        echo(f"moved from {details.provenance.sources[0].label}, with the same weights")
    elif details.provenance:
        from loreg_cli.certificate import print_certificate

        print_certificate(details.provenance, version.ref)
    if details.alias_moves:
        moves = [
            (f"{move.at:%Y-%m-%d %H:%M}", move.alias, f"v{move.number}" if move.number else "removed", move.author)
            for move in details.alias_moves[:10]
        ]
        click.echo()
        print_table(["WHEN", "ALIAS", "TO", "BY"], moves, drop=["WHEN", "BY"])


def _print_deployments(deployments: Sequence[Deployment]) -> None:
    if not deployments:
        return
    rows = [
        (place.server, place.replica, place.name, f"{place.since:%Y-%m-%d %H:%M}", place.state) for place in deployments
    ]
    click.echo()
    print_table(["DEPLOYED ON", "REPLICA", "AS", "SINCE (UTC)", "STATE"], rows, drop=["SINCE (UTC)", "REPLICA"])


def _canary(canary: Canary) -> str:
    bounds = f", unless {' or '.join(canary.rollback_if)}" if canary.rollback_if else ""
    return f"{canary.alias}: v{canary.number} for {format_share(canary.share)}{bounds}"


def _promotion(promotion: Promotion) -> str:
    conditions = " or ".join(promotion.rollback_if)
    return f"{promotion.alias}: from v{promotion.number} to v{promotion.previous} if {conditions}"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
