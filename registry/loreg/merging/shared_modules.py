"""Which modules the sources of a merge share, and whether they can be of one base at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from loreg.adapters.structure import AdapterStructure
from loreg.bases import names
from loreg.errors import MergeError

_FAMILY = re.compile(r"transformers\.models\.(\w+)\.")


def refuse_different_bases(layouts: Sequence[AdapterStructure], labels: Sequence[str], *, one_base: bool) -> None:
    """Raise MergeError for sources that are of different families of models, that call one weight by two names, or
    that have no module in common; these may be merged where ``one_base`` is known to be that of all."""
    families = {family: label for layout, label in zip(layouts, labels, strict=True) if (family := _family(layout))}
    if len(families) > 1:
        told = " and ".join(f"{label} on {family}" for family, label in families.items())
        raise MergeError(
            f"different bases: {told}, by what PEFT wrote in auto_mapping", hint="merge adapters of the same base"
        )
    _refuse_two_names_for_one_weight(layouts, labels)
    if one_base:
        return
    for i, (layout, label) in enumerate(zip(layouts, labels, strict=True)):
        others = {module for j, other in enumerate(layouts) if j != i for module in other.modules}
        if len(layouts) > 1 and others.isdisjoint(layout.modules):
            raise MergeError(
                f"different bases? {label} has no module in common with the others: it has "
                f"{_some(layout.modules)}, they have {_some(others)}",
                hint="--base DIR names the model that all of them were trained on, if they were",
            )


def describe_shared_modules(layouts: Sequence[AdapterStructure], labels: Sequence[str]) -> Iterator[str]:
    """How many modules all sources have, and which source alone has which, in words for a person."""
    if len(layouts) < 2:
        return
    counted = Counter(module for layout in layouts for module in layout.modules)
    shared = sum(count == len(layouts) for count in counted.values())
    if shared == len(counted):
        return
    yield f"{shared} of {len(counted)} modules are in all {len(layouts)} sources; the others merge as they are"
    for layout, label in zip(layouts, labels, strict=True):
        if alone := [module for module in layout.modules if counted[module] == 1]:
            yield f"{len(alone)} modules are in {label} alone: {_some(alone)}"


def _family(layout: AdapterStructure) -> str:
    """The family of the model that was trained, ``llama``, if PEFT wrote down its class; else empty."""
    mapping = layout.config.raw.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    found = _FAMILY.match(library) if isinstance(library, str) else None
    return found[1] if found else ""


def _refuse_two_names_for_one_weight(layouts: Sequence[AdapterStructure], labels: Sequence[str]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for layout, label in zip(layouts, labels, strict=True):
        for module in layout.modules:
            name, first = seen.setdefault(names.canonical_name(f"{module}."), (module, label))
            if name != module:
                raise MergeError(
                    f"{name} in {first} and {module} in {label} are one module under two names",
                    hint=f"loreg export {label} --profile vllm --base DIR --to NEW gives it the names of its base",
                )


def _some(modules: Collection[str]) -> str:
    """The types of the modules, and one of them whole."""
    types = sorted({module.rpartition(".")[2] for module in modules})
    more = f" and {len(types) - 4} more types" if len(types) > 4 else ""
    return f"{', '.join(types[:4])}{more}, e.g. {min(modules)}"
