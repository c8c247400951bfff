"""What a profile can ask about an adapter beside its base: nothing of it holds where no base was named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loreg.bases import names
from loreg.checking.conditions import declare_condition
from loreg.checking.rules import Subject
from loreg.checking.server_names import map_to_base_names


@declare_condition
def names_are_not_the_bases(subject: Subject, _: Any) -> Iterable[str]:
    """Some modules are not in the base under the names that they have (asked only with a base)."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    known = map_to_base_names(subject.structure.modules, subject.base.tensor_digests)
    # What transformers calls otherwise than the files do, a server may call either way: nothing is said of it.
    wrong = [name for name, found in known.items() if found != name and (found or not lookup.find(f"{name}.weight"))]
    yield from _called_otherwise(wrong, known)


@declare_condition
def names_have_another_prefix(subject: Subject, _: Any) -> Iterable[str]:
    """Some modules are in the base under a name with another prefix (asked only with a base)."""
    if subject.base is not None:
        known = map_to_base_names(subject.structure.modules, subject.base.tensor_digests)
        yield from _called_otherwise([name for name, found in known.items() if found not in (None, name)], known)


@declare_condition
def names_have_a_prefix_more(subject: Subject, _: Any) -> Iterable[str]:
    """Some modules have a prefix before the name that the base has (asked only with a base)."""
    if subject.base is not None:
        known = map_to_base_names(subject.structure.modules, subject.base.tensor_digests)
        yield from _called_otherwise([n for n, found in known.items() if found and len(found) < len(n)], known)


def _called_otherwise(modules: list[str], known: Mapping[str, str | None]) -> Iterable[str]:
    if modules:
        other = f", the base has {known[modules[0]]}" if known[modules[0]] else ""
        yield f"{len(modules)} modules are not called so in the base, e.g. {modules[0]}{other}"


@declare_condition
def touches_a_tied_matrix(subject: Subject, _: Any) -> Iterable[str]:
    """It has factors of the embedding or the head of a base in which they are one matrix (asked only with a base)."""
    if subject.base is None:
        return
    lookup = subject.base.lookup(subject.structure)
    for module in subject.structure.modules:
        weight = names.canonical_name(f"{module}.weight")
        likely = names.is_head(weight) or names.is_embedding(weight)
        if lookup.group_of(weight) if lookup.architecture else likely and names.head_among(lookup.names) is None:
            yield f"{module} is tied to another matrix in the base"
