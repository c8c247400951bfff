"""What a base model is, by content: digests over its tensors that do not depend on how they are stored.

Each tensor is hashed in the narrowest of bf16, fp32 and fp64 that holds all of its values exactly: a bf16 model and
its fp32 copy are the same base, whatever the files are called and however they are cut into shards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loreg.adapters.header import Tensor
from loreg.bases import cache, names
from loreg.bases.architecture import OF_THE_HEADS, describe_config
from loreg.bases.lossless_dtype import BITS_OF, BYTES, CANDIDATES, Bits, to_lossless_dtype
from loreg.bases.model import Model, read_model
from loreg.entities import BaseModel, Progress, no_progress
from loreg.errors import IntegrityError

CONTENT = "loreg.base-leaves/2"
HEADERS = "loreg.base-headers/1"
_CHUNK = 1 << 20  # bytes read and hashed together: near enough for a core's own cache

TensorDigest = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """A base and ``tensor_digests``, the canonical JSON that lists its tensors; its sha256 is the base's digest."""

    base: BaseModel
    tensor_list: bytes


def identify(
    path: Path, names_: tuple[str, ...] = (), progress: Progress = no_progress, cached: Path | None = None
) -> Identity:
    """Hash every tensor of the model at ``path``: a safetensors file, or a folder of shards.

    Streams with bounded memory, one tensor per core at a time. ``cached`` is a folder that remembers what files were,
    by path, size and time of change. Raises what reading a model raises, and IntegrityError if a file changes while
    it is read.
    """
    model = read_model(path)
    tensor_digests = _digest_tensors(model, progress, cached)
    document = {"schema": CONTENT, "names": names.VERSION, "tensors": without_tied_heads(tensor_digests)}
    return identity_of(document, names_, model)


def identify_headers(model: Model, names_: tuple[str, ...] = (), files: Mapping[str, str] | None = None) -> Identity:
    """The identity of a model by names, dtypes and shapes alone; ``files`` has the sha256 of each shard if known."""
    document = {"schema": HEADERS, "names": names.VERSION, "tensors": _headers(model), "files": dict(files or {})}
    return identity_of(document, names_, model)


def identity_of(document: Mapping[str, Any], names_: tuple[str, ...], model: Model) -> Identity:
    """The base that ``document`` lists the tensors of ``model`` of."""
    tensor_digests = _canonical_json(document)
    said = BaseModel(
        hashlib.sha256(tensor_digests).hexdigest(), names_, license=model.license, config=describe_config(model.config)
    )
    return Identity(with_listed_facts(said, document), tensor_digests)


def with_listed_facts(base: BaseModel, document: Mapping[str, Any]) -> BaseModel:
    """The base with what follows from the list of its tensors: how many, of which structure, known by what."""
    tensor_digests: Mapping[str, TensorDigest] = document["tensors"]
    return replace(
        base,
        tensors=len(tensor_digests),
        parameters=sum(math.prod(leaf["shape"]) for leaf in tensor_digests.values()),
        struct=_architecture_digest(tensor_digests, base.config),
        complete=document["schema"] == CONTENT,
    )


def architecture_digest(model: Model) -> str:
    """Digest over names and shapes, and what a configuration says that shapes do not; from headers alone.

    An output head of the embedding's shape is left out: headers do not say whether it is a copy of it.
    """
    return _architecture_digest(_headers(model), describe_config(model.config))


def _headers(model: Model) -> dict[str, TensorDigest]:
    """The dtype and shape of every tensor by its canonical name."""
    every = names.by_canonical_name({name: tensor for name, (_, tensor) in model.tensors.items()})
    return {name: {"dtype": tensor.dtype, "shape": list(tensor.shape)} for name, tensor in every.items()}


def _architecture_digest(tensor_digests: Mapping[str, TensorDigest], config: Mapping[str, Any]) -> str:
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    fields = {name: config.get(name) for name in ("model_type", *OF_THE_HEADS)}
    fields["num_key_value_heads"] = fields["num_key_value_heads"] or fields["num_attention_heads"]
    shapes = _shapes_without_like_heads(tensor_digests)
    document = {"schema": "loreg.base-struct/1", "names": names.VERSION, "shapes": shapes, "config": fields}
    return hashlib.sha256(_canonical_json(document)).hexdigest()


