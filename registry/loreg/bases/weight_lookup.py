"""Find the tensors of a base's files that hold a weight which an adapter names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loreg.bases import names
from loreg.bases.architecture import Architecture, Tie
from loreg.bases.renaming import WeightInFile

_LAYER_NUMBER = re.compile(r"\.\d+\.")
#: How the weight of all experts is made of the tensors of each one, as transformers writes and reads them.
EXPERT_CONVERSIONS = ("MergeModulelist(0)", "MergeModulelist(0) Concatenate(1)")
#: Rows of one tensor that are several weights; a tensor of experts whose matrices are transposed.
_CHUNK, _TRANSPOSE = "Chunk(0)", "Transpose(1,2)"


@dataclass(frozen=True)
class WeightLocation:
    """Where the files hold a weight, or a part of it: the tensor ``name``, which is ``part`` of the weight.

    ``tied`` says that the files hold it under the name of another weight that is the same tensor.
    """

    name: str
    part: WeightInFile
    tied: bool = False

    @property
    def why_not(self) -> str:
        """Why a change of the weight cannot be expressed as one of the tensor; empty if it can."""
        if self.part.conversion in ("", _CHUNK, _TRANSPOSE, *EXPERT_CONVERSIONS):
            return ""
        return f"the files hold it as {self.name}, which transformers converts ({self.part.conversion})"

    @property
    def is_one_expert(self) -> bool:
        """Whether the tensor is that of one expert."""
        return self.part.conversion in EXPERT_CONVERSIONS

    @property
    def is_row_chunk(self) -> bool:
        """Whether the weight is a run of rows of the tensor."""
        return self.part.conversion == _CHUNK


@dataclass
class WeightLookup:
    """The tensors of a base by canonical name, the class of the model, and what its configuration ties.

    Without an ``architecture`` names are taken as they are, and a head that the files lack is the embedding.
    """

    tensors: Iterable[str]
    architecture: Architecture | None = None
    config: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = frozenset(self.tensors)
        self.ties: tuple[Tie, ...] = self.architecture.active_ties(self.config) if self.architecture else ()
        self._locations: dict[str, list[WeightLocation]] = {}
        for name in sorted(self.names):
            for part in self._weights_in_file(name):
                self._locations.setdefault(names.canonical_name(part.weight), []).append(WeightLocation(name, part))
        self._first_parts = {name.partition(".")[0] for name in self._locations}

    @property
    def tieable_groups(self) -> list[frozenset[str]]:
        """The groups of weights that the model's class ties where its flag is set, by canonical names in memory."""
        ties = self.architecture.all_ties if self.architecture else ()
        return [frozenset(map(names.canonical_name, group)) for tie in ties for group in tie.groups]

    def find(self, weight: str) -> list[WeightLocation]:
        """Return where the files hold the weight that an adapter calls ``weight``; empty if nowhere.

        The class that was trained may have wrapped the class that was saved, or the other way round: with or without
        the prefix of the model inside, a name is that of the same weight. A tied weight may be held under the name of
        another one.
        """
        name = names.canonical_name(weight)
        if locations := self._stored_under(name):
            return locations
        if direct := next((other for other in self._with_and_without_prefix(name) if other in self.names), None):
            return [WeightLocation(direct, WeightInFile(direct))]
        in_memory = self.name_in_memory(weight)
        if locations := self._stored_under(in_memory):
            return locations
        tied_group = self.tied_group_of(weight)
        for member in sorted(tied_group[1]) if tied_group else ():
            if locations := self._stored_under(member):
                return [WeightLocation(location.name, location.part, tied=True) for location in locations]
        if (shared := self._tensor_tied_by_pattern(in_memory)) is not None:
            return [WeightLocation(shared, WeightInFile(shared), tied=True)]
        if self.architecture is None and names.is_head(name):
            embedding = names.find_embedding(sorted(self.names))
            return [WeightLocation(embedding, WeightInFile(embedding), tied=True)] if embedding else []
        return []

    def name_in_memory(self, weight: str) -> str:
        """Return the canonical name in memory of what an adapter, perhaps of an older release, calls ``weight``."""
        name = names.canonical_name(weight)
        parts = self._weights_in_file(name)
        return names.canonical_name(parts[0].weight) if not parts[0].conversion else name

    def tied_group_of(self, weight: str) -> tuple[Tie, frozenset[str]] | None:
        """Return the flag that ties the weight, and the canonical names in memory of all that are the same tensor."""
        possible = self.possible_names(weight)
        for tie in self.ties:
            for group in tie.groups:
                members = frozenset(map(names.canonical_name, group))
                if possible & members:
                    return tie, members
        return None

    def name_in_group(self, group: frozenset[str], weight: str) -> str:
        """Return the name of the weight in the group of those that it is tied to."""
        return next(iter(self.possible_names(weight) & group))

    def _tensor_tied_by_pattern(self, weight: str) -> str | None:
        """Return a tensor of the files that a pattern ties to the weight: the same one of another layer."""
        for tie in self.ties:
            matched = next((match for pattern in tie.patterns if (match := re.match(pattern, weight))), None)
            for name in sorted(self._locations) if matched else ():
                for pattern in tie.patterns:
                    other = re.match(pattern, name)
                    if matched and other and name[other.end() :] == weight[matched.end() :]:
                        return self._locations[name][0].name
        return None

    def is_tied_by_pattern(self, weight: str) -> bool:
        """Return whether a pattern of names ties the weight, and no plain pair: whole layers, as in Zamba."""
        in_memory = self.name_in_memory(weight)
        return any(re.match(pattern, in_memory) for tie in self.ties for pattern in tie.patterns)

    def _weights_in_file(self, name: str) -> list[WeightInFile]:
        if self.architecture is None:
            return [WeightInFile(name)]
        for file_name in names.possible_file_names(name):
            parts = list(self.architecture.weights_in_file(file_name))
            if parts != [WeightInFile(file_name)]:
                return parts
        return [WeightInFile(name)]

    def possible_names(self, weight: str) -> set[str]:
        """Return the canonical names that the weight may have in memory."""
        return {
            *self._with_and_without_prefix(names.canonical_name(weight)),
            *self._with_and_without_prefix(self.name_in_memory(weight)),
        }

    def _stored_under(self, weight: str) -> list[WeightLocation]:
        spellings = self._with_and_without_prefix(weight)
        return next((locations for name in spellings if (locations := self._locations.get(name))), [])

    def _with_and_without_prefix(self, name: str) -> list[str]:
        """Return the name, and the same without or with the prefix of the model inside."""
        first, _, rest = name.partition(".")
        if self.architecture is not None:
            prefix = self.architecture.prefix
            other = rest if first == prefix else f"{prefix}.{name}" if prefix else name
            return [name, other]
        longer = [other for part in self._first_parts if (other := f"{part}.{name}") in self._locations]
        return [name, rest, *(longer if len(longer) == 1 else [])]


def is_in_layer(weight: str) -> bool:
    """Return whether a weight belongs to a numbered layer: embeddings and heads, which may be tied, do not."""
    return _LAYER_NUMBER.search(f".{weight}") is not None
