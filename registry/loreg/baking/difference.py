"""What a fine-tune changed: tensor by tensor, in what form an adapter could hold it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loreg.adapters.forms import Form
from loreg.adapters.header import Tensor
from loreg.baking.numbers import FLOATS, STORED, Array, Scratch, decode, read_into
from loreg.bases import names
from loreg.bases.model import Model
from loreg.errors import MergeError

_TILE = 1 << 20  # numbers of each model that are looked at together
_EMBEDDING = re.compile(r"(^|[._])(embed\w*|wte|wpe)\.")
_ONE_EXPERT = re.compile(r"\.experts\.\d+\.")
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
#: Models whose layers are transformers' Conv1D, which keeps its matrix as (in, out).
TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


@dataclass(frozen=True)
class Pair:
    """One tensor of both models: ``name`` is what the tuned one calls it. ``old`` is None where the base lacks it.

    ``form`` is how factors would hold the difference, None where it must be kept whole, for ``reason``. A matrix that
    is stored ``transposed`` is (in, out).
    """

    name: str
    new: tuple[Path, Tensor]
    old: tuple[Path, Tensor] | None
    form: Form | None
    reason: str = ""
    transposed: bool = False

    def tiles(self) -> Iterator[tuple[int, Array]]:
        """``new − old`` in float32 as it is stored, (first row, (n, columns)), some rows at a time."""
        assert self.old is not None  # noqa: S101  only pairs with a form have a difference
        (new_file, new), (old_file, old) = self.new, self.old
        height, width = new.shape[0], math.prod(new.shape[1:])
        step = max(1, _TILE // max(1, width))
        scratch, other, wide = Scratch(), Scratch(), np.dtype(np.float32)
        files = os.open(new_file, os.O_RDONLY), os.open(old_file, os.O_RDONLY)
        try:
            for first in range(0, height, step):
                count = min(step, height - first) * width
                one = _read(files[0], new, first * width, count, scratch, wide)
                two = _read(files[1], old, first * width, count, other, wide)
                yield first, np.subtract(one, two).reshape(-1, width)
        finally:
            for file in files:
                os.close(file)

    def is_changed(self) -> bool:
        """Whether any number differs; stops at the first that does."""
        if self.old is None or self.old[1].shape != self.new[1].shape:
            return True
        if self.new[1].dtype not in FLOATS or self.old[1].dtype not in FLOATS:
            return _bytes(*self.new) != _bytes(*self.old)
        if not self.new[1].shape:
            return _bytes(*self.new) != _bytes(*self.old)
        return any(tile.any() for _, tile in self.tiles())


def pairs(base: Model, tuned: Model) -> list[Pair]:
    """Every tensor of the tuned model that is not the same in the base, in the order of its files.

    A head that is tied to the embedding is left out: it is that. Raises MergeError for what no adapter can hold.
    """
    old = names.by_canonical_name(base.tensors)
    new = names.by_canonical_name(tuned.tensors)
    index = names.Index(old)
    tied = _ties(tuned)
    found = []
    for canonical, (file, tensor) in new.items():
        if tied and names.is_head(canonical):
            continue
        match = index.find(canonical)
        if match is not None and names.is_head(match) != names.is_head(canonical):
            match = None  # a head of its own now, where the base has none
        pair = _pair(tensor.name, (file, tensor), old[match] if match else None, tuned)
        if pair.is_changed():
            found.append(pair)
    return found


def is_tied(model: Model) -> bool:
    """Whether the model's head is its embedding."""
    return _ties(model) or not any(names.is_head(name) for name in names.by_canonical_name(model.tensors))


def _ties(model: Model) -> bool:
    text = model.config.get("text_config")
    config = {**model.config, **text} if isinstance(text, dict) else model.config
    return config.get("tie_word_embeddings") is True


def _pair(name: str, new: tuple[Path, Tensor], old: tuple[Path, Tensor] | None, tuned: Model) -> Pair:
    shape = new[1].shape
    if old is None:
        return Pair(name, new, None, None, "the base has no such tensor")
    if old[1].shape != shape:
        return Pair(name, new, old, None, f"its shape was {old[1].shape}, and is {shape} now")
    for _, tensor in (new, old):
        if tensor.dtype not in FLOATS:
            return Pair(name, new, old, None, f"its dtype is {tensor.dtype}")
    if _ONE_EXPERT.search(name):
        raise MergeError(
            f"{name} changed, and the experts are stored one by one: an adapter would have to hold them together",
            hint="save the tuned model with its experts as one tensor",
        )
    transposed = tuned.config.get("model_type") in TRANSPOSED
    if len(shape) < 2 or not name.endswith(".weight") or (transposed and not _CONV1D.search(name)):
        return Pair(name, new, old, None, "it is no matrix of a layer that factors can be added to")
    if len(shape) > 2:
        return Pair(name, new, old, Form("convolution", 1, shape[0], math.prod(shape[1:]), kernel=shape[1:]))
    if _EMBEDDING.search(name) and not names.is_head(names.canonical(name)):
        return Pair(name, new, old, Form("embedding", 1, shape[1], shape[0]), transposed=True)
    out, in_ = reversed(shape) if transposed else shape
    return Pair(name, new, old, Form("linear", 1, out, in_), transposed=transposed)


def _read(file: int, tensor: Tensor, first: int, count: int, scratch: Scratch, wide: np.dtype[np.float32]) -> Array:
    kind = STORED[tensor.dtype]
    stored = scratch.get("read", count, kind)
    read_into(file, tensor.start + first * kind.itemsize, stored)
    return decode(stored, tensor.dtype, wide, scratch)


def _bytes(file: Path, tensor: Tensor) -> bytes:
    with file.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.end - tensor.start)
