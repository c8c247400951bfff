"""Conditions of server profiles on an adapter beside its base: none of them holds where no base was named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loreg.bases import names
from loreg.checking.conditions import declare_condition
from loreg.checking.rules import Subject
from loreg.checking.server_names import map_to_base_names


@declare_condition
def names_are_not_the_bases(subject: Subject, _: object) -> Iterable[str]:
    """Some modules are not in the base under the names that they have (asked only with a base)."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    base_names = map_to_base_names(subject.structure.modules, subject.base.tensor_digests)
    # What transformers calls otherwise than the files do, a server may call either way: nothing is said of it.
    wrong = [
        name
        for name, base_name in base_names.items()
        if base_name != name and (base_name or not lookup.find(f"{name}.weight"))
    ]
    yield from _describe_other_names(wrong, base_names)


@declare_condition
def names_have_another_prefix(subject: Subject, _: object) -> Iterable[str]:
    """Some modules are in the base under a name with another prefix (asked only with a base)."""
    if subject.base is not None:
        base_names = map_to_base_names(subject.structure.modules, subject.base.tensor_digests)
        wrong = [name for name, base_name in base_names.items() if base_name not in (None, name)]
        yield from _describe_other_names(wrong, base_names)


@declare_condition
def names_have_a_prefix_more(subject: Subject, _: object) -> Iterable[str]:
    """Some modules have a prefix before the name that the base has (asked only with a base)."""
    if subject.base is not None:
        base_names = map_to_base_names(subject.structure.modules, subject.base.tensor_digests)
        wrong = [name for name, base_name in base_names.items() if base_name and len(base_name) < len(name)]
        yield from _describe_other_names(wrong, base_names)


def _describe_other_names(modules: list[str], base_names: Mapping[str, str | None]) -> Iterable[str]:
    if modules:
        base_name = base_names[modules[0]]
        there = f", the base has {base_name}" if base_name else ""
        yield f"{len(modules)} modules are not called so in the base, e.g. {modules[0]}{there}"


@declare_condition
def touches_a_tied_matrix(subject: Subject, _: object) -> Iterable[str]:
    """It has factors of the embedding or the head of a base in which they are one matrix (asked only with a base)."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    for module in subject.structure.modules:
        weight = names.canonical_name(f"{module}.weight")
        if lookup.architecture:
            is_tied = lookup.tied_group_of(weight) is not None
        else:  # of a class that is not known: a base without a head likely has it in its embedding
            is_tied = (names.is_head(weight) or names.is_embedding(weight)) and names.find_head(lookup.names) is None
        if is_tied:
            yield f"{module} is tied to another matrix in the base"
