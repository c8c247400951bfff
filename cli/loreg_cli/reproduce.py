"""``loreg reproduce``: do a stored merge again and compare."""

from __future__ import annotations

from pathlib import Path

import click

from loreg_cli.merge_options import PATH, base_option, calibration_option, device_option
from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, print_json
from loreg_cli.progress import progress_bar


@click.command()
@click.argument("ref")
@click.option("--to", "folder", metavar="DIR", type=PATH, help="Keep the result in a new folder.")
@base_option
@calibration_option
@device_option
@format_option
def reproduce(
    ref: str, folder: Path | None, base: Path | None, calibration: Path | None, device: str, format_: str
) -> None:
    """Do a stored merge again, from the digests in its recipe, and compare the result.

    \b
    loreg reproduce team/blend
    """
    with progress_bar() as progress:
        result = open_registry().reproduce(
            ref, folder, base=base, calibration=calibration, device=device, progress=progress
        )
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.version.ref)
    elif result.identical:
        echo(f"{result.version.pinned} is reproduced, bit for bit")
    else:
        echo(
            f"{result.version.pinned} is reproduced: no delta differs by more than {result.difference:.1e} of its norm"
        )
