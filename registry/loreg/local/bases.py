"""Read and verify the stored tensor lists of bases, and what two of them prove about each other."""

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

_MAX_NAME, _MAX_LICENSE, _MAX_CONFIG = 512, 64, 4096
_MAX_NAMES = 100
_WORD = re.compile("[a-z_]{1,32}")
_MAX_BYTES = 32 * 1024**2  # of a list of tensors; the largest models have 25 MB
_MAX_TENSORS = 250_000
_MAX_VALUES = 8 * _MAX_TENSORS  # each is written in six or seven
_MAX_EXTRA_HEADS = 100  # that headers list and contents do not, for they are the embedding once more
_MAX_PROVEN = 10
_READ_SLOTS = threading.BoundedSemaphore(4)
_MAX_WAIT = 30.0  # seconds
_MAX_NUMBERS = 2**63  # of all tensors together: what a database counts up to


@dataclass(frozen=True)
class VerifiedBase:
    """A base as its stored list of tensors describes it: ``tensor_digests``, and the ``size`` of the list in bytes."""

    base: BaseModel
    tensor_digests: Mapping[str, TensorDigest]
    size: int


@contextlib.contextmanager
def limit_concurrent_reads() -> Iterator[None]:
    """Let four callers read tensor lists at once: a large one takes some 100 MB. Raises QuotaError after 30 seconds."""
    if not _READ_SLOTS.acquire(timeout=_MAX_WAIT):
        raise QuotaError("the registry reads the lists of other bases", hint="try again in a minute")
    try:
        yield
    finally:
        _READ_SLOTS.release()


def read_verified_base(store: BlobTransfer, base: BaseModel) -> VerifiedBase:
    """Return the base as its stored list of tensors describes it; of ``base`` only names, license and config are taken.

    Raises IntegrityError for a list that cannot be read, or has another number of tensors.
    """
    if not is_digest(base.digest):
        raise IntegrityError(f"{base.digest[:70]!r} is no sha256", hint="loreg base add ./path")
    size = store.size(base.digest)
    if size is not None and size > _MAX_BYTES:
        raise IntegrityError(
            f"the list of the tensors of {base.title} has {size:,} bytes, expected {_MAX_BYTES:,} at most",
            hint="loreg base add ./path",
        )
    if base.tensors > _MAX_TENSORS:
        raise IntegrityError(
            f"{base.title} has {base.tensors:,} tensors, expected {_MAX_TENSORS:,} at most", hint="is this a model?"
        )
    document = store.read(base.digest, _MAX_BYTES)
    tensor_list = _parse_tensor_list(document)
    expected = (base.tensors, _schema(base))
    if (
        tensor_list is None
        or (len(tensor_list["tensors"]), tensor_list["schema"]) != expected
        or not _are_words_sound(base)
    ):
        raise IntegrityError(f"{base.title} is not what its list of tensors says", hint="loreg base add ./path")
    return VerifiedBase(with_tensor_facts(base, tensor_list), tensor_list["tensors"], len(document))


def _are_words_sound(base: BaseModel) -> bool:
    """Return whether the names, license and config of a request are few, short and printable."""
    names = all(name.isprintable() and 0 < len(name) <= _MAX_NAME for name in base.names)
    config = describe_config(base.config) == base.config and len(json.dumps(base.config)) <= _MAX_CONFIG
    return names and len(base.names) <= _MAX_NAMES and config and len(base.license) <= _MAX_LICENSE


def _schema(base: BaseModel) -> str:
    return CONTENT_SCHEMA if base.complete else HEADERS_SCHEMA


def _parse_tensor_list(document: bytes) -> TensorList | None:
    """Return the list of tensors in the bytes; None if they are no list that every reader takes."""
    try:
        refuse_many_values(document, _MAX_VALUES)
        tensor_list: TensorList = json.loads(document)
        tensor_digests = tensor_list["tensors"].items()
        fields = _FIELDS[tensor_list["schema"]]
        is_sound = tensor_list.keys() <= _KEYS and all(
            _is_tensor_entry(entry, fields) and name.isprintable() for name, entry in tensor_digests
        )
        is_sound = is_sound and sum(math.prod(entry["shape"]) for _, entry in tensor_digests) < _MAX_NUMBERS
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return tensor_list if is_sound else None


