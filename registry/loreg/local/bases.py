"""What two contents prove of how one base came from the other."""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from loreg.adapters.dtypes import DTYPES
from loreg.adapters.header import MAX_AXES, MAX_INTEGER
from loreg.bases.architecture import describe_config
from loreg.bases.identify import (
    CONTENT_SCHEMA,
    HEADERS_SCHEMA,
    matches_headers,
    parse_tensor_digests,
    with_tensor_facts,
)
from loreg.bases.tensor_digest import TensorDigest, TensorList
from loreg.entities import BaseModel, BaseRelation
from loreg.errors import ConflictError, IntegrityError, QuotaError, UsageError
from loreg.manifest import is_digest
from loreg.storage import BlobTransfer
from loreg.strict_json import refuse_many_values

_LONGEST_NAME, _LONGEST_LICENSE, _LONGEST_CONFIG = 512, 64, 4096
_MOST_NAMES = 100
_WORD = re.compile("[a-z_]{1,32}")
_MOST_BYTES = 32 * 1024**2  # of a list of tensors; the largest models have 25 MB
_MOST_TENSORS = 250_000
_MOST_VALUES = 8 * _MOST_TENSORS  # each is written in six or seven
_MOST_HEADS = 100  # that headers list and contents do not, for they are the embedding once more
_MOST_PROVEN = 10
_READING = threading.BoundedSemaphore(4)
_PATIENCE = 30.0  # seconds
_MOST_NUMBERS = 2**63  # of all tensors together: what a database counts up to


@dataclass(frozen=True)
class VerifiedBase:
    """A base with what its stored list of tensors says: ``tensor_digests``, and the ``size`` of the list in bytes."""

    base: BaseModel
    tensor_digests: Mapping[str, TensorDigest]
    size: int


@contextlib.contextmanager
def limit_concurrent_reads() -> Iterator[None]:
    """Read lists of tensors: four at once, for a large one takes some 100 MB. Raises QuotaError after half a minute."""
    if not _READING.acquire(timeout=_PATIENCE):
        raise QuotaError("the registry reads the lists of other bases", hint="try again in a minute")
    try:
        yield
    finally:
        _READING.release()


def read_verified_base(store: BlobTransfer, base: BaseModel) -> VerifiedBase:
    """The base as its stored list of tensors says that it is; of the request only names, license and config are taken.

    Raises IntegrityError for a list that is none, or of another number of tensors.
    """
    if not is_digest(base.digest):
        raise IntegrityError(f"{base.digest[:70]!r} is no sha256", hint="loreg base add ./path")
    size = store.size(base.digest)
    if size is not None and size > _MOST_BYTES:
        raise IntegrityError(
            f"the list of the tensors of {base.title} has {size:,} bytes, expected {_MOST_BYTES:,} at most",
            hint="loreg base add ./path",
        )
    if base.tensors > _MOST_TENSORS:
        raise IntegrityError(
            f"{base.title} has {base.tensors:,} tensors, expected {_MOST_TENSORS:,} at most", hint="is this a model?"
        )
    document = store.read(base.digest, _MOST_BYTES)
    names = all(name.isprintable() and 0 < len(name) <= _LONGEST_NAME for name in base.names)
    config = describe_config(base.config) == base.config and len(json.dumps(base.config)) <= _LONGEST_CONFIG
    said = names and len(base.names) <= _MOST_NAMES and config and len(base.license) <= _LONGEST_LICENSE
    found = _parse_tensor_list(document)
    if not (
        said and found and (len(found["tensors"]), found["schema"] == CONTENT_SCHEMA) == (base.tensors, base.complete)
    ):
        raise IntegrityError(f"{base.title} is not what its list of tensors says", hint="loreg base add ./path")
    return VerifiedBase(with_tensor_facts(base, found), found["tensors"], len(document))


def _parse_tensor_list(document: bytes) -> TensorList | None:
    """The list of tensors in the bytes; None if it is none that everybody could read."""
    try:
        refuse_many_values(document, _MOST_VALUES)
        found: TensorList = json.loads(document)
        tensor_digests = found["tensors"].items()
        fields = _FIELDS[found["schema"]]
        right = found.keys() <= _KEYS and all(
            _is_leaf(leaf, fields) and name.isprintable() for name, leaf in tensor_digests
        )
        right = right and sum(math.prod(leaf["shape"]) for _, leaf in tensor_digests) < _MOST_NUMBERS
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if right else None


