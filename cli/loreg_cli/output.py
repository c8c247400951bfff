"""Print data to stdout as a table, as JSON or as bare refs, and everything else to stderr."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from loreg.byte_sizes import format_size
from loreg.single_line import single_line
from loreg_cli.table import Column, Table

if TYPE_CHECKING:
    from loreg.entities import Page, PushResult, Version

#: Where a command keeps the options of its tables, in the meta of click's context.
TABLE_OPTIONS = "loreg_cli.table_options"
_NAMED = 4  # of the columns that a terminal has no room for


def print_json(value: object, **before: object) -> None:
    """Print a value of loreg as JSON, with the fields ``before`` its own."""
    import json

    document = _to_plain(value)
    click.echo(json.dumps({**before, **document} if before else document, indent=2))


def print_json_line(value: object, **before: object) -> None:
    """Print a value of loreg as one line of JSON, with the fields ``before`` its own."""
    import json

    click.echo(json.dumps({**before, **_to_plain(value)}))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    prose: Collection[str] = (),
    paths: Collection[str] = (),
    drop: Sequence[str] = (),
) -> None:
    """Print aligned columns; those in ``right`` line up at the right, as numbers should.

    Where a terminal is too narrow, the texts of columns in ``prose`` end in …, then the columns in ``drop`` go, the
    first of them first. All others hold what the next command needs: they wrap, and are never cut; only those in
    ``paths`` may be broken behind a slash. In a pipe, and with ``--wide``, nothing gives way.
    Raises UsageError if ``--columns`` names one that the table has not.
    """
    options = table_options_in_force()
    cells = [[single_line(cell) for cell in row] for row in rows]
    kinds = [
        Column(single_line(n), n in right, n in prose, drop.index(n) if n in drop else None, n in paths)
        for n in columns
    ]
    if options.columns:
        chosen = [_find_column(name, [kind.name for kind in kinds]) for name in options.columns]
        kinds = [kinds[i]._replace(drops=None) for i in chosen]
        cells = [[row[i] for i in chosen] for row in cells]
    is_narrow = sys.stdout.isatty() and not options.wide
    table = Table(kinds, cells, truncate=not options.no_truncate)
    click.echo("\n".join(table.render(shutil.get_terminal_size().columns if is_narrow else None)))
    if table.left_out:
        few = table.left_out[:_NAMED]
        more = f" and {len(table.left_out) - _NAMED} more" if len(table.left_out) > _NAMED else ""
        click.echo(click.style(f"no room for {', '.join(few)}{more}: --wide", dim=True), err=True)


class TableOptions(NamedTuple):
    """How the person who typed the command wants tables: ``columns`` is empty for all that there is room for."""

    columns: tuple[str, ...] = ()
    wide: bool = False
    no_truncate: bool = False


def table_options_in_force() -> TableOptions:
    """Return the options of tables that the command was given; see ``table_options`` in options.py."""
    context = click.get_current_context(silent=True)
    return TableOptions(**context.meta.get(TABLE_OPTIONS, {})) if context is not None else TableOptions()


def _find_column(name: str, columns: Sequence[str]) -> int:
    by_name = {column.casefold(): i for i, column in enumerate(columns) if column}
    if name.casefold() not in by_name:
        from loreg.errors import UsageError
        from loreg.suggestions import suggest

        listed = ", ".join(filter(None, columns))
        raise UsageError(
            f"there is no column {name!r}; there are: {listed}",
            suggestion=suggest(name, [column.lower() for column in columns if column]),
        )
    return by_name[name.casefold()]


def echo(text: str) -> None:
    """Print one line to stdout without the control characters that untrusted text may hold."""
    click.echo(single_line(text))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names with their values, one a line; an empty value is left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {single_line(value)}")


def warn(text: str) -> None:
    """Print a note to stderr."""
    context = click.get_current_context(silent=True)
    if context is not None:
        from loreg_cli.typed_secrets import TypedSecrets

        text = TypedSecrets(context.find_root().obj or ()).hide(text)
    click.echo(f"{click.style('note:', fg='yellow')} {single_line(text)}", err=True)


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


def format_base_name(version: Version) -> str:
    """Return what a table says of the base: its name or digest; with ``?``, and of a path the end, if declared."""
    if version.base:
        return version.base.names[0] if version.base.names else version.base.digest[:12]
    hint = version.facts.base_hint
    parts = hint.replace("\\", "/").rstrip("/").split("/")
    short = "/".join(["…", *parts[-2:]]) if len(parts) > 2 else hint
    return f"{short}?" if hint else "unknown"


def explain_declared_bases(versions: Iterable[Version]) -> None:
    """Say on a terminal what the ``?`` behind a base means, if one of the versions has it."""
    if sys.stdout.isatty() and any(version.base is None and version.facts.base_hint for version in versions):
        legend = "? after a base: the adapter says so; after loreg base add PATH it is compared"
        click.echo(click.style(legend, dim=True), err=True)


def format_share(share: float) -> str:
    """Return a part of all for people: ``12.5 %``."""
    return f"{100 * share:g} %"


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
