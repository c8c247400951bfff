"""Weights that are one tensor, as an output head and its embedding often are, and what becomes of them in a bake.

Which are tied says the class of the model, see :mod:`loreg.bases.architecture`. Its flag holds for all that it ties:
where one of them changes alone, each is written as a tensor of its own, and the flag is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loreg.bases import names
from loreg.bases.architecture import Tie, set_flag
from loreg.bases.weight_lookup import WeightLookup


@dataclass(frozen=True)
class TiedGroup:
    """Weights that are one tensor. ``members`` has the name that each has in the files, or will have in the result
    where the files hold it under the name of another one; ``stored`` are those that the files have."""

    tie: Tie
    members: Mapping[str, str]
    stored: Sequence[str]

    @property
    def source(self) -> str:
        """The tensor of the files that all of them are."""
        return self.stored[0]


def tied_groups(lookup: WeightLookup, files: Mapping[str, str], same: Callable[[str, str], bool]) -> list[TiedGroup]:
    """The groups of a base whose tensors have the names ``files`` by canonical name.

    Of two that the files both have, ``same`` says whether they are; if they are not, transformers does not tie them.
    """
    return [group for tie in lookup.ties for group in _of_one_flag(tie, lookup, files, same)]


def untied_config(tie: Tie, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``config.json`` that change where the weights that a flag ties are no longer one."""
    return {} if tie.forced else set_flag(config, tie.flag, value=False)


def _of_one_flag(
    tie: Tie, lookup: WeightLookup, files: Mapping[str, str], same: Callable[[str, str], bool]
) -> Iterator[TiedGroup]:
    for weights in tie.groups:
        stored: dict[str, str] = {}
        # What the others take first: a weight that the files do not have is that one.
        for weight in sorted(weights, key=lambda name: (name not in tie.sources, name)):
            places = [place for place in lookup.find(weight) if not place.tied and not place.part.how]
            stored |= {names.canonical_name(weight): files[place.name] for place in places[:1]}
        missing = {
            names.canonical_name(weight): weight for weight in weights if names.canonical_name(weight) not in stored
        }
        while stored:
            first = next(iter(stored.values()))
            alike = {weight: name for weight, name in stored.items() if name == first or same(first, name)}
            stored = {weight: name for weight, name in stored.items() if weight not in alike}
            if len(alike) + len(missing) > 1:
                yield TiedGroup(tie, {**alike, **missing}, tuple(dict.fromkeys(alike.values())))
            missing = {}
