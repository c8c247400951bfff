"""Rules on an adapter and the base that it is to run on: missing modules, other shapes, vocabularies, tied weights.

The docstring of a rule is what ``loreg check --explain`` prints: what is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.full_tensors import was_trained
from loreg.adapters.keys import weight_of_full_tensor
from loreg.adapters.structure import AdapterStructure
from loreg.bases import names
from loreg.bases.architecture import transformers_release
from loreg.bases.compatibility import BaseTensors, is_quantised, why_shape_differs
from loreg.bases.weight_lookup import WeightLookup
from loreg.checking.rules import Subject, declare_rule
from loreg.entities import Severity, VerdictKind

_MAX_SHOWN = 3  # modules that are named one by one; the rest is a number


@declare_rule(
    "LB001", Severity.ERROR, "--base names the model that it was trained on; loreg base match shows which one fits", ""
)
def every_module_is_in_the_base(subject: Subject) -> Iterable[str]:
    """The base has each module: a server drops factors for one that it has not, and serves the base without a word."""
    if subject.base is None or is_quantised(subject.base):
        return
    missing = [
        target.name
        for target in subject.base.target_tensors(subject.structure)
        if target.base_tensor is None and not target.why_not
    ]
    similar = {name: find_under_other_prefix(name, subject.base.tensor_digests) for name in missing}
    differences = Counter(_describe_prefix(name, base_name) for name, base_name in similar.items() if base_name)
    for difference, count in differences.items():
        yield f"{count} modules differ only by the prefix {difference}"
    absent = [name for name in missing if similar[name] is None]
    for name in absent[:_MAX_SHOWN]:
        yield f"the base has no {name}"
    if len(absent) > _MAX_SHOWN:
        yield f"and {len(absent) - _MAX_SHOWN} more modules that the base does not have"


def find_under_other_prefix(name: str, tensor_digests: Mapping[str, object]) -> str | None:
    """Return the one tensor of the base that differs from ``name`` by a prefix alone, by canonical name; else None."""
    canonical = names.canonical_name(name)
    longer = [base_name for base_name in tensor_digests if base_name.endswith(f".{canonical}")]
    if len(longer) == 1:
        return longer[0]
    levels = canonical.split(".")
    shorter = (".".join(levels[level:]) for level in range(1, len(levels) - 2))
    return next((base_name for base_name in shorter if base_name in tensor_digests), None)


def _describe_prefix(name: str, base_name: str) -> str:
    """Describe what stands before the same name on one side."""
    canonical = names.canonical_name(name)
    if len(base_name) > len(canonical):
        return f"`{base_name.removesuffix(canonical)}`, which only the base has"
    return f"`{canonical.removesuffix(base_name)}`, which only the adapter has"


@declare_rule(
    "LB002", Severity.ERROR, "--base names the model that it was trained on; loreg base match shows which one fits", ""
)
def every_module_fits(subject: Subject) -> Iterable[str]:
    """Each module has the shape that its factors make."""
    if subject.base is None:
        return
    reasons = []
    for target in subject.base.target_tensors(subject.structure):
        entry = subject.base.tensor_digests[target.base_tensor] if target.base_tensor else None
        if entry is not None and entry["dtype"] in FLOATS and (reason := why_shape_differs(target, entry["shape"])):
            reasons.append(reason)
    yield from reasons[:_MAX_SHOWN]
    if len(reasons) > _MAX_SHOWN:
        yield f"and {len(reasons) - _MAX_SHOWN} more modules of another shape"


@declare_rule("LB003", Severity.WARNING, "loreg push --base records what it was trained on", "")
def the_base_is_known_to_be_right(subject: Subject) -> Iterable[str]:
    """The base is the one that it was trained on, or proven to come from it."""
    if subject.verdict is not None and subject.verdict.kind in (VerdictKind.STRUCT_ONLY, VerdictKind.DECLARED_DERIVED):
        yield f"{subject.verdict.kind}: {subject.verdict.reason}"


@declare_rule("LB004", Severity.WARNING, "serve it with the adapter's tokenizer, on a base of the same vocabulary", "")
def vocabularies_agree(subject: Subject) -> Iterable[str]:
    """Whole embeddings and heads of the adapter have as many rows as those of the base."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    for key, tensor in subject.structure.full_tensors.items():
        weight = weight_of_full_tensor(key)
        places = lookup.find(weight)
        has_vocabulary = names.is_head(weight) or names.is_embedding(weight) or lookup.tied_group_of(weight)
        if not places or not has_vocabulary or not tensor.shape:
            continue
        rows = next(iter(subject.base.tensor_digests[places[0].name]["shape"]), 0)
        if tensor.shape[0] != rows:
            yield f"{weight} has {tensor.shape[0]} rows, the base has {rows}"


