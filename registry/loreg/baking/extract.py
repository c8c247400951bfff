"""Extract an adapter from a fine-tune: the best factors of each matrix's change, and other tensors whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.keys import PREFIX, full_tensor_key
from loreg.adapters.module_shape import ModuleKind
from loreg.adapters.tensors import AdapterToWrite, ModuleToWrite, pad_rank
from loreg.algebra.factors import Factors
from loreg.algebra.sketch import Tiles, randomized_svd
from loreg.algebra.spectrum import Spectrum
from loreg.baking.float_codec import read_tensor
from loreg.baking.model_diff import ChangedWeight, changed_weights
from loreg.bases.model import Model
from loreg.entities import ExtractedModule, Progress
from loreg.errors import MergeError
from loreg.merging.device import explain_out_of_memory
from loreg.merging.parallel import parallel_map

_MAX_HELD = 1 << 24  # elements of a difference that is kept between passes, 64 MB; a larger one is computed again
_FIRST_RANK = 16


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
    """Factor the difference of two models: every matrix at ``rank``, or at the rank that keeps ``energy``.

    Randomised SVD of ``tuned − base`` (Halko, Martinsson & Tropp 2011, arXiv 0909.4061), seeded, by tiles of rows: no
    difference over 64 MB is held. What is no matrix of the same shape in both is kept whole, or refused with MergeError
    unless ``keep_whole``. Raises MergeError if nothing changed, or if a number is not finite.
    """
    changed = changed_weights(base, tuned)
    factored = [weight for weight in changed if weight.shape is not None]
    whole = [weight for weight in changed if weight.shape is None]
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
    fields = _config_fields(tuned, factored, whole)
    _refuse_names_of_several(fields["modules_to_save"] or (), [_module_name(weight) for weight in factored])
    done: list[tuple[ModuleToWrite, ExtractedModule]] = []
    torch_device = torch.device(device)
    with explain_out_of_memory(torch_device):
        for result in parallel_map(lambda weight: _factor(weight, rank, energy, torch_device), factored, torch_device):
            done.append(result)
            progress("extracting", len(done), len(factored))
    modules = {figures.module: module for module, figures in done}
    extras = {full_tensor_key(PREFIX + weight.name, modules): _read_full_tensor(weight) for weight in whole}
    reasons = tuple((weight.name, weight.reason) for weight in whole)
    return ExtractedAdapter(AdapterToWrite(modules, extras, fields), tuple(figures for _, figures in done), reasons)


def _factor(
    weight: ChangedWeight, rank: int | None, energy: float | None, device: torch.device
) -> tuple[ModuleToWrite, ExtractedModule]:
    """Return the best factors of a difference; all of its matrices get the largest rank that one of them needs."""
    module_shape = weight.shape
    assert module_shape is not None  # noqa: S101  only such weights are factored
    out, in_ = module_shape.out, module_shape.in_
    stored_shape = (in_, out) if weight.transposed else (out, in_)
    svds = [_decompose(weight, matrix, stored_shape, rank, energy, device) for matrix in range(module_shape.matrices)]
    common_rank = max(svd.rank for svd in svds)
    factors = [svd.factors(common_rank, transposed=weight.transposed) for svd in svds]
    stacked = Factors(torch.cat([f.b for f in factors]), torch.cat([f.a for f in factors]))
    total = sum(svd.total for svd in svds)
    retained = sum(svd.retained(common_rank) for svd in svds) / total if total else 1.0
    figures = ExtractedModule(_module_name(weight), (out, in_), common_rank, min(retained, 1.0), math.sqrt(total))
    return ModuleToWrite(replace(module_shape, rank=common_rank), stacked), figures


@dataclass(frozen=True)
class _TruncatedSvd:
    """The largest singular values and vectors of one matrix, which needs ``rank`` of them; ``total`` is ``‖Δ‖²``."""

    u: Tensor
    s: Tensor
    v: Tensor
    total: float
    rank: int

    def retained(self, rank: int) -> float:
        """Return the sum of squares that is kept at that rank."""
        return float(self.s[:rank].square().sum())

    def factors(self, rank: int, *, transposed: bool) -> Factors:
        """Return ``b (1, out, rank)`` and ``a (1, rank, in)`` in float32, with zeros where there are fewer values."""
        u, v = (self.v, self.u) if transposed else (self.u, self.v)
        total = torch.tensor([self.total], dtype=torch.float64, device=u.device)
        spectrum = Spectrum(None, None, u.unsqueeze(0), self.s.unsqueeze(0), v.unsqueeze(0), total, complete=False)
        best = spectrum.truncate(torch.tensor([min(rank, len(self.s))], device=u.device))
        return pad_rank(Factors(best.b.float().cpu().contiguous(), best.a.float().cpu().contiguous()), rank)


def _decompose(
    weight: ChangedWeight,
    matrix: int,
    shape: tuple[int, int],
    rank: int | None,
    energy: float | None,
    device: torch.device,
) -> _TruncatedSvd:
    tiles = _tiles(weight, matrix, shape, device)
    guess = rank or _FIRST_RANK
    while True:
        u, s, v, total = _largest_singular(weight, tiles, shape, min(guess, *shape), device)
        share = s.square().cumsum(0) / total.clamp_min(torch.finfo(torch.float64).tiny)
        if energy is None or guess >= min(shape) or float(share[min(guess, len(s)) - 1]) >= energy:
            break
        guess *= 2
    needed = min(guess, len(s)) if energy is None else min(len(s), int((share < energy).sum()) + 1)
    return _TruncatedSvd(u, s, v, float(total), needed)


def _largest_singular(
    weight: ChangedWeight, tiles: Tiles, shape: tuple[int, int], rank: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the largest singular vectors and values of a difference, and its squared norm: ``u, s, v, total``.

    Raises MergeError if it is not finite.
    """
    try:
        u, s, v, total = randomized_svd(tiles, shape, rank, device)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # LAPACK met NaN
        total = torch.tensor(math.nan)
    if not math.isfinite(total):
        raise MergeError(
            f"the change of {weight.name} has NaN or infinite numbers",
            hint="take a checkpoint whose numbers are finite",
        )
    return u, s, v, total


