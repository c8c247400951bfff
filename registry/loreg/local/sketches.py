"""Take the sketches that clients send, and find versions by them.

Nothing else believes a sketch: a wrong one makes a wrong candidate, which comparing the weights refutes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loreg.catalog import namespaces, sketches
from loreg.entities import Candidate, HashKind, NearDuplicates, Sketch
from loreg.errors import UsageError
from loreg.identity.clusters import NEAR_DUPLICATE, cluster
from loreg.identity.sketch import cosine, cosines_with, decode_vector, sign_words
from loreg.refs import AdapterPattern

if TYPE_CHECKING:
    from loreg.catalog import Transaction
    from loreg.local.sketch_index import SketchIndex

Signs = tuple[int, ...]
_DIGEST = re.compile("[0-9a-f]{64}")
_SAME = 2e-5  # 1 − cosine: numbers rounded to bfloat16 differ by less
_ROUNDING = 0.01  # of a scale
_LIKELY = 512  # versions whose signs are nearest, and whose numbers are compared
MAX_COMPARED = 20_000  # versions that are compared each with each


def signs_of(sketch: Sketch) -> Signs:
    """Return the signs of a sketch's numbers, four integers; none if all are zero, or there are none.

    Raises UsageError for what is no sketch.
    """
    if not _DIGEST.fullmatch(sketch.data) or not (math.isfinite(sketch.norm) and sketch.norm >= 0):
        raise UsageError("a sketch has a digest in hex, and a norm that is finite", hint="leave it out")
    if not sketch.vector:
        return ()
    vector = decode_vector(sketch.vector)
    return sign_words(vector) if vector.any() else ()


def find_candidates(
    tx: Transaction, index: SketchIndex, hashes: Sequence[str], vector: str, limit: int
) -> tuple[Candidate, ...]:
    """Return versions by hashes, then by a sketch; see :meth:`loreg.backend.Backend.candidates`."""
    kinds: dict[int, tuple[HashKind, ...]] = {}
    for prefix in hashes:
        for row_id, of_row in sketches.find_by_hash(tx, prefix, limit).items():
            kinds[row_id] = tuple(dict.fromkeys((*kinds.get(row_id, ()), *of_row)))
    numbers = decode_vector(vector) if vector else None
    if numbers is not None and numbers.any():
        index.refresh(tx)
        readable = None if tx.sees_all else namespaces.readable(tx)
        likely = index.nearest(sign_words(numbers), max(_LIKELY, limit), readable)
        stored = sketches.read_vectors(tx, likely)
        cosines = dict(zip(stored, np.abs(cosines_with(numbers, list(stored.values()))), strict=True))
        nearest = sorted(cosines, key=lambda row_id: (-round(float(cosines[row_id]), 9), row_id))
        kinds |= {row_id: () for row_id in nearest[:limit] if row_id not in kinds}
    return sketches.read_candidates(tx, kinds)


def find_near_duplicates(tx: Transaction, pattern: AdapterPattern) -> tuple[NearDuplicates, ...]:
    """Return groups of versions that match; see :meth:`loreg.backend.Backend.near_duplicates`."""
    rows = sketches.find_matching(tx, pattern, MAX_COMPARED + 1)
    if len(rows) > MAX_COMPARED:
        raise UsageError(
            f"more than {MAX_COMPARED:,} versions match {pattern}, too many to compare each with each",
            hint="loreg ls 'team/*' --duplicates",
        )
    vectors = [decode_vector(sketch.vector) for _, sketch in rows]
    groups = cluster(vectors, NEAR_DUPLICATE)
    refs = sketches.read_refs(tx, [rows[place][0] for group in groups for place in group])
    there = ([place for place in group if rows[place][0] in refs] for group in groups)  # one may be deleted by now
    return tuple(
        NearDuplicates(
            tuple(refs[rows[place][0]] for place in group),
            tuple(round(cosine(vectors[group[0]], vectors[place]), 6) for place in group),
            tuple(
                float(vectors[group[0]] @ vectors[place] / (vectors[group[0]] @ vectors[group[0]])) for place in group
            ),
        )
        for group in there
        if len(group) > 1
    )


def describe_twins(tx: Transaction, version_id: int, sketch: Sketch, signs: Signs) -> tuple[str, ...]:
    """Return a note if the deltas of a new version are another's up to a factor and rounding, by the sketches."""
    if not signs:
        return ()
    twins = [row_id for row_id in sketches.find_twins(tx, signs) if row_id != version_id]
    vector = decode_vector(sketch.vector)
    for candidate in sketches.read_candidates(tx, dict.fromkeys(twins, ())):
        twin = decode_vector(candidate.sketch.vector) if candidate.sketch else vector * 0
        if 1 - abs(cosine(vector, twin)) < _SAME:
            scale = float(vector @ twin / (twin @ twin))
            scaled = "" if abs(scale - 1) < _ROUNDING else f" scaled by {scale:.4g}"
            ref = candidate.version.ref
            return (
                f"these are the deltas of {ref}{scaled}, as their sketches say; loreg identify compares the weights",
            )
    return ()
