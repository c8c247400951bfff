"""doctor: report the settings in force, where each comes from, and whether what they name can be reached."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator

from loreg.entities import DoctorCheck
from loreg.errors import ConflictError, LoregError, NotFoundError
from loreg.refs import parse_ref
from loreg.settings import Settings, mask_url
from loreg.storage import BlobStore, BlobTransfer
from loreg.upkeep import Upkeep
from loreg.workspace.context import Context

_OPTIONAL_PACKAGES = ("torch", "psycopg", "fastapi", "ray")
_SAMPLE_COUNT = 5
_REQUIRED_PACKAGES = ("loreg", "safetensors", "numpy", "sqlalchemy", "alembic", "boto3")


def doctor(context: Context, settings: Settings) -> tuple[DoctorCheck, ...]:
    """Check settings, database, store and weights. What is wrong is in the result, with a hint; nothing is raised."""
    origin = settings.origin
    if settings.endpoint:
        places = [
            DoctorCheck("endpoint", mask_url(settings.endpoint), origin["endpoint"]),
            DoctorCheck("token", "lrg_…" if settings.token else "(none)", origin["token"]),
        ]
    else:
        places = [
            DoctorCheck("database_url", mask_url(settings.database_url), origin["database_url"]),
            DoctorCheck("storage_url", mask_url(settings.storage_url), origin["storage_url"]),
            DoctorCheck(
                "storage_endpoint", mask_url(settings.storage_endpoint) or "(none)", origin["storage_endpoint"]
            ),
        ]
    reached = (
        _run_check("server" if settings.endpoint else "database", context.backend.describe),
        _run_check("store", lambda: _check_store(context)),
    )
    is_reached = all(check.ok for check in reached)
    weights = [_run_check("weights", lambda: _check_weights(context))] if is_reached else []
    return (
        DoctorCheck("home", str(settings.home), origin["home"]),
        *places,
        DoctorCheck("author", settings.author, origin["author"]),
        *([DoctorCheck("server_key", "…", origin["server_key"])] if settings.server_key else ()),
        *reached,
        *weights,
        *(_check_upkeep(context.backend.upkeep(), context.store) if is_reached and not settings.endpoint else ()),
        DoctorCheck("python", platform.python_version()),
        *(DoctorCheck(name, _version(name)) for name in _REQUIRED_PACKAGES),
        *(DoctorCheck(name, _version(name) or "not installed (optional)") for name in _OPTIONAL_PACKAGES),
    )


def _run_check(name: str, look: Callable[[], str]) -> DoctorCheck:
    try:
        return DoctorCheck(name, look())
    except LoregError as error:
        return DoctorCheck(name, error.message, ok=False, hint=error.hint)


def _check_store(context: Context) -> str:
    context.store.check()
    return f"{context.store.url} can be used"


def _check_upkeep(upkeep: Upkeep, store: BlobTransfer) -> Iterator[DoctorCheck]:
    """Yield which registry this is, whether the store is its own, and how much garbage waits to be removed."""
    yield _run_check("registry", upkeep.registry_id)
    if isinstance(store, BlobStore):
        yield _run_check("store owner", lambda: _check_owner(upkeep, store))
    yield _run_check("garbage", lambda: _describe_garbage(upkeep))


def _check_owner(upkeep: Upkeep, store: BlobStore) -> str:
    """Return whose the store is. Raises ConflictError if it is another registry's."""
    registry_id, owner = upkeep.registry_id(), store.owner()
    if not owner:
        return "not marked yet: the next push or loreg gc marks the store as this registry's"
    if owner != registry_id:
        raise ConflictError(
            f"{store.url} is marked as the store of registry {owner[:8]}, and this is registry {registry_id[:8]}: "
            "neither may push to it and clear it for the other",
            hint="set LOREG_STORAGE_URL to the store of this catalog, or LOREG_DATABASE_URL to the catalog of this "
            f"store; if that registry is gone for good: {store.unmark_command()}",
        )
    return "this registry"


def _describe_garbage(upkeep: Upkeep) -> str:
    marked = upkeep.marked_garbage()
    if not marked.count:
        return "none is marked"
    return f"{marked.count:,} blobs of {marked.size:,} bytes wait for loreg gc to remove them"


def _check_weights(context: Context) -> str:
    """Look for the blobs of some versions in the store, or of some bases if there is no version.

    Raises NotFoundError or ConflictError if catalog and store do not belong together.
    """
    backend, store = context.backend, context.store
    if isinstance(store, BlobStore) and backend.is_empty() and any(store.list()):
        raise ConflictError(
            f"the catalog is empty, but {store.url} holds blobs: they are another catalog's, or of a first push that "
            "was interrupted",
            hint="restore the catalog, or set LOREG_DATABASE_URL to the one of this store; after an interrupted push, "
            "push again",
        )
    versions = backend.samples(_SAMPLE_COUNT)
    for version in versions:
        for file in backend.show(parse_ref(f"{version.adapter}:v{version.number}")).files:
            _refuse_lost(store, file.sha256, f"{file.path} of {version.ref}")
    bases = backend.bases(_SAMPLE_COUNT, None).items if not versions else ()
    for base in bases:
        _refuse_lost(store, base.digest, f"the list of tensors of {base.title}")
    looked_at = versions or bases
    return f"{len(looked_at)} looked for, all in the store" if looked_at else "nothing was pushed yet"


def _refuse_lost(store: BlobTransfer, sha256: str, what: str) -> None:
    if store.size(sha256) is None:
        raise NotFoundError(
            f"{what} is not in {store.url}",
            hint="loreg verify names all that is lost, loreg repair brings it back; or set "
            "LOREG_STORAGE_URL to the store of this catalog"
            if isinstance(store, BlobStore)
            else "tell who runs the server: loreg verify, there, names all that is lost",
        )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