@declare_rule(
    "LB005", Severity.WARNING, "train with ensure_weight_tying, or expect two matrices where there was one", "peft#2777"
)
def tied_matrices_change_together(subject: Subject) -> Iterable[str]:
    """Where weights are one matrix, as embedding and head often are, the adapter changes all of them or none."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    if lookup.architecture is None:
        yield from _check_ties_by_name(subject.structure, lookup)
    changed_in_group: dict[frozenset[str], set[str]] = {}
    for weight in _changed_weights(subject.structure):
        if tie := lookup.tied_group_of(weight):
            group = tie[1]
            changed_in_group.setdefault(group, set()).add(lookup.name_in_group(group, weight))
    for group, changed in changed_in_group.items():
        changed_name = min(changed)
        unchanged = sorted(
            name for name in group - changed if _are_one_tensor(subject.base, lookup, name, changed_name)
        )
        if unchanged:
            does = "do" if len(unchanged) > 1 else "does"
            yield f"{', '.join(sorted(changed))} changes, and {', '.join(unchanged)}, tied to it, {does} not"


def _are_one_tensor(base: BaseTensors, lookup: WeightLookup, *weights: str) -> bool:
    """Tell whether two weights that a flag ties are one tensor.

    Where the files hold both, transformers ties them only if they are equal.
    """
    stored = [place.name for weight in weights for place in lookup.find(weight)[:1]]
    entries = [base.tensor_digests[name] for name in stored]
    return len(set(stored)) < 2 or ("sha256" in entries[0] and entries[0] == entries[1])


def _check_ties_by_name(structure: AdapterStructure, lookup: WeightLookup) -> Iterable[str]:
    """Check a base of an unknown class: one that has an embedding and no head likely ties the two."""
    if names.find_embedding(sorted(lookup.names)) is None or names.find_head(lookup.names):
        return
    changed = [name for name in _changed_weights(structure) if names.is_head(name) or names.is_embedding(name)]
    if len(changed) == 1:
        yield f"{changed[0]} changes, and the matrix that it is tied to does not"


@declare_rule(
    "LB006",
    Severity.WARNING,
    "loreg bake refuses what depends on it; serve it as an adapter",
    "transformers, modeling_utils.py",
)
def the_class_of_the_base_is_known(subject: Subject) -> Iterable[str]:
    """Which weights are one and how files hold them is known, for the class of the base is in loreg's table."""
    if subject.base is None:
        return
    config = subject.base.base.config
    if config.get("model_type") and subject.base.lookup(subject.structure).architecture is None:
        classes = config.get("architectures")
        class_name = classes[0] if isinstance(classes, list) and classes else config["model_type"]
        release = transformers_release()
        yield f"the class {class_name} is none of transformers {release}: which of its weights are tied is not known"
    for target in subject.base.target_tensors(subject.structure):
        if target.why_not:
            yield f"{target.name}: {target.why_not}"
            return


def _changed_weights(structure: AdapterStructure) -> set[str]:
    """Return every matrix that the adapter changes, by factors or whole.

    Token rows do not count: PEFT changes them in everything that is tied.
    """
    by_factors = {module.weight for module in structure.modules.values() if module.shape is not None}
    whole = {weight_of_full_tensor(key) for key in structure.full_tensors if was_trained(key, structure.config)}
    return {name for name in by_factors | whole if not name.endswith(".bias")}
