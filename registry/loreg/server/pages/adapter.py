"""The page ``/NS/NAME``: what an adapter is, how to use it, which versions there are, and where they run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from markupsafe import Markup

from loreg.entities import AliasMove, Details, Page, Role, Version
from loreg.errors import ConflictError, NotFoundError
from loreg.local.backend import LocalBackend
from loreg.refs import AdapterName, Ref, page_path
from loreg.server.pages.aliases import write_seen
from loreg.server.pages.cards import MAX_CARD, render_card
from loreg.server.pages.commands import command
from loreg.server.pages.paths import ADAPTER, api_path, parse_adapter_path, with_query
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE = 50  # versions
_MAX_METRICS = 8  # columns
_MAX_LABELS = 50
_MAX_ALIASES, _MAX_LISTED = 30, 500
_MAX_MOVES = 20


class Snippet(Value, frozen=True):
    """One way to use a version: its ``text`` is to be typed as it is."""

    title: str
    text: str
    note: str = ""


class AdapterView(Value, frozen=True):
    """What the page shows; ``details`` are of the newest version that is not yanked, or of the newest.

    ``aliases`` are those that moved last, ``other_aliases`` the next. Who ``may_move`` an alias sends with the form
    what the page has shown, see :mod:`loreg.server.pages.aliases`.
    """

    adapter: AdapterName
    details: Details
    versions: tuple[Version, ...]
    measured: tuple[str, ...]
    more_measured: int
    card: Markup
    is_card_cut: bool
    snippets: tuple[Snippet, ...]
    aliases: tuple[tuple[str, int], ...]
    other_aliases: tuple[tuple[str, int], ...]
    hidden_aliases: int
    moves: tuple[AliasMove, ...]
    has_more_moves: bool
    next_path: str
    may_move: bool
    seen: str
    max_labels: int = _MAX_LABELS


@routes.api_route(ADAPTER, methods=["GET", "HEAD"])
async def adapter(request: Request, namespace: str, name: str) -> Response:
    """Show an adapter."""
    visitor = await get_visitor(request)
    named = parse_adapter_path(namespace, name)
    cursor = request.query_params.get("cursor") or None
    versions = await visitor.backend.versions(named, _PAGE, cursor)
    details, numbers = await visitor.backend.run(_read_adapter, named)
    aliases = _sort_aliases(numbers, details.alias_moves)
    measured = _list_measured(versions.items)
    view = AdapterView(
        adapter=named,
        details=details,
        versions=versions.items,
        measured=measured[:_MAX_METRICS],
        more_measured=max(0, len(measured) - _MAX_METRICS),
        card=await run_in_threadpool(render_card, details.card),
        is_card_cut=len(details.card) > MAX_CARD,
        snippets=snippets(details.version, visitor.endpoint),
        aliases=tuple(sorted(aliases[:_MAX_ALIASES])),
        other_aliases=tuple(sorted(aliases[_MAX_ALIASES:_MAX_LISTED])),
        hidden_aliases=max(0, len(aliases) - _MAX_LISTED),
        moves=details.alias_moves[:_MAX_MOVES],
        has_more_moves=len(details.alias_moves) > _MAX_MOVES,
        next_path=with_query(page_path(named), [("cursor", versions.cursor)]) if versions.cursor else "",
        may_move=bool(visitor.secret) and visitor.access.may(Role.WRITE, named.namespace),
        seen=write_seen(aliases),
    )
    return page(
        visitor,
        "adapter.html",
        title=str(named),
        view=view,
        command=command("ls", str(named)),
        api=api_path(named, "versions"),
        document=versions,
    )


def _show_newest(backend: LocalBackend, named: AdapterName) -> Details:
    """Return the newest version that is not yanked, or else the newest. Raises NotFoundError."""
    try:
        return backend.show(Ref(named))
    except (ConflictError, NotFoundError):
        newest: Page[Version] = backend.versions(named, 1, None)
        return backend.show(Ref(named, number=newest.items[0].number))


def _read_adapter(backend: LocalBackend, named: AdapterName) -> tuple[Details, dict[str, int]]:
    return _show_newest(backend, named), backend.current_aliases(named)


def _sort_aliases(numbers: Mapping[str, int], moves: Sequence[AliasMove]) -> tuple[tuple[str, int], ...]:
    """Return the aliases with what they mean, those first that moved last; ``moves`` are the newest first."""
    order: dict[str, int] = {}
    for place, move in enumerate(moves):
        order.setdefault(move.alias, place)
    return tuple(sorted(numbers.items(), key=lambda item: (order.get(item[0], len(moves)), item[0])))


def _list_measured(versions: Sequence[Version]) -> tuple[str, ...]:
    """Return the metrics of these versions, those of the most versions first."""
    counts: dict[str, int] = {}
    for version in versions:
        for metric in version.metrics:
            counts[metric.measured] = counts.get(metric.measured, 0) + 1
    return tuple(sorted(counts, key=lambda measured: (-counts[measured], measured)))


def snippets(version: Version, server: str) -> tuple[Snippet, ...]:
    """Return the ways to use a version from this server; empty for the registry of a machine, which has none."""
    ref, folder = version.ref, f"./{version.adapter.name}"
    endpoint = f"export LOREG_ENDPOINT={shlex.quote(server)}\n" if server else ""
    base = version.base.names[0] if version.base and version.base.names else version.facts.base_hint
    if any(not character.isprintable() for character in base):
        base = ""
    peft = Snippet(
        "PEFT",
        "import loreg\n"
        "from peft import PeftModel\n\n"
        f"registry = loreg.connect({f'endpoint={server!r}' if server else ''})\n"
        f"folder = registry.pull({ref!r}, {folder!r}).folder\n"
        "model = PeftModel.from_pretrained(base_model, folder)",
        f"base_model is {base}, loaded with transformers." if base else "base_model is the model it was trained on.",
    )
    vllm = Snippet(
        "vLLM",
        f"{endpoint}loreg pull {shlex.quote(ref)} {shlex.quote(folder)} --profile vllm\n"
        f"vllm serve {shlex.quote(base or 'BASE')} --enable-lora --max-lora-rank {_vllm_rank(version)} \\\n"
        f"  --lora-modules {shlex.quote(f'{version.adapter.name}={folder}')}",
        "With loreg's plugin vLLM follows an alias by itself.",
    )
    hub = Snippet(
        "hf",
        f"export HF_ENDPOINT={shlex.quote(server)}\n"
        f"hf download {shlex.quote(str(version.adapter))} --revision v{version.number}",
        "Any client of the Hub reads from here. Where tokens are asked for, HF_TOKEN is one.",
    )
    pull = Snippet(
        "loreg",
        f"{endpoint}loreg pull {shlex.quote(ref)} {shlex.quote(folder)}",
        "Where tokens are asked for, LOREG_TOKEN is one; loreg login keeps it."
        if server
        else "Others on this machine and elsewhere reach it through a server: loreg serve.",
    )
    return (peft, vllm, hub, pull) if server else (peft, vllm, pull)


def _vllm_rank(version: Version) -> int:
    """Return the least rank that vLLM can be started with for it: one of a few."""
    ranks = (8, 16, 32, 64, 128, 256, 320, 512)
    return next((rank for rank in ranks if rank >= version.facts.rank_max), version.facts.rank_max)
