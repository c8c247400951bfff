"""Tell of each tensor that an adapter touches whether it is the same in the new base, by digests and shapes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.keys import weight_of_full_tensor
from loreg.adapters.module import Module
from loreg.adapters.structure import AdapterStructure
from loreg.bases.affected_tensors import TargetTensor
from loreg.bases.compatibility import BaseTensors, why_shape_differs
from loreg.bases.tensor_digest import TensorDigest


class TensorState(StrEnum):
    """What a tensor of the old base has become."""

    SAME = "same"
    CHANGED = "changed"
    #: It is gone, or what the adapter has for it does not fit any more.
    MISFIT = "misfit"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class TouchedTensor:
    """One tensor that an adapter touches: its canonical names in both bases, and what it has become.

    ``target`` says how factors act on it; None for a tensor that the adapter brings whole.
    """

    state: TensorState
    reason: str = ""
    target: TargetTensor | None = None
    old_name: str = ""
    new_name: str = ""
    transposed: bool = False


def touched_tensors(structure: AdapterStructure, old: BaseTensors, new: BaseTensors) -> tuple[TouchedTensor, ...]:
    """Return every tensor that the adapter touches in the old base: by factors, and those that it brings whole."""
    unreadable = [
        TouchedTensor(TensorState.UNKNOWN, reason)
        for module in structure.modules.values()
        if (reason := _why_unreadable(module))
    ]
    return (*unreadable, *_by_factors(structure, old, new), *_whole(structure, old, new))


def _why_unreadable(module: Module) -> str:
    """Return why the factors of a module cannot be computed with; empty if they can."""
    if module.why_unreadable:
        return module.why_unreadable
    other = next((tensor.dtype for tensor in module.tensors.values() if tensor.dtype not in FLOATS), "")
    return f"module {module.name} has factors in {other}, which cannot be computed with" if other else ""


def pair_tensors(old: Mapping[str, TensorDigest], new: Mapping[str, TensorDigest]) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each tensor of the old base with that in the new one; None if it is gone.

    A model may have been saved with its class around it, or without: one leading part more or less is the same tensor.
    """
    without_first = {name.partition(".")[2]: name for name in new}
    for name in old:
        rest = name.partition(".")[2]
        yield name, name if name in new else without_first.get(name, rest if rest in new else None)


def _by_factors(structure: AdapterStructure, old: BaseTensors, new: BaseTensors) -> Iterator[TouchedTensor]:
    new_targets: dict[str, list[TargetTensor]] = {}
    for target in new.target_tensors(structure):
        new_targets.setdefault(target.module.name, []).append(target)
    positions: dict[str, int] = {}
    for target in old.target_tensors(structure):
        module = target.module.name
        position = positions[module] = positions.get(module, -1) + 1
        candidates = new_targets[module]
        counterpart = candidates[position] if position < len(candidates) else candidates[-1]
        yield _compare(target, counterpart, old.tensor_digests, new.tensor_digests)


def _compare(
    target: TargetTensor,
    counterpart: TargetTensor,
    old: Mapping[str, TensorDigest],
    new: Mapping[str, TensorDigest],
) -> TouchedTensor:
    if target.base_tensor is None:
        return TouchedTensor(TensorState.UNKNOWN, target.why_not or f"the old base has no tensor {target.name}")
    if counterpart.base_tensor is None:
        if counterpart.why_not:
            return TouchedTensor(TensorState.UNKNOWN, counterpart.why_not)
        return TouchedTensor(TensorState.MISFIT, f"the new base has no tensor {counterpart.name}")
    if (target.matrix, target.rows, target.row_chunk) != (
        counterpart.matrix,
        counterpart.rows,
        counterpart.row_chunk,
    ):
        return TouchedTensor(TensorState.UNKNOWN, f"the new base stores {target.name} in another form")
    before, after = old[target.base_tensor], new[counterpart.base_tensor]
    if after["dtype"] not in FLOATS or before["dtype"] not in FLOATS:
        dtype = after["dtype"] if after["dtype"] not in FLOATS else before["dtype"]
        return TouchedTensor(TensorState.UNKNOWN, f"{target.name} is stored as {dtype}, which cannot be compared")
    if reason := why_shape_differs(target, before["shape"]):
        return TouchedTensor(TensorState.UNKNOWN, f"it does not fit the old base: {reason}")
    if reason := why_shape_differs(counterpart, after["shape"]):
        return TouchedTensor(TensorState.MISFIT, reason)
    transposed = target.is_stored_transposed(tuple(before["shape"]))
    state, reason = _state(target.name, before, after)
    if state == TensorState.CHANGED and transposed is None:
        state, reason = TensorState.UNKNOWN, f"{target.name} is square, and nothing says which way it lies"
    return TouchedTensor(state, reason, target, target.base_tensor, counterpart.base_tensor, bool(transposed))


def _whole(structure: AdapterStructure, old: BaseTensors, new: BaseTensors) -> Iterator[TouchedTensor]:
    """Compare what the adapter replaces, or replaces rows of; a tensor that neither base has is its own alone."""
    shapes = {weight_of_full_tensor(key): tensor.shape for key, tensor in structure.full_tensors.items()}
    rows = {f"{module}.weight": tokens.tensor.shape[1:] for module, tokens in structure.token_rows.items()}
    for weight, shape in {**shapes, **rows}.items():
        names = [_find(base, structure, weight) for base in (old, new)]
        if names[0] is None:
            continue
        if names[1] is None:
            yield TouchedTensor(TensorState.MISFIT, f"the new base has no tensor {weight}, which the adapter replaces")
            continue
        before, after = old.tensor_digests[names[0]], new.tensor_digests[names[1]]
        expected = tuple(after["shape"])[-len(shape) :] if weight in rows else tuple(after["shape"])
        if expected != tuple(shape) and before["shape"] != after["shape"]:
            what = f"{weight} is {tuple(shape)} in the adapter, the new base has {tuple(after['shape'])}"
            yield TouchedTensor(TensorState.MISFIT, what)
            continue
        state, reason = _state(weight, before, after)
        if state == TensorState.CHANGED:
            reason = f"it brings {weight} whole, trained beside the old base"
        yield TouchedTensor(state, reason)


def _find(base: BaseTensors, structure: AdapterStructure, weight: str) -> str | None:
    locations = base.lookup(structure).find(weight)
    return locations[0].name if locations else None


def _state(name: str, before: TensorDigest, after: TensorDigest) -> tuple[TensorState, str]:
    if "sha256" not in before or "sha256" not in after:
        return TensorState.UNKNOWN, f"of {name} the headers alone are known"
    return (TensorState.SAME, "") if before == after else (TensorState.CHANGED, f"{name} changed")
