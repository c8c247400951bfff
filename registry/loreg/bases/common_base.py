"""Find the one base that all adapters to be combined are for, whoever knows their bases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from loreg.adapters.structure import AdapterStructure
from loreg.bases.compatibility import BaseTensors, TrainedAdapter, assess
from loreg.entities import BaseEdge, BaseModel, Verdict, VerdictKind
from loreg.errors import CheckFailedError

#: Verdicts that say: the weights which the adapter changes are those that it was trained on.
SAME = (VerdictKind.EXACT, VerdictKind.TARGET_EXACT)
DERIVED = (VerdictKind.VERIFIED_DERIVED, VerdictKind.DECLARED_DERIVED)

#: Returns a base with the digests of its tensors.
LoadBase = Callable[[BaseModel], BaseTensors]
#: Returns the relations that lead from the base with one digest to that with another; empty if none do.
FindPath = Callable[[str, str], Sequence[BaseEdge]]


class Combined(Protocol):
    """An adapter that is to be combined: its ``label`` for messages, and the base that is known of it."""

    @property
    def label(self) -> str:
        """What messages call it."""
        ...

    @property
    def structure(self) -> AdapterStructure:
        """What is in its files."""
        ...

    @property
    def base(self) -> BaseModel | None:
        """The base that it was trained on, by content; None if that is not known."""
        ...


def find_common_base(
    sources: Sequence[Combined], load: LoadBase, find_path: FindPath, *, allow_derived: bool
) -> tuple[BaseModel | None, tuple[str, ...]]:
    """Return the base of all sources, None if it is not known of each, and notes on the choice.

    Sources of other bases fit if what they touch is the same there, or, with ``allow_derived``, if one base is known
    to come from the other; a source whose base is only declared fits if it declares a name of the known one. Raises
    CheckFailedError if two do not fit.
    """
    bases = list({source.base.digest: source.base for source in sources if source.base is not None}.values())
    if not bases:
        return None, ()
    notes: tuple[str, ...] = ()
    base = bases[0]
    if len(bases) > 1:
        base, notes = _choose_base(sources, bases, load, find_path, allow_derived)
    declared = all(source.base or source.structure.config.base_hint in base.names for source in sources)
    return base if declared else None, notes


def _choose_base(
    sources: Sequence[Combined], bases: Sequence[BaseModel], load: LoadBase, find_path: FindPath, allow_derived: bool
) -> tuple[BaseModel, tuple[str, ...]]:
    """Return the base whose weakest verdict on a source is the strongest, and notes. Raises CheckFailedError."""
    best: tuple[Verdict, BaseModel, Combined] | None = None
    loaded = {base.digest: load(base) for base in bases}
    trained = [(s, TrainedAdapter(s.structure, loaded[s.base.digest])) for s in sources if s.base]
    for base in bases:
        verdicts = [(_assess(adapter, loaded[base.digest], find_path), source) for source, adapter in trained]
        weakest, source = min(verdicts, key=lambda pair: pair[0])
        if best is None or best[0] < weakest:
            best = weakest, base, source
    assert best is not None  # noqa: S101  there is at least one base
    verdict, base, source = best
    if verdict.kind in SAME:
        return base, (f"the sources' bases differ only in what none of them touches; taken: {base.title}",)
    if verdict.kind in DERIVED and allow_derived:
        return base, (f"{source.label} is merged for {base.title}: {verdict.reason}",)
    raise CheckFailedError(
        f"different bases: {source.label} does not fit {base.title}: {verdict.reason}",
        hint="--allow-derived merges them all the same"
        if verdict.kind in DERIVED
        else f"merge adapters of one base: loreg search --base {base.digest[:12]}",
    )


def _assess(adapter: TrainedAdapter, candidate: BaseTensors, find_path: FindPath) -> Verdict:
    path: Sequence[BaseEdge] = ()
    if adapter.base is not None and adapter.base.base.digest != candidate.base.digest:
        path = find_path(adapter.base.base.digest, candidate.base.digest)
    return assess(adapter, candidate, path)
