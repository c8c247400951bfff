"""Read and write ``loreg_merge.json``, which says beside the weights how an adapter was merged; push records it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.adapters.structure import WEIGHTS_NAME
from loreg.decoding import decode
from loreg.entities import Provenance, Source
from loreg.errors import AdapterFormatError
from loreg.merging.documents import (
    MERGE_SCHEMA,
    MergeDocument,
    MergeHead,
    MergeSchemas,
    refuse_positions_without_source,
)
from loreg.storage import digest_of
from loreg.strict_json import parse_finite, refuse_many_values

if TYPE_CHECKING:
    from loreg.adapters.tensors import AdapterToWrite

FILE_NAME = "loreg_merge.json"
#: A merge of two adapters of every expert of a model with 18,600 matrices has 430,000 values.
_MAX_VALUES = 600_000
_MAX_LABEL = 200  # characters


def write(folder: Path, provenance: Provenance, weights_sha256: str) -> None:
    """Write the file. It names the weights that it is about by digest, for it is untrue once they are trained on."""
    document = {
        "schema": MERGE_SCHEMA,
        "weights_sha256": weights_sha256,
        "recipe": provenance.recipe,
        "certificate": provenance.certificate,
    }
    (folder / FILE_NAME).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_merged(folder: Path, adapter: AdapterToWrite, provenance: Provenance) -> None:
    """Write a merged adapter and its provenance into the existing ``folder``."""
    from loreg.adapters.tensors import write_adapter

    write_adapter(folder, adapter)
    write(folder, provenance, digest_of(folder / WEIGHTS_NAME).sha256)


def read(content: bytes, weights_sha256: str) -> Provenance | None:
    """Read the file's bytes; None if it is about other weights than those beside it.

    Recipe and certificate come back with the fields that a later release added. Raises AdapterFormatError for what
    cannot be recorded, and for the schemas of a later release: recorded as these, they would be read wrongly for ever.
    """
    try:
        refuse_many_values(content, _MAX_VALUES)
        document = parse_finite(content)
    except (ValueError, RecursionError) as error:
        raise _unreadable_error(error) from error
    try:
        if decode(document, MergeHead)["weights_sha256"] != weights_sha256:
            return None
        decode(document, MergeSchemas)
    except ValueError as error:
        hint = f"pip install --upgrade loreg, here and on the server; or remove {FILE_NAME}"
        raise _unreadable_error(error, hint) from error
    recipe, certificate = document["recipe"], document["certificate"]
    try:
        sources = _check(decode(document, MergeDocument))
        _refuse_unstorable_text({"recipe": recipe, "certificate": certificate})
    except ValueError as error:
        raise _unreadable_error(error) from error
    return Provenance(sources, recipe, certificate)


def _check(merge: MergeDocument) -> tuple[Source, ...]:
    """Return the sources. Raises ValueError for weights or figures of another number of sources."""
    refuse_positions_without_source(merge["recipe"])
    sources = merge["recipe"]["sources"]
    for figures in (merge["certificate"]["total"], *merge["certificate"]["modules"]):
        if len(figures["retention"]) != len(sources):
            retentions = f"{figures['module'][:80]!r} has {len(figures['retention'])} retentions"
            raise ValueError(f"{retentions}, expected {len(sources)}, one for each source")
    return tuple(Source(source["label"][:_MAX_LABEL], source["digest"], source["weight"]) for source in sources)


def _refuse_unstorable_text(document: object) -> None:
    """Raise ValueError for a NUL or half a surrogate pair, which a database does not take."""
    text = json.dumps(document, ensure_ascii=False)
    text.encode()
    if "\\u0000" in json.dumps(document):
        raise ValueError("a NUL in a text")


def _unreadable_error(error: Exception, hint: str = f"remove {FILE_NAME}, or merge again") -> AdapterFormatError:
    return AdapterFormatError(f"{FILE_NAME} is not what loreg writes: {error}", hint=hint)
