"""``loreg job``: list, show and cancel what workers were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry, page_options
from loreg_cli.output import echo, print_json, print_pairs, print_table, warn

if TYPE_CHECKING:
    from loreg.entities import Job


@click.group()
def job() -> None:
    """What workers were asked for."""


@job.command("ls")
@page_options
@format_option
def jobs(limit: int, cursor: str | None, format_: str) -> None:
    """List jobs, the newest first."""
    page = open_registry().jobs.list(limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(page)
    elif format_ == "quiet":
        for one in page.items:
            click.echo(one.id)
    else:
        rows = [(str(one.id), one.kind, one.state, one.author, _describe_outcome(one)) for one in page.items]
        print_table(["ID", "KIND", "STATE", "FOR", "WHAT"], rows, right=["ID"], cut=["WHAT"])
    if page.cursor and format_ != "json":
        warn(f"more: --cursor {page.cursor}")


@job.command("show")
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
@format_option
def show(job_id: int, format_: str) -> None:
    """Show a job: what was asked, how far it is, what came of it."""
    one = open_registry().jobs.show(job_id)
    if format_ == "json":
        print_json(one)
        return
    if format_ == "quiet":
        click.echo(one.state)
        return
    print_pairs(
        [
            ("job", f"{one.id}, {one.kind} for {one.author}"),
            ("asked", ", ".join(f"{name}={value}" for name, value in one.request.items())),
            ("state", one.state),
            ("worker", f"{one.worker}, attempt {one.attempts}" if one.worker else ""),
            ("progress", f"{one.what} {one.done} of {one.total}" if one.total else ""),
            ("outcome", _describe_outcome(one)),
        ]
    )


@job.command("cancel")
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def cancel(job_id: int) -> None:
    """Give a job up; one that has ended stays as it is."""
    echo(f"job {job_id} is {open_registry().jobs.cancel(job_id).state}")


def _describe_outcome(one: Job) -> str:
    """What came of it."""
    if one.error:
        return str(one.error.get("message", ""))
    return str(one.result.get("version") or one.result.get("model") or "")
