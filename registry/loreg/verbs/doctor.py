"""doctor: which settings are in force and why, and whether what they name can be reached."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable

from loreg.errors import LoregError
from loreg.records import Check
from loreg.settings import Settings, masked
from loreg.verbs.context import Context

_OPTIONAL = ("torch", "psycopg", "fastapi", "ray")
_NEEDED = ("loreg", "safetensors", "numpy", "sqlalchemy", "alembic", "boto3")


def doctor(context: Context, settings: Settings) -> tuple[Check, ...]:
    """Look at everything; nothing is raised, what is wrong is in the result with what to do."""
    origin = settings.origin
    if settings.endpoint:
        where = [
            Check("endpoint", settings.endpoint, origin["endpoint"]),
            Check("token", "lrg_…" if settings.token else "(none)", origin["token"]),
        ]
    else:
        where = [
            Check("database_url", masked(settings.database_url), origin["database_url"]),
            Check("storage_url", settings.storage_url, origin["storage_url"]),
            Check("storage_endpoint", settings.storage_endpoint or "(none)", origin["storage_endpoint"]),
        ]
    return (
        Check("home", str(settings.home), origin["home"]),
        *where,
        Check("author", settings.author, origin["author"]),
        _try("server" if settings.endpoint else "database", context.ledger.describe),
        _try("store", lambda: _check_store(context)),
        Check("python", platform.python_version()),
        *(Check(name, _version(name)) for name in _NEEDED),
        *(Check(name, _version(name) or "not installed (optional)") for name in _OPTIONAL),
    )


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except LoregError as error:
        return Check(name, error.message, ok=False, hint=error.hint)


def _check_store(context: Context) -> str:
    context.store.check()
    return f"{context.store.url} can be used"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
