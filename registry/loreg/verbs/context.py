"""What every verb works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loreg.catalog import Catalog
from loreg.storage import BlobStore


@dataclass(frozen=True)
class Context:
    """A catalog, a store, and who acts."""

    catalog: Catalog
    store: BlobStore
    author: str


def is_path(text: str) -> bool:
    """Whether a person who typed ``text`` means a folder, not a name in the registry: it starts like a path."""
    return text.startswith((".", "/", "~")) or Path(text).is_absolute()
