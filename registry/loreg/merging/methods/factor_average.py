"""What PEFT calls ``linear``: the factors averaged on their own, which is not the weighted sum of the deltas."""

from __future__ import annotations

import torch

from loreg.algebra.spectrum import Spectrum, decompose
from loreg.errors import MergeError
from loreg.merging.batch import Batch
from loreg.merging.method import Method, MethodFamily, Values


def factor_average(batch: Batch, values: Values) -> Spectrum:
    """Return ``(Σ √|wₜ|·Bₜ) @ (Σ ±√|wₜ|·Aₜ)``, √scale in each factor: it has cross terms ``BᵢAⱼ``, and rank r.

    Raises MergeError if the ranks differ.
    """
    ranks = batch.stack.ranks
    if len(set(ranks)) > 1:
        raise MergeError(
            f"factor_average adds factors, but module {batch.modules[0]} has ranks {', '.join(map(str, ranks))}",
            hint="--method linear merges any ranks, exactly",
        )
    framed = batch.framed
    roots = batch.weights.abs().sqrt()
    signed = roots * torch.where(batch.weights < 0, -1.0, 1.0)
    sources = framed.sources()
    b = sum(root.reshape(-1, 1, 1) * part.b for root, part in zip(roots.unbind(-1), sources, strict=True))
    a = sum(root.reshape(-1, 1, 1) * part.a for root, part in zip(signed.unbind(-1), sources, strict=True))
    size = (batch.weights.abs() * batch.norms()).sum(-1)
    return decompose(framed.left, framed.right, b @ a, size)  # type: ignore[operator]


METHODS = (
    Method(
        name="factor_average",
        family=MethodFamily.FACTORS,
        summary="PEFT's 'linear', to reproduce it: NOT the weighted sum of the deltas",
        source="PEFT 0.21, add_weighted_adapter(combination_type='linear')",
        concept=(
            "A and B are averaged on their own, with the root of weight and scale in each, as PEFT's "
            '``combination_type="linear"`` does. The product has cross terms ``BᵢAⱼ`` that belong to no source, and '
            "depends on how each adapter happens to be factored. All ranks must be equal."
        ),
        use="only to reproduce what PEFT made; for everything else take linear",
        merge=factor_average,
    ),
)
