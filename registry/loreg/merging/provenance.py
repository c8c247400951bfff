"""Read and write ``loreg_merge.json``, which says beside the weights how an adapter was merged; push records it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from loreg.entities import Provenance, Source
from loreg.errors import AdapterFormatError
from loreg.strict_json import parse_finite, refuse_many_values

FILE_NAME = "loreg_merge.json"
SCHEMA = "loreg.merge/1"
#: A merge of two adapters of every expert of a model with 18,600 matrices has 430,000 values.
_MAX_VALUES = 600_000


def write(folder: Path, provenance: Provenance, weights_sha256: str) -> None:
    """Write the file. It names the weights that it is about by digest, for it is untrue once they are trained on."""
    document = {
        "schema": SCHEMA,
        "weights_sha256": weights_sha256,
        "recipe": provenance.recipe,
        "certificate": provenance.certificate,
    }
    (folder / FILE_NAME).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(content: bytes, weights_sha256: str) -> Provenance | None:
    """Read the file's bytes; None if it is about other weights than those beside it. Raises AdapterFormatError."""
    try:
        refuse_many_values(content, _MAX_VALUES)
        document = parse_finite(content)
        if document["weights_sha256"] != weights_sha256:
            return None
        sources = tuple(_read_source(entry) for entry in document["recipe"]["sources"])
        recipe, certificate = dict(document["recipe"]), dict(document["certificate"])
        if not isinstance(recipe["method"], str):
            raise ValueError("a method that is not text")
        for figures in (certificate["total"], *certificate["modules"]):
            _check_figures(figures, len(sources))
        if not all(isinstance(warning, str) for warning in certificate["warnings"]):
            raise ValueError("a warning that is not text")
        _check_text({"recipe": recipe, "certificate": certificate})
        return Provenance(sources, recipe, certificate)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterFormatError(
            f"{FILE_NAME} is not what loreg writes ({error!r})", hint=f"remove {FILE_NAME}, or merge again"
        ) from error


def _read_source(entry: Any) -> Source:
    if not (isinstance(entry["label"], str) and re.fullmatch("[0-9a-f]{64}", entry["digest"])):
        raise ValueError("a source without label or digest")
    if type(entry["weight"]) not in (int, float):
        raise ValueError("a weight that is not a number")
    return Source(entry["label"][:200], entry["digest"], float(entry["weight"]))


def _check_figures(figures: Any, sources: int) -> None:
    """Raise ValueError, KeyError or TypeError unless all that is printed of a certificate is there and well-typed."""
    numbers = [figures[name] for name in ("epsilon", "retained_energy", "sigma_next", "dtype_error", "norm")]
    numbers += [figures["rank"], figures["rank_in"], *figures["shape"]]
    numbers += [value for value in (*figures["ranks"].values(), *figures["retention"]) if value is not None]
    if not all(type(number) in (int, float) and abs(number) < 1e300 for number in numbers):
        raise ValueError("a figure that is not a number")
    if not isinstance(figures["module"], str) or sources < 1 or len(figures["retention"]) != sources:
        raise ValueError("figures of other sources")


def _check_text(document: object) -> None:
    """Raise ValueError for a NUL or half a surrogate pair, which a database does not take."""
    text = json.dumps(document, ensure_ascii=False)
    text.encode()
    if "\\u0000" in json.dumps(document):
        raise ValueError("a NUL in a text")
