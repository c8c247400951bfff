"""Values as HTML for notebooks: tables that take the colours of the page, in which all text of others is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import singledispatch
from html import escape

import msgspec

from loreg.entities.bases import BaseModel
from loreg.entities.comparison import AdapterComparison
from loreg.entities.display.text import describe, format_ranks, format_share, printable, read_total
from loreg.entities.queries import Page
from loreg.entities.results import MergeResult, PushResult
from loreg.entities.versions import Details, Provenance, Version

_MAX_ROWS = 20
_MAX_MATRIX = 12  # adapters of which a comparison is shown as a matrix
_MAX_CARD = 4000  # characters of a model card
#: No colour but translucent grey: readable on white and on black. Notebooks that strip styles show plain tables.
_STYLE = """<style>
.loreg-display{font-size:13px;line-height:1.45;overflow-x:auto}
.loreg-display table{border-collapse:collapse;margin:.35em 0;border:0;color:inherit;font-size:inherit}
.loreg-display th,.loreg-display td{text-align:left;padding:.2em .9em .2em 0;border:0;vertical-align:top;
 background:transparent;color:inherit;max-width:28em;overflow-wrap:anywhere}
.loreg-display thead th{border-bottom:1px solid rgba(128,128,128,.6);white-space:nowrap}
.loreg-display tbody tr{background:transparent;border-bottom:1px solid rgba(128,128,128,.2)}
.loreg-display .loreg-number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.loreg-display .loreg-name{white-space:nowrap}
.loreg-display .loreg-note{opacity:.75}
.loreg-display pre{white-space:pre-wrap;color:inherit;background:transparent;margin:.3em 0}
</style>"""
#: Which fields of an item are shown in a table, where not all are.
_COLUMNS = {
    "Event": ("at", "author", "action", "ref", "detail"),
    "Job": ("id", "kind", "namespace", "state", "what", "author", "created_at"),
    "BaseModel": ("names", "digest", "parameters", "complete", "license"),
}


@singledispatch
def render(value: object) -> str:
    """Return the HTML of a value that is displayed: its one line, where nothing more is known of its kind."""
    return frame(f"<code>{_text(describe(value))}</code>")


@render.register
def _render_version(version: Version) -> str:
    return frame(_version_table(version))


@render.register
def _render_push(result: PushResult) -> str:
    state = "pushed" if result.created else "there already, nothing new"
    return frame(f"<b>{state}</b>{_version_table(result.version)}{_notes(result.notes)}")


@render.register
def _render_details(details: Details) -> str:
    files = _table(("file", "size", "sha256"), [(f.path, f.size, f.sha256[:12]) for f in details.files], {"size"})
    merged = _certificate(details.provenance) if details.provenance else ""
    card = ""
    if details.card:
        text = details.card[:_MAX_CARD] + ("…" if len(details.card) > _MAX_CARD else "")
        lines = "\n".join(printable(line, _MAX_CARD) for line in text.splitlines())
        card = f"<details><summary>model card</summary><pre>{escape(lines)}</pre></details>"
    return frame(f"{_version_table(details.version)}{files}{merged}{card}")


@render.register
def _render_page(page: Page) -> str:  # type: ignore[type-arg]
    if not page.items:
        return frame("<span class='loreg-note'>empty</span>")
    rows = [_cells(item) for item in page[:_MAX_ROWS]]
    header = tuple(name for i, name in enumerate(rows[0]) if i == 0 or any(row[name] not in ("", None) for row in rows))
    numbers = {name for name in header if isinstance(rows[0][name], int | float)} | {"rank"}
    table = _table(header, [tuple(row[name] for name in header) for row in rows], numbers)
    return frame(table + _remainder(page))


@render.register
def _render_merge(result: MergeResult) -> str:
    place = f"pushed as {result.pushed.version.pinned}" if result.pushed else ""
    place = f"in {result.folder}" if result.folder else place
    heading = f"<div><b>{_text(place)}</b></div>" if place else ""
    return frame(f"{heading}{_certificate(result.provenance)}{_notes(result.notes)}")


@render.register
def _render_provenance(provenance: Provenance) -> str:
    return frame(_certificate(provenance))


@render.register
def _render_comparison(comparison: AdapterComparison) -> str:
    labels = comparison.labels
    if len(labels) > _MAX_MATRIX:
        rows = [(p.a, p.b, f"{p.cosine:.3f}", f"{p.left_overlap:.3f}", f"{p.right_overlap:.3f}") for p in comparison]
        rows.sort(key=lambda row: -abs(float(row[2])))
        header = ("a", "b", "cosine", "columns", "rows")
        return frame(_table(header, rows[:_MAX_ROWS], set(header[2:])) + _more(len(rows)))
    head = "".join(f"<th class='loreg-number'>{number}</th>" for number in range(1, len(labels) + 1))
    body = "".join(
        f"<tr><th class='loreg-name'>{i + 1} {_text(label)}</th>"
        f"{''.join('<td></td>' if i == j else _tinted(cosine) for j, cosine in enumerate(row))}</tr>"
        for i, (label, row) in enumerate(zip(labels, comparison.matrix("cosine"), strict=True))
    )
    table = f"<table><thead><tr><th>cosine of the deltas</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return frame(table)


def frame(body: str) -> str:
    """Return HTML in its frame, with the style of everything in it."""
    return f"<div class='loreg-display'>{_STYLE}{body}</div>"


def pairs_table(pairs: Iterable[tuple[str, object]]) -> str:
    """Return names with their values, one a row; an empty value is left out."""
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in pairs if value != "")
    return f"<table><tbody>{rows}</tbody></table>"


def _version_table(version: Version) -> str:
    facts, base = version.facts, version.base
    modules = ", ".join(f"{kind.name} × {kind.count}" for kind in facts.module_types)
    title = f"{version.pinned}{' (yanked)' if version.yanked else ''}"
    return f"<div><b>{_text(title)}</b></div>" + pairs_table(
        (
            ("content", f"{facts.variant}, rank {format_ranks(version)} on {modules}, {facts.parameters:,} parameters"),
            ("base", base.title if base else facts.base_hint),
            ("aliases", ", ".join(version.aliases)),
            ("tasks", ", ".join(version.tasks)),
            ("metrics", ", ".join(map(str, version.metrics))),
            ("labels", ", ".join(f"{name}={value}" for name, value in version.labels.items())),
            ("message", version.message),
            ("pushed", f"{version.created_at:%Y-%m-%d %H:%M} UTC by {version.author}"),
        )
    )


def _certificate(provenance: Provenance) -> str:
    total = read_total(provenance)
    if not total:
        return _table(("source", "weight"), [(s.label, f"{s.weight:g}") for s in provenance.sources], {"weight"})
    energy = format_share(total["retained_energy"])
    sentence = (
        f"{provenance.recipe.get('method', 'merge')}: {energy} of the merged delta's energy is kept "
        f"(ε = {total['epsilon']:.1e}) at rank {total['rank']} of {total['rank_in']}"
    )
    rows = [
        (source.label, source.digest[:12], f"{source.weight:g}", format_share(share))
        for source, share in zip(provenance.sources, total["retention"], strict=True)
    ]
    table = _table(("source", "digest", "weight", "kept of its delta"), rows, {"weight", "kept of its delta"})
    return f"<div>{_text(sentence, 400)}</div>{table}{_notes(provenance.certificate.get('warnings', ()))}"


def _cells(item: object) -> Mapping[str, object]:
    """Return what a table shows of an item, by column."""
    if isinstance(item, Version):
        base = item.base
        return {
            "ref": item.ref,
            "aliases": ", ".join(item.aliases),
            "rank": format_ranks(item),
            "base": (base.names[0] if base.names else base.digest[:12]) if base else item.facts.base_hint,
            "tasks": ", ".join(item.tasks),
            "metrics": ", ".join(map(str, item.metrics)),
            "created": f"{item.created_at:%Y-%m-%d}",
        }
    if not isinstance(item, msgspec.Struct):
        return {"": printable(item)}
    fields = msgspec.structs.asdict(item)
    fields |= {"id": str(fields["id"])} if "id" in fields else {}  # no comma in what is typed
    return {name: fields[name] for name in _COLUMNS.get(type(item).__name__, tuple(fields))}


def _table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers: set[str]) -> str:
    def attribute(name: str) -> str:
        return " class='loreg-number'" if name in numbers else " class='loreg-name'" if name == header[0] else ""

    head = "".join(f"<th{attribute(name)}>{_text(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td{attribute(n)}>{_text(c)}</td>' for n, c in zip(header, row, strict=True))}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tinted(cosine: float) -> str:
    """Return a cell whose tint is the cosine: blue for the same direction, orange for the opposite one."""
    color = "0,114,178" if cosine >= 0 else "230,159,0"
    return f"<td class='loreg-number' style='background:rgba({color},{0.55 * abs(cosine):.2f})'>{cosine:.3f}</td>"


def _remainder(page: Page) -> str:  # type: ignore[type-arg]
    more = "; more pages follow, which all() goes through" if page.cursor is not None else ""
    if len(page) <= _MAX_ROWS and not more:
        return ""
    shown = f"{min(len(page), _MAX_ROWS)} of {len(page)} on this page{more}"
    return f"<div class='loreg-note'>{shown}</div>"


def _more(count: int) -> str:
    return f"<div class='loreg-note'>the {_MAX_ROWS} largest of {count} pairs</div>" if count > _MAX_ROWS else ""


def _notes(notes: Iterable[object]) -> str:
    return "".join(f"<div class='loreg-note'>{_text(note, 400)}</div>" for note in notes)


def _text(value: object, limit: int = 200) -> str:
    """Return a value as escaped text in one line."""
    return escape(printable(_plain(value), limit))


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return value.title if isinstance(value, BaseModel) else str(value)
