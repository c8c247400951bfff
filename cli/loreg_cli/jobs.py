"""worker and job: merges and bakes that another machine does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.options import format_option, open_registry, page_options, read_settings
from loreg_cli.output import echo, print_json, print_pairs, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import Job

remote_option = click.option(
    "--remote", is_flag=True, help="Let a worker do it: sources are refs, the result is pushed. See loreg worker."
)


def do_remotely(kind: str, request: dict[str, Any]) -> Job:
    """Ask a worker, wait for it, and say what came of it."""
    registry = open_registry()
    given = {name: str(value) if isinstance(value, Path) else value for name, value in request.items()}
    job = registry.submit(kind, **given)
    warn(f"job {job.id} waits for a worker; loreg job cancel {job.id} gives it up")
    with progress_bar() as progress:
        done = registry.wait_for_job(job.id, progress=progress)
    for text in done.result.get("notes", ()):
        warn(text)
    return done


@click.command()
@click.option(
    "--bases", type=click.Path(path_type=Path), metavar="DIR", help="Models that jobs may name as their base."
)
@click.option("--models", type=click.Path(path_type=Path), metavar="DIR", help="Where bakes write models to.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="cpu, cuda or auto.")
@click.option("--until-idle", is_flag=True, help="Leave when there is no job.")
def worker(bases: Path | None, models: Path | None, device: str, until_idle: bool) -> None:
    """Do the merges and bakes that were asked for with --remote. As many workers as you like share the jobs.

    A worker needs the database and the store themselves. One that dies is noticed, and its job is done again.
    """
    import logging

    from loreg.worker import Worker

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    count = Worker(read_settings(), bases, models, device).work(until_idle=until_idle)
    echo(f"{count} job{'' if count == 1 else 's'} done")


@click.group()
def job() -> None:
    """What workers were asked for."""


@job.command("ls")
@page_options
@format_option
def jobs(limit: int, cursor: str | None, format_: str) -> None:
    """List jobs, the newest first."""
    page = open_registry().jobs(limit=limit, cursor=cursor)
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
    one = open_registry().job(job_id)
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
    echo(f"job {job_id} is {open_registry().cancel_job(job_id).state}")


def _describe_outcome(one: Job) -> str:
    """What came of it."""
    if one.error:
        return str(one.error.get("message", ""))
    return str(one.result.get("version") or one.result.get("model") or "")
