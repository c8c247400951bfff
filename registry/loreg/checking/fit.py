"""Rules on an adapter and the base that it is to meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from loreg.adapters.keys import PREFIX
from loreg.bases import names
from loreg.bases.touched import parts
from loreg.bases.verdict import FLOATS, is_quantised, shape_that_does_not_fit
from loreg.checking.findings import Subject, rule

_SHOWN = 3


@rule("LB001", "error", "--base names the model that it was trained on; loreg base match shows which one fits", "")
def every_module_is_in_the_base(subject: Subject) -> Iterable[str]:
    """The base has each module: a server drops factors for one that it has not, and serves the base without a word."""
    if subject.base is None or is_quantised(subject.base):
        return
    missing = [part for part in parts(subject.layout, subject.base.leaves) if part.found is None]
    meant = {part.name: near_miss(part.name, subject.base.leaves) for part in missing}
    explained = Counter(_prefix(name, other) for name, other in meant.items() if other is not None)
    for difference, count in explained.items():
        yield f"{count} modules differ only by the prefix {difference}"
    unexplained = [part for part in missing if meant[part.name] is None]
    for part in unexplained[:_SHOWN]:
        yield f"the base has no {part.name}"
    if len(unexplained) > _SHOWN:
        yield f"and {len(unexplained) - _SHOWN} more modules that the base does not have"


def near_miss(name: str, leaves: Mapping[str, object]) -> str | None:
    """The one tensor of the base that differs from ``name`` by a prefix alone, by its canonical name; else None."""
    wanted = names.canonical(name)
    endings = [other for other in leaves if other.endswith(f".{wanted}")]
    if len(endings) == 1:
        return endings[0]
    levels = wanted.split(".")
    shorter = (".".join(levels[level:]) for level in range(1, len(levels) - 2))
    return next((other for other in shorter if other in leaves), None)


def _prefix(name: str, other: str) -> str:
    """What stands before the same name on one side."""
    wanted = names.canonical(name)
    if len(other) > len(wanted):
        return f"`{other.removesuffix(wanted)}`, which only the base has"
    return f"`{wanted.removesuffix(other)}`, which only the adapter has"


@rule("LB002", "error", "--base names the model that it was trained on; loreg base match shows which one fits", "")
def every_module_fits(subject: Subject) -> Iterable[str]:
    """Each module has the shape that its factors make."""
    if subject.base is None:
        return
    wrong = []
    for part in parts(subject.layout, subject.base.leaves):
        leaf = subject.base.leaves[part.found] if part.found else None
        if leaf is not None and leaf["dtype"] in FLOATS and (reason := shape_that_does_not_fit(part, leaf["shape"])):
            wrong.append(reason)
    yield from wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        yield f"and {len(wrong) - _SHOWN} more modules of another shape"


@rule("LB003", "warning", "loreg push --base records what it was trained on", "")
def the_base_is_known_to_be_right(subject: Subject) -> Iterable[str]:
    """The base is the one that it was trained on, or proven to come from it."""
    if subject.verdict is not None and subject.verdict.kind in ("struct-only", "declared-derived"):
        yield f"{subject.verdict.kind}: {subject.verdict.reason}"


@rule("LB004", "warning", "serve it with the adapter's tokenizer, on a base of the same vocabulary", "")
def vocabularies_agree(subject: Subject) -> Iterable[str]:
    """Whole embeddings and heads of the adapter have as many rows as those of the base."""
    if subject.base is None:
        return
    index = names.Index(subject.base.leaves)
    for key, tensor in subject.layout.extras.items():
        name = names.canonical(key.removeprefix(PREFIX).replace(".base_layer.", "."))
        if not (names.is_head(name) or names.is_embedding(name)) or (found := index.find(name)) is None:
            continue
        rows = subject.base.leaves[found]["shape"][0]
        if tensor.shape and tensor.shape[0] != rows:
            yield f"{name} has {tensor.shape[0]} rows, the base has {rows}"


@rule("LB005", "warning", "train with ensure_weight_tying, or expect two matrices where there was one", "peft#2777")
def tied_matrices_change_together(subject: Subject) -> Iterable[str]:
    """Where embedding and head are one matrix, the adapter changes both or neither."""
    if subject.base is None or subject.layout.config.raw.get("ensure_weight_tying"):
        return
    index = names.Index(subject.base.leaves)
    if index.embedding is None or any(names.is_head(name) for name in index.names):
        return
    touched = {names.canonical(part.name) for part in parts(subject.layout, subject.base.leaves)}
    touched |= {names.canonical(key.removeprefix(PREFIX)) for key in subject.layout.extras}
    changed = [name for name in touched if names.is_head(name) or names.is_embedding(name)]
    if len(changed) == 1:
        yield f"{changed[0]} changes, and the matrix that it is tied to does not"
