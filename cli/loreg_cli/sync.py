"""``loreg sync``: keep a folder as a selection says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loreg_cli.conditions import read_selection
from loreg_cli.options import format_option, open_registry, read_labels, refuse_empty
from loreg_cli.output import print_json, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import SyncReport

#: The exit code for what is amiss, the gravest first.
_EXIT_CODES = {"refused": 5, "older": 7, "blocked": 7, "failed": 1, "server": 1, "missing": 3}


@click.command()
@click.argument("words", metavar="[SELECTOR]... DIR", nargs=-1)
@click.option("--watch", is_flag=True, help="Go on: follow every change.")
@click.option("--profile", metavar="SERVER", help="As that server takes it: vllm, vllm:max_lora_rank=64, …")
@click.option(
    "--keep", type=click.IntRange(0, 1000), default=2, help="Versions that stay that a name meant. Default: 2."
)
@click.option("--flat", is_flag=True, help="team/news is team--news: for servers that look into no folder below.")
@click.option("--pinned", is_flag=True, help="Names are of one version: team/news@74824d86c206.")
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="KIND=URL",
    help="A running vllm, sglang or lorax that loads from DIR, which may be left out.",
)
@click.option("--server-path", default="", metavar="PATH", help="Where the servers see DIR, if elsewhere.")
@click.option("--accept-older", is_flag=True, help="Take an older answer, of a registry restored from a backup.")
@click.option(
    "--server-name", default="", metavar="NAME", help="Who has DIR, in loreg deployments. Default: this host."
)
@click.option(
    "--task", "tasks", multiple=True, metavar="TASK", help="Instead of SELECTOR: for this task.", callback=refuse_empty
)
@click.option(
    "--base", default="", metavar="NAME|DIGEST", help="Instead of SELECTOR: trained on it.", callback=refuse_empty
)
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=read_labels, help="Instead of SELECTOR: has it."
)
@click.option(
    "--best",
    default="",
    metavar="METRIC[@DATASET[:SPLIT]]",
    help="Instead of SELECTOR: the best of each.",
    callback=refuse_empty,
)
@format_option
def sync(
    words: tuple[str, ...],
    watch: bool,
    profile: str | None,
    keep: int,
    flat: bool,
    pinned: bool,
    servers: tuple[str, ...],
    server_path: str,
    accept_older: bool,
    server_name: str,
    format_: str,
    **conditions: Any,
) -> None:
    """Bring DIR to what the selection means: each adapter's version under the adapter's name.

    SELECTOR is 'team/*:prod', team/news:v3 or NAME=team/news:prod; or options say what to search for. A name is a link
    to a folder by digest, replaced at once when the new version is there and verified. With --watch a moved alias is
    followed within a second. With --server versions are loaded under pinned names, and the old ones unloaded when
    every replica has the new one.

    \b
    loreg sync 'team/*:prod' ./adapters --profile vllm --watch
    loreg sync --task summarization --best rouge ./adapters
    loreg sync 'team/*:prod' --profile vllm --server vllm=http://127.0.0.1:8000
    """
    from loreg.entities import SyncOptions, SyncReport

    selectors, folder = _split_folder(words, is_optional=bool(servers))
    selection = read_selection(selectors, conditions)
    options = SyncOptions(profile, keep, flat, pinned, accept_older, server_name, servers, server_path)
    registry = open_registry()
    if not watch:
        with progress_bar() as progress:
            report = registry.sync(selection, folder, options, progress=progress)
        _print(report, format_, has_servers=bool(servers), is_first=True)
        kinds = {str(problem.kind) for problem in report.problems}
        click.get_current_context().exit(next((code for kind, code in _EXIT_CODES.items() if kind in kinds), 0))
    is_first = True
    for outcome in registry.follow(selection, folder, options):
        if isinstance(outcome, SyncReport):
            _print(outcome, format_, has_servers=bool(servers), is_first=is_first)
            is_first = False
        else:
            warn(f"{outcome.message}; {folder or 'what is loaded'} stays as it is, and is tried again")


def _split_folder(words: tuple[str, ...], *, is_optional: bool) -> tuple[tuple[str, ...], Path | None]:
    """Return the selectors and DIR, the last word; where DIR may be left out, only one that is spelt as a path."""
    if is_optional and not (words and words[-1].startswith((".", "/", "~"))):
        return words, None
    if not words:
        raise click.UsageError("Missing argument 'DIR'.")
    return words[:-1], Path(words[-1])


def _print(report: SyncReport, format_: str, *, has_servers: bool, is_first: bool) -> None:
    if format_ == "json":
        print_json(report)
    elif format_ == "quiet":
        for adapter in (*report.adapters,) if is_first else report.updated:
            click.echo(adapter.name)
    else:
        _print_lines(report, has_servers=has_servers, is_first=is_first)
    for problem in report.problems:
        what = f"{problem.name}: " if problem.name not in problem.reason else ""
        hint = f". Hint: {problem.hint}" if problem.hint else ""
        warn(f"{problem.kind}: {what}{problem.reason}{hint}")


def _print_lines(report: SyncReport, *, has_servers: bool, is_first: bool) -> None:
    for adapter in report.updated:
        is_pinned = adapter.served_name != adapter.name
        which = f" as {adapter.served_name}" if is_pinned else f"@sha256:{adapter.digest[:12]}"
        before = f" (was {adapter.previous})" if adapter.previous else ""
        click.echo(f"{adapter.name}  {adapter.ref}{which}{before}")
    for name in report.removed:
        click.echo(f"{name}  removed")
    if is_first:
        where = "on every server" if has_servers else report.folder
        count = f"{len(report.adapters)} adapter{'' if len(report.adapters) == 1 else 's'}"
        click.echo(f"{where}: {count}, {len(report.updated)} of them new", err=True)
