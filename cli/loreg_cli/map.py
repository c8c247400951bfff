"""``loreg map``: run one function over the versions of many adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loreg_cli.conditions import condition_options, read_selection
from loreg_cli.options import format_option, on_option, open_registry, wide_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import MapReport

_FAILED = 5


@click.command("map")
@click.argument("probe")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@condition_options
@click.option("--profile", default="", metavar="SERVER", help="Of export: vllm, sglang, vllm:max_lora_rank=64.")
@click.option("--rank", type=int, default=0, metavar="N", help="Of rerank: the rank of the new versions.")
@click.option("--name", default="", metavar="TEMPLATE", help="Of rerank: what they are called.")
@click.option("--again", is_flag=True, help="Also versions of which it said something.")
@click.option("--processes", type=int, metavar="N", help="How many at once. Default: one a processor.")
@on_option
@wide_options
@format_option
def map(  # noqa: A001  a command is called as it is typed
    probe: str,
    selectors: tuple[str, ...],
    profile: str,
    rank: int,
    name: str,
    again: bool,
    processes: int | None,
    on: str,
    format_: str,
    **conditions: Any,
) -> None:
    """Run a probe over all versions, or those that are selected, and record what it says of each.

    SELECTOR is 'team/*', all versions of these adapters, or 'team/*:prod' or team/news:v3; or options say what to
    search for, and it is over what loreg search finds.

    Probes: check (which rules hold in every server, by the header alone), sketch (what identify finds by), spectra
    (singular values), export (the files for a server, which pull --profile finds), rerank (new versions at another
    rank), and those of other packages.
    Versions of which it said something are left out. Ctrl-C or a kill loses nothing: the same command goes on. Exit
    code 5 if it could say nothing of some. quiet prints those.

    \b
    loreg map check
    loreg map spectra 'team/*:prod' --processes 4
    loreg map spectra --task qa --base org/tiny
    loreg map export --profile vllm --on ray://10.0.0.1:6379
    loreg map rerank 'team/*:prod' --rank 8 --name '{namespace}/{name}-r8'
    """
    selection = read_selection(selectors, conditions) or "*"
    with progress_bar() as progress:
        report = open_registry().map(
            probe,
            selection,
            profile=profile,
            rank=rank,
            name=name,
            again=again,
            processes=processes,
            on=on,
            progress=progress,
        )
    if format_ == "json":
        print_json(report, ok=report.ok)
    elif format_ == "quiet":
        for ref, _ in report.failed:
            echo(ref)
    else:
        _print_report(report)
    click.get_current_context().exit(0 if report.ok else _FAILED)


def _print_report(report: MapReport) -> None:
    run = report.run
    if report.failed:
        print_table(["FAILED", "WHY"], report.failed)
    if report.failed_count > len(report.failed):
        warn(f"and {report.failed_count - len(report.failed):,} more")
    rate = f" in {report.seconds:.1f} s, {report.recorded / report.seconds:,.0f} a second" if report.recorded else ""
    echo(f"{run.probe}: {report.recorded:,} of {run.versions:,} versions{rate}")
    if run.resumed:
        echo(f"{run.done:,} were done before, by a run that was ended")
    if report.failed_count:
        echo(f"{report.failed_count:,} could not be read")
    if report.retries:
        warn(f"{report.retries:,} times a worker ended, or what it made was collected; that was begun once more")
    if report.gone:
        warn(f"{report.gone:,} versions were deleted or yanked meanwhile")
