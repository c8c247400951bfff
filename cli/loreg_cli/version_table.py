"""Print versions, as ``loreg ls`` and ``loreg search`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loreg_cli.output import (
    explain_declared_bases,
    format_base_name,
    format_ranks,
    format_share,
    print_page,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loreg.entities import Canary, Page, Promotion, Version


def print_versions(
    page: Page[Version], format_: str, canaries: Sequence[Canary] = (), promotions: Sequence[Promotion] = ()
) -> None:
    """Print a page of versions as a table, as JSON or as refs.

    A table names the canaries of their adapter, and its promotions that are watched.
    """
    if format_ == "table" and page.items:
        print_table(
            ["REF", "DIGEST", "BASE", "RANK", "TASKS", "METRICS", "CREATED"],
            [
                (
                    _name(version, canaries, promotions),
                    version.digest[:12],
                    format_base_name(version),
                    format_ranks(version).removeprefix("rank "),
                    ", ".join(version.tasks),
                    ", ".join(map(str, version.metrics)),
                    f"{version.created_at:%Y-%m-%d}",
                )
                for version in page.items
            ],
            right=["RANK"],
            paths=["BASE", "METRICS"],
            drop=["DIGEST", "CREATED", "RANK"],
        )
        explain_declared_bases(page.items)
    print_page(page, format_, [version.ref for version in page.items])


def _name(version: Version, canaries: Sequence[Canary], promotions: Sequence[Promotion]) -> str:
    watched = {item.alias for item in promotions}
    aliases = [f"{alias}, watched" if alias in watched else alias for alias in version.aliases]
    shares = [f"{item.alias} {format_share(item.share)}" for item in canaries if item.number == version.number]
    return version.ref + "".join(f" ({alias})" for alias in (*aliases, *shares)) + (" yanked" * version.yanked)
