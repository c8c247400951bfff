"""``registry.bases``: add, list, show, relate and match the models that adapters are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from loreg.adapters.hub import HUB_PREFIX
from loreg.bases.hub import identify_on_hub
from loreg.bases.identify import Identity, identify, identify_headers, parse_shard_digests
from loreg.bases.model import read_model
from loreg.entities import (
    BaseAdded,
    BaseDetails,
    BaseEdge,
    BaseMatch,
    BaseModel,
    BaseSummary,
    Page,
    Progress,
    no_progress,
)
from loreg.errors import explain_os_errors
from loreg.storage import put_bytes
from loreg.storage.collected import attempts_to_commit
from loreg.workspace.base_lookup import assess_fit, load_base, trained_adapter
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import resolve_sources


class Bases:
    """The base models that a registry knows by content."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def add(
        self,
        where: Path | str,
        names: Sequence[str] = (),
        *,
        header_only: bool = False,
        progress: Progress = no_progress,
    ) -> BaseAdded:
        """Record the base at a path, or ``hf:NAME[@REV]``, by content, under ``names``.

        ``header_only`` takes names and shapes without reading a weight, as for the Hub. Raises NotFoundError,
        IntegrityError or AdapterFormatError for what is no model, UnavailableError; then nothing is recorded.
        """
        identity = self._identify(where, tuple(names), header_only, progress)
        backend = self._context.backend
        for attempt in attempts_to_commit():
            with attempt:
                backend.lease([identity.base.digest])
                put_bytes(self._context.store, identity.tensor_list)
                added = backend.add_base(identity.base)
        return added

    def _identify(self, where: Path | str, names: tuple[str, ...], header_only: bool, progress: Progress) -> Identity:
        if str(where).startswith(HUB_PREFIX):
            return identify_on_hub(str(where), names)
        path = Path(where).expanduser()
        with explain_os_errors(path, "check the folder of the base and its permissions"):
            if header_only:
                return identify_headers(read_model(path), names)
            return identify(path, names, progress, self._context.base_cache)

    def summaries(self, *, limit: int = 50, cursor: str | None = None) -> Page[BaseSummary]:
        """Return a page of the bases that versions were trained on, also those known by name only, the most used first.

        Each has the numbers of its adapters and versions.
        """
        return self._context.backend.base_summaries(limit, cursor)

    def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[BaseModel]:
        """Return a page of the known bases, the newest first."""
        return self._context.backend.bases(limit, cursor)

    def show(self, base: str) -> BaseDetails:
        """Return all that is known of the base of that name or digest. Raises NotFoundError, ConflictError."""
        details = self._context.backend.base(base)
        return replace(details, files=parse_shard_digests(self._context.store.read(details.base.digest)))

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, object] | None = None) -> BaseEdge:
        """Record that the base ``child`` came from ``parent``, as verified where the two contents prove it.

        ``kind`` is cast_of, quantized_from, renamed_from or finetuned_from. Raises UsageError for another one,
        ConflictError if the contents prove that it is not so, or if both are one base.
        """
        return self._context.backend.relate(child, parent, kind, detail or {})

    def match(self, source: str, *, progress: Progress = no_progress) -> tuple[BaseMatch, ...]:
        """Return every known base with its verdict on the adapter, a ref or a folder, the best first."""
        context = self._context
        with resolve_sources(context, [source], progress) as (resolved,):
            adapter = trained_adapter(context, resolved.structure, resolved.base)
        matches = []
        cursor: str | None = None
        while True:
            page = self.list(limit=200, cursor=cursor)
            matches += [BaseMatch(base, assess_fit(context, adapter, load_base(context, base))) for base in page.items]
            cursor = page.cursor
            if cursor is None:
                return tuple(sorted(matches, key=lambda match: match.verdict, reverse=True))
