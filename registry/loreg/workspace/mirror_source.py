"""Where a mirror reads: a registry, on this machine or behind a server, as any reader of it may; or a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from loreg.entities import (
    PULL,
    BaseDetails,
    BaseModel,
    BaseUpgrade,
    Canary,
    Details,
    Event,
    EventFilter,
    MetricDeclaration,
    OriginEvent,
    Page,
    RecordedVerdict,
    Sketch,
    Version,
)
from loreg.errors import NotAllowedError, NotFoundError
from loreg.refs import AdapterName, Ref
from loreg.storage import Blob
from loreg.workspace.context import Context

T = TypeVar("T")
_PAGE = 200  # versions or events in one answer


class MirrorSource(Protocol):
    """What a mirror asks. Nothing of it is believed that its content can tell: the target reads the blobs itself."""

    #: Where it is, for people.
    name: str
    #: The id of the registry, or its URL, as events name it.
    registry: str

    def adapters(self) -> Iterator[AdapterName]:
        """Yield all adapters."""
        ...

    def versions(self, adapter: AdapterName) -> Iterator[Version]:
        """Yield the versions of an adapter, the newest first, yanked ones too."""
        ...

    def details(self, adapter: AdapterName, number: int) -> Details:
        """Return a version and its files."""
        ...

    def sketch(self, adapter: AdapterName, number: int) -> Sketch | None:
        """Return what is stored of a version's weights; None if nothing is."""
        ...

    def events(self, adapter: AdapterName) -> Iterator[OriginEvent]:
        """Yield the events of an adapter, the newest first. Raises NotAllowedError where they cannot be read."""
        ...

    def canaries(self, adapter: AdapterName) -> tuple[Canary, ...] | None:
        """Return the versions that have a share of an alias; None if the source does not know."""
        ...

    def declarations(self) -> tuple[MetricDeclaration, ...]:
        """Return what is declared of metrics."""
        ...

    def base(self, base: BaseModel) -> BaseDetails:
        """Return what is known of the base of a version. Raises NotAllowedError where that cannot be read."""
        ...

    def verdicts(self, upgrade: BaseUpgrade) -> Iterator[RecordedVerdict]:
        """Yield what is recorded of an upgrade, of each version of the old base."""
        ...

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has; None if it is not there."""
        ...

    def copy(self, blob: Blob, path: Path) -> None:
        """Write a blob to ``path``, hashed. Raises NotFoundError, and IntegrityError for other bytes."""
        ...


class RegistrySource:
    """A registry that is read through its backend."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.name = context.store.url
        self.registry = registry_name(context)

    def adapters(self) -> Iterator[AdapterName]:
        """Yield all adapters that the caller may read, by name."""
        return (entry.adapter for entry in _pages(self._context.backend.adapters))

    def versions(self, adapter: AdapterName) -> Iterator[Version]:
        """Yield the versions page by page."""
        return list_versions(self._context, adapter)

    def details(self, adapter: AdapterName, number: int) -> Details:
        """Ask for one version."""
        return self._context.backend.show(Ref(adapter, number=number))

    def sketch(self, adapter: AdapterName, number: int) -> Sketch | None:
        """Ask for the sketch; a server of an older release has none."""
        try:
            return self._context.backend.sketch(Ref(adapter, number=number))
        except NotFoundError:
            return None

    def events(self, adapter: AdapterName) -> Iterator[OriginEvent]:
        """Yield the events page by page."""
        return list_events(self._context, adapter)

    def canaries(self, adapter: AdapterName) -> tuple[Canary, ...] | None:
        """Ask for the canaries; a server of an older release has none."""
        return self._context.backend.canaries(adapter)

    def declarations(self) -> tuple[MetricDeclaration, ...]:
        """Ask for the declarations; a server of an older release has none."""
        return self._context.backend.metric_vocabulary().declarations

    def base(self, base: BaseModel) -> BaseDetails:
        """Ask for the base by its digest."""
        return self._context.backend.base(base.digest)

    def verdicts(self, upgrade: BaseUpgrade) -> Iterator[RecordedVerdict]:
        """Yield them page by page."""
        return list_verdicts(self._context, upgrade)

    def size(self, sha256: str) -> int | None:
        """Ask the store."""
        return self._context.store.size(sha256)

    def copy(self, blob: Blob, path: Path) -> None:
        """Download the blob."""
        self._context.store.get(blob, path)


def registry_name(context: Context) -> str:
    """Return the id of a registry that this machine reaches, else the URL of its server."""
    try:
        return context.backend.upkeep().registry_id()
    except NotAllowedError:
        return context.store.url


def list_versions(context: Context, adapter: AdapterName) -> Iterator[Version]:
    """Yield the versions of an adapter, the newest first; none if there is no such adapter."""
    return _pages(lambda limit, cursor: context.backend.versions(adapter, limit, cursor))


def list_verdicts(context: Context, upgrade: BaseUpgrade) -> Iterator[RecordedVerdict]:
    """Yield what is recorded of an upgrade, those that move exactly first; none if the registry does not know it."""
    old, new = upgrade.old.digest, upgrade.new.digest
    return _pages(lambda limit, cursor: context.backend.upgrade_verdicts(old, new, None, limit, cursor))


def list_events(context: Context, adapter: AdapterName) -> Iterator[OriginEvent]:
    """Yield the events of an adapter, the newest first; none if there is no such adapter."""
    for event in _pages(lambda limit, cursor: context.backend.events(limit, cursor, EventFilter(adapter, pulls=False))):
        name, _, number = event.ref.partition(":v")
        # A server of an older release gives those of all. Who pulled in the source is no history of the adapter.
        if name == str(adapter) and event.action != PULL:
            yield _to_origin(event, number)


def _to_origin(event: Event, number: str) -> OriginEvent:
    return OriginEvent(event.at, event.author, event.action, int(number) if number else None, event.detail)


def _pages(fetch: Callable[[int, str | None], Page[T]]) -> Iterator[T]:
    """Yield the items of all pages."""
    cursor: str | None = None
    while True:
        try:
            page = fetch(_PAGE, cursor)
        except NotFoundError:
            return
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
