"""Read what an adapter in a store is, from its configuration and the header of its weights: no number is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure

if TYPE_CHECKING:
    from loreg.manifest import File
    from loreg.storage import BlobTransfer


def read_stored_structure(
    store: BlobTransfer, ref: str, files: Mapping[str, File], copy: Path | None = None
) -> AdapterStructure:
    """Return the structure of the version ``ref``, whose files are named by their paths.

    ``copy`` is a file with its weights, if there is one on this machine: then the structure names that.
    Raises what :func:`loreg.adapters.structure.read_remote_structure` raises, NotFoundError or IntegrityError for a
    blob that is gone or damaged, and UnavailableError.
    """
    config, weights = files[CONFIG_NAME], files[WEIGHTS_NAME]

    content = store.read(config.sha256, config.size)
    if copy is None:
        return read_remote_structure(Path(ref), content, weights.size, partial(store.read_part, weights.sha256))
    with copy.open("rb") as stream:

        def read_part(start: int, size: int) -> bytes:
            stream.seek(start)
            return stream.read(size)

        return replace(read_remote_structure(Path(ref), content, weights.size, read_part), weights=copy)
