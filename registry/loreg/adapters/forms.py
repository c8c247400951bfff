"""How the factors of one module lie in the file, and which matrices they are.

Source: PEFT 0.21, ``peft/tuners/lora/layer.py``: Linear, Embedding, _ConvNd, ParamWrapper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.header import Tensor


@dataclass(frozen=True)
class Form:
    """The deltas of one module are ``matrices`` matrices (out, in) of rank ``rank``.

    ``kind`` is linear (A (r, in), B (out, r)), embedding (A (r, tokens), B (dim, r), the delta transposed),
    convolution (A (r, *kernel), B (out, r, 1, …), the kernel with its channels) or experts (A (r·E, in), B (out, r·E)).
    """

    kind: str
    rank: int
    out: int
    in_: int
    matrices: int = 1
    kernel: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[str, str]:
        """What the two factors are called: A first."""
        return ("embedding_A", "embedding_B") if self.kind == "embedding" else ("A", "B")


def form_of(module: str, parts: Mapping[str, Tensor], rank: int, config: Mapping[str, Any]) -> Form | None:
    """The form of a module with these tensors; None if they do not fit together."""
    a, b = _factor(parts, "A"), _factor(parts, "B")
    if a is None or b is None:
        a, b = _factor(parts, "embedding_A"), _factor(parts, "embedding_B")
        if a is None or b is None or len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            return None
        return Form("embedding", a[0], b[0], a[1])
    if len(a) < 2 or len(a) != len(b) or a[0] != b[1] or a[0] < 1:
        return None
    if len(a) > 2:
        if set(b[2:]) != {1}:
            return None
        return Form("convolution", a[0], b[0], math.prod(a[1:]), kernel=a[1:])
    if targets_parameter(module, config):
        if a[0] % rank:
            return None
        return Form("experts", rank, b[0], a[1], matrices=a[0] // rank)
    return Form("linear", a[0], b[0], a[1])


def matrices_of(form: Form, a: Any, b: Any) -> tuple[Any, Any]:
    """The factors as they lie in the file, arrays of NumPy or torch, as ``b (E, out, r)`` and ``a (E, r, in)``.

    E is 1, or how many experts there are; a convolution's kernel counts as input.
    """
    if form.kind == "experts":
        b = b.reshape(form.out, form.rank, form.matrices).swapaxes(0, 2).swapaxes(1, 2)
        return b, a.reshape(form.matrices, form.rank, form.in_)
    return b.reshape(1, form.out, form.rank), a.reshape(1, form.rank, form.in_)


def targets_parameter(module: str, config: Mapping[str, Any]) -> bool:
    """Whether ``module`` is the owner of one of ``target_parameters``; one that wraps another is its base_layer."""
    targets = config.get("target_parameters")
    if not isinstance(targets, list):
        return False
    owner = module
    while owner.endswith(".base_layer"):
        owner = owner.removesuffix(".base_layer")
    owners = [str(target).rpartition(".")[0] for target in targets]
    return any(owner == name or owner.endswith(f".{name}") for name in owners if name)


def _factor(parts: Mapping[str, Tensor], part: str) -> tuple[int, ...] | None:
    return parts[part].shape if part in parts else None
