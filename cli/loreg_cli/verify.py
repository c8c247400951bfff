"""``loreg verify``: is everything in the store that the catalog refers to?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, wide_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import Damage, Owner, VerifyReport

BROKEN = 6
_MAX_ORPHANS = 20  # that are named on stderr
_MAX_OWNERS = 3  # that are named in a row

Command = Callable[..., Any]


class Selected(TypedDict):
    """What ``selection_options`` adds to a command."""

    read_data: str | None
    since: str | None
    trust_checksums: bool


def selection_options(command: Command) -> Command:
    """Add the options that say what is looked at, and how closely."""
    for option in (
        click.option(
            "--no-checksums",
            "trust_checksums",
            flag_value=False,
            default=True,
            type=bool,
            help="With --read-data: read also what a checksum of the store's own proves.",
        ),
        click.option("--since", metavar="DATE", help="Only what was recorded since then."),
        click.option(
            "--read-data",
            metavar="[SHARE]",
            is_flag=False,
            flag_value="100%",
            help="Hash what is stored: all, the next 5%, or 3/20, the third of twenty parts. Refs come before it.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("refs", metavar="[REF]...", nargs=-1)
@selection_options
@wide_options
@format_option
@click.pass_context
def verify(
    context: click.Context, refs: tuple[str, ...], read_data: str | None, since: str | None, trust_checksums: bool,
    format_: str,
) -> None:  # fmt: skip
    """Look in the store for everything that the catalog refers to. Exit code 6 if something is missing or damaged.

    Without a REF it also lists what is stored and belongs to nothing, which is no damage.

    \b
    loreg verify
    loreg verify --read-data 5%
    loreg verify team/news:v1 team/news:v2 --read-data
    """
    with progress_bar() as progress:
        report = open_registry().verify(
            refs, read_data=read_data or False, since=since, trust_checksums=trust_checksums, progress=progress
        )
    if format_ == "json":
        print_json(report, ok=report.ok)
    elif format_ == "quiet":
        for ref in broken_refs(report.damages):
            echo(ref)
    else:
        if report.damages:
            print_damages(report.damages)
        _print_summary(report)
    _warn_of_the_rest(report)
    context.exit(0 if report.ok else BROKEN)


def print_damages(damages: Iterable[Damage]) -> None:
    """Print a table of what is broken, whom it breaks, and what mends it."""
    rows = [(damage.kind, damage.sha256[:12], _breaks(damage), damage.remedy) for damage in damages]
    print_table(["WHAT", "BLOB", "BREAKS", "REMEDY"], rows, prose=["REMEDY"], drop=["BLOB"])


def broken_refs(damages: Iterable[Damage]) -> list[str]:
    """Return the names of what is broken, each once."""
    return list(dict.fromkeys(owner.name for damage in damages for owner in damage.owners))


def _breaks(damage: Damage) -> str:
    named = ", ".join(map(_name, damage.owners[:_MAX_OWNERS]))
    more = damage.owner_count - min(len(damage.owners), _MAX_OWNERS)
    return f"{named} and {more} more" if more else named


def _name(owner: Owner) -> str:
    what = owner.path or owner.kind
    return f"{owner.name} ({what}{f' for {owner.profile}' if owner.profile else ''})"


def _print_summary(report: VerifyReport) -> None:
    seconds = max(report.seconds, 1e-3)
    known = f"{report.references:,} blobs, {format_size(report.size)}: "
    state = f"{report.damage_count:,} broken" if report.damage_count else "all there"
    echo(f"{known}{state}; {report.references / seconds:,.0f} a second")
    if report.read:
        share = f", digests {report.read_from[:4]}… to {report.read_to[:4]}…" if report.read_from else ""
        rate = format_size(round(report.read_size / seconds))
        echo(f"{report.read:,} read and hashed, {format_size(report.read_size)}, {rate}/s{share}")
    if report.proven:
        echo(f"{report.proven:,} proven by the store's own checksums")


def _warn_of_the_rest(report: VerifyReport) -> None:
    if (more := report.damage_count - len(report.damages)) > 0:
        warn(f"and {more:,} more are broken")
    if report.orphan_count:
        listed = ", ".join(orphan.sha256[:12] for orphan in report.orphans[:_MAX_ORPHANS])
        dots = ", …" if report.orphan_count > _MAX_ORPHANS else ""
        warn(
            f"{report.orphan_count:,} stored blobs ({format_size(report.orphan_size)}) belong to nothing: those of a "
            f"push that is under way, was refused or interrupted, or of another catalog: {listed}{dots}"
        )
    if report.leftover_count:
        listed = ", ".join(report.leftovers[:_MAX_ORPHANS])
        warn(f"{report.leftover_count:,} left by interrupted writers, or of some at work: {listed}")
