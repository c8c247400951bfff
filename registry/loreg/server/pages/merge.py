"""The page ``/merge``: what a weighted sum of adapters keeps and loses, while its weights move."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from starlette.datastructures import QueryParams

from loreg.entities import MergePreview, PreviewFigures, Role, Version
from loreg.errors import ConflictError, LoregError, NotFoundError, UsageError
from loreg.local.backend import LocalBackend
from loreg.merging.coefficients import LINEAR_METHODS
from loreg.refs import Ref, parse_ref
from loreg.server.pages import sessions
from loreg.server.pages.chosen_sources import SourceMatches, find_matches, is_typing, read_sources
from loreg.server.pages.error_curve import ErrorCurve, draw_error_curve
from loreg.server.pages.merge_form import MAX_SOURCES, PATH, MergeQuestion, read_question
from loreg.server.pages.paths import job_path, with_query
from loreg.server.pages.rank_limits import RankVerdict, judge_ranks
from loreg.server.pages.visitor import HEADERS, PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
JOB, RECIPE = "/_/merge-job", "/_/merge.toml"
_MAX_WORST = 8  # modules
#: The methods that are previewed, as a list to choose from.
METHODS = tuple(LINEAR_METHODS)


class NumbersView(Value, frozen=True):
    """What moves with the weights."""

    preview: MergePreview
    curve: ErrorCurve
    worst: tuple[PreviewFigures, ...]
    servers: tuple[RankVerdict, ...]


class MergeView(Value, frozen=True):
    """What the page shows; ``numbers`` are None where they are still to be computed, or ``problem`` says why not.

    ``matches`` are versions to add; ``may_ask`` says whether a form can be sent by who looks. ``is_busy`` if the page
    asks again by itself.
    """

    question: MergeQuestion
    matches: SourceMatches
    versions: tuple[Version, ...]
    numbers: NumbersView | None
    problem: str
    hint: str
    is_busy: bool
    compute_path: str
    recipe_path: str
    command: str
    may_ask: bool
    methods: tuple[str, ...] = METHODS


@routes.api_route(PATH, methods=["GET", "HEAD"])
async def merge(request: Request) -> Response:
    """Show the form, and the figures where they are known or asked for."""
    visitor = await get_visitor(request)
    chosen, text = await read_sources(visitor, MAX_SOURCES)
    question = read_question(request.query_params, chosen)
    refs = tuple(map(parse_ref, question.sources))
    sources = await visitor.backend.run(LocalBackend.read_sources, refs)
    numbers, problem = None, None
    computes = bool(request.query_params.get("compute")) or request.query_params.get("format") == "json"
    if refs and not is_typing(visitor):
        try:
            if computes or await run_in_threadpool(visitor.backend.local.has_preview, sources):
                numbers = await run_in_threadpool(_preview, visitor, refs, question)
        except NotFoundError:
            raise
        except LoregError as error:
            problem = error
    versions = tuple(version for version, _ in sources)
    view = MergeView(
        question=question,
        matches=await find_matches(visitor, text, versions),
        versions=versions,
        numbers=numbers,
        problem=problem.outside if problem else "",
        hint=problem.hint if problem else "",
        is_busy=isinstance(problem, ConflictError),
        compute_path=with_query(PATH, [*question.pairs, ("compute", "1")]),
        recipe_path=with_query(RECIPE, question.pairs),
        command=question.command("--dry-run") if refs else "",
        may_ask=bool(visitor.secret) and visitor.access.may_somewhere(Role.WRITE),
    )
    return page(
        visitor,
        "merge.html",
        title="Merge",
        view=view,
        api=with_query("/api/v1/merge-preview", question.pairs) if refs else "",
        document=numbers.preview if numbers else None,
    )


@routes.get(RECIPE)
async def recipe(request: Request) -> Response:
    """Return the merge as a file for ``loreg merge --recipe``."""
    await get_visitor(request)
    question = read_question(request.query_params)
    if not question.sources:
        raise UsageError("a recipe needs adapters", hint="loreg merge --help")
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="merge.toml"'}
    return Response(question.recipe, 200, headers, "application/toml")


@routes.post(JOB)
async def submit(request: Request) -> Response:
    """Queue the merge for a worker, in the name of who signed in."""
    visitor = await get_visitor(request)
    fields = await sessions.read_form(request, visitor.secret)
    question = read_question(QueryParams(fields.get("question", "")))
    document: dict[str, object] = {
        "sources": list(question.sources),
        "weights": list(question.weights),
        "name": fields.get("name", "").strip(),
        **({"rank": question.rank} if question.rank else {}),
        "method": question.method,
    }
    job = await visitor.backend.submit("merge", document)
    return RedirectResponse(job_path(job.id), 303)


def _preview(visitor: Visitor, refs: tuple[Ref, ...], question: MergeQuestion) -> NumbersView:
    preview = visitor.backend.local.preview_merge(refs, question.weights, question.rank, question.method)
    worst = sorted(preview.modules, key=lambda module: (-module.epsilon, -module.norm))
    return NumbersView(
        preview=preview,
        curve=draw_error_curve(preview.errors, preview.total.rank, preview.total.epsilon),
        worst=tuple(worst[:_MAX_WORST]),
        servers=judge_ranks([module.rank for module in preview.modules]),
    )
