"""Printing: data to stdout as a table, as JSON or as bare refs; everything else to stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loreg.records import PushResult, Version


def print_json(value: Any) -> None:
    """Print a value of loreg as JSON."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print aligned columns; those in ``right`` line up at the right, as numbers should."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        # In a pipe nothing is cut off: the next program must see whole refs.
        table.add_column(column, justify="right" if column in right else "left", no_wrap=not terminal, overflow="fold")
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    Console(file=sys.stdout, width=None if terminal else 10_000, highlight=False).print(table)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names with their values, one a line; an empty value is left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}")


def note(text: str) -> None:
    """Tell the person something beside the data."""
    click.echo(f"{click.style('note:', fg='yellow')} {text}", err=True)


def print_pushed(result: PushResult, format_: str) -> None:
    """Print what a push did, and on stderr what it left out and noticed."""
    for name, reason in result.left_out:
        note(f"left out: {name} ({reason})")
    for text in result.notes:
        note(text)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.version.ref)
    elif result.created:
        click.echo(f"pushed {result.version.pinned}: {summary(result.version)}")
    else:
        click.echo(f"no new version: this content is {result.version.pinned} already")


def summary(version: Version) -> str:
    """One line on what a version is."""
    facts = version.facts
    kinds = ", ".join(kind.name for kind in facts.module_types)
    return f"{facts.variant}, {ranks(version)} on {kinds}, {facts.parameters:,} parameters, {size(version.size)}"


def ranks(version: Version) -> str:
    """``rank 8``, or ``rank 8-16``."""
    facts = version.facts
    return f"rank {facts.rank_min}" + (f"-{facts.rank_max}" if facts.rank_max != facts.rank_min else "")


def base(version: Version) -> str:
    """The base by name and digest where it is known by content; a question mark where it is only declared."""
    if version.base:
        return f"{version.base.names[0] if version.base.names else ''} {version.base.digest[:12]}".strip()
    return f"{version.facts.base_hint}?" if version.facts.base_hint else "unknown"


def size(count: int) -> str:
    """Bytes for people: 301 kB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _escaped(cell: str) -> str:
    from rich.markup import escape

    return escape("".join(character if character.isprintable() else "�" for character in cell))


def _plain(value: Any) -> Any:
    from loreg.records import Version
    from loreg.refs import AdapterName

    if isinstance(value, AdapterName | Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        document = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"ref": value.ref, **document} if isinstance(value, Version) else document
    return value