_KEYS = {"schema", "names", "tensors", "files"}
#: What is listed of each tensor, by the schema of the list.
_FIELDS = {CONTENT_SCHEMA: {"dtype", "shape", "sha256"}, HEADERS_SCHEMA: {"dtype", "shape"}}


def _is_tensor_entry(entry: Any, fields: Set[str]) -> bool:
    if not isinstance(entry, dict) or entry.keys() != fields:
        return False
    shape = entry["shape"]
    is_sound = isinstance(shape, list) and len(shape) <= MAX_AXES
    is_sound = is_sound and all(type(number) is int and 0 <= number < MAX_INTEGER for number in shape)
    return is_sound and entry["dtype"] in DTYPES and ("sha256" not in fields or is_digest(entry["sha256"]))


def find_matching_header_bases(
    store: BlobTransfer, verified: VerifiedBase, header_bases: Sequence[BaseModel]
) -> tuple[str, ...]:
    """Return the digests of those of ``header_bases``, known by their headers, whose headers ``verified`` has.

    Reads the lists of ten at most, and of none that has far more tensors, or fewer.
    """
    if not verified.base.complete:
        return ()
    count = verified.base.tensors
    candidates = [base for base in header_bases if abs(base.tensors - count) <= _MAX_EXTRA_HEADS]
    return tuple(
        base.digest for base in candidates[:_MAX_PROVEN] if _has_headers(verified, base, store.read(base.digest))
    )


def _has_headers(verified: VerifiedBase, base: BaseModel, document: bytes) -> bool:
    """Return whether ``verified`` can be the base that the stored list of headers describes."""
    try:
        headers = parse_tensor_digests(document, base)
    except IntegrityError:  # another release listed it: nothing is known of it here
        return False
    return matches_headers(verified.tensor_digests, headers)


def is_proven(store: BlobTransfer, child: BaseModel, parent: BaseModel, kind: BaseRelation) -> bool:
    """Return whether the contents prove the relation. Raises ConflictError if they disprove it."""
    if not (child.complete and parent.complete) or kind not in (BaseRelation.CAST_OF, BaseRelation.RENAMED_FROM):
        return False
    child_digests, parent_digests = (parse_tensor_digests(store.read(base.digest), base) for base in (child, parent))
    if kind == BaseRelation.CAST_OF:
        common_names = child_digests.keys() & parent_digests.keys()
        is_same = all(child_digests[name] == parent_digests[name] for name in common_names)
        return is_same and len(common_names) == min(len(child_digests), len(parent_digests))
    child_counts, parent_counts = (
        Counter(digest["sha256"] for digest in digests.values()) for digests in (child_digests, parent_digests)
    )
    if child_counts != parent_counts:
        raise ConflictError(
            f"{child.title} is not a renaming of {parent.title}: "
            f"{(child_counts - parent_counts).total()} of its tensors have other content",
            hint="--kind finetuned_from, or cast_of, declares another relation",
        )
    return True


def validate_detail(detail: Mapping[str, object]) -> dict[str, object]:
    """Return the detail of an edge, e.g. ``{"bits": 4}``. Raises UsageError for more than a few words and numbers."""
    words = all(_WORD.fullmatch(name) for name in detail)
    values = all(isinstance(value, str | int | float) and len(str(value)) <= 128 for value in detail.values())
    if len(detail) > 8 or not words or not values or not all(str(value).isprintable() for value in detail.values()):
        raise UsageError("the detail of an edge is a few words and numbers", hint="--method gptq --bits 4 --group 128")
    return dict(detail)


def describe_taken_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each name that means another base already."""
    return tuple(f"the name {name!r} already means another base in this registry" for name in names)


def describe_unchanged_fields(request: BaseModel, stored: BaseModel, taken_names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each field of the request that stays as it is, because another user added the base."""
    who = "only who added it, or an administrator, changes that"
    license_ = f"{stored.title}: its license stays {stored.license or 'unknown'!r}, {who}"
    stays = [license_] if request.license not in ("", stored.license) else []
    refused = [name for name in request.names if name not in (*stored.names, *taken_names)]
    return (*stays, *(f"the name {name!r} was not given to {stored.title}: {who}" for name in refused))
