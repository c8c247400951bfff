"""Refuse sources that cannot be of one base, and say which modules the sources of a merge share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from loreg.adapters.structure import AdapterStructure
from loreg.bases import names
from loreg.errors import MergeError

_FAMILY = re.compile(r"transformers\.models\.(\w+)\.")


def refuse_different_bases(structures: Sequence[AdapterStructure], labels: Sequence[str], *, one_base: bool) -> None:
    """Raise MergeError for sources of different model families, or with two names for one weight.

    And for one that has no module in common with the others, unless it is known that all have ``one_base``.
    """
    families = {
        family: label for structure, label in zip(structures, labels, strict=True) if (family := _family(structure))
    }
    if len(families) > 1:
        listed = " and ".join(f"{label} on {family}" for family, label in families.items())
        raise MergeError(
            f"different bases: {listed}, by what PEFT wrote in auto_mapping", hint="merge adapters of the same base"
        )
    _refuse_two_names_for_one_weight(structures, labels)
    if one_base:
        return
    for i, (structure, label) in enumerate(zip(structures, labels, strict=True)):
        others = {module for j, other in enumerate(structures) if j != i for module in other.modules}
        if len(structures) > 1 and others.isdisjoint(structure.modules):
            raise MergeError(
                f"different bases? {label} has no module in common with the others: it has "
                f"{_summarize(structure.modules)}, they have {_summarize(others)}",
                hint="--base DIR names the model that all of them were trained on, if they were",
            )


def describe_shared_modules(structures: Sequence[AdapterStructure], labels: Sequence[str]) -> Iterator[str]:
    """Say how many modules all sources have, and which modules only one source has, in words for the user."""
    if len(structures) < 2:
        return
    counts = Counter(module for structure in structures for module in structure.modules)
    shared = sum(count == len(structures) for count in counts.values())
    if shared == len(counts):
        return
    yield f"{shared} of {len(counts)} modules are in all {len(structures)} sources; the others merge as they are"
    for structure, label in zip(structures, labels, strict=True):
        if alone := [module for module in structure.modules if counts[module] == 1]:
            yield f"{len(alone)} modules are in {label} alone: {_summarize(alone)}"


def _family(structure: AdapterStructure) -> str:
    """Return the family of the model that was trained, ``llama``, if PEFT wrote down its class; else an empty text."""
    mapping = structure.config.raw.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    match = _FAMILY.match(library) if isinstance(library, str) else None
    return match[1] if match else ""


def _refuse_two_names_for_one_weight(structures: Sequence[AdapterStructure], labels: Sequence[str]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for structure, label in zip(structures, labels, strict=True):
        for module in structure.modules:
            first, first_label = seen.setdefault(names.canonical_name(f"{module}."), (module, label))
            if first != module:
                raise MergeError(
                    f"{first} in {first_label} and {module} in {label} are one module under two names",
                    hint=f"export {label} with --base and --profile vllm: that gives it the names of its base",
                )


def _summarize(modules: Collection[str]) -> str:
    """Name the types of the modules, and one module in full."""
    types = sorted({module.rpartition(".")[2] for module in modules})
    more = f" and {len(types) - 4} more types" if len(types) > 4 else ""
    return f"{', '.join(types[:4])}{more}, e.g. {min(modules)}"
