"""Which tensors of a base's files hold a weight that an adapter names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loreg.bases import names
from loreg.bases.architecture import Architecture, Tie
from loreg.bases.renaming import WeightInFile

_IN_A_LAYER = re.compile(r"\.\d+\.")
#: How a weight of all experts is made of the tensors of each one, as transformers writes and reads them.
OF_EXPERTS = ("MergeModulelist(0)", "MergeModulelist(0) Concatenate(1)")
#: Rows of one tensor that are several weights; a tensor of experts whose matrices lie the other way.
_ROWS, _TURNED = "Chunk(0)", "Transpose(1,2)"


@dataclass(frozen=True)
class WeightLocation:
    """Where the files hold a weight, or a part of it: the tensor ``name``, and what that is of the weight.

    ``tied`` says that the files hold it under the name of another weight that is the same tensor.
    """

    name: str
    part: WeightInFile
    tied: bool = False

    @property
    def why_not(self) -> str:
        """Why a change of the weight cannot be told as one of the tensor; empty if it can."""
        if self.part.how in ("", _ROWS, _TURNED, *OF_EXPERTS):
            return ""
        return f"the files hold it as {self.name}, which transformers converts ({self.part.how})"

    @property
    def is_of_experts(self) -> bool:
        """Whether the tensor is that of one expert."""
        return self.part.how in OF_EXPERTS

    @property
    def is_rows(self) -> bool:
        """Whether the weight is some rows of the tensor."""
        return self.part.how == _ROWS


@dataclass
class WeightLookup:
    """The tensors of a base by canonical name, the class of the model, and what its configuration ties.

    Without an ``architecture`` names are taken as they are, and a head that the files lack is the embedding.
    """

    tensors: Iterable[str]
    architecture: Architecture | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = frozenset(self.tensors)
        self.ties: tuple[Tie, ...] = self.architecture.tied(self.config) if self.architecture else ()
        self._places: dict[str, list[WeightLocation]] = {}
        for name in sorted(self.names):
            for part in self._weights_in(name):
                self._places.setdefault(names.canonical_name(part.weight), []).append(WeightLocation(name, part))
        self._first_parts = {name.partition(".")[0] for name in self._places}

    @property
    def could_be_tied(self) -> list[frozenset[str]]:
        """The weights that the model's class ties where its flag is set, in groups, by canonical names in memory."""
        ties = self.architecture.all_ties if self.architecture else ()
        return [frozenset(map(names.canonical_name, group)) for tie in ties for group in tie.groups]

    def find(self, weight: str) -> list[WeightLocation]:
        """Where the files hold the weight that an adapter calls ``weight``; empty if nowhere.

        The class that was trained may have wrapped the class that was saved, or the other way round: the name of the
        model inside before it or not is the same weight. A weight that is tied may be held under another one's name.
        """
        name = names.canonical_name(weight)
        if places := self._stored(name):
            return places
        if direct := next((other for other in self._with_or_without(name) if other in self.names), None):
            return [WeightLocation(direct, WeightInFile(direct))]
        known = self.in_memory(weight)
        if places := self._stored(known):
            return places
        tie = self.group_of(weight)
        for other in sorted(tie[1]) if tie else ():
            if places := self._stored(other):
                return [WeightLocation(place.name, place.part, tied=True) for place in places]
        if (shared := self._shared_with(known)) is not None:
            return [WeightLocation(shared, WeightInFile(shared), tied=True)]
        if self.architecture is None and names.is_head(name):
            embedding = names.embedding_among(sorted(self.names))
            return [WeightLocation(embedding, WeightInFile(embedding), tied=True)] if embedding else []
        return []

    def in_memory(self, weight: str) -> str:
        """The canonical name in memory of what an adapter, perhaps one of an older release, calls ``weight``."""
        name = names.canonical_name(weight)
        parts = self._weights_in(name)
        return names.canonical_name(parts[0].weight) if not parts[0].how else name

    def group_of(self, weight: str) -> tuple[Tie, frozenset[str]] | None:
        """The flag that ties the weight, and the weights that are the same tensor, by canonical names in memory."""
        forms = self.forms(weight)
        for tie in self.ties:
            for group in tie.groups:
                members = frozenset(map(names.canonical_name, group))
                if forms & members:
                    return tie, members
        return None

    def member_of(self, group: frozenset[str], weight: str) -> str:
        """What the weight is called among those that it is tied to."""
        return next(iter(self.forms(weight) & group))

    def _shared_with(self, known: str) -> str | None:
        """A tensor of the files that a pattern ties to the weight: the same one of another layer."""
        for tie in self.ties:
            found = next((match for p in tie.patterns if (match := re.match(p, known))), None)
            for name in sorted(self._places) if found else ():
                for pattern in tie.patterns:
                    other = re.match(pattern, name)
                    if found and other and name[other.end() :] == known[found.end() :]:
                        return self._places[name][0].name
        return None

    def is_tied_otherwise(self, weight: str) -> bool:
        """Whether the weight is shared in a way that is not a plain pair of names, as layers of Zamba are."""
        known = self.in_memory(weight)
        return any(re.match(pattern, known) for tie in self.ties for pattern in tie.patterns)

    def _weights_in(self, name: str) -> list[WeightInFile]:
        if self.architecture is None:
            return [WeightInFile(name)]
        for written in names.file_names_of(name):
            parts = list(self.architecture.weights_in_file(written))
            if parts != [WeightInFile(written)]:
                return parts
        return [WeightInFile(name)]

    def forms(self, weight: str) -> set[str]:
        """What the weight may be called in memory, by canonical names."""
        return {*self._with_or_without(names.canonical_name(weight)), *self._with_or_without(self.in_memory(weight))}

    def _stored(self, known: str) -> list[WeightLocation]:
        return next((places for name in self._with_or_without(known) if (places := self._places.get(name))), [])

    def _with_or_without(self, name: str) -> list[str]:
        """The name, and the same without or with that of the model inside before it."""
        first, _, rest = name.partition(".")
        if self.architecture is not None:
            prefix = self.architecture.prefix
            other = rest if first == prefix else f"{prefix}.{name}" if prefix else name
            return [name, other]
        longer = [other for part in self._first_parts if (other := f"{part}.{name}") in self._places]
        return [name, rest, *(longer if len(longer) == 1 else [])]


def is_in_a_layer(weight: str) -> bool:
    """Whether a weight belongs to a numbered layer: embeddings and heads, which may be tied, do not."""
    return _IN_A_LAYER.search(f".{weight}") is not None
