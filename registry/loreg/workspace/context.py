"""The context that every verb works on: backend, store, cache and policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loreg.backend import Backend
from loreg.checking.policy import Policy
from loreg.entities import Details
from loreg.errors import NotFoundError
from loreg.refs import parse_ref
from loreg.storage import BlobTransfer


@dataclass(frozen=True)
class Context:
    """A backend, a store, the folder of cached digests of bases on this machine, and the team's policy."""

    backend: Backend
    store: BlobTransfer
    base_cache: Path
    policy: Policy


def show_version(context: Context, ref: str) -> Details:
    """Return the version that the ref means. Raises NotFoundError, with a hint if there is a folder of that name."""
    try:
        return context.backend.show(parse_ref(ref))
    except NotFoundError as error:
        if Path(ref).is_dir():
            raise NotFoundError(error.message, hint=f"for the folder of that name: ./{ref}") from error
        raise
