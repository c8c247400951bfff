"""``loreg events``: who did what, so far or as it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loreg_cli.options import format_option, open_registry, page_options, refuse_empty, table_options
from loreg_cli.output import echo, print_json, print_json_line, print_table, warn
from loreg_cli.streams import flush_stdout, is_stdout_read

if TYPE_CHECKING:
    from loreg.entities import Event, FollowedEvent
    from loreg.errors import LoregError

_OF_PAGES = ("limit", "cursor", "name", "namespace", "author", "actions", "since", "until", "no_pulls")


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--follow", is_flag=True, help="Print events as they come, until Ctrl-C.")
@click.option("--after", default="", metavar="POSITION", help="With --follow: begin after this position, not now.")
@click.option("--adapter", "name", default="", metavar="NAME", help="Of this adapter.", callback=refuse_empty)
@click.option("--namespace", default="", metavar="NAME", help="Of this one; - is none.", callback=refuse_empty)
@click.option("--author", default="", metavar="NAME", help="Of what NAME did.", callback=refuse_empty)
@click.option(
    "--action",
    "actions",
    multiple=True,
    metavar="ACTION",
    help="push, tag, yank, …; repeatable.",
    callback=refuse_empty,
)
@click.option("--since", default="", metavar="TIME", help="2026-11-25, 2026-11-25T18:00 or 7d.", callback=refuse_empty)
@click.option("--until", default="", metavar="TIME", help="The same; a date to its end.", callback=refuse_empty)
@click.option("--no-pulls", is_flag=True, help="Only what changed something.")
@page_options
@table_options
@format_option
def events(
    patterns: tuple[str, ...],
    follow: bool,
    after: str,
    no_pulls: bool,
    limit: int,
    cursor: str | None,
    format_: str,
    **conditions: Any,
) -> None:
    """Who did what, the newest first; with --follow as it is done, one event a line.

    \b
    loreg events --limit 10
    loreg events --namespace team --author ada --action tag --since 7d
    loreg events --follow 'team/*' --format json
    """
    if follow:
        _refuse_page_options()
        _follow(patterns, after, format_)
        return
    if patterns or after:
        raise click.UsageError("patterns and --after go with --follow; loreg log NAME has the events of one adapter")
    page = open_registry().events(**conditions, pulls=not no_pulls, limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(page)
        return
    if format_ == "quiet":
        for event in page.items:
            click.echo(event.id)
    else:
        print_table(
            ["AT (UTC)", "WHO", "WHAT", "REF", "DETAIL"],
            map(_cells, page.items),
            prose=["DETAIL"],
            drop=["AT (UTC)", "WHO"],
        )
    if page.cursor:
        warn(f"more: --cursor {page.cursor}")


def _refuse_page_options() -> None:
    options = [name for name in _OF_PAGES if _is_given(name)]
    if {"limit", "cursor"}.intersection(options):
        raise click.UsageError("--limit and --cursor are for pages; --follow goes on after --after POSITION")
    if options:
        raise click.UsageError("what is followed is chosen by patterns, as in --follow 'team/*'")


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) != click.core.ParameterSource.DEFAULT


def _follow(patterns: tuple[str, ...], after: str, format_: str) -> None:
    position = after
    try:
        for followed in open_registry().follow_events(
            patterns, after=after, on_outage=_warn_of_outage, is_wanted=is_stdout_read
        ):
            _print_line(followed, format_)
            flush_stdout()
            position = followed.position
    except KeyboardInterrupt:
        if position:
            warn(f"go on from here: --after {position}")
        raise


def _print_line(followed: FollowedEvent, format_: str) -> None:
    if format_ == "json":
        print_json_line(followed.event, position=followed.position)
    elif format_ == "quiet":
        click.echo(followed.event.id)
    else:
        echo("  ".join(filter(None, _cells(followed.event))))


def _warn_of_outage(error: LoregError, pause: float) -> None:
    warn(f"{error.message}; asked again in {pause:.0f} s")


def _cells(event: Event) -> tuple[str, ...]:
    detail = ", ".join(f"{key}={value}" for key, value in event.detail.items())
    return f"{event.at:%Y-%m-%d %H:%M:%S}", event.author, event.action, event.ref, detail
