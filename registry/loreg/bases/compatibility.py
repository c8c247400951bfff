"""How well a base fits an adapter, in one of six words with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loreg.adapters.structure import AdapterStructure
from loreg.bases.affected_tensors import TargetTensor, affected_digest, build_lookup, target_tensors
from loreg.bases.weight_lookup import WeightLookup
from loreg.entities import BaseEdge, BaseModel, Verdict
from loreg.errors import CheckFailedError

FLOATS = ("F64", "F32", "F16", "BF16")
_QUANTISED = ("I32", "I8", "U8", "U32", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2")


@dataclass(frozen=True)
class BaseTensors:
    """A base with its tensor digests by canonical name; without digests if only its headers are known."""

    base: BaseModel
    tensor_digests: Mapping[str, Mapping[str, Any]]
    _lookups: dict[Any, WeightLookup] = field(default_factory=dict, compare=False, repr=False)

    def lookup(self, structure: AdapterStructure) -> WeightLookup:
        """Its tensors as the class that the adapter was trained on names them; made once for each such class."""
        asked = structure.config.task_type, str(structure.config.raw.get("auto_mapping")), bool(structure.full_tensors)
        if asked not in self._lookups:
            self._lookups[asked] = build_lookup(structure, self.tensor_digests, self.base.config)
        return self._lookups[asked]

    def target_tensors(self, structure: AdapterStructure) -> tuple[TargetTensor, ...]:
        """Its tensors that the factors of the adapter change."""
        return target_tensors(structure, self.lookup(structure))


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter, and the base that it was trained on if that is known."""

    structure: AdapterStructure
    base: BaseTensors | None


def assess(trained: TrainedAdapter, candidate: BaseTensors, path: Sequence[BaseEdge] = ()) -> Verdict:
    """The verdict on the base ``candidate``; ``path`` leads from the base that is known to it, if anything does."""
    on = trained.base
    if on is not None and candidate.base.digest == on.base.digest and on.base.complete:
        return Verdict("exact", "it was trained on this very content")
    reason = _first_mismatch(trained.structure, candidate, derived=bool(path))
    if reason:
        return Verdict("mismatch", reason)
    if on is not None and on.base.complete and candidate.base.complete:
        there, here = (
            affected_digest(known.tensor_digests, trained.structure, known.lookup(trained.structure))
            for known in (on, candidate)
        )
        if there is not None and there == here:
            count = len({part.place for part in candidate.target_tensors(trained.structure)})
            return Verdict("target-exact", f"the {count} tensors that it touches are the same, others are not")
    if path and on is not None:
        kind = "verified-derived" if all(edge.verified for edge in path) else "declared-derived"
        return Verdict(kind, f"it was trained on {on.base.title}: " + ", ".join(map(_describe_edge, path)))
    return Verdict("struct-only", _why_not_more(trained, candidate))


def refuse_mismatch(structure: AdapterStructure, base: BaseTensors) -> None:
    """Raise CheckFailedError if the adapter cannot be of that base."""
    verdict = assess(TrainedAdapter(structure, None), base)
    if verdict.kind == "mismatch":
        raise CheckFailedError(
            f"base mismatch: {verdict.reason} ({base.base.title})", hint="--base names the model that it was trained on"
        )


def _first_mismatch(structure: AdapterStructure, candidate: BaseTensors, *, derived: bool) -> str:
    """The first tensor that is missing or has another shape. A quantised copy may keep it in other tensors."""
    for part in candidate.target_tensors(structure):
        if part.why_not:
            continue
        leaf = candidate.tensor_digests[part.place] if part.place else None
        if leaf is None or leaf["dtype"] not in FLOATS:
            if not derived and not is_quantised(candidate):
                return f"it has no tensor {part.name} that factors can be added to"
        elif reason := why_shape_differs(part, leaf["shape"]):
            return reason
    return ""


def why_shape_differs(part: TargetTensor, shape: Sequence[int]) -> str:
    """Why a tensor of that shape cannot take the part; empty if it can."""
    if tuple(shape) in part.shapes:
        return ""
    expected = " or ".join(map(str, part.shapes))
    return f"{part.module.name} is {expected} in the adapter, this base has {tuple(shape)}"


def is_quantised(candidate: BaseTensors) -> bool:
    """Whether the base keeps weights in integers or in 8 bits and fewer."""
    return any(leaf["dtype"] in _QUANTISED for leaf in candidate.tensor_digests.values())


def _describe_edge(edge: BaseEdge) -> str:
    how = "".join(f" {name} {value}" for name, value in edge.detail.items())
    who = "verified" if edge.verified else f"declared by {edge.author}"
    return f"{edge.child[:12]} {edge.kind} {edge.parent[:12]}{how} ({who})"


def _why_not_more(trained: TrainedAdapter, candidate: BaseTensors) -> str:
    if trained.base is not None and trained.base.base.complete and candidate.base.complete:
        return f"names and shapes fit, but it was trained on other weights, those of {trained.base.base.title}"
    named = " and the name that it gives its base" if trained.structure.config.base_hint in candidate.base.names else ""
    return f"names and shapes fit{named}; by which weights it was trained is not known"
