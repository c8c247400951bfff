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

from loreg.adapters.keys import PREFIX, full_tensor_key
from loreg.adapters.tensors import AdapterToWrite, ModuleToWrite, pad_rank
from loreg.algebra.factors import Factors
from loreg.algebra.sketch import Tiles, largest_singular
from loreg.algebra.spectrum import Spectrum
from loreg.baking.dtypes import FLOATS, compute_dtype, read_tensor
from loreg.baking.model_diff import ChangedWeight, changed_weights
from loreg.bases.model import Model
from loreg.entities import ExtractedModule, Progress
from loreg.errors import MergeError
from loreg.merging.device import explain_out_of_memory
from loreg.merging.parallel import parallel_map

_HELD = 1 << 24  # numbers of a difference that is kept between passes, 64 MB; a larger one is made again
_FIRST_GUESS = 16


@dataclass(frozen=True)
class ExtractedAdapter:
    """The adapter to write, what it keeps of each module, and the whole tensors with the reason for each."""

    adapter: AdapterToWrite
    modules: tuple[ExtractedModule, ...]
    whole: tuple[tuple[str, str], ...]


def extract(
    base: Model,
    tuned: Model,
    rank: int | None,
    energy: float | None,
    keep_whole: bool,
    progress: Progress,
    device: str,
) -> ExtractedAdapter:
    """The difference of two models as an adapter: every matrix at ``rank``, or at the rank that keeps ``energy``.

    Randomised SVD of ``tuned − base`` (Halko, Martinsson & Tropp 2011, arXiv 0909.4061), seeded, by tiles of rows: no
    difference over 64 MB is held. What is no matrix of the same shape in both is kept whole, or refused with MergeError
    unless ``keep_whole``. Raises MergeError if nothing changed, or if a number is not finite.
    """
    changed = changed_weights(base, tuned)
    factored = [pair for pair in changed if pair.shape is not None]
    whole = [pair for pair in changed if pair.shape is None]
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
    fields = _fields(tuned, factored, whole)
    _refuse_names_of_several(fields["modules_to_save"] or (), [_module(pair) for pair in factored])
    done: list[tuple[ModuleToWrite, ExtractedModule]] = []
    chosen = torch.device(device)
    with explain_out_of_memory(chosen):
        for result in parallel_map(lambda pair: _factor(pair, rank, energy, chosen), factored, chosen):
            done.append(result)
            progress("extracting", len(done), len(factored))
    modules = {figures.module: written for written, figures in done}
    extras = {full_tensor_key(PREFIX + pair.name, modules): _whole(pair) for pair in whole}
    reasons = tuple((pair.name, pair.reason) for pair in whole)
    return ExtractedAdapter(AdapterToWrite(modules, extras, fields), tuple(figures for _, figures in done), reasons)


def _factor(
    pair: ChangedWeight, rank: int | None, energy: float | None, device: torch.device
) -> tuple[ModuleToWrite, ExtractedModule]:
    """The best factors of a difference, of each matrix of it at the rank that one of them needs."""
    form = pair.shape
    assert form is not None  # noqa: S101  only such pairs are factored
    shape = (form.in_, form.out) if pair.transposed else (form.out, form.in_)
    found = [_decompose(pair, matrix, shape, rank, energy, device) for matrix in range(form.matrices)]
    kept = max(part.kept for part in found)
    factors = [part.factors(kept, transposed=pair.transposed) for part in found]
    together = Factors(torch.cat([f.b for f in factors]), torch.cat([f.a for f in factors]))
    total = sum(part.total for part in found)
    retained = sum(part.retained(kept) for part in found) / total if total else 1.0
    figures = ExtractedModule(_module(pair), (form.out, form.in_), kept, min(retained, 1.0), math.sqrt(total))
    return ModuleToWrite(replace(form, rank=kept), together), figures


