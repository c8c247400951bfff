"""What two contents prove of how one base came from the other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from loreg.bases.architecture import described
from loreg.bases.identify import CONTENT, leaves_of
from loreg.errors import ConflictError, IntegrityError
from loreg.manifest import is_digest
from loreg.records import BaseModel
from loreg.storage import BlobStore

_LONGEST_NAME, _LONGEST_LICENSE, _LONGEST_CONFIG = 512, 64, 4096
_MOST_BYTES = 64 * 1024 * 1024  # some 300,000 tensors


def read_base(store: BlobStore, base: BaseModel) -> bytes:
    """The stored list of the base's tensors. Raises IntegrityError if the base is not what that list says."""
    if not is_digest(base.digest) or not (base.struct == "" or is_digest(base.struct)):
        raise IntegrityError(f"{base.digest[:70]!r} is no sha256", hint="loreg base add ./path")
    if (size := store.size(base.digest)) is not None and size > _MOST_BYTES:
        raise IntegrityError(
            f"the list of the tensors of {base.title} has {size:,} bytes, expected {_MOST_BYTES:,} at most",
            hint="loreg base add ./path",
        )
    document = store.read(base.digest)
    try:
        found = json.loads(document)
        right = len(found["tensors"]) == base.tensors and (found["schema"] == CONTENT) == base.complete
        right = right and all(map(_is_leaf, found["tensors"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        right = False
    names = all(name.isprintable() and 0 < len(name) <= _LONGEST_NAME for name in base.names)
    config = described(base.config) == base.config and len(json.dumps(base.config)) <= _LONGEST_CONFIG
    right = right and names and config and len(base.license) <= _LONGEST_LICENSE
    if not (right and 0 <= base.parameters < 2**63):
        raise IntegrityError(f"{base.title} is not what its list of tensors says", hint="loreg base add ./path")
    return document


def _is_leaf(leaf: Any) -> bool:
    """Whether that is what a list of tensors says of one: its dtype, its shape, and the digest of its content."""
    shape = leaf["shape"]
    return (
        isinstance(leaf["dtype"], str)
        and isinstance(shape, list)
        and all(type(size) is int and 0 <= size < 2**63 for size in shape)
        and ("sha256" not in leaf or is_digest(leaf["sha256"]))
    )


def prove(store: BlobStore, child: BaseModel, parent: BaseModel, kind: str) -> bool:
    """Whether the contents prove the relation. Raises ConflictError if they prove that it is not so."""
    if not (child.complete and parent.complete) or kind not in ("cast_of", "renamed_from"):
        return False
    ours, theirs = leaves_of(store.read(child.digest)), leaves_of(store.read(parent.digest))
    if kind == "cast_of":
        both = ours.keys() & theirs.keys()
        return len(both) == min(len(ours), len(theirs)) and all(ours[name] == theirs[name] for name in both)
    one, other = (Counter(leaf["sha256"] for leaf in leaves.values()) for leaves in (ours, theirs))
    if one != other:
        raise ConflictError(
            f"{child.title} is not a renaming of {parent.title}: "
            f"{(one - other).total()} of its tensors have other content",
            hint="--kind finetuned_from, or cast_of, declares another relation",
        )
    return True


def names_that_are_taken(names: Sequence[str]) -> tuple[str, ...]:
    """What to tell a person of names that mean another base."""
    return tuple(f"the name {name!r} already means another base in this registry" for name in names)
