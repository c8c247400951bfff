"""``loreg log``: what happened to an adapter, the newest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import echo, format_share, print_json, print_table

if TYPE_CHECKING:
    from loreg.entities import Event, Version

#: What an event says, by its action; what is not here is shown as its detail.
_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "push": lambda detail: "pushed",
    "tag": lambda detail: _with_reason(f"{detail.get('alias', '')} means it from now on", detail),
    "untag": lambda detail: f"{detail.get('alias', '')} was removed",
    "canary": lambda detail: f"{detail.get('alias', '')} means it for {format_share(float(detail.get('share', 0)))}",
    "canary end": lambda detail: _with_reason(f"{detail.get('alias', '')} means it for nobody any more", detail),
    "rollback": lambda detail: f"taken back from {detail.get('alias', '')}: {detail.get('metric', '')}",
    "promote": lambda detail: (
        f"{detail.get('alias', '')} goes back to v{detail.get('previous', '')} if "
        f"{' or '.join(detail.get('rollback_if', ()))}"
    ),
    "promote end": lambda detail: _with_reason(f"{detail.get('alias', '')} goes back by itself no more", detail),
    "pull": lambda detail: f"pulled with {detail.get('client', '')}",
    "yank": lambda detail: _with_reason("yanked", detail),
    "unyank": lambda detail: _with_reason("shown again", detail),
    "delete": lambda detail: _with_reason(f"v{detail.get('number', '')} deleted for good", detail),
    "prune": lambda detail: _with_reason("let go by the retention", detail),
    "export": lambda detail: f"made for {detail.get('profile', '')}",
    "export drop": lambda detail: f"what was made for {detail.get('profile', '')} was dropped",
    "base": lambda detail: f"its base became known: {str(detail.get('digest', ''))[:12]}",
    "mirror": lambda detail: f"mirrored from {detail.get('mirrored_from', '')}",
}


@click.command()
@click.argument("name")
@page_options
@table_options
@format_option
def log(name: str, limit: int, cursor: str | None, format_: str) -> None:
    """Show what happened to the adapter NAME, the newest first.

    Versions with their messages, moves of aliases, metrics, what was yanked and deleted, and who did it. quiet prints
    the refs, each once.

    \b
    loreg log team/news
    loreg log team/news --limit 5 --no-truncate
    """
    from loreg.refs import parse_ref

    registry = open_registry()
    adapter = str(parse_ref(name).adapter)
    page = registry.events(name=adapter, limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(page)
        return
    if format_ == "quiet":
        for ref in dict.fromkeys(event.ref for event in page.items):
            echo(ref)
    else:
        pushed = {event.ref for event in page.items if event.action == "push"}
        versions = registry.versions(adapter, limit=1000).items if pushed else ()
        by_ref = {version.ref: version for version in versions}
        rows = [
            (
                f"{event.at:%Y-%m-%d %H:%M}",
                event.author,
                event.ref.rpartition(":")[2] if ":" in event.ref else "",
                _describe(event, by_ref.get(event.ref)),
            )
            for event in page.items
        ]
        print_table(["WHEN (UTC)", "WHO", "VERSION", "WHAT"], rows, prose=["WHAT"], drop=["WHO", "WHEN (UTC)"])
    if page.cursor:
        click.echo(f"there is more: --cursor {page.cursor}", err=True)


def _describe(event: Event, version: Version | None) -> str:
    if event.action == "push" and version is not None and version.message:
        return f"pushed: {version.message}"
    if event.action == "metric":
        before = event.detail.get("replaced")
        return f"measured {event.detail.get('metric', '')}" + (f", before {before}" if before is not None else "")
    if event.action in _SENTENCES:
        return _SENTENCES[event.action](event.detail)
    detail = ", ".join(f"{name}={value}" for name, value in event.detail.items())
    return f"{event.action}: {detail}" if detail else event.action


def _with_reason(what: str, detail: Mapping[str, Any]) -> str:
    return f"{what}: {detail['reason']}" if detail.get("reason") else what
