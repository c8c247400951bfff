"""The page ``/NS/NAME/diff/v2..v3``: what changed between two versions, as far as no weights are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from loreg.entities import AdapterDiff, Details, FieldDiff, Metric, ModuleDiff, Version
from loreg.entities.display.text import tell_apart
from loreg.errors import LoregError, UsageError
from loreg.local.backend import LocalBackend
from loreg.manifest import File
from loreg.refs import AdapterName, Ref
from loreg.server.pages.commands import command
from loreg.server.pages.inspection import read_structure
from loreg.server.pages.paths import CHOOSE_DIFF, DIFF, diff_path, parse_adapter_path
from loreg.server.pages.version_facts import list_facts
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value
from loreg.verbs.diff import diff_headers

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_MAX_DIGITS = 9  # of the number of a version
_MAX_MODULES = 100


class MetricChange(Value, frozen=True):
    """A metric of one of the two versions or of both; ``word`` and ``mark`` say whether it became better."""

    name: str
    before: str
    after: str
    change: str = ""
    word: str = ""
    mark: str = ""


class FileChange(Value, frozen=True):
    """A file that only one of the versions has, or that has other content in the other."""

    path: str
    before: File | None
    after: File | None


class DiffView(Value, frozen=True):
    """What the page shows; ``difference`` is None, and ``problem`` says why, if a header could not be read."""

    before: Version
    after: Version
    difference: AdapterDiff | None
    metrics: tuple[MetricChange, ...]
    facts: tuple[FieldDiff, ...]
    files: tuple[FileChange, ...]
    same_files: int
    ranks: tuple[ModuleDiff, ...]
    more_ranks: int
    same_ranks: int
    exchanged_path: str
    problem: str = ""


@routes.api_route(CHOOSE_DIFF, methods=["GET", "HEAD"])
async def choose(namespace: str, name: str, a: str = "", b: str = "") -> Response:
    """Go to the page of the two versions that were chosen in a form."""
    adapter = parse_adapter_path(namespace, name)
    before, after = (number.removeprefix("v") for number in (a, b))
    if not all(number.isdecimal() and 0 < len(number) <= _MAX_DIGITS and int(number) for number in (before, after)):
        raise UsageError(f"expected two versions of {adapter} to compare", hint=f"loreg ls {adapter}")
    return RedirectResponse(diff_path(adapter, int(before), int(after)), 303)


@routes.api_route(DIFF, methods=["GET", "HEAD"])
async def diff(request: Request, namespace: str, name: str, before: str, after: str) -> Response:
    """Show what changed from one version to another."""
    visitor = await get_visitor(request)
    adapter = parse_adapter_path(namespace, name)
    a, b = await visitor.backend.run(_read_both, adapter, int(before[1:]), int(after[1:]))
    view = await run_in_threadpool(_compare, visitor, a, b)
    return page(
        visitor,
        "diff.html",
        title=f"{adapter} {before} → {after}",
        view=view,
        command=command("diff", a.version.ref, b.version.ref),
        document=view.difference,
    )


def _read_both(backend: LocalBackend, adapter: AdapterName, before: int, after: int) -> tuple[Details, Details]:
    return backend.show(Ref(adapter, number=before)), backend.show(Ref(adapter, number=after))


def _compare(visitor: Visitor, a: Details, b: Details) -> DiffView:
    difference, problem = None, ""
    try:
        difference = diff_headers(a, b, *(read_structure(visitor.service, details) for details in (a, b)))
    except LoregError as error:
        problem = error.outside
    modules = difference.modules if difference else ()
    changed = [module for module in modules if module.rank_a != module.rank_b]
    files, same_files = _compare_files(a.files, b.files)
    return DiffView(
        before=a.version,
        after=b.version,
        difference=difference,
        metrics=_compare_metrics(a.version, b.version),
        facts=_compare_facts(a.version, b.version),
        files=files,
        same_files=same_files,
        ranks=tuple(changed[:_MAX_MODULES]),
        more_ranks=max(0, len(changed) - _MAX_MODULES),
        same_ranks=len(modules) - len(changed),
        exchanged_path=diff_path(a.version.adapter, b.version.number, a.version.number),
        problem=problem,
    )


def _compare_metrics(a: Version, b: Version) -> tuple[MetricChange, ...]:
    """Return the metrics of both, those that changed first."""
    before, after = ({metric.measured: metric for metric in version.metrics} for version in (a, b))
    changes = [_compare_metric(name, before.get(name), after.get(name)) for name in sorted({*before, *after})]
    return tuple(sorted(changes, key=lambda change: not change.word))


def _compare_metric(name: str, before: Metric | None, after: Metric | None) -> MetricChange:
    if before is None or after is None:
        a, b = (f"{metric.value:.6g}" if metric else "" for metric in (before, after))
        return MetricChange(name, a, b, word="new" if before is None else "gone")
    change = after.value - before.value
    a, b = tell_apart(before.value, after.value)
    if not change:
        return MetricChange(name, a, b)
    is_better = (change > 0) == after.higher_is_better
    word, mark = ("better", "good") if is_better else ("worse", "bad")
    shown = f"{change:+.3g}" if math.isfinite(change) else ""
    return MetricChange(name, a, b, shown, word, mark)


def _compare_facts(a: Version, b: Version) -> tuple[FieldDiff, ...]:
    """Return what is known of the two versions where it differs: facts, tasks, labels and the message."""
    before, after = (list_facts(version) for version in (a, b))
    names = [*before, *(name for name in after if name not in before)]
    return tuple(
        FieldDiff(name, before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name, "") != after.get(name, "")
    )


def _compare_files(before: Sequence[File], after: Sequence[File]) -> tuple[tuple[FileChange, ...], int]:
    """Return the files that differ, by path, and how many are the same."""
    a, b = ({file.path: file for file in files} for files in (before, after))
    paths = sorted({*a, *b})
    changes = [FileChange(path, a.get(path), b.get(path)) for path in paths if _content(a, path) != _content(b, path)]
    return tuple(changes), len(paths) - len(changes)


def _content(files: Mapping[str, File], path: str) -> str:
    return files[path].sha256 if path in files else ""
