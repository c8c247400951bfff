"""doctor: which settings are in force and why, and whether what they name can be reached."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable

from loreg.errors import ConflictError, LoregError, NotFoundError, UnavailableError
from loreg.ledger import Ledger
from loreg.records import Check, Query
from loreg.refs import parse_ref
from loreg.settings import Settings, masked
from loreg.storage import BlobStore
from loreg.verbs.context import Context

_OPTIONAL = ("torch", "psycopg", "fastapi", "ray")
_NEWEST = Query(all_versions=True, limit=3)
_NEEDED = ("loreg", "safetensors", "numpy", "sqlalchemy", "alembic", "boto3")


def doctor(context: Context, settings: Settings) -> tuple[Check, ...]:
    """Look at everything; nothing is raised, what is wrong is in the result with what to do."""
    origin = settings.origin
    if settings.endpoint:
        where = [
            Check("endpoint", masked(settings.endpoint), origin["endpoint"]),
            Check("token", "lrg_…" if settings.token else "(none)", origin["token"]),
        ]
    else:
        where = [
            Check("database_url", masked(settings.database_url), origin["database_url"]),
            Check("storage_url", masked(settings.storage_url), origin["storage_url"]),
            Check("storage_endpoint", masked(settings.storage_endpoint) or "(none)", origin["storage_endpoint"]),
        ]
    reached = (
        _try("server" if settings.endpoint else "database", context.ledger.describe),
        _try("store", lambda: _check_store(context)),
    )
    kept = [_try("weights", lambda: _check_weights(context))] if all(check.ok for check in reached) else []
    return (
        Check("home", str(settings.home), origin["home"]),
        *where,
        Check("author", settings.author, origin["author"]),
        *reached,
        *kept,
        Check("python", platform.python_version()),
        *(Check(name, _version(name)) for name in _NEEDED),
        *(Check(name, _version(name) or "not installed (optional)") for name in _OPTIONAL),
    )


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except LoregError as error:
        return Check(name, error.message, ok=False, hint=error.hint)


def refuse_lost_store(ledger: Ledger, store: BlobStore) -> None:
    """Raise UnavailableError if the store is not there although there are versions, which lay in it."""
    if not store.is_there() and ledger.search(_NEWEST).items:
        raise UnavailableError(
            f"the store {store.url} is not there, though the catalog knows versions: their weights are gone with it",
            hint="mount its disk, or restore it; or set LOREG_STORAGE_URL to where it is now",
        )


def _check_store(context: Context) -> str:
    context.store.check()
    refuse_lost_store(context.ledger, context.store)
    return f"{context.store.url} can be used"


def _check_weights(context: Context) -> str:
    """Whether catalog and store belong together, by the newest versions."""
    ledger, store = context.ledger, context.store
    newest = ledger.search(_NEWEST).items
    for version in newest:
        for file in ledger.show(parse_ref(f"{version.adapter}:v{version.number}")).files:
            if store.size(file.sha256) is None:
                raise NotFoundError(
                    f"{file.path} of {version.ref} is not in {store.url}",
                    hint="restore it, or set LOREG_STORAGE_URL to the store of this catalog; pushing again mends one",
                )
    if not newest and not ledger.bases(1, None).items and store.holds_blobs():
        raise ConflictError(
            f"the catalog is empty, but {store.url} holds blobs: they are another catalog's, or of a push that failed",
            hint="restore the catalog, or set LOREG_DATABASE_URL to the one of this store",
        )
    return f"the newest {len(newest)} are in the store" if newest else "nothing was pushed yet"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