def has_headers_of(whole: Mapping[str, TensorDigest], headers: Mapping[str, TensorDigest]) -> bool:
    """Whether the base with all contents can be the one of which headers are known: shapes, and dtypes that hold it."""
    if _shapes_without_like_heads(whole) != _shapes_without_like_heads(headers):
        return False
    stored = {name: headers[name]["dtype"] for name in whole.keys() & headers.keys()}
    return all(whole[name]["dtype"] in CANDIDATES.get(dtype, (dtype,)) for name, dtype in stored.items())


def _shapes_without_like_heads(tensor_digests: Mapping[str, TensorDigest]) -> dict[str, list[int]]:
    shapes = {name: leaf["shape"] for name, leaf in tensor_digests.items()}
    embeddings = {tuple(shape) for name, shape in shapes.items() if names.is_embedding(name)}
    return {name: shape for name, shape in shapes.items() if not (names.is_head(name) and tuple(shape) in embeddings)}


def without_tied_heads(tensor_digests: Mapping[str, TensorDigest]) -> dict[str, TensorDigest]:
    """The tensor digests under canonical names, without output heads that are their embedding once more."""
    tensor_digests = names.by_canonical_name(tensor_digests)
    embeddings = [leaf for name, leaf in tensor_digests.items() if names.is_embedding(name)]
    return {name: leaf for name, leaf in tensor_digests.items() if not (names.is_head(name) and leaf in embeddings)}


def parse_tensor_digests(document: bytes) -> dict[str, TensorDigest]:
    """The tensor digests by canonical name in the bytes that :func:`identify` made."""
    return dict(json.loads(document)["tensors"])


def parse_shard_digests(document: bytes) -> dict[str, str]:
    """The sha256 of each shard by its name, where a header-only identity has them."""
    return dict(json.loads(document).get("files", {}))


def _digest_tensors(model: Model, progress: Progress, cached: Path | None) -> dict[str, TensorDigest]:
    """Digest of every tensor by its name in the files; the largest first, so that cores end together."""
    known = {
        file: tensor_digests for file in model.shards if (tensor_digests := cache.recall(cached, file)) is not None
    }
    found = {name: leaf for tensor_digests in known.values() for name, leaf in tensor_digests.items()}
    todo = [(file, tensor) for name, (file, tensor) in model.tensors.items() if file not in known]
    todo.sort(key=lambda item: item[1].start - item[1].end)
    total, done = sum(tensor.end - tensor.start for _, tensor in todo), 0
    lock = threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            progress("identifying the base", done, total)

    before = {file: cache.file_stamp(file) for file in model.shards if file not in known}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(digest_tensor, file, tensor, count) for file, tensor in todo]
        try:
            for (_, tensor), task in zip(todo, tasks, strict=True):
                found[tensor.name] = task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for file, stamp in before.items():
        if cache.file_stamp(file) != stamp:
            raise IntegrityError(f"{file} changed while it was read", hint="try again when it is written")
        cache.remember(cached, file, {name: found[name] for name in model.shards[file].tensors})
    return found


def digest_tensor(file: Path, tensor: Tensor, count: Any = None) -> TensorDigest:
    """The narrowest dtype that holds every value, and the digest over dtype, shape and little-endian bytes."""
    for kind in CANDIDATES.get(tensor.dtype, (tensor.dtype,)):
        hasher = hashlib.sha256(f"{kind} {list(tensor.shape)}\n".encode())
        for chunk in _chunks(file, tensor):
            bits = to_lossless_dtype(chunk, tensor.dtype, kind)
            if bits is None:  # the next wider kind, from the beginning: most often the first chunk says so
                break
            hasher.update(bits.data)
        else:
            break
    if count:
        count(tensor.end - tensor.start)
    return {"dtype": kind, "shape": list(tensor.shape), "sha256": hasher.hexdigest()}


def _chunks(file: Path, tensor: Tensor) -> Iterator[Bits]:
    """The bits of a tensor, a piece at a time, in one buffer that is used again."""
    kind = BITS_OF.get(tensor.dtype, BYTES)
    buffer = np.empty(min(_CHUNK, tensor.end - tensor.start) // kind.itemsize, kind)
    with file.open("rb", buffering=0) as stream:
        stream.seek(tensor.start)
        left = (tensor.end - tensor.start) // kind.itemsize
        while left:
            view = buffer[: min(left, buffer.size)]
            if stream.readinto(view.view(np.uint8).data) != view.nbytes:
                raise IntegrityError(f"{file} ended while it was read", hint="try again when it is written")
            left -= view.size
            yield view


def _canonical_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
