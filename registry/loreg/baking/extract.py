"""An adapter out of a fine-tune: the best factors of what each matrix changed by, and the rest as it is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loreg.adapters.keys import PREFIX, extra_name
from loreg.adapters.tensors import Written, WrittenModule
from loreg.algebra.factors import Factors
from loreg.algebra.sketch import Tiles, largest_singular
from loreg.algebra.spectrum import Spectrum
from loreg.baking.difference import TRANSPOSED, Pair, is_tied, pairs
from loreg.baking.numbers import FLOATS, computed_in, read_tensor
from loreg.bases import names
from loreg.bases.model import Model
from loreg.errors import MergeError
from loreg.merging.parallel import side_by_side
from loreg.records import ExtractedModule, Progress

_HELD = 1 << 24  # numbers of a difference that is kept between passes, 64 MB; a larger one is made again
_FIRST_GUESS = 16


@dataclass(frozen=True)
class Extracted:
    """The adapter to write, what it keeps of each module, and the whole tensors with the reason for each."""

    adapter: Written
    modules: tuple[ExtractedModule, ...]
    whole: tuple[tuple[str, str], ...]


def extract(
    base: Model,
    tuned: Model,
    rank: int | None,
    energy: float | None,
    keep_whole: bool,
    progress: Progress,
) -> Extracted:
    """The difference of two models as an adapter: every matrix at ``rank``, or at the rank that keeps ``energy``.

    Randomised SVD of ``tuned − base`` (Halko, Martinsson & Tropp 2011, arXiv 0909.4061), seeded, by tiles of rows: no
    difference over 64 MB is held. What is no matrix of the same shape in both is kept whole, or refused with MergeError
    unless ``keep_whole``. Raises MergeError if nothing changed, or if a number is not finite.
    """
    changed = pairs(base, tuned)
    factored = [pair for pair in changed if pair.form is not None]
    whole = [pair for pair in changed if pair.form is None]
    if not factored:
        raise MergeError(
            f"no matrix of {tuned.path} differs from that of {base.path}",
            hint="--base names the model that it was tuned from",
        )
    if whole and not keep_whole:
        raise MergeError(
            f"{len(whole)} tensors cannot be factored: {whole[0].name}: {whole[0].reason}",
            hint="--whole keep lets them travel along as they are",
        )
    done: list[tuple[WrittenModule, ExtractedModule]] = []
    for result in side_by_side(lambda pair: _factor(pair, rank, energy), factored, torch.device("cpu")):
        done.append(result)
        progress("extracting", len(done), len(factored))
    modules = {figures.module: written for written, figures in done}
    extras = {extra_name(PREFIX + pair.name, modules): _whole(pair) for pair in whole}
    fields = _fields(base, tuned, factored, whole)
    reasons = tuple((pair.name, pair.reason) for pair in whole)
    return Extracted(Written(modules, extras, fields), tuple(figures for _, figures in done), reasons)


def _factor(pair: Pair, rank: int | None, energy: float | None) -> tuple[WrittenModule, ExtractedModule]:
    form = pair.form
    assert form is not None  # noqa: S101  only such pairs are factored
    shape = (form.in_, form.out) if pair.transposed else (form.out, form.in_)
    tiles = _tiles(pair, shape)
    guess = rank or _FIRST_GUESS
    while True:
        u, s, v, total = _largest(pair, tiles, shape, min(guess, *shape))
        share = s.square().cumsum(0) / total.clamp_min(torch.finfo(torch.float64).tiny)
        if energy is None or guess >= min(shape) or float(share[min(guess, len(s)) - 1]) >= energy:
            break
        guess *= 2
    kept = min(guess, len(s)) if energy is None else min(len(s), int((share < energy).sum()) + 1)
    if pair.transposed:
        u, v = v, u
    best = Spectrum(None, None, u.unsqueeze(0), s.unsqueeze(0), v.unsqueeze(0), total.reshape(1), complete=False)
    found = best.truncate(torch.tensor([kept]))
    factors = Factors(found.b.float().contiguous(), found.a.float().contiguous())
    module = pair.name.removesuffix(".weight")
    retained = float(share[kept - 1].clamp_max(1))
    figures = ExtractedModule(module, (form.out, form.in_), kept, retained, math.sqrt(float(total)))
    return WrittenModule(replace(form, rank=kept), factors), figures


def _largest(pair: Pair, tiles: Tiles, shape: tuple[int, int], rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest singular values and vectors of a difference. Raises MergeError if it is not finite."""
    try:
        u, s, v, total = largest_singular(tiles, shape, rank, torch.device("cpu"))
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # LAPACK met NaN
        total = torch.tensor(math.nan)
    if not math.isfinite(total):
        raise MergeError(
            f"the change of {pair.name} has NaN or infinite numbers", hint="take a checkpoint whose numbers are finite"
        )
    return u, s, v, total


def _tiles(pair: Pair, shape: tuple[int, int]) -> Tiles:
    def tiles() -> Any:
        return ((first, torch.from_numpy(tile)) for first, tile in pair.tiles())

    if shape[0] * shape[1] > _HELD:
        return tiles
    whole = list(tiles())
    return lambda: whole


def _whole(pair: Pair) -> Tensor:
    file, tensor = pair.new
    if tensor.dtype not in FLOATS:
        raise MergeError(f"{pair.name} changed, and {pair.reason}: no adapter can hold it", hint="leave it as it was")
    descriptor = os.open(file, os.O_RDONLY)
    try:
        numbers = read_tensor(descriptor, tensor, computed_in(tensor.dtype))
    finally:
        os.close(descriptor)
    return torch.from_numpy(np.ascontiguousarray(numbers))


def _fields(base: Model, tuned: Model, factored: Sequence[Pair], whole: Sequence[Pair]) -> dict[str, Any]:
    biases = [pair for pair in whole if pair.name.endswith(".bias")]
    modules = sorted({pair.name.rpartition(".")[0] for pair in whole if pair not in biases})
    fields: dict[str, Any] = {
        "base_model_name_or_path": None,
        "task_type": next(
            (task for name, task in _TASKS.items() if any(a.endswith(name) for a in tuned.architectures)), None
        ),
        "fan_in_fan_out": tuned.config.get("model_type") in TRANSPOSED,
        "bias": "all" if biases else "none",
        "modules_to_save": modules or None,
        "target_parameters": None,
    }
    embeds = any(names.is_embedding(names.canonical(pair.name)) for pair in (*factored, *whole))
    if embeds and is_tied(tuned) and is_tied(base):
        fields["ensure_weight_tying"] = True
    return fields


_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
