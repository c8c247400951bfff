"""Identify a base model by content: digests over its tensors that do not depend on how they are stored.

Each tensor is hashed in the narrowest of bf16, fp32 and fp64 that holds all of its values exactly: a bf16 model and
its fp32 copy are the same base, whatever the files are called and however they are cut into shards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from loreg.adapters.dtypes import DTYPES
from loreg.adapters.header import Tensor
from loreg.bases import cache, names
from loreg.bases.architecture import HEAD_COUNT_FIELDS, describe_config
from loreg.bases.lossless_dtype import CANDIDATES, Bits, to_lossless_dtype
from loreg.bases.model import Model, read_model
from loreg.bases.tensor_digest import TensorDigest, TensorList
from loreg.canonical_json import canonical_json
from loreg.entities import BaseModel, Progress, no_progress
from loreg.errors import IntegrityError

CONTENT_SCHEMA = "loreg.base-leaves/2"
HEADERS_SCHEMA = "loreg.base-headers/1"
_CHUNK_BYTES = 1 << 20  # bytes read and hashed together: near enough for a core's own cache


@dataclass(frozen=True)
class Identity:
    """A base and its ``tensor_list``: canonical JSON with each tensor's digest, whose sha256 is the base's digest."""

    base: BaseModel
    tensor_list: bytes


def identify(
    path: Path, base_names: tuple[str, ...] = (), progress: Progress = no_progress, cache_folder: Path | None = None
) -> Identity:
    """Hash every tensor of the model at ``path``: a safetensors file, or a folder of shards.

    Streams with bounded memory, one tensor per core at a time. ``cache_folder`` remembers the digests of files that
    have not changed. Raises what :func:`read_model` raises, and IntegrityError if a file changes while it is read.

    >>> identity = identify(Path("base"), ("my-base",))
    >>> identity.base.tensors, identity.base.parameters, identity.base.complete
    (1, 16, True)
    >>> hashlib.sha256(identity.tensor_list).hexdigest() == identity.base.digest
    True
    """
    model = read_model(path)
    tensor_digests = _digest_tensors(model, progress, cache_folder)
    document: TensorList = {
        "schema": CONTENT_SCHEMA,
        "names": names.VERSION,
        "tensors": without_tied_heads(tensor_digests),
    }
    return _build_identity(document, base_names, model)


def identify_headers(
    model: Model, base_names: tuple[str, ...] = (), shard_digests: Mapping[str, str] | None = None
) -> Identity:
    """Return the identity of a model by names, dtypes and shapes alone; ``shard_digests`` by file name, if known."""
    document: TensorList = {
        "schema": HEADERS_SCHEMA,
        "names": names.VERSION,
        "tensors": _dtypes_and_shapes(model),
        "files": dict(shard_digests or {}),
    }
    return _build_identity(document, base_names, model)


def _build_identity(document: TensorList, base_names: tuple[str, ...], model: Model) -> Identity:
    tensor_list = canonical_json(document)
    digest = hashlib.sha256(tensor_list).hexdigest()
    base = BaseModel(digest, base_names, license=model.license, config=describe_config(model.config))
    return Identity(with_tensor_facts(base, document), tensor_list)


def with_tensor_facts(base: BaseModel, document: TensorList) -> BaseModel:
    """Return the base with the fields that follow from the list of its tensors: counts, architecture, completeness."""
    tensor_digests = document["tensors"]
    return replace(
        base,
        tensors=len(tensor_digests),
        parameters=sum(math.prod(tensor["shape"]) for tensor in tensor_digests.values()),
        struct=_architecture_digest(tensor_digests, base.config),
        complete=document["schema"] == CONTENT_SCHEMA,
    )


def architecture_digest(model: Model) -> str:
    """Return the digest over names, shapes and numbers of attention heads; from headers alone.

    An output head of the embedding's shape is left out: headers do not say whether it is a copy of it.
    """
    return _architecture_digest(_dtypes_and_shapes(model), describe_config(model.config))


def _dtypes_and_shapes(model: Model) -> dict[str, TensorDigest]:
    tensors = names.by_canonical_name({name: tensor for name, (_, tensor) in model.tensors.items()})
    return {name: {"dtype": tensor.dtype, "shape": list(tensor.shape)} for name, tensor in tensors.items()}


def _architecture_digest(tensor_digests: Mapping[str, TensorDigest], config: Mapping[str, object]) -> str:
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    fields = {name: config.get(name) for name in ("model_type", *HEAD_COUNT_FIELDS)}
    fields["num_key_value_heads"] = fields["num_key_value_heads"] or fields["num_attention_heads"]
    shapes = _shapes_without_like_heads(tensor_digests)
    document = {"schema": "loreg.base-struct/1", "names": names.VERSION, "shapes": shapes, "config": fields}
    return hashlib.sha256(canonical_json(document)).hexdigest()


def matches_headers(complete: Mapping[str, TensorDigest], headers: Mapping[str, TensorDigest]) -> bool:
    """Return whether a complete base can be the one of these headers: the same shapes, and dtypes that can hold it."""
    if _shapes_without_like_heads(complete) != _shapes_without_like_heads(headers):
        return False
    stored = {name: headers[name]["dtype"] for name in complete.keys() & headers.keys()}
    return all(complete[name]["dtype"] in CANDIDATES.get(dtype, (dtype,)) for name, dtype in stored.items())


def _shapes_without_like_heads(tensor_digests: Mapping[str, TensorDigest]) -> dict[str, list[int]]:
    shapes = {name: tensor["shape"] for name, tensor in tensor_digests.items()}
    embeddings = {tuple(shape) for name, shape in shapes.items() if names.is_embedding(name)}
    return {name: shape for name, shape in shapes.items() if not (names.is_head(name) and tuple(shape) in embeddings)}


def without_tied_heads(tensor_digests: Mapping[str, TensorDigest]) -> dict[str, TensorDigest]:
    """Return the tensor digests by canonical name, without output heads that are a copy of the embedding."""
    tensor_digests = names.by_canonical_name(tensor_digests)
    embeddings = [tensor for name, tensor in tensor_digests.items() if names.is_embedding(name)]
    return {
        name: tensor for name, tensor in tensor_digests.items() if not (names.is_head(name) and tensor in embeddings)
    }


def parse_tensor_digests(document: bytes, base: BaseModel) -> dict[str, TensorDigest]:
    """Return the tensor digests by canonical name of the ``tensor_list`` of a base.

    Raises IntegrityError for one of another schema, or with names by other rules: its digests are not those that this
    release would find in the same files.
    """
    tensor_list: TensorList = json.loads(document)
    schema, rules = tensor_list["schema"], tensor_list.get("names")
    if schema not in (CONTENT_SCHEMA, HEADERS_SCHEMA) or rules != names.VERSION:
        raise IntegrityError(
            f"the tensors of {base.title} are listed as {schema!r} with names by rules {rules}, "
            f"expected {CONTENT_SCHEMA!r} or {HEADERS_SCHEMA!r} with names by rules {names.VERSION}",
            hint="pip install --upgrade loreg; if that is the newest, add the base again: loreg base add ./path",
        )
    return dict(tensor_list["tensors"])


def parse_shard_digests(document: bytes) -> dict[str, str]:
    """Return the sha256 of each shard by its name, as far as a ``tensor_list`` of headers has them."""
    return dict(json.loads(document).get("files", {}))


def _digest_tensors(model: Model, progress: Progress, cache_folder: Path | None) -> dict[str, TensorDigest]:
    """Return the digest of every tensor by its name in the files."""
    remembered = {file: digests for file in model.shards if (digests := cache.recall(cache_folder, file)) is not None}
    tensor_digests = {name: tensor for digests in remembered.values() for name, tensor in digests.items()}
    todo = [(file, tensor) for name, (file, tensor) in model.tensors.items() if file not in remembered]
    todo.sort(key=lambda item: item[1].start - item[1].end)  # the largest first, so that cores end together
    total, done = sum(tensor.end - tensor.start for _, tensor in todo), 0
    lock = threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            progress("identifying the base", done, total)

    before = {file: cache.file_stamp(file) for file in model.shards if file not in remembered}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(digest_tensor, file, tensor, count) for file, tensor in todo]
        try:
            for (_, tensor), task in zip(todo, tasks, strict=True):
                tensor_digests[tensor.name] = task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for file, stamp in before.items():
        if cache.file_stamp(file) != stamp:
            raise IntegrityError(f"{file} changed while it was read", hint="try again when it is written")
        cache.remember(cache_folder, file, {name: tensor_digests[name] for name in model.shards[file].tensors})
    return tensor_digests


def digest_tensor(file: Path, tensor: Tensor, on_bytes: Callable[[int], None] | None = None) -> TensorDigest:
    """Return the narrowest dtype that holds every value, and the sha256 over dtype, shape and little-endian bytes."""
    for dtype in CANDIDATES.get(tensor.dtype, (tensor.dtype,)):
        hasher = hashlib.sha256(f"{dtype} {list(tensor.shape)}\n".encode())
        for chunk in _chunks(file, tensor):
            bits = to_lossless_dtype(chunk, tensor.dtype, dtype)
            if bits is None:  # on to the next wider dtype, from the beginning: most often the first chunk says so
                break
            hasher.update(bits.data)
        else:
            break
    if on_bytes:
        on_bytes(tensor.end - tensor.start)
    return {"dtype": dtype, "shape": list(tensor.shape), "sha256": hasher.hexdigest()}


def _chunks(file: Path, tensor: Tensor) -> Iterator[Bits]:
    """Yield the bits of a tensor as unsigned integers, a chunk at a time, in one buffer that is used again."""
    unsigned = np.dtype(DTYPES[tensor.dtype].unsigned or "u1")
    buffer = np.empty(min(_CHUNK_BYTES, tensor.end - tensor.start) // unsigned.itemsize, unsigned)
    with file.open("rb", buffering=0) as stream:
        stream.seek(tensor.start)
        left = (tensor.end - tensor.start) // unsigned.itemsize
        while left:
            view = buffer[: min(left, buffer.size)]
            if stream.readinto(view.view(np.uint8).data) != view.nbytes:
                raise IntegrityError(f"{file} ended while it was read", hint="try again when it is written")
            left -= view.size
            yield view
