"""Registry: the verbs of loreg on one catalog and one store."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from loreg.backend import Backend
from loreg.checking.policy import Policy, read_policy
from loreg.entities import Access, DoctorCheck
from loreg.errors import NotAllowedError
from loreg.settings import Settings, load
from loreg.storage import BlobStore
from loreg.verbs import administration as administering
from loreg.verbs import bake as baking
from loreg.verbs import bases as knowing
from loreg.verbs import check as checking
from loreg.verbs import compare as comparing
from loreg.verbs import doctor as diagnosing
from loreg.verbs import export as exporting
from loreg.verbs import extract as extracting
from loreg.verbs import jobs as working
from loreg.verbs import merge as merging
from loreg.verbs import pull as pulling
from loreg.verbs import push as pushing
from loreg.verbs import reproduce as reproducing
from loreg.verbs import search as searching
from loreg.verbs import tag as tagging
from loreg.workspace.context import Context

P = ParamSpec("P")
R = TypeVar("R")


def connect(
    *,
    home: str | None = None,
    database_url: str | None = None,
    storage_url: str | None = None,
    storage_endpoint: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    author: str | None = None,
) -> Registry:
    """Open the registry of the settings in force: arguments > ``LOREG_*`` > user file > ``loreg login``.

    With ``endpoint`` the registry is that of a loreg server, asked with ``token``; else database and store are used
    directly. What an argument names goes before all the rest: with ``home`` it is the registry in that folder. Nothing
    is contacted before the first verb. Raises UsageError for a setting that is not understood, and for an endpoint
    together with a registry on this machine.
    """
    flags = {
        "home": home,
        "database_url": database_url,
        "storage_url": storage_url,
        "storage_endpoint": storage_endpoint,
        "endpoint": endpoint,
        "token": token,
        "author": author,
    }
    settings = load(flags, os.environ)
    for text in settings.notes:
        warnings.warn(text, stacklevel=2)
    return Registry(settings)


def _verb(function: Callable[Concatenate[Context, P], R]) -> Callable[Concatenate[Registry, P], R]:
    """The verb as a method: the same parameters and docstring, with the registry's own context."""

    @functools.wraps(function)
    def method(self: Registry, /, *args: P.args, **options: P.kwargs) -> R:
        return function(self.context, *args, **options)

    return method


class Registry:
    """Every verb as a method. Close it when done, or use it in a ``with`` statement."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened = opened = _open_server(settings) if settings.endpoint else _open_here(settings)
        self.context = Context(opened.backend, opened.store, settings.home / "cache" / "bases", opened.policy)

    push = _verb(pushing.push)
    pull = _verb(pulling.pull)
    merge = _verb(merging.merge)
    rerank = _verb(merging.rerank)
    reproduce = _verb(reproducing.reproduce)
    compare = _verb(comparing.compare)
    bake = _verb(baking.bake)
    check = _verb(checking.check)
    export = _verb(exporting.export)
    drop_export = _verb(exporting.drop_export)
    extract = _verb(extracting.extract)
    search = _verb(searching.search)
    adapters = _verb(searching.adapters)
    versions = _verb(searching.versions)
    show = _verb(searching.show)
    lineage = _verb(searching.lineage)
    add_base = _verb(knowing.add_base)
    bases = _verb(knowing.bases)
    show_base = _verb(knowing.show_base)
    relate_bases = _verb(knowing.relate_bases)
    match_bases = _verb(knowing.match_bases)
    tag = _verb(tagging.tag)
    untag = _verb(tagging.untag)
    yank = _verb(tagging.yank)
    unyank = _verb(tagging.unyank)
    add_metrics = _verb(tagging.add_metrics)
    create_token = _verb(administering.create_token)
    tokens = _verb(administering.tokens)
    revoke_token = _verb(administering.revoke_token)
    namespaces = _verb(administering.namespaces)
    set_public = _verb(administering.set_public)
    events = _verb(administering.events)
    submit = _verb(working.submit)
    job = _verb(working.job)
    jobs = _verb(working.jobs)
    cancel_job = _verb(working.cancel_job)
    wait_for_job = _verb(working.wait_for_job)

    def doctor(self) -> tuple[DoctorCheck, ...]:
        """See :func:`loreg.verbs.doctor.doctor`."""
        return diagnosing.doctor(self.context, self.settings)

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the database's schema up to date; returns its revisions before and after."""
        return self._opened.upgrade()

    def close(self) -> None:
        """Give every connection back."""
        self._opened.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Opened:
    """A backend and a store, what the team asks, and what only they can do."""

    backend: Backend
    store: BlobStore
    policy: Policy
    upgrade: Callable[[], tuple[str | None, str]]
    close: Callable[[], None]


def _open_here(settings: Settings) -> _Opened:
    """A catalog and a store that this machine reaches itself."""
    from loreg.local.factory import open_local

    backing = open_local(settings)
    backend = backing.backend(Access.superuser(settings.author))
    return _Opened(backend, backing.store, backing.policy, backing.catalog.upgrade, backing.catalog.close)


def _open_server(settings: Settings) -> _Opened:
    """A server that is asked; SQLAlchemy and boto3 are not even imported."""
    from loreg.remote.backend import RemoteBackend
    from loreg.remote.http import Server
    from loreg.remote.store import RemoteStore

    server = Server(settings.endpoint, settings.token, settings.author)
    store = RemoteStore(server)

    def upgrade() -> tuple[str | None, str]:
        raise NotAllowedError(f"the schema is that of {server.endpoint}", hint="loreg db upgrade on the server")

    def close() -> None:
        store.close()
        server.close()

    policy = read_policy(settings.check, settings.origin["check"])
    return _Opened(RemoteBackend(server, store), store, policy, upgrade, close)
