"""How well a base fits an adapter, in one of six words with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loreg.bases.touched import Touched, found_among, target
from loreg.records import BaseEdge, BaseModel, Verdict

_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Known:
    """A base with its leaves by canonical name; without digests if only its headers are known."""

    base: BaseModel
    leaves: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Trained:
    """What is known of the base that an adapter was trained on: the tensors it ``touched``, the base itself if it is
    known by content, the name that the adapter has for it."""

    touched: tuple[Touched, ...]
    base: Known | None
    hint: str


def judge(trained: Trained, candidate: Known, path: Sequence[BaseEdge] = ()) -> Verdict:
    """The verdict on the base ``candidate``; ``path`` leads from the base that is known to it, if anything does."""
    on = trained.base
    if on is not None and candidate.base.digest == on.base.digest and on.base.complete:
        return Verdict("exact", "it was trained on this very content")
    reason = _what_does_not_fit(trained.touched, candidate, derived=bool(path))
    if reason:
        return Verdict("mismatch", reason)
    if on is not None and on.base.complete and candidate.base.complete:
        there, here = target(on.leaves, trained.touched), target(candidate.leaves, trained.touched)
        if there is not None and there == here:
            count = len(trained.touched)
            return Verdict("target-exact", f"the {count} tensors that it touches are the same, others are not")
    if path and on is not None:
        kind = "verified-derived" if all(edge.verified for edge in path) else "declared-derived"
        return Verdict(kind, f"it was trained on {on.base.title}: " + ", ".join(map(_told, path)))
    return Verdict("struct-only", _why_not_more(trained, candidate))


def _what_does_not_fit(touched: Sequence[Touched], candidate: Known, *, derived: bool) -> str:
    """The first tensor that is missing or has another shape. A quantised copy may keep it in other tensors."""
    for each in touched:
        leaf = found_among(candidate.leaves, each.name)
        if leaf is None or leaf["dtype"] not in _FLOATS:
            if not derived:
                return f"it has no tensor {each.name} that factors can be added to"
        elif tuple(leaf["shape"]) not in each.shapes:
            expected = " or ".join(map(str, each.shapes))
            return f"{each.what} is {expected} in the adapter, this base has {tuple(leaf['shape'])}"
    return ""


def _told(edge: BaseEdge) -> str:
    how = "".join(f" {name} {value}" for name, value in edge.detail.items())
    who = "verified" if edge.verified else f"declared by {edge.author}"
    return f"{edge.child[:12]} {edge.kind} {edge.parent[:12]}{how} ({who})"


def _why_not_more(trained: Trained, candidate: Known) -> str:
    if trained.base is not None and trained.base.base.complete and candidate.base.complete:
        return f"names and shapes fit, but it was trained on other weights, those of {trained.base.base.title}"
    named = " and the name that it gives its base" if trained.hint in candidate.base.names else ""
    return f"names and shapes fit{named}; by which weights it was trained is not known"
