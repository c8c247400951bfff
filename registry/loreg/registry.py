"""Registry: the verbs of loreg on one catalog and one store."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from loreg.catalog import Catalog
from loreg.checking.policy import read_policy
from loreg.records import Check
from loreg.settings import Settings, load
from loreg.storage import open_store
from loreg.verbs import bake as baking
from loreg.verbs import bases as knowing
from loreg.verbs import check as checking
from loreg.verbs import compare as comparing
from loreg.verbs import doctor as diagnosing
from loreg.verbs import export as exporting
from loreg.verbs import extract as extracting
from loreg.verbs import merge as merging
from loreg.verbs import pull as pulling
from loreg.verbs import push as pushing
from loreg.verbs import reproduce as reproducing
from loreg.verbs import search as searching
from loreg.verbs import tag as tagging
from loreg.verbs.context import Context

P = ParamSpec("P")
R = TypeVar("R")


def connect(
    *,
    home: str | None = None,
    database_url: str | None = None,
    storage_url: str | None = None,
    storage_endpoint: str | None = None,
    author: str | None = None,
) -> Registry:
    """Open the registry of the settings in force: arguments > ``LOREG_*`` > ``loreg.toml`` > user file.

    Nothing is contacted before the first verb. Raises UsageError for a setting that is not understood.
    """
    flags = {
        "home": home,
        "database_url": database_url,
        "storage_url": storage_url,
        "storage_endpoint": storage_endpoint,
        "author": author,
    }
    return Registry(load(flags, os.environ))


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
        store = open_store(settings.storage_url, settings.storage_endpoint)
        cache = settings.home / "cache" / "bases"
        policy = read_policy(settings.check, settings.origin["check"])
        self.context = Context(Catalog(settings.database_url), store, settings.author, cache, policy)

    push = _verb(pushing.push)
    pull = _verb(pulling.pull)
    merge = _verb(merging.merge)
    rerank = _verb(merging.rerank)
    reproduce = _verb(reproducing.reproduce)
    compare = _verb(comparing.compare)
    bake = _verb(baking.bake)
    check = _verb(checking.check)
    export = _verb(exporting.export)
    extract = _verb(extracting.extract)
    search = _verb(searching.search)
    adapters = _verb(searching.adapters)
    versions = _verb(searching.versions_of)
    show = _verb(searching.show)
    lineage = _verb(searching.ancestors)
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

    def doctor(self) -> tuple[Check, ...]:
        """See :func:`loreg.verbs.doctor.doctor`."""
        return diagnosing.doctor(self.context, self.settings)

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the database's schema up to date; returns its revisions before and after."""
        return self.context.catalog.upgrade()

    def close(self) -> None:
        """Give the database's connections back."""
        self.context.catalog.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
