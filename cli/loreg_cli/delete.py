"""``loreg delete``: remove a version for good."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.confirmation import require_consent, yes_option
from loreg_cli.options import format_option, open_registry, wide_options
from loreg_cli.output import echo, print_json, print_table, warn

if TYPE_CHECKING:
    from loreg.entities import Deletion, SharedBlob

_UNDER_WAY = 7
_MAX_OWNERS = 3  # that are named in a row


@click.command()
@click.argument("ref")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept, and shown to who asks for the version.")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@yes_option
@wide_options
@format_option
@click.pass_context
def delete(context: click.Context, ref: str, reason: str, dry_run: bool, yes: bool, format_: str) -> None:
    """Delete a version for good, for reasons of law: its content leaves the store and cannot be pushed again.

    What other versions share is shown before, and stays. The number is never given again; events stay without content.
    For administrators of everything. Repeat it if it was interrupted. To hide a version, see loreg yank.

    \b
    loreg delete team/news:v1 --reason 'asked for by its author' --dry-run
    """
    registry = open_registry()
    planned = registry.delete(ref, reason, dry_run=True)
    if dry_run:
        _print(planned, format_)
        return
    if not yes:
        _print_table(planned, err=True)
        command = f"loreg delete {shlex.quote(ref)} --reason {shlex.quote(reason)}"
        require_consent(f"delete {planned.ref} for good?", planned.ref, f"{command} --yes")
    done = registry.delete(f"{planned.ref}@sha256:{planned.digest}", reason)
    _print(done, format_)
    if done.waiting:
        warn(
            f"{done.waiting:,} blobs are being removed by another process, or by one that was killed: loreg gc removes "
            "them, or this command again in 15 minutes"
        )
        context.exit(_UNDER_WAY)


def _print(deletion: Deletion, format_: str) -> None:
    if format_ == "json":
        print_json(deletion)
    elif format_ == "quiet":
        echo(deletion.ref)
    elif deletion.dry_run:
        _print_table(deletion, err=False)
    else:
        echo(f"deleted {deletion.ref}@sha256:{deletion.digest[:12]}: {deletion.removed:,} blobs are gone")


def _print_table(deletion: Deletion, *, err: bool) -> None:
    """Print what goes and what stays."""
    lines = [
        f"{deletion.ref}@sha256:{deletion.digest[:12]}: {deletion.blobs:,} blobs go, {format_size(deletion.size)}",
        *(f"the alias {alias} goes" for alias in deletion.aliases),
        *(f"its export for {profile} goes" for profile in deletion.exports),
        *(f"the unfinished upload to {branch} goes: it has the same weights" for branch in deletion.pending_uploads),
        *(f"{child} was merged from it, and stays" for child in deletion.children),
    ]
    for line in lines:
        (warn if err else echo)(line)
    if deletion.shared and not err:
        print_table(
            ["STAYS", "SIZE", "SHARED WITH"], map(_shared_row, deletion.shared), prose=["SHARED WITH"], drop=["SIZE"]
        )
    elif deletion.shared:
        for blob in deletion.shared:
            warn(f"blob {blob.sha256[:12]} stays: {_shared_row(blob)[2]}")
    if (more := deletion.shared_count - len(deletion.shared)) > 0:
        warn(f"and {more:,} more blobs stay")


def _shared_row(blob: SharedBlob) -> tuple[str, str, str]:
    listed = blob.owners.listed[:_MAX_OWNERS]
    named = ", ".join(f"{owner.name} ({owner.path or owner.kind})" for owner in listed)
    more = blob.owners.count - len(listed)
    return blob.sha256[:12], format_size(blob.size), f"{named} and {more} more" if more else named
