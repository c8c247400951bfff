"""Read and write ``loreg_move.json``, which says beside the weights from which version and base they were moved."""

from __future__ import annotations

import json
from typing import Final, Literal, TypedDict

from loreg.decoding import decode
from loreg.entities import Provenance, Source, Version
from loreg.errors import AdapterFormatError
from loreg.merging.documents import Digest
from loreg.strict_json import parse_finite, refuse_many_values

FILE_NAME = "loreg_move.json"
SCHEMA: Final = "loreg.move/1"
MAX_BYTES = 64 * 1024
_MAX_VALUES = 100
_MAX_LABEL = 200  # characters


class MovedFrom(TypedDict):
    """The version that the weights are from, by its ref and the digest of its manifest."""

    ref: str
    digest: Digest


class MoveDocument(TypedDict):
    """The file: ``weights_sha256`` says which weights it is about; the bases are by their digests."""

    schema: Literal["loreg.move/1"]
    weights_sha256: Digest
    moved_from: MovedFrom
    old_base: Digest
    new_base: Digest


def write_move_record(version: Version, weights_sha256: str, old_base: str, new_base: str) -> bytes:
    """Return the file of a version that is moved from one base to another: the same bytes each time."""
    document: MoveDocument = {
        "schema": SCHEMA,
        "weights_sha256": weights_sha256,
        "moved_from": {"ref": version.ref, "digest": version.digest},
        "old_base": old_base,
        "new_base": new_base,
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def read_move_record(content: bytes, weights_sha256: str) -> Provenance | None:
    """Read the file's bytes as provenance without a certificate; None if it is about other weights.

    Raises AdapterFormatError for what loreg does not write.
    """
    try:
        refuse_many_values(content, _MAX_VALUES)
        document = decode(parse_finite(content), MoveDocument)
        document["moved_from"]["ref"].encode()
    except (ValueError, RecursionError) as error:
        hint = f"pip install --upgrade loreg, here and on the server; or remove {FILE_NAME}"
        raise AdapterFormatError(f"{FILE_NAME} is not what loreg writes: {error}", hint=hint) from error
    if document["weights_sha256"] != weights_sha256:
        return None
    moved_from = document["moved_from"]
    label = moved_from["ref"].replace("\x00", "")[:_MAX_LABEL]
    source = {"label": label, "digest": moved_from["digest"], "weight": 1.0}
    recipe = {
        "schema": SCHEMA,
        "method": "move",
        "sources": [source],
        "old_base": document["old_base"],
        "new_base": document["new_base"],
    }
    return Provenance((Source(label, moved_from["digest"], 1.0),), recipe, {})
