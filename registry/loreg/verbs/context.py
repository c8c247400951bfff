"""What every verb works on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from loreg.catalog import Catalog
from loreg.checking.policy import Policy
from loreg.storage import Blob, BlobStore


@dataclass(frozen=True)
class Context:
    """A catalog, a store, who acts, a folder that remembers what bases on this machine were, what the team asks."""

    catalog: Catalog
    store: BlobStore
    author: str
    cache: Path
    policy: Policy


def is_path(text: str) -> bool:
    """Whether a person who typed ``text`` means a folder, not a name in the registry: it starts like a path."""
    return text.startswith((".", "/", "~")) or Path(text).is_absolute()


def store_document(context: Context, digest: str, content: bytes) -> None:
    """Put a small document that was made just now into the store, under its digest."""
    with tempfile.TemporaryDirectory(prefix="loreg-push-") as folder:
        path = Path(folder) / digest
        path.write_bytes(content)
        context.store.put(Blob(digest, len(content)), path)
