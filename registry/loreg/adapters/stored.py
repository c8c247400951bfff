"""Read what an adapter in a store is, from its configuration and the header of its weights: no number is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure

if TYPE_CHECKING:
    from loreg.manifest import File
    from loreg.storage import BlobTransfer


def read_stored_structure(store: BlobTransfer, ref: str, files: Mapping[str, File]) -> AdapterStructure:
    """Return the structure of the version ``ref``, whose files are named by their paths.

    Raises what :func:`loreg.adapters.structure.read_remote_structure` raises, NotFoundError or IntegrityError for a
    blob that is gone or damaged, and UnavailableError.
    """
    config, weights = files[CONFIG_NAME], files[WEIGHTS_NAME]
    return read_remote_structure(
        Path(ref),
        store.read(config.sha256, config.size),
        weights.size,
        lambda start, size: store.read_part(weights.sha256, start, size),
    )
