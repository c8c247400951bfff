"""Read which versions a page is asked of, and find more to add: by a ref that is typed, or by a word of a search."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.entities import Query, Version
from loreg.errors import LoregError, UsageError
from loreg.local.backend import LocalBackend
from loreg.refs import parse_ref
from loreg.server.pages.visitor import Visitor
from loreg.value import Value

_MAX_LENGTH = 300
_MAX_MATCHES = 8


class SourceMatches(Value, frozen=True):
    """What somebody typed to add a version, and the versions that it may mean; ``asked`` if they typed anything."""

    text: str
    versions: tuple[Version, ...]
    asked: bool


async def read_sources(visitor: Visitor, most: int) -> tuple[list[tuple[int | None, str]], str]:
    """Return the refs that the URL names, each with its place there, and the text that is still to be searched for.

    A text that is typed to add a version counts as its ref if it is one; then its place is None. Raises UsageError for
    more than ``most``.
    """
    query = visitor.request.query_params
    sources: list[tuple[int | None, str]] = [
        (place, source.strip())
        for place, source in enumerate(query.getlist("source"))
        if source.strip() and str(place) != query.get("remove", "")
    ]
    text = query.get("find", "").strip()[:_MAX_LENGTH]
    if text and not is_typing(visitor) and await _is_ref(visitor, text):
        sources, text = [*sources, (None, text)], ""
    if len(sources) > most or any(len(source) > _MAX_LENGTH for _, source in sources):
        raise UsageError(f"expected {most} adapters at most", hint="loreg compare --help")
    return sources, text


def is_typing(visitor: Visitor) -> bool:
    """Return whether only the versions that match are asked for, while somebody types: nothing else is shown."""
    return "live" in visitor.request.query_params


async def find_matches(visitor: Visitor, text: str, versions: Sequence[Version]) -> SourceMatches:
    """Return versions to add: those that a search for the text finds, of the base that the first version is on."""
    base = (versions[0].base.digest if versions[0].base else versions[0].facts.base_hint) if versions else ""
    results = await visitor.backend.search(Query(text=text, base=base, limit=_MAX_MATCHES))
    if text and base and not results.items:  # whoever types a name sees it, and then why it does not fit
        results = await visitor.backend.search(Query(text=text, limit=_MAX_MATCHES))
    return SourceMatches(text, tuple(results.items), bool(text))


async def _is_ref(visitor: Visitor, text: str) -> bool:
    try:
        await visitor.backend.run(LocalBackend.read_sources, [parse_ref(text)])
    except LoregError:
        return False
    return True
