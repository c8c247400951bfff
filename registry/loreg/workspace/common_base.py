"""Find the one base that all adapters to be combined are for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loreg.entities import BaseModel, Verdict, VerdictKind
from loreg.errors import CheckFailedError
from loreg.workspace.base_lookup import assess_fit, find_base, load_base, trained_adapter
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import ResolvedSource

#: Verdicts that say: the weights which the adapter changes are those that it was trained on.
SAME = (VerdictKind.EXACT, VerdictKind.TARGET_EXACT)
DERIVED = (VerdictKind.VERIFIED_DERIVED, VerdictKind.DECLARED_DERIVED)


def common_base(
    context: Context, opened: Sequence[ResolvedSource], allow_derived: bool
) -> tuple[BaseModel | None, tuple[str, ...]]:
    """Return the base of all sources, None if it is not known of each, and notes on the choice.

    Sources of other bases fit if what they touch is the same there, or, with ``allow_derived``, if one base is known
    to come from the other; a source whose base is only declared fits if it declares a name of the known one. Raises
    CheckFailedError if two do not fit.
    """
    bases = list({source.base.digest: source.base for source in opened if source.base is not None}.values())
    if not bases:
        return None, ()
    notes: tuple[str, ...] = ()
    base = bases[0]
    if len(bases) > 1:
        base, notes = _choose_base(context, opened, bases, allow_derived)
    declared = all(source.base or source.structure.config.base_hint in base.names for source in opened)
    return base if declared else None, notes


def refuse_another_base(context: Context, base: Path | str, opened: Sequence[ResolvedSource]) -> None:
    """Raise CheckFailedError for a source whose tensors do not fit the model at the path ``base``."""
    model = find_base(context, str(Path(base).expanduser().absolute()))
    for source in opened:
        verdict = assess_fit(context, trained_adapter(context, source.structure, None), model)
        if verdict.kind == VerdictKind.MISMATCH:
            raise CheckFailedError(
                f"base mismatch: {source.label} does not fit {model.base.title}: {verdict.reason}",
                hint="--base names the folder of the model that the adapters were trained on",
            )


def _choose_base(
    context: Context, opened: Sequence[ResolvedSource], bases: Sequence[BaseModel], allow_derived: bool
) -> tuple[BaseModel, tuple[str, ...]]:
    """Return the base whose weakest verdict on a source is the strongest, and notes. Raises CheckFailedError."""
    best: tuple[Verdict, BaseModel, ResolvedSource] | None = None
    sources = [(source, trained_adapter(context, source.structure, source.base)) for source in opened if source.base]
    for base in bases:
        candidate = load_base(context, base)
        verdicts = [(assess_fit(context, adapter, candidate), source) for source, adapter in sources]
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
