"""Assess how well a base fits an adapter: one of six verdicts, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loreg.adapters.dtypes import FLOATS, QUANTISED
from loreg.adapters.structure import AdapterStructure
from loreg.base_names import names_base
from loreg.bases.affected_tensors import TargetTensor, affected_digest, build_lookup, target_tensors
from loreg.bases.tensor_digest import TensorDigest
from loreg.bases.weight_lookup import WeightLookup
from loreg.entities import BaseEdge, BaseModel, Verdict, VerdictKind
from loreg.errors import CheckFailedError


@dataclass(frozen=True)
class BaseTensors:
    """A base with its tensor digests by canonical name; without digests if only its headers are known."""

    base: BaseModel
    tensor_digests: Mapping[str, TensorDigest]
    _lookups: dict[tuple[str, str, bool], WeightLookup] = field(default_factory=dict, compare=False, repr=False)

    def lookup(self, structure: AdapterStructure) -> WeightLookup:
        """Return the lookup of its tensors as the class of the adapted model names them; made once for each class."""
        key = structure.config.task_type, str(structure.config.raw.get("auto_mapping")), bool(structure.full_tensors)
        if key not in self._lookups:
            self._lookups[key] = build_lookup(structure, self.tensor_digests, self.base.config)
        return self._lookups[key]

    def target_tensors(self, structure: AdapterStructure) -> tuple[TargetTensor, ...]:
        """Return its tensors that the factors of the adapter change."""
        return target_tensors(structure, self.lookup(structure))


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter, and the base that it was trained on if that is known."""

    structure: AdapterStructure
    base: BaseTensors | None


def assess(trained: TrainedAdapter, candidate: BaseTensors, path: Sequence[BaseEdge] = ()) -> Verdict:
    """Return the verdict on ``candidate``; ``path`` are the relations that lead to it from the base of the training."""
    trained_on = trained.base
    if trained_on is not None and candidate.base.digest == trained_on.base.digest and trained_on.base.complete:
        return Verdict(VerdictKind.EXACT, "it was trained on this very content")
    reason = _find_mismatch(trained.structure, candidate, derived=bool(path))
    if reason:
        return Verdict(VerdictKind.MISMATCH, reason)
    if trained_on is not None and trained_on.base.complete and candidate.base.complete:
        expected, actual = (
            affected_digest(base.tensor_digests, trained.structure, base.lookup(trained.structure))
            for base in (trained_on, candidate)
        )
        if expected is not None and expected == actual:
            count = len({target.base_tensor for target in candidate.target_tensors(trained.structure)})
            return Verdict(
                VerdictKind.TARGET_EXACT, f"the {count} tensors that it touches are the same, others are not"
            )
    if path and trained_on is not None:
        is_verified = all(edge.verified for edge in path)
        kind = VerdictKind.VERIFIED_DERIVED if is_verified else VerdictKind.DECLARED_DERIVED
        return Verdict(kind, f"it was trained on {trained_on.base.title}: " + ", ".join(map(_describe_edge, path)))
    return Verdict(VerdictKind.STRUCT_ONLY, _why_not_more(trained, candidate))


def find_unverified(structure: AdapterStructure, candidate: BaseTensors) -> str:
    """Return why not every tensor that the adapter changes is in the base with a shape that fits; empty if all are.

    Stricter than :func:`assess`, which lets a quantised base, and tensors that are stored otherwise, pass.
    """
    targets = candidate.target_tensors(structure)
    for target in targets:
        tensor = candidate.tensor_digests[target.base_tensor] if target.base_tensor else None
        if tensor is None:
            return target.why_not or f"it has no tensor {target.name} that factors can be added to"
        if tensor["dtype"] not in FLOATS:
            return f"its {target.name} is stored in {tensor['dtype']}: the shape says nothing"
        if reason := why_shape_differs(target, tensor["shape"]):
            return reason
    return "" if targets else "the adapter changes no tensor of a base"


def refuse_mismatch(structure: AdapterStructure, base: BaseTensors) -> None:
    """Raise CheckFailedError if the adapter cannot have been trained on that base."""
    verdict = assess(TrainedAdapter(structure, None), base)
    if verdict.kind == VerdictKind.MISMATCH:
        raise CheckFailedError(
            f"base mismatch: {verdict.reason} ({base.base.title})", hint="--base names the model that it was trained on"
        )


def _find_mismatch(structure: AdapterStructure, candidate: BaseTensors, *, derived: bool) -> str:
    """Return why the first tensor that is missing or has another shape does not fit; empty if all fit.

    A quantised copy may keep a weight in other tensors.
    """
    for target in candidate.target_tensors(structure):
        if target.why_not:
            continue
        tensor = candidate.tensor_digests[target.base_tensor] if target.base_tensor else None
        if tensor is None or tensor["dtype"] not in FLOATS:
            if not derived and not is_quantised(candidate):
                return f"it has no tensor {target.name} that factors can be added to"
        elif reason := why_shape_differs(target, tensor["shape"]):
            return reason
    return ""


def why_shape_differs(target: TargetTensor, shape: Sequence[int]) -> str:
    """Return why a tensor of that shape cannot take the delta of ``target``; empty if it can."""
    if tuple(shape) in target.shapes:
        return ""
    expected = " or ".join(map(str, target.shapes))
    return f"{target.module.name} is {expected} in the adapter, this base has {tuple(shape)}"


def is_quantised(candidate: BaseTensors) -> bool:
    """Return whether the base stores weights in integers or in 8 bits and fewer."""
    return any(tensor["dtype"] in QUANTISED for tensor in candidate.tensor_digests.values())


def _describe_edge(edge: BaseEdge) -> str:
    detail = "".join(f" {name} {value}" for name, value in edge.detail.items())
    source = "verified" if edge.verified else f"declared by {edge.author}"
    return f"{edge.child[:12]} {edge.kind} {edge.parent[:12]}{detail} ({source})"


def _why_not_more(trained: TrainedAdapter, candidate: BaseTensors) -> str:
    if trained.base is not None and trained.base.base.complete and candidate.base.complete:
        return f"names and shapes fit, but it was trained on other weights, those of {trained.base.base.title}"
    same_name = (
        " and the name that it gives its base"
        if names_base(trained.structure.config.base_hint, candidate.base.names)
        else ""
    )
    return f"names and shapes fit{same_name}; by which weights it was trained is not known"