def _tiles(weight: ChangedWeight, matrix: int, shape: tuple[int, int], device: torch.device) -> Tiles:
    def tiles() -> Iterator[tuple[int, Tensor]]:
        return ((first, torch.from_numpy(tile).to(device)) for first, tile in weight.tiles(matrix))

    if shape[0] * shape[1] > _MAX_HELD:
        return tiles
    whole = list(tiles())
    return lambda: whole


def _read_full_tensor(weight: ChangedWeight) -> Tensor:
    file, tensor = weight.new
    if tensor.dtype not in FLOATS:
        raise MergeError(
            f"{weight.name} changed, and {weight.reason}: no adapter can hold it", hint="leave it as it was"
        )
    return torch.from_numpy(np.ascontiguousarray(read_tensor(file, tensor)))


def _module_name(weight: ChangedWeight) -> str:
    return weight.name.removesuffix(".weight")


def _refuse_names_of_several(saved: Sequence[str], factored: Sequence[str]) -> None:
    """Raise MergeError where what is saved whole cannot be named without modules that have factors.

    PEFT takes ``modules_to_save`` as the ends of names, so that a module at the top has no name of its own.
    """
    for name in saved:
        if other := next((module for module in factored if f".{name}." in f".{module}."), None):
            raise MergeError(
                f"{name} changed as a whole, and by that name PEFT saves {other} whole too, which would have factors",
                hint=f"serve the fine-tune itself, or leave {name} as it was",
            )


def _config_fields(tuned: Model, factored: Sequence[ChangedWeight], whole: Sequence[ChangedWeight]) -> dict[str, Any]:
    biases = [weight for weight in whole if weight.name.endswith(".bias")]
    modules = sorted({weight.name.rpartition(".")[0] for weight in whole if weight not in biases})
    return {
        "base_model_name_or_path": None,
        "task_type": next(
            (
                task
                for name, task in _TASKS.items()
                if any(model_class.endswith(name) for model_class in tuned.architectures)
            ),
            None,
        ),
        "fan_in_fan_out": any(
            weight.transposed for weight in factored if weight.shape and weight.shape.kind == ModuleKind.LINEAR
        ),
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
