"""``loreg job``: list, show and cancel what workers were asked for."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import echo, print_json, print_pairs, print_table, warn


@click.group()
def job() -> None:
    """Follow what workers were asked for.

    \b
    loreg job ls
    """


@job.command("ls")
@page_options
@table_options
@format_option
def jobs(limit: int, cursor: str | None, format_: str) -> None:
    """List jobs, the newest first.

    \b
    loreg job ls --columns ID,STATE,WHAT
    """
    page = open_registry().jobs.list(limit=limit, cursor=cursor)
    if format_ == "json":
        print_json(page)
    elif format_ == "quiet":
        for entry in page.items:
            click.echo(entry.id)
    else:
        rows = [(str(entry.id), entry.kind, entry.state, entry.author, entry.outcome) for entry in page.items]
        print_table(["ID", "KIND", "STATE", "FOR", "WHAT"], rows, right=["ID"], prose=["WHAT"], drop=["FOR"])
    if page.cursor and format_ != "json":
        warn(f"more: --cursor {page.cursor}")


@job.command("show")
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
@format_option
def show(job_id: int, format_: str) -> None:
    """Show a job: what was asked, how far it is, what came of it.

    \b
    loreg job show 7
    """
    shown = open_registry().jobs.show(job_id)
    if format_ == "json":
        print_json(shown)
        return
    if format_ == "quiet":
        click.echo(shown.state)
        return
    print_pairs(
        [
            ("job", f"{shown.id}, {shown.kind} for {shown.author}"),
            ("asked", ", ".join(f"{name}={value}" for name, value in shown.request.items())),
            ("state", shown.state),
            ("worker", f"{shown.worker}, attempt {shown.attempts}" if shown.worker else ""),
            ("progress", f"{shown.what} {shown.done} of {shown.total}" if shown.total else ""),
            ("outcome", shown.outcome),
        ]
    )


@job.command("cancel")
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def cancel(job_id: int) -> None:
    """Give a job up; one that has ended stays as it is.

    \b
    loreg job cancel 7
    """
    echo(f"job {job_id} is {open_registry().jobs.cancel(job_id).state}")
