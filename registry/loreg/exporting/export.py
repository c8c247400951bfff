"""An adapter as one server takes it: the transforms that its profile asks for, and how far the delta moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loreg.adapters.layout import Layout
from loreg.adapters.tensors import pad
from loreg.algebra.factors import Factors, squared_norm
from loreg.checking.profile import EFFECTS, Profile
from loreg.exporting.document import stripped, with_ranks_and_scales, without_paths
from loreg.exporting.held import Held, HeldModule, hold
from loreg.exporting.transforms import TRANSFORMS, Leaves, cast


@dataclass(frozen=True)
class Exported:
    """The files to write, what was changed in words, and the certificate.

    The certificate has ``epsilon``, the relative Frobenius error ``‖Δ' − Δ‖ / ‖Δ‖`` of all deltas together, and the
    same with both ranks for each of the ``modules`` whose delta moved.
    """

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]
    changes: tuple[str, ...]
    certificate: Mapping[str, Any]


def export(layout: Layout, profile: Profile, leaves: Leaves | None, dtype: str | None) -> Exported:
    """Change the adapter as far as the server of ``profile`` asks for it, and no further.

    ``leaves`` are the tensors of its base by canonical name, None if that is not known: then names cannot be
    compared, and modules are only added where a like one is there. Only what the server refuses or gets wrong is
    mended, not what makes it slow. ``dtype`` is torch's name of the one for every tensor, None leaves them. Raises
    CheckFailedError where a shape is not known.
    """
    before = held = hold(layout)
    minded = [rule for rule in profile.rules if EFFECTS[rule.effect][0] == "error"]
    changes = []
    for transform in TRANSFORMS:
        asked = {rule.condition: profile.value(rule) for rule in minded if rule.condition in transform.conditions}
        if asked:
            held, told = transform.change(held, asked, leaves)
            changes += [told] if told else []
    joined = any(module.form is not None and module.form.stacked for module in layout.modules.values())
    document = with_ranks_and_scales(held) if changes or joined else dict(held.document)
    if dtype is not None and any(tensor.dtype != getattr(torch, dtype) for tensor in held.tensors().values()):
        held = cast(held, getattr(torch, dtype))
        changes.append(f"every tensor is {dtype}")
    document = stripped(without_paths(document), profile.reads)
    if left_out := sorted(before.document.keys() - document.keys()):
        fields = f"{', '.join(left_out[:3])}" + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
        changes.append(f"fields left out of adapter_config.json: {fields}")
    return Exported(held.tensors(), document, tuple(changes), _certificate(before, held))


def _certificate(before: Held, after: Held) -> dict[str, Any]:
    moved, squares, whole = [], 0.0, 0.0
    for name, module in after.modules.items():
        if not module.origin:
            continue
        old = before.modules[module.origin]
        square = float(squared_norm(_scaled(old)).sum())
        error = _squared_distance(old, module)
        squares, whole = squares + error, whole + square
        if error:
            epsilon = math.sqrt(error / square) if square else 0.0
            ranks = {"rank_in": old.factors.rank, "rank": module.factors.rank}
            moved.append({"module": name, **ranks, "epsilon": epsilon})
    return {"epsilon": math.sqrt(squares / whole) if whole else 0.0, "modules": moved}


def _squared_distance(old: HeldModule, new: HeldModule) -> float:
    """``‖Δ' − Δ‖²`` without subtracting two large norms."""
    one, other = _scaled(old), _scaled(new)
    most = max(one.rank, other.rank)
    one, other = pad(one, most), pad(other, most)
    if torch.equal(one.a, other.a):
        return float(squared_norm(Factors(other.b - one.b, one.a)).sum())
    _, left = torch.linalg.qr(torch.cat([other.b, -one.b], -1))
    _, right = torch.linalg.qr(torch.cat([other.a, one.a], -2).mT)
    return float((left @ right.mT).square().sum())


def _scaled(module: HeldModule) -> Factors:
    return Factors(module.factors.b.double() * module.scale, module.factors.a.double())
