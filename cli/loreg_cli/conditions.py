"""The conditions of a search, and selections, which are selectors or a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loreg_cli.options import Command, read_labels, refuse_empty

if TYPE_CHECKING:
    from loreg.entities import Query


def condition_options(command: Command) -> Command:
    """Add what is searched for; the command takes it as arguments of :func:`loreg.parsing.parse_conditions`."""
    for option in (
        click.option("--all-versions", is_flag=True, help="Not only the newest version of each adapter."),
        click.option(
            "--loads-in",
            default="",
            metavar="SERVER",
            help="Which vllm, sglang, … takes, as checked.",
            callback=refuse_empty,
        ),
        click.option("--namespace", default="", metavar="NAME", help="In this one; - is none.", callback=refuse_empty),
        click.option(
            "--label",
            "labels",
            multiple=True,
            metavar="KEY=VALUE",
            callback=read_labels,
            help="Has this label; repeatable.",
        ),
        click.option(
            "--module",
            "modules",
            multiple=True,
            metavar="TYPE",
            help="Touches q_proj, …; repeat for several.",
            callback=refuse_empty,
        ),
        click.option("--base", default="", metavar="NAME|DIGEST", help="Trained on this base.", callback=refuse_empty),
        click.option(
            "--task",
            "tasks",
            multiple=True,
            metavar="TASK",
            help="For this task; repeat for several.",
            callback=refuse_empty,
        ),
    ):
        command = option(command)
    return command


def read_selection(selectors: tuple[str, ...], conditions: dict[str, Any]) -> Query | tuple[str, ...]:
    """Return the selectors, or the search that the conditions are. Raises click.UsageError for both."""
    if not any(conditions.values()):
        return selectors
    if selectors:
        raise click.UsageError("SELECTOR and a search exclude each other: name adapters, or say what they are for")
    from loreg.parsing import parse_conditions, parse_order

    best = conditions.pop("best", "")
    query = parse_conditions(**conditions)
    if not best:
        return query
    from msgspec.structs import replace

    return replace(query, sort=parse_order("", best, ""), best=True)
