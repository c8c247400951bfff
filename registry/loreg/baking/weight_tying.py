"""Find weights that are one tensor, as an output head and its embedding often are, and untie them in ``config.json``.

Which are tied says the class of the model, see :mod:`loreg.bases.architecture`. Its flag holds for all that it ties:
where one of them changes alone, each is written as a tensor of its own, and the flag is unset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from loreg.bases import names
from loreg.bases.architecture import Tie, set_flag
from loreg.bases.weight_lookup import WeightLookup


@dataclass(frozen=True)
class TiedGroup:
    """Weights that are one tensor, by the flag of ``tie``.

    ``members`` has the name of each in the files, or in the result where the files hold it under the name of another
    one; ``stored`` are the names in the files.
    """

    tie: Tie
    members: Mapping[str, str]
    stored: Sequence[str]

    @property
    def source(self) -> str:
        """The tensor of the files that holds all of them."""
        return self.stored[0]


def tied_groups(
    lookup: WeightLookup, file_names: Mapping[str, str], is_same: Callable[[str, str], bool]
) -> list[TiedGroup]:
    """Return the groups of a base whose tensors have the names ``file_names`` by canonical name.

    Of two that the files both have, ``is_same`` says whether they are equal; transformers ties them only if they are.
    """
    return [group for tie in lookup.ties for group in _groups_of_tie(tie, lookup, file_names, is_same)]


def untied_config(tie: Tie, config: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of ``config.json`` that change when the weights that a flag ties are no longer one."""
    return {} if tie.forced else set_flag(config, tie.flag, value=False)


def _groups_of_tie(
    tie: Tie, lookup: WeightLookup, file_names: Mapping[str, str], is_same: Callable[[str, str], bool]
) -> Iterator[TiedGroup]:
    for weights in tie.groups:
        stored: dict[str, str] = {}
        # Sources first: a weight that the files do not have is the first group's.
        for weight in sorted(weights, key=lambda name: (name not in tie.sources, name)):
            own = [location for location in lookup.find(weight) if not location.tied and not location.part.conversion]
            stored |= {names.canonical_name(weight): file_names[location.name] for location in own[:1]}
        missing = {
            names.canonical_name(weight): weight for weight in weights if names.canonical_name(weight) not in stored
        }
        while stored:
            first = next(iter(stored.values()))
            equal = {weight: name for weight, name in stored.items() if name == first or is_same(first, name)}
            stored = {weight: name for weight, name in stored.items() if weight not in equal}
            if len(equal) + len(missing) > 1:
                yield TiedGroup(tie, {**equal, **missing}, tuple(dict.fromkeys(equal.values())))
            missing = {}
