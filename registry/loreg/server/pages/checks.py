"""The page ``/checks``: which rules versions break, what they lack, which are the same, which break the policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from loreg.checking.explain import Explanation, explain
from loreg.entities import (
    CheckedCount,
    FindingCount,
    FlaggedVersion,
    MissingCounts,
    MissingKind,
    NearDuplicates,
    Severity,
)
from loreg.errors import LoregError, NotFoundError, UsageError
from loreg.local.backend import LocalBackend
from loreg.refs import ALL_ADAPTERS, NO_NAMESPACE, AdapterPattern
from loreg.server.pages.commands import command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
CHECKS = "/checks"
_PAGE, _MAX_GROUPS, _MAX_LENGTH = 50, 50, 4096
#: What mends a version that lacks something; ``{ref}`` is the version, ``{adapter}`` the adapter.
_MENDS = {
    MissingKind.CARD: "loreg push ./folder {adapter}",
    MissingKind.LICENSE: "loreg push ./folder {adapter}",
    MissingKind.TASK: "loreg push ./folder {adapter} --task TASK",
    MissingKind.METRIC: "loreg metric add {ref} accuracy=0.9@DATASET:SPLIT",
    MissingKind.BASE: "loreg base attach BASE {ref}",
}
_ABOUT = {
    MissingKind.CARD: "No README.md: its name alone says what it is. Pushed with one, it is a new version.",
    MissingKind.LICENSE: "The card names no license in its head: others do not know what they may do with it.",
    MissingKind.TASK: "No task: who searches by task does not find it. Pushed again with one, the version gets it.",
    MissingKind.METRIC: "Nothing was measured: it is never the best of anything.",
    MissingKind.BASE: "Its base is not known by content: a name is all that says what it runs on.",
}


class RuleRow(Value, frozen=True):
    """A rule in words, and how many versions break it, in all and by namespace, the most first."""

    rule: Explanation
    versions: int
    namespaces: tuple[tuple[str, int], ...]


class ChecksView(Value, frozen=True):
    """What the page shows of the newest versions.

    ``lacking`` is what of the ``missing`` there is: what it is, how many versions lack it, and by namespace.
    """

    rules: tuple[RuleRow, ...]
    missing: MissingCounts
    lacking: tuple[tuple[MissingKind, int, tuple[tuple[str, int], ...]], ...]
    more_path: str


class MoreView(Value, frozen=True):
    """What takes longer: groups of near-duplicates, or the ``problem`` with them, and breaches of the policy.

    ``unchecked`` are namespaces of which not every version was checked. What the policy demands is told to those alone
    who have a token: ``tells_policy``.
    """

    unchecked: tuple[CheckedCount, ...]
    duplicates: tuple[NearDuplicates, ...]
    others: int
    problem: str
    failures: tuple[tuple[str, str, str], ...]
    has_policy: bool
    tells_policy: bool
    namespace: str


class FlaggedView(Value, frozen=True):
    """The versions that break a rule or lack something, each with the command that mends it if there is one."""

    title: str
    about: str
    remedy: str
    rows: tuple[tuple[FlaggedVersion, str], ...]
    namespace: str
    next_path: str


@routes.api_route(CHECKS, methods=["GET", "HEAD"])
async def checks(request: Request) -> Response:
    """Show what is wrong with the versions that the visitor may read: counted, or of one rule one by one."""
    visitor = await get_visitor(request)
    query = request.query_params
    code, missing, namespace = (query.get(name, "").strip()[:200] for name in ("code", "missing", "namespace"))
    cursor = query.get("cursor", "")[:_MAX_LENGTH] or None
    if code or missing:
        return await _show_flagged(visitor, code, missing, namespace, cursor)
    if query.get("more"):
        view = await run_in_threadpool(_look_longer, visitor, namespace)
        text = command("ls", f"{namespace or '*'}/*" if namespace != NO_NAMESPACE else "*", "--duplicates")
        return page(visitor, "checks_more.html", title="Duplicates and policy", view=view, command=text)
    is_json = query.get("format") == "json"
    missing_counts = await visitor.backend.run(LocalBackend.count_missing)
    return page(
        visitor,
        "checks.html",
        title="Checks",
        view=ChecksView(
            rules=_group(await visitor.backend.run(LocalBackend.count_rules)),
            missing=missing_counts,
            lacking=tuple(_group_missing(missing_counts)),
            more_path=with_query(CHECKS, [("more", "1")]),
        ),
        command=command("findings"),
        api="/api/v1/findings",
        document=await visitor.backend.count_findings(ALL_ADAPTERS) if is_json else (),
    )


def _group(counts: Sequence[FindingCount]) -> tuple[RuleRow, ...]:
    """Return a row for each rule: errors before warnings, those that most versions break first."""
    namespaces: dict[str, dict[str, int]] = {}
    for count in counts:
        of_code = namespaces.setdefault(count.code, {})
        of_code[count.namespace] = of_code.get(count.namespace, 0) + count.versions
    rows = [
        RuleRow(_explain(code), sum(of_code.values()), tuple(sorted(of_code.items(), key=lambda item: -item[1])))
        for code, of_code in namespaces.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.rule.severity != "error", -row.versions, row.rule.code)))


def _group_missing(missing: MissingCounts) -> Iterator[tuple[MissingKind, int, tuple[tuple[str, int], ...]]]:
    for kind in MissingKind:
        counts = tuple((count.namespace, count.versions) for count in missing.counts if count.kind == kind)
        if counts:
            yield kind, sum(versions for _, versions in counts), counts


def _explain(code: str) -> Explanation:
    """Return what a code stands for; one of another release, of which nothing is known, as a warning."""
    try:
        return explain(code)
    except NotFoundError:
        return Explanation(code, Severity.WARNING, "A rule that this release does not have.", "loreg check REF", "")


async def _show_flagged(visitor: Visitor, code: str, missing: str, namespace: str, cursor: str | None) -> Response:
    own = None if not namespace else "" if namespace == NO_NAMESPACE else namespace
    if code:
        rule = explain(code)
        listed = await visitor.backend.run(LocalBackend.list_with_finding, rule.code, own, _PAGE, cursor)
        title, about, remedy = rule.code, rule.about, rule.remedy
        text = command("check", "--explain", rule.code)
        mends = [command("check", row.ref) for row in listed.items]
    else:
        kind = _parse_kind(missing)
        listed = await visitor.backend.run(LocalBackend.list_missing, kind, own, _PAGE, cursor)
        title, about, remedy, text = f"Without a {kind}", _ABOUT[kind], "", ""
        mends = [_MENDS[kind].format(ref=row.ref, adapter=row.ref.partition(":")[0]) for row in listed.items]
    pairs = [("code", code), ("missing", missing), ("namespace", namespace)]
    view = FlaggedView(
        title=title,
        about=about,
        remedy=remedy,
        rows=tuple(zip(listed.items, mends, strict=True)),
        namespace=namespace,
        next_path=with_query(CHECKS, [*pairs, ("cursor", listed.cursor)]) if listed.cursor else "",
    )
    return page(visitor, "flagged.html", title=title, view=view, command=text, document=listed)


def _parse_kind(text: str) -> MissingKind:
    try:
        return MissingKind(text)
    except ValueError as error:
        raise UsageError(f"{text[:40]!r} is nothing that is missed", hint=f"one of {', '.join(MissingKind)}") from error


def _look_longer(visitor: Visitor, namespace: str) -> MoreView:
    backend, problem = visitor.backend.local, ""
    pattern = AdapterPattern("" if namespace == NO_NAMESPACE else namespace, "*") if namespace else ALL_ADAPTERS
    groups: tuple[NearDuplicates, ...] = ()
    try:
        groups = backend.near_duplicates(pattern)
    except LoregError as error:
        problem = error.outside
    counted = backend.count_findings(pattern).namespaces
    return MoreView(
        unchecked=tuple(row for row in counted if row.checked < row.versions or row.stale or row.failed),
        duplicates=groups[:_MAX_GROUPS],
        others=max(len(groups) - _MAX_GROUPS, 0),
        problem=problem,
        failures=backend.list_policy_failures() if visitor.access.permissions else (),
        has_policy=bool(visitor.service.policy.aliases),
        tells_policy=bool(visitor.access.permissions),
        namespace=namespace,
    )
