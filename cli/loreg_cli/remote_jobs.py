"""Let a worker do the work of a command: ``--remote``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg_cli.options import announce_job, open_registry
from loreg_cli.output import warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import Job

remote_option = click.option("--remote", is_flag=True, help="Let a worker do it: see loreg worker.")


def do_remotely(kind: str, request: dict[str, object]) -> Job:
    """Submit a job, wait for it, print its notes and return it. Raises the error that it failed with."""
    registry = open_registry()
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in request.items()}
    job = registry.jobs.submit(kind, **arguments)
    announce_job(job)
    with progress_bar() as progress:
        done = registry.jobs.wait(job.id, progress=progress)
    for text in done.result.get("notes", ()):
        warn(text)
    return done


def refuse_remote_on(on: str) -> None:
    """Raise a usage error if a cluster is named beside --remote."""
    if on:
        raise click.UsageError("--remote lets a worker do it, where that worker's own --on says: leave --on out")
