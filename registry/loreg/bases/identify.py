"""What a base model is, by content: a digest over its tensors that does not depend on how they are stored.

Each tensor is hashed in the narrowest of bf16, fp32 and fp64 that holds all of its values exactly: a bf16 model and
its fp32 copy are the same base, whatever the files are called and however they are cut into shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.header import Tensor, read_header
from loreg.errors import AdapterFormatError, ConflictError, NotFoundError
from loreg.records import BaseModel, Progress, no_progress

SCHEMA = "loreg.base-leaves/1"
_CHUNK = 4 * 1024 * 1024  # elements hashed together, which bounds the memory
_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
Bits = NDArray[Any]


@dataclass(frozen=True)
class Identity:
    """A base and ``leaves``, the canonical JSON that lists its tensors' digests; its sha256 is the base's digest."""

    base: BaseModel
    leaves: bytes


def identify(path: Path, names: tuple[str, ...] = (), progress: Progress = no_progress) -> Identity:
    """Hash every tensor of the model at ``path``: a safetensors file, or a folder of shards.

    Streams with bounded memory. Raises NotFoundError if there is no model, AdapterFormatError if it is only there
    as a pickle, IntegrityError for a damaged file, ConflictError if two shards have a tensor of the same name.
    """
    tensors = [(file, tensor) for file in shards(path) for tensor in read_header(file).tensors.values()]
    total = sum(tensor.end - tensor.start for _, tensor in tensors)
    leaves: dict[str, dict[str, Any]] = {}
    done = 0
    for file, tensor in tensors:
        if tensor.name in leaves:
            raise ConflictError(
                f"{path} has the tensor {tensor.name!r} twice",
                hint="leave one copy of the model in the folder",
            )
        kind, digest = _leaf(file, tensor)
        leaves[tensor.name] = {"dtype": kind, "shape": list(tensor.shape), "sha256": digest}
        done += tensor.end - tensor.start
        progress("identifying the base", done, total)
    document = json.dumps({"schema": SCHEMA, "tensors": leaves}, sort_keys=True, separators=(",", ":")).encode()
    parameters = sum(tensor.parameters for _, tensor in tensors)
    return Identity(BaseModel(hashlib.sha256(document).hexdigest(), names, len(leaves), parameters), document)


def shards(path: Path) -> list[Path]:
    """The safetensors files of the model at ``path``. Raises NotFoundError, or AdapterFormatError for a pickle."""
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    index, whole = path / "model.safetensors.index.json", path / "model.safetensors"
    if index.is_file():
        return [path / name for name in sorted(set(_weight_map(index).values()))]
    found = [whole] if whole.is_file() else sorted(path.glob("*.safetensors"))
    if found:
        return found
    if path.suffix == ".bin" or any(path.glob("*.bin")):
        raise AdapterFormatError(
            f"{path} holds the model as a pickle, which loreg never opens",
            hint="model.save_pretrained(DIR) writes safetensors",
        )
    raise NotFoundError(
        f"there is no model at {path}: no *.safetensors",
        hint="name the folder of the base model: --base ./model",
    )


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        if all(isinstance(name, str) and "/" not in name for name in names.values()):
            return names
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise AdapterFormatError(f"{index} has no weight_map of shard names", hint="save the model again")


def _leaf(file: Path, tensor: Tensor) -> tuple[str, str]:
    """The narrowest dtype that holds every value, and the digest over dtype, shape and little-endian bytes."""
    kind, narrow = _narrowest(file, tensor)
    hasher = hashlib.sha256(f"{kind} {list(tensor.shape)}\n".encode())
    for chunk in _chunks(file, tensor):
        hasher.update(np.ascontiguousarray(narrow(chunk)).data)
    return kind, hasher.hexdigest()


def _narrowest(file: Path, tensor: Tensor) -> tuple[str, Callable[[Bits], Bits]]:
    if tensor.dtype not in _NUMPY:
        return tensor.dtype, _same  # bf16 is the narrowest; integers and 8-bit floats stay what they are
    if all(_fits_f32(chunk) for chunk in _chunks(file, tensor)):
        if all(_fits_bf16(_to_f32(chunk)) for chunk in _chunks(file, tensor)):
            return "BF16", _to_bf16
        return "F32", _to_f32
    return "F64", _same


def _chunks(file: Path, tensor: Tensor) -> Iterator[Bits]:
    size = tensor.end - tensor.start
    kind = np.dtype(_NUMPY.get(tensor.dtype, np.uint8)).newbyteorder("<")
    if not size:
        return
    flat = np.memmap(file, dtype=kind, mode="r", offset=tensor.start, shape=(size // kind.itemsize,))
    for begin in range(0, flat.size, _CHUNK):
        yield flat[begin : begin + _CHUNK]


def _same(chunk: Bits) -> Bits:
    return chunk


def _to_f32(chunk: Bits) -> Bits:
    with np.errstate(over="ignore", invalid="ignore"):
        return chunk.astype("<f4", copy=False)


def _fits_f32(chunk: Bits) -> bool:
    return chunk.dtype.itemsize < 8 or np.array_equal(_to_f32(chunk).astype("<f8").view("<u8"), chunk.view("<u8"))


def _fits_bf16(chunk: Bits) -> bool:
    """A float32 is a bfloat16 exactly if its lower 16 bits are zero."""
    return not np.any(chunk.view("<u4") & 0xFFFF)


def _to_bf16(chunk: Bits) -> Bits:
    return (_to_f32(chunk).view("<u4") >> 16).astype("<u2")
