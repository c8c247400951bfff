"""``loreg_merge.json``: how a merged adapter was made. It lies beside the weights, and push records what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loreg.errors import AdapterFormatError
from loreg.records import Provenance, Source

FILE_NAME = "loreg_merge.json"
SCHEMA = "loreg.merge/1"


def write(folder: Path, provenance: Provenance, weights_sha256: str) -> None:
    """Write the file. It names the weights that it is about, by digest: training on would make it untrue."""
    document = {
        "schema": SCHEMA,
        "weights_sha256": weights_sha256,
        "recipe": provenance.recipe,
        "certificate": provenance.certificate,
    }
    (folder / FILE_NAME).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path, weights_sha256: str) -> Provenance | None:
    """Read the file; None if it is about other weights than those beside it. Raises AdapterFormatError."""
    try:
        document = json.loads(path.read_bytes())
        if document["weights_sha256"] != weights_sha256:
            return None
        sources = tuple(_source(entry) for entry in document["recipe"]["sources"])
        return Provenance(sources, dict(document["recipe"]), dict(document["certificate"]))
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterFormatError(
            f"{path} is not what loreg writes ({error!r})", hint=f"remove {path.name}, or merge again"
        ) from None


def _source(entry: Any) -> Source:
    if not (isinstance(entry["label"], str) and isinstance(entry["digest"], str) and len(entry["digest"]) == 64):
        raise ValueError("a source without label or digest")
    return Source(entry["label"][:1024], entry["digest"], float(entry["weight"]))