_KEYS = {"schema", "names", "tensors", "files"}
#: What is listed of each tensor, by the schema of the list.
_FIELDS = {CONTENT_SCHEMA: {"dtype", "shape", "sha256"}, HEADERS_SCHEMA: {"dtype", "shape"}}


def _is_leaf(leaf: Any, fields: Set[str]) -> bool:
    if not isinstance(leaf, dict) or leaf.keys() != fields:
        return False
    shape = leaf["shape"]
    sound = isinstance(shape, list) and len(shape) <= MAX_AXES
    sound = sound and all(type(number) is int and 0 <= number < MAX_INTEGER for number in shape)
    return sound and leaf["dtype"] in DTYPES and ("sha256" not in fields or is_digest(leaf["sha256"]))


def matching_header_bases(store: BlobTransfer, listed: VerifiedBase, known: Sequence[BaseModel]) -> tuple[str, ...]:
    """The digests of those of the bases ``known`` by their headers that ``listed`` has the headers of.

    The lists of ten are read at most, and of none that has far more tensors, or fewer.
    """
    if not listed.base.complete:
        return ()
    like = [each for each in known if abs(each.tensors - listed.base.tensors) <= _MOST_HEADS][:_MOST_PROVEN]
    return tuple(
        each.digest
        for each in like
        if matches_headers(listed.tensor_digests, parse_tensor_digests(store.read(each.digest)))
    )


def is_proven(store: BlobTransfer, child: BaseModel, parent: BaseModel, kind: BaseRelation) -> bool:
    """Whether the contents prove the relation. Raises ConflictError if they prove that it is not so."""
    if not (child.complete and parent.complete) or kind not in (BaseRelation.CAST_OF, BaseRelation.RENAMED_FROM):
        return False
    ours, theirs = parse_tensor_digests(store.read(child.digest)), parse_tensor_digests(store.read(parent.digest))
    if kind == BaseRelation.CAST_OF:
        both = ours.keys() & theirs.keys()
        return len(both) == min(len(ours), len(theirs)) and all(ours[name] == theirs[name] for name in both)
    one, other = (Counter(leaf["sha256"] for leaf in tensor_digests.values()) for tensor_digests in (ours, theirs))
    if one != other:
        raise ConflictError(
            f"{child.title} is not a renaming of {parent.title}: "
            f"{(one - other).total()} of its tensors have other content",
            hint="--kind finetuned_from, or cast_of, declares another relation",
        )
    return True


def validate_detail(detail: Mapping[str, object]) -> dict[str, object]:
    """How a base came from another, e.g. ``{"bits": 4}``. Raises UsageError for more than a few words and numbers."""
    words = all(_WORD.fullmatch(name) for name in detail)
    values = all(isinstance(value, str | int | float) and len(str(value)) <= 128 for value in detail.values())
    if len(detail) > 8 or not words or not values or not all(str(value).isprintable() for value in detail.values()):
        raise UsageError("the detail of an edge is a few words and numbers", hint="--method gptq --bits 4 --group 128")
    return dict(detail)


def describe_taken_names(names: Sequence[str]) -> tuple[str, ...]:
    """What to tell a person of names that mean another base."""
    return tuple(f"the name {name!r} already means another base in this registry" for name in names)


def describe_unchanged_fields(asked: BaseModel, found: BaseModel, taken: Sequence[str]) -> tuple[str, ...]:
    """What to tell a person of what he said of a base that somebody else added."""
    who = "only who added it, or an administrator, changes that"
    license_ = f"{found.title}: its license stays {found.license or 'unknown'!r}, {who}"
    stays = [license_] if asked.license not in ("", found.license) else []
    refused = [name for name in asked.names if name not in (*found.names, *taken)]
    return (*stays, *(f"the name {name!r} was not given to {found.title}: {who}" for name in refused))