@dataclass(frozen=True)
class _Decomposed:
    """The largest singular values of one matrix; ``kept`` of them are wanted, ``total`` is the sum of all squares."""

    u: Tensor
    s: Tensor
    v: Tensor
    total: float
    kept: int

    def retained(self, rank: int) -> float:
        """The sum of the squares that are kept at a rank."""
        return float(self.s[:rank].square().sum())

    def factors(self, rank: int, *, transposed: bool) -> Factors:
        """``b (1, out, rank)`` and ``a (1, rank, in)`` in float32, with zeros where there are fewer values."""
        u, v = (self.v, self.u) if transposed else (self.u, self.v)
        whole = torch.tensor([self.total], dtype=torch.float64, device=u.device)
        best = Spectrum(None, None, u.unsqueeze(0), self.s.unsqueeze(0), v.unsqueeze(0), whole, complete=False)
        found = best.truncate(torch.tensor([min(rank, len(self.s))], device=u.device))
        return pad_rank(Factors(found.b.float().cpu().contiguous(), found.a.float().cpu().contiguous()), rank)


def _decompose(
    pair: ChangedWeight,
    matrix: int,
    shape: tuple[int, int],
    rank: int | None,
    energy: float | None,
    device: torch.device,
) -> _Decomposed:
    tiles = _tiles(pair, matrix, shape, device)
    guess = rank or _FIRST_GUESS
    while True:
        u, s, v, total = _largest(pair, tiles, shape, min(guess, *shape), device)
        share = s.square().cumsum(0) / total.clamp_min(torch.finfo(torch.float64).tiny)
        if energy is None or guess >= min(shape) or float(share[min(guess, len(s)) - 1]) >= energy:
            break
        guess *= 2
    kept = min(guess, len(s)) if energy is None else min(len(s), int((share < energy).sum()) + 1)
    return _Decomposed(u, s, v, float(total), kept)


def _largest(
    pair: ChangedWeight, tiles: Tiles, shape: tuple[int, int], rank: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest singular values and vectors of a difference. Raises MergeError if it is not finite."""
    try:
        u, s, v, total = largest_singular(tiles, shape, rank, device)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # LAPACK met NaN
        total = torch.tensor(math.nan)
    if not math.isfinite(total):
        raise MergeError(
            f"the change of {pair.name} has NaN or infinite numbers", hint="take a checkpoint whose numbers are finite"
        )
    return u, s, v, total


def _tiles(pair: ChangedWeight, matrix: int, shape: tuple[int, int], device: torch.device) -> Tiles:
    def tiles() -> Any:
        return ((first, torch.from_numpy(tile).to(device)) for first, tile in pair.tiles(matrix))

    if shape[0] * shape[1] > _HELD:
        return tiles
    whole = list(tiles())
    return lambda: whole


def _whole(pair: ChangedWeight) -> Tensor:
    file, tensor = pair.new
    if tensor.dtype not in FLOATS:
        raise MergeError(f"{pair.name} changed, and {pair.reason}: no adapter can hold it", hint="leave it as it was")
    descriptor = os.open(file, os.O_RDONLY)
    try:
        numbers = read_tensor(descriptor, tensor, compute_dtype(tensor.dtype))
    finally:
        os.close(descriptor)
    return torch.from_numpy(np.ascontiguousarray(numbers))


def _module(pair: ChangedWeight) -> str:
    return pair.name.removesuffix(".weight")


def _refuse_names_of_several(saved: Sequence[str], factored: Sequence[str]) -> None:
    """Raise MergeError where what is saved whole cannot be named without modules that have factors.

    PEFT takes ``modules_to_save`` as the ends of names, so that a module at the top has no name of its own.
    """
    for one in saved:
        if other := next((module for module in factored if f".{one}." in f".{module}."), None):
            raise MergeError(
                f"{one} changed as a whole, and by that name PEFT saves {other} whole too, which would have factors",
                hint=f"serve the fine-tune itself, or leave {one} as it was",
            )


def _fields(tuned: Model, factored: Sequence[ChangedWeight], whole: Sequence[ChangedWeight]) -> dict[str, Any]:
    biases = [pair for pair in whole if pair.name.endswith(".bias")]
    modules = sorted({pair.name.rpartition(".")[0] for pair in whole if pair not in biases})
    return {
        "base_model_name_or_path": None,
        "task_type": next(
            (task for name, task in _TASKS.items() if any(a.endswith(name) for a in tuned.architectures)), None
        ),
        "fan_in_fan_out": any(pair.transposed for pair in factored if pair.shape and pair.shape.kind == "linear"),
        "bias": "all" if biases else "none",
        "modules_to_save": modules or None,
        "target_parameters": None,
    }


_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
