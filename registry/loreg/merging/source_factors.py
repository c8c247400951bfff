"""The factors of adapters as they act on their base, for what runs a model with them: nothing is merged."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from loreg.adapters.module_shape import ModuleKind
from loreg.algebra.factors import Factors
from loreg.errors import UsageError
from loreg.merging.inputs import MergeInput
from loreg.merging.sources import open_sources


def read_source_factors(inputs: Sequence[MergeInput]) -> list[dict[str, Factors]]:
    """Return ``b (out, r)`` and ``a (r, in)`` of each module of each adapter, in float64, the scale in b.

    Of an adapter of plain LoRA, a is lora_A as it is stored. Raises UsageError for what is more than factors on linear
    modules: heads, embeddings, experts, biases.
    """
    with open_sources(inputs, 0) as sources:
        factors = []
        for source in sources:
            refuse_more_than_factors(source.input)
            by_module = {}
            for name in source.modules:
                both = source.factors(name, torch.device("cpu"))
                root = abs(source.adapter.scale(name)) ** 0.5 or 1.0
                by_module[name] = Factors(both.b[0] * root, both.a[0] / root)
            factors.append(by_module)
        return factors


def refuse_more_than_factors(source: MergeInput) -> None:
    """Raise UsageError for an adapter that does more than add factors to linear modules."""
    structure = source.structure
    others = sorted(structure.full_tensors_and_token_rows)
    others += [
        name
        for name, module in structure.modules.items()
        if module.shape is None or module.shape.kind != ModuleKind.LINEAR or "bias" in module.tensors
    ]
    if others:
        raise UsageError(
            f"{source.label} has more than factors on linear modules, e.g. {others[0]}: it cannot be swapped in place",
            hint="evaluate merged adapters with a program: --eval 'python score.py {dir}'",
        )
