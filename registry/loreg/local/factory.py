"""Open the catalog and the store of a backend on this machine: for a registry, a server and a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loreg.catalog import Catalog
from loreg.checking.policy import Policy, read_policy
from loreg.entities import Access
from loreg.local.audit import read_audited_pulls
from loreg.local.backend import LocalBackend
from loreg.local.recent_answers import RecentAnswers
from loreg.local.sketch_index import SketchIndex
from loreg.refs import AdapterPattern
from loreg.settings import Settings
from loreg.storage import BlobStore, open_store


@dataclass(frozen=True)
class LocalRegistry:
    """A catalog, a store, what the team asks of adapters, and the table of which versions are kept.

    The ``sketch_index`` is filled when somebody first looks for versions by their weights. Pulls of adapters that match
    one of ``audited_pulls`` are events. What merges are previewed from is kept in ``frames_folder``, if there
    is one. A server has ``recent_answers``; a program is told what is so now.
    """

    catalog: Catalog
    store: BlobStore
    policy: Policy
    retention: Mapping[str, object]
    sketch_index: SketchIndex = field(default_factory=SketchIndex, kw_only=True)
    audited_pulls: tuple[AdapterPattern, ...] = field(default=(), kw_only=True)
    frames_folder: Path | None = field(default=None, kw_only=True)
    recent_answers: RecentAnswers | None = field(default=None, kw_only=True)

    def backend(self, access: Access) -> LocalBackend:
        """Return the backend as a caller with ``access`` may use it."""
        return LocalBackend(
            self.catalog,
            self.store,
            access,
            self.policy,
            self.retention,
            self.sketch_index,
            self.audited_pulls,
            self.frames_folder,
            self.recent_answers,
        )


def open_local(settings: Settings) -> LocalRegistry:
    """Open what the settings name; nothing is contacted yet. Raises UsageError for a setting that is not understood."""
    catalog = Catalog(settings.database_url)
    store = open_store(
        settings.storage_url, settings.storage_endpoint, settings.storage_public_endpoint, is_new=catalog.is_empty
    )
    policy = read_policy(settings.check, settings.origin["check"])
    audited_pulls = read_audited_pulls(settings.audit, settings.origin["audit"])
    return LocalRegistry(
        catalog,
        store,
        policy,
        settings.retention,
        audited_pulls=audited_pulls,
        frames_folder=settings.home / "cache" / "merges",
    )
