"""Print data to stdout as a table, as JSON or as bare refs, and everything else to stderr."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from loreg.entities import Page, PushResult, Version

_WIDEST = 10_000  # characters of a line in a pipe
#: Texts whose characters all are one column wide: Latin, and the arrow of aliases.
_NARROW = re.compile("[ -\u02ff→]*")


def print_json(value: object, **before: object) -> None:
    """Print a value of loreg as JSON, with the fields ``before`` its own."""
    import json

    document = _to_plain(value)
    click.echo(json.dumps({**before, **document} if before else document, indent=2))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), cut: Sequence[str] = ()
) -> None:
    """Print aligned columns, one line a row; those in ``right`` line up at the right, as numbers should.

    Where a terminal is too narrow, columns in ``cut`` end in …; in a pipe nothing is cut: programs see whole refs.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty() and cells and all(_NARROW.fullmatch(cell) for row in cells for cell in row):
        click.echo(_align(columns, cells, right))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        side: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=side, no_wrap=column not in cut)
    for row in cells:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=None if terminal else _WIDEST, highlight=False)
    with console.capture() as printed:
        console.print(table)
    click.echo(printed.get(), nl=False)


def _align(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    """Return the table as rich makes it for a pipe, without the time that importing rich takes."""
    widths = [max(1, *map(len, cells)) for cells in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = zip(columns, cells, widths, strict=True)
        return "  ".join(cell.rjust(width) if name in right else cell.ljust(width) for name, cell, width in sides)

    header = line(columns)
    return "\n".join([header, "─" * len(header), *map(line, rows)])


def echo(text: str) -> None:
    """Print one line to stdout without the control characters that untrusted text may hold."""
    click.echo(printable(text))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names with their values, one a line; an empty value is left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {printable(value)}")


def warn(text: str) -> None:
    """Print a note to stderr."""
    click.echo(f"{click.style('note:', fg='yellow')} {printable(text)}", err=True)


def print_pushed(result: PushResult, format_: str) -> None:
    """Print what a push did, and on stderr what it left out and noticed."""
    for name, reason in result.left_out:
        warn(f"left out: {name} ({reason})")
    for text in result.notes:
        warn(text)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.version.ref)
    elif result.created:
        echo(f"pushed {result.version.pinned}: {summarize_version(result.version)}")
    else:
        click.echo(f"no new version: this content is {result.version.pinned} already")


def print_page(page: Page[Any], format_: str, refs: list[str]) -> None:
    """Print a page as JSON, or as bare ``refs``; a table is printed already. Says on stderr if there is more."""
    if format_ == "json":
        print_json(page)
    elif format_ == "quiet" and refs:
        click.echo("\n".join(refs))
    if not page.items:
        click.echo("nothing found", err=True)
    if page.cursor and format_ != "json":
        click.echo(f"there is more: --cursor {page.cursor}", err=True)


def printable(text: str) -> str:
    """Return the text without the control characters that could move the cursor or colour the screen."""
    return "".join(character if character.isprintable() else "�" for character in " ".join(text.splitlines()))


def summarize_version(version: Version) -> str:
    """Return one line on what a version is."""
    facts = version.facts
    kinds = ", ".join(kind.name for kind in facts.module_types)
    size = format_size(version.size)
    return f"{facts.variant}, {format_ranks(version)} on {kinds}, {facts.parameters:,} parameters, {size}"


def format_ranks(version: Version) -> str:
    """Return ``rank 8``, or ``rank 8-16``."""
    facts = version.facts
    return f"rank {facts.rank_min}" + (f"-{facts.rank_max}" if facts.rank_max != facts.rank_min else "")


def format_base(version: Version) -> str:
    """Return the base's name and digest where it is known by content; its name and ``?`` where it is declared."""
    if version.base:
        return f"{version.base.names[0] if version.base.names else ''} {version.base.digest[:12]}".strip()
    return f"{version.facts.base_hint}?" if version.facts.base_hint else "unknown"


def format_size(count: int) -> str:
    """Return a number of bytes for people: ``301 kB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _to_plain(value: object) -> Any:
    from pathlib import Path

    import msgspec

    from loreg.entities import Version
    from loreg.refs import AdapterName

    if isinstance(value, AdapterName | Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        document = {name: _to_plain(item) for name, item in msgspec.structs.asdict(value).items()}
        return {"ref": value.ref, **document} if isinstance(value, Version) else document
    return value
