"""Rules on an adapter and the base that it is to meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from loreg.adapters.full_tensors import was_trained
from loreg.adapters.keys import weight_of_full_tensor
from loreg.adapters.structure import AdapterStructure
from loreg.bases import names
from loreg.bases.architecture import transformers_release
from loreg.bases.compatibility import FLOATS, BaseTensors, is_quantised, why_shape_differs
from loreg.bases.weight_lookup import WeightLookup
from loreg.checking.rules import Subject, declare_rule

_SHOWN = 3


@declare_rule(
    "LB001", "error", "--base names the model that it was trained on; loreg base match shows which one fits", ""
)
def every_module_is_in_the_base(subject: Subject) -> Iterable[str]:
    """The base has each module: a server drops factors for one that it has not, and serves the base without a word."""
    if subject.base is None or is_quantised(subject.base):
        return
    missing = [
        part for part in subject.base.target_tensors(subject.structure) if part.place is None and not part.why_not
    ]
    meant = {part.name: find_other_prefix(part.name, subject.base.tensor_digests) for part in missing}
    explained = Counter(_prefix(name, other) for name, other in meant.items() if other is not None)
    for difference, count in explained.items():
        yield f"{count} modules differ only by the prefix {difference}"
    unexplained = [part for part in missing if meant[part.name] is None]
    for part in unexplained[:_SHOWN]:
        yield f"the base has no {part.name}"
    if len(unexplained) > _SHOWN:
        yield f"and {len(unexplained) - _SHOWN} more modules that the base does not have"


def find_other_prefix(name: str, tensor_digests: Mapping[str, object]) -> str | None:
    """The one tensor of the base that differs from ``name`` by a prefix alone, by its canonical name; else None."""
    wanted = names.canonical_name(name)
    endings = [other for other in tensor_digests if other.endswith(f".{wanted}")]
    if len(endings) == 1:
        return endings[0]
    levels = wanted.split(".")
    shorter = (".".join(levels[level:]) for level in range(1, len(levels) - 2))
    return next((other for other in shorter if other in tensor_digests), None)


def _prefix(name: str, other: str) -> str:
    """What stands before the same name on one side."""
    wanted = names.canonical_name(name)
    if len(other) > len(wanted):
        return f"`{other.removesuffix(wanted)}`, which only the base has"
    return f"`{wanted.removesuffix(other)}`, which only the adapter has"


@declare_rule(
    "LB002", "error", "--base names the model that it was trained on; loreg base match shows which one fits", ""
)
def every_module_fits(subject: Subject) -> Iterable[str]:
    """Each module has the shape that its factors make."""
    if subject.base is None:
        return
    wrong = []
    for part in subject.base.target_tensors(subject.structure):
        leaf = subject.base.tensor_digests[part.place] if part.place else None
        if leaf is not None and leaf["dtype"] in FLOATS and (reason := why_shape_differs(part, leaf["shape"])):
            wrong.append(reason)
    yield from wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        yield f"and {len(wrong) - _SHOWN} more modules of another shape"


@declare_rule("LB003", "warning", "loreg push --base records what it was trained on", "")
def the_base_is_known_to_be_right(subject: Subject) -> Iterable[str]:
    """The base is the one that it was trained on, or proven to come from it."""
    if subject.verdict is not None and subject.verdict.kind in ("struct-only", "declared-derived"):
        yield f"{subject.verdict.kind}: {subject.verdict.reason}"


@declare_rule("LB004", "warning", "serve it with the adapter's tokenizer, on a base of the same vocabulary", "")
def vocabularies_agree(subject: Subject) -> Iterable[str]:
    """Whole embeddings and heads of the adapter have as many rows as those of the base."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    for key, tensor in subject.structure.full_tensors.items():
        weight = weight_of_full_tensor(key)
        places = lookup.find(weight)
        known = names.is_head(weight) or names.is_embedding(weight) or lookup.group_of(weight)
        if not places or not known or not tensor.shape:
            continue
        rows = next(iter(subject.base.tensor_digests[places[0].name]["shape"]), 0)
        if tensor.shape[0] != rows:
            yield f"{weight} has {tensor.shape[0]} rows, the base has {rows}"


@declare_rule(
    "LB005", "warning", "train with ensure_weight_tying, or expect two matrices where there was one", "peft#2777"
)
def tied_matrices_change_together(subject: Subject) -> Iterable[str]:
    """Where weights are one matrix, as embedding and head often are, the adapter changes all of them or none."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    if lookup.architecture is None:
        yield from _tied_by_their_names(subject.structure, lookup)
    touched: dict[frozenset[str], set[str]] = {}
    for weight in weights_changed(subject.structure):
        if found := lookup.group_of(weight):
            touched.setdefault(found[1], set()).add(lookup.member_of(found[1], weight))
    for group, changed in touched.items():
        if others := sorted(name for name in group - changed if _is_one(subject.base, lookup, name, min(changed))):
            does = "do" if len(others) > 1 else "does"
            yield f"{', '.join(sorted(changed))} changes, and {', '.join(others)}, tied to it, {does} not"


def _is_one(base: BaseTensors, lookup: WeightLookup, one: str, other: str) -> bool:
    """Whether two weights that a flag ties are one tensor: of two that are stored transformers ties what is equal."""
    stored = [place.name for weight in (one, other) for place in lookup.find(weight)[:1]]
    tensor_digests = [base.tensor_digests[name] for name in stored]
    return len(set(stored)) < 2 or ("sha256" in tensor_digests[0] and tensor_digests[0] == tensor_digests[1])


def _tied_by_their_names(structure: AdapterStructure, lookup: WeightLookup) -> Iterable[str]:
    """The same of a base whose class is not known: one that has an embedding and no head is likely tied."""
    if names.embedding_among(sorted(lookup.names)) is None or names.head_among(lookup.names):
        return
    changed = [name for name in weights_changed(structure) if names.is_head(name) or names.is_embedding(name)]
    if len(changed) == 1:
        yield f"{changed[0]} changes, and the matrix that it is tied to does not"


@declare_rule(
    "LB006",
    "warning",
    "loreg bake refuses what depends on it; serve it as an adapter",
    "transformers, modeling_utils.py",
)
def the_class_of_the_base_is_known(subject: Subject) -> Iterable[str]:
    """Which weights are one and how files hold them is known, for the class of the base is in loreg's table."""
    if subject.base is None:
        return
    if subject.base.base.config.get("model_type") and subject.base.lookup(subject.structure).architecture is None:
        named = subject.base.base.config.get("architectures") or [subject.base.base.config["model_type"]]
        release = transformers_release()
        yield f"the class {named[0]} is none of transformers {release}: which of its weights are tied is not known"
    for part in subject.base.target_tensors(subject.structure):
        if part.why_not:
            yield f"{part.name}: {part.why_not}"
            return


def weights_changed(structure: AdapterStructure) -> set[str]:
    """Every matrix that the adapter changes by factors or whole. Rows of tokens PEFT changes in all that is tied."""
    factors = {module.weight for module in structure.modules.values() if module.shape is not None}
    whole = {weight_of_full_tensor(key) for key in structure.full_tensors if was_trained(key, structure.config)}
    return {name for name in factors | whole if not name.endswith(".bias")}
