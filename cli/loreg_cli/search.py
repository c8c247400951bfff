"""``loreg search``: find versions by what is in them and how good they are."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.conditions import condition_options
from loreg_cli.options import format_option, open_registry, page_options, refuse_empty, table_options
from loreg_cli.output import print_json, print_table, warn
from loreg_cli.version_table import print_versions

if TYPE_CHECKING:
    from loreg.entities import Facets, TermMatch

_MAX_NAMES = 5  # in one line


@click.command()
@click.argument("text", nargs=-1)
@condition_options
@click.option(
    "--rank",
    "ranks",
    multiple=True,
    metavar="COMPARISON",
    help="The largest rank, e.g. '<=16'.",
    callback=refuse_empty,
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="COMPARISON[@DATASET]",
    help="E.g. 'accuracy>=0.9@imdb'; repeatable.",
    callback=refuse_empty,
)
@click.option("--author", default="", metavar="NAME", help="Pushed by NAME.", callback=refuse_empty)
@click.option("--variant", default="", metavar="KIND", help="lora, rslora, dora, …", callback=refuse_empty)
@click.option(
    "--best",
    default="",
    callback=refuse_empty,
    metavar="METRIC[@DATASET[:SPLIT]]",
    help="Of each adapter the version that is best by this metric, the best first.",
)
@click.option(
    "--sort",
    default="",
    callback=refuse_empty,
    metavar="ORDER",
    help="created, name, rank, size, relevance or metric:NAME[@DATASET[:SPLIT]]; by default created, and with TEXT "
    "relevance.",
)
@click.option("--facets", is_flag=True, help="Count what is found by task, base, rank, namespace, …")
@page_options
@table_options
@format_option
def search(text: tuple[str, ...], facets: bool, format_: str, **conditions: Any) -> None:
    """Find the versions for which every condition holds.

    TEXT is words of name, tasks, base, modules, labels, message and card; the last one may be cut short. A task or base
    may be written as people say it: topic finds news-topics, and stderr says so.

    \b
    loreg search --task sentiment --base llama --best accuracy@imdb
    loreg search --task topics --metric 'accuracy>=0.9' --sort metric:accuracy
    """
    if facets:
        unused = {name: conditions.pop(name) for name in ("sort", "best", "limit", "cursor")}
        if unused["best"] or unused["sort"] or unused["cursor"]:
            raise click.UsageError("--facets counts, in no order: --sort, --best and --cursor say nothing")
        _print_facets(open_registry().facets(" ".join(text), **conditions), format_)
        return
    page = open_registry().search(" ".join(text), **conditions)
    for match in page.matches:
        warn(_describe(match))
    if page.all_versions and not conditions["all_versions"] and page.items:
        best = "of each adapter the version that is best, whatever its age"
        warn(best if page.best else "looked at all versions, not only the newest")
    if page.ranked is not None:
        warn(f"ranked the newest {page.ranked:,} versions that match; more words, or --task and --base, find others")
    print_versions(page, format_)


def _print_facets(facets: Facets, format_: str) -> None:
    """Print the counts, with a line on stderr that says of how many versions."""
    for match in facets.matches:
        warn(_describe(match))
    if format_ == "json":
        print_json(facets)
        return
    ranges = {metric.name: f"{metric.low:.6g} to {metric.high:.6g}" for metric in facets.ranges}
    rows = [
        (
            count.kind.value.replace("_", "-"),
            count.value or "(by a path)",
            f"{count.versions:,}",
            ranges.get(count.value, "") if count.kind.value == "metric" else "",
        )
        for count in facets.counts
    ]
    if format_ == "quiet":
        for kind, value, *_ in rows:
            click.echo(f"{kind}={value}")
    elif rows:
        print_table(["FACET", "VALUE", "VERSIONS", "RANGE"], rows, right=["VERSIONS"])
    of = f"of the newest {facets.versions:,} versions" if facets.is_capped else f"of {facets.versions:,} versions"
    click.echo(of if rows else "nothing found", err=True)
    if facets.unchecked:
        warn(f"{facets.unchecked:,} were never checked: which servers take them, nobody knows")


def _describe(match: TermMatch) -> str:
    """Return what was meant by the word, or what may have been."""
    nothing = f"no {match.term} is called {match.word!r}"
    if match.names:
        shown = ", ".join(repr(name) for name in match.names[:_MAX_NAMES])
        more = len(match.names) - _MAX_NAMES
        return f"{nothing}; searched for {shown}" + (f" and {more} more" if more > 0 else "")
    if match.suggestions:
        return (
            f"{nothing}; did you mean {match.suggestions[0]!r}? "
            f"loreg search --{match.term} {shlex.quote(match.suggestions[0])}"
        )
    return f"{nothing}; loreg {match.term}s lists those there are"
