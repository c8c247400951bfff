"""``registry.bases``: add, list, show, relate and match the models that adapters are trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from loreg.adapters.hub_errors import HUB_PREFIX
from loreg.bases.hub import identify_on_hub
from loreg.bases.identify import Identity, identify, identify_headers, parse_shard_digests
from loreg.bases.model import read_model
from loreg.entities import (
    BaseAdded,
    BaseAttachment,
    BaseDetails,
    BaseEdge,
    BaseMatch,
    BaseModel,
    BaseSummary,
    Page,
    Progress,
    RecordedVerdict,
    RecordedVerdicts,
    no_progress,
)
from loreg.errors import NotFoundError, UsageError, explain_os_errors
from loreg.parsing import parse_verdict
from loreg.refs import Ref, parse_ref, source_text
from loreg.storage import put_bytes
from loreg.storage.collected import attempts_to_commit
from loreg.workspace.base_lookup import assess_fit, load_base, trained_adapter
from loreg.workspace.context import Context
from loreg.workspace.progress_bars import draws_progress
from loreg.workspace.resolve_sources import resolve_sources

_PAGE = 50  # versions


@draws_progress
class Bases:
    """The base models that a registry knows by content."""

    def __init__(self, context: Context, *, shows_progress: bool = False) -> None:
        self._context, self.shows_progress = context, shows_progress

    def add(
        self,
        where: Path | str,
        names: Sequence[str] = (),
        *,
        header_only: bool = False,
        attach: bool = True,
        progress: Progress = no_progress,
    ) -> BaseAdded:
        """Record the base at a path, or ``hf:NAME[@REV]``, by content, under ``names``.

        ``header_only`` takes names and shapes without reading a weight, as for the Hub. With ``attach`` it becomes the
        base of the versions that declare it, as :meth:`attach` does; one of which only headers are known does not.
        Raises NotFoundError, IntegrityError or AdapterFormatError for what is no model, UnavailableError; then nothing
        is recorded.

        >>> added = registry.bases.add("./base", ["org/tiny"])
        >>> added.created, added.base.names, added.base.parameters
        (True, ('org/tiny',), 16)
        """
        identity = self._identify(where, tuple(names), header_only, progress)
        backend = self._context.backend
        for attempt in attempts_to_commit():
            with attempt:
                backend.lease([identity.base.digest])
                put_bytes(self._context.store, identity.tensor_list)
                added = backend.add_base(identity.base)
        if not attach or not added.base.complete:
            return added
        try:
            return replace(added, attachments=self.attach(added.base.digest, progress=progress))
        except NotFoundError:  # the base is there: what is not is the route
            return replace(added, notes=(*added.notes, "the server is of an older release: no version was attached"))

    def attach(
        self, base: str, refs: Sequence[str] = (), *, progress: Progress = no_progress
    ) -> tuple[BaseAttachment, ...]:
        """Record a base, known by content, for versions that were pushed without one.

        These are the versions whose declared base has one of its names, and whose tensors all fit; of the newest 200
        with another name those that it fits are named too, and stay as they are. With ``refs`` it becomes the base of
        these if it fits, whatever they declare. Of all others only those are looked at that the caller may write. A
        base that is known stays. Raises NotFoundError, NotAllowedError, and CheckFailedError for a base of which only
        headers are known.

        >>> registry.push("./science", "team/science").version.base is None
        True
        >>> registry.bases.add("./base", ["base-of-science"], attach=False).attachments
        ()
        >>> registry.bases.attach("base-of-science", ["team/science"])[0].outcome
        <AttachmentOutcome.ATTACHED: 'attached'>
        >>> registry.bases.detach(["team/science"])[0].outcome
        <AttachmentOutcome.DETACHED: 'detached'>
        """
        return self._all_pages(self._context.backend.attach_base, base, refs, "attaching the base", progress)

    def detach(
        self, refs: Sequence[str] = (), *, base: str = "", progress: Progress = no_progress
    ) -> tuple[BaseAttachment, ...]:
        """Take back what :meth:`attach` recorded: for ``refs``, or for all versions that have ``base``.

        A version whose base was named at the push keeps it. Raises UsageError unless either is given, NotFoundError,
        NotAllowedError.
        """
        if bool(refs) == bool(base):
            raise UsageError("expected refs, or a base", hint="loreg base detach --help")
        return self._all_pages(self._context.backend.detach_base, base, refs, "detaching the base", progress)

    def _all_pages(
        self,
        ask: Callable[[str, Sequence[Ref], int, str | None], Page[BaseAttachment]],
        base: str,
        refs: Sequence[str],
        what: str,
        progress: Progress,
    ) -> tuple[BaseAttachment, ...]:
        """Return the answers of all pages: with refs, one for each 50 of them."""
        parsed = [parse_ref(ref) for ref in refs]
        batches = [parsed[start : start + _PAGE] for start in range(0, len(parsed), _PAGE)] or [[]]
        results: list[BaseAttachment] = []
        for batch in batches:
            cursor: str | None = None
            while True:
                page = ask(base, batch, _PAGE, cursor)
                results += page.items
                cursor = page.cursor
                progress(what, len(results), len(results) + (_PAGE if cursor else 0))
                if cursor is None:
                    break
        return tuple(results)

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
        backend = self._context.backend
        page = backend.base_summaries(limit, cursor)
        return page.followed_by(BaseSummary, lambda cursor: backend.base_summaries(limit, cursor))

    def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[BaseModel]:
        """Return a page of the known bases, the newest first.

        >>> added = registry.bases.add("./base", ["org/tiny"])
        >>> [base.names for base in registry.bases.list()]
        [('org/tiny',)]
        """
        backend = self._context.backend
        page = backend.bases(limit, cursor)
        return page.followed_by(BaseModel, lambda cursor: backend.bases(limit, cursor))

    def show(self, base: str) -> BaseDetails:
        """Return all that is known of the base of that name or digest. Raises NotFoundError, ConflictError.

        >>> pushed = registry.push("./science", "team/science", base="./base")
        >>> details = registry.bases.show(pushed.version.base.digest[:12])
        >>> details.versions, details.base.parameters
        (1, 16)
        """
        details = self._context.backend.base(base)
        return replace(details, files=parse_shard_digests(self._context.store.read(details.base.digest)))

    def relate(self, child: str, parent: str, kind: str, detail: Mapping[str, object] | None = None) -> BaseEdge:
        """Record that the base ``child`` came from ``parent``, as verified where the two contents prove it.

        ``kind`` is cast_of, quantized_from, renamed_from or finetuned_from. Raises UsageError for another one,
        ConflictError if the contents prove that it is not so, or if both are one base.
        """
        return self._context.backend.relate(child, parent, kind, detail or {})

    def upgrade_verdicts(
        self, old: str, new: str, *, verdict: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> RecordedVerdicts:
        """Return a page of what was recorded of an upgrade, see :meth:`loreg.Registry.upgrade_base`.

        Of one ``verdict``, exact, copy, retrain or unknown, or of all, in this order. Raises NotFoundError if nothing
        was recorded, UsageError for another verdict.
        """
        backend, kind = self._context.backend, None if verdict is None else parse_verdict(verdict)
        page = backend.upgrade_verdicts(old, new, kind, limit, cursor)
        return page.followed_by(RecordedVerdict, lambda cursor: backend.upgrade_verdicts(old, new, kind, limit, cursor))

    def match(self, source: Path | str, *, progress: Progress = no_progress) -> tuple[BaseMatch, ...]:
        """Return every known base with its verdict on the adapter, a ref or a folder, the best first.

        >>> added = registry.bases.add("./base", ["org/tiny"])
        >>> [(match.base.names[0], str(match.verdict.kind)) for match in registry.bases.match("./science")]
        [('org/tiny', 'struct-only')]
        """
        context = self._context
        with resolve_sources(context, [source_text(source)], progress) as (resolved,):
            adapter = trained_adapter(context, resolved.structure, resolved.base)
        known = self.list(limit=200).all()
        matches = [BaseMatch(base, assess_fit(context, adapter, load_base(context, base))) for base in known]
        return tuple(sorted(matches, key=lambda match: match.verdict, reverse=True))
