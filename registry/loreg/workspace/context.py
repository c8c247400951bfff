"""What every verb works on."""

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
    """A backend, a store, a folder that remembers what bases on this machine were, and what the team asks."""

    backend: Backend
    store: BlobTransfer
    base_cache: Path
    policy: Policy


def is_path(text: str) -> bool:
    """Whether a person who typed ``text`` means a folder, not a name in the registry: it starts like a path."""
    return text.startswith((".", "/", "~")) or Path(text).is_absolute()


def show_version(context: Context, ref: str) -> Details:
    """What is known of the version that a person named; a folder of that name is hinted at if there is none."""
    try:
        return context.backend.show(parse_ref(ref))
    except NotFoundError as error:
        if Path(ref).is_dir():
            raise NotFoundError(error.message, hint=f"for the folder of that name: ./{ref}") from error
        raise
