"""Keep the tensors of a baked model while the plan is made, and find the one that holds a weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.header import Tensor
from loreg.baking.configuration import vocabulary_size
from loreg.baking.shard import OutputTensor
from loreg.baking.weight_tying import TiedGroup, tied_groups
from loreg.bases import names
from loreg.bases.architecture import transformers_release
from loreg.bases.identify import digest_tensor
from loreg.bases.model import Model
from loreg.bases.weight_lookup import WeightLookup, is_in_layer
from loreg.errors import MergeError


class ResultTensors:
    """The tensors of a model that is being made of a base.

    ``base_tensors`` are those of the base by their names in its files, ``added`` those that it does not have,
    ``full_tensors`` the whole tensors of an adapter that replaced one of both; ``groups`` are weights that are one
    tensor in the base.
    """

    def __init__(self, model: Model, lookup: WeightLookup, dtype: str | None) -> None:
        self.model, self.lookup, self.dtype = model, lookup, dtype
        self.files = model.tensors
        self.file_names = names.by_canonical_name({name: name for name in self.files})
        self.groups = tied_groups(lookup, self.file_names, self._is_same_in_files)
        self.base_tensors: dict[str, OutputTensor] = {
            name: self._unchanged(name, file, tensor) for name, (file, tensor) in self.files.items()
        }
        self.added: dict[str, OutputTensor] = {}
        self.full_tensors: dict[str, Tensor] = {}
        #: Tensors of the base that an adapter's replaced: a weight that is untied from one begins as a copy of it.
        self.untrained: dict[str, OutputTensor] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.added or name in self.base_tensors

    def __getitem__(self, name: str) -> OutputTensor:
        """Return the current plan of the tensor of that name. Raises KeyError if there is none."""
        return self.added.get(name) or self.base_tensors[name]

    def update(self, output: OutputTensor) -> None:
        """Replace the plan of a tensor that is there."""
        (self.added if output.name in self.added else self.base_tensors)[output.name] = output

    def ensure_tensor(self, weight: str, label: str) -> str | None:
        """Return the name of the tensor for a weight of the adapter ``label``; None if the base has none.

        A weight that the base stores under the name of another one, to which it is tied, gets a tensor of its own, a
        copy. Raises MergeError where the weight is shared, or may be, in another way.
        """
        name = self.name_of(weight)
        if name is None:
            return None
        if (group := self.tied_group_of(weight)) is not None:
            self.give_own_tensor(group, name)
        else:
            self._refuse_possibly_tied(weight, label)
        return name

    def name_of(self, weight: str) -> str | None:
        """Return the weight's name in the result, with or without a tensor of its own; None if the base lacks it."""
        if (group := self.tied_group_of(weight)) is not None:
            (member,) = self.lookup.possible_names(weight) & group.members.keys()
            return group.members[member]
        locations = self.lookup.find(weight)
        return self.file_names[locations[0].name] if locations else None

    def tied_group_of(self, weight: str) -> TiedGroup | None:
        """Return the group of weights that are one tensor with this one; None if it is alone."""
        possible = self.lookup.possible_names(weight)
        return next((group for group in self.groups if not possible.isdisjoint(group.members)), None)

    def give_own_tensor(self, group: TiedGroup, name: str) -> None:
        """Give a tied weight a tensor of its own, a copy of the one in the files; does nothing if it has one."""
        if name not in self:
            self.added[name] = replace(self.untrained.get(group.source) or self.base_tensors[group.source], name=name)

    def is_same(self, one: str, other: str) -> bool:
        """Return whether two tensors have the same content before any factors are added."""
        tensor_digests = [digest_tensor(output.file, output.source) for output in (self[one], self[other])]
        return tensor_digests[0] == tensor_digests[1]

    def usual_dtype(self) -> str:
        """Return the dtype that the result shall have, or that of most floating-point numbers of the base."""
        counts: Counter[str] = Counter()
        for _, tensor in self.files.values():
            if tensor.dtype in FLOATS:
                counts[tensor.dtype] += tensor.parameters
        return self.dtype or counts.most_common(1)[0][0]

    def vocabulary_tensors(self) -> set[str]:
        """Return the names of the tensors that have a row for each token of the vocabulary."""
        old = vocabulary_size(self.model.config)
        sized = {name for name, (_, t) in self.files.items() if t.shape[:1] == (old,) and not is_in_layer(name)}
        named = {name for name in self.full_tensors if names.is_head(name) or names.is_embedding(name)}
        tied = {self.name_of(weight) for group in self.lookup.tieable_groups for weight in group}
        return sized | named | {name for name in tied if name is not None}

    def vocabulary_growth(self) -> int:
        """Return how many rows more (fewer if negative) the tensors with a row for each token have than in the base.

        Raises MergeError where they grew unevenly: then no number of tokens is right for all of them.
        """
        in_files = {name: name for name in self.files}
        in_files |= {name: group.source for group in self.groups for name in group.members.values()}
        replaced = self.vocabulary_tensors() & self.full_tensors.keys() & in_files.keys()
        changes = {
            name: self.full_tensors[name].shape[0] - self.files[in_files[name]][1].shape[0] for name in sorted(replaced)
        }
        if len(set(changes.values())) > 1:
            growths = " and ".join(f"{name} by {more}" for name, more in changes.items())
            raise MergeError(f"the vocabulary grew unevenly, {growths} rows", hint="serve it as an adapter")
        return next(iter(changes.values()), 0)

    def _unchanged(self, name: str, file: Path, tensor: Tensor) -> OutputTensor:
        dtype = self.dtype if self.dtype and tensor.dtype in FLOATS else tensor.dtype
        return OutputTensor(name, file, tensor, dtype, as_matrix(tensor.shape))

    def _is_same_in_files(self, one: str, other: str) -> bool:
        tensor_digests = [digest_tensor(*self.files[name]) for name in (one, other)]
        return tensor_digests[0] == tensor_digests[1]

    def _refuse_possibly_tied(self, weight: str, label: str) -> None:
        """Raise MergeError for a weight that layers share, or that may be tied: the model's class is not known."""
        if self.lookup.is_tied_by_pattern(weight):
            raise MergeError(
                f"{label} cannot be baked: {weight} is shared between layers of this model",
                hint="serve it as an adapter",
            )
        config = self.model.config
        if self.lookup.architecture is not None or is_in_layer(weight) or config.get("tie_word_embeddings") is False:
            return
        if not self._is_vocabulary_weight(weight):
            return
        if config.get("model_type"):
            class_name = next(iter(self.model.architectures), config["model_type"])
            reason = f"the class of {self.model.path}, {class_name}, is none of transformers {transformers_release()}"
        elif names.find_head(self.file_names):
            return
        else:
            reason = f"{self.model.path} has no config.json that says its class"
        raise MergeError(
            f"{label} cannot be baked: {reason}, so whether {weight} is tied to another weight is not known",
            hint="serve it as an adapter, or bake one that changes layers alone",
        )

    def _is_vocabulary_weight(self, weight: str) -> bool:
        """Return whether a weight has a row for each token, or the name of an embedding or a head."""
        locations = self.lookup.find(weight)
        rows = self.files[self.file_names[locations[0].name]][1].shape[:1] if locations else ()
        return names.is_head(weight) or names.is_embedding(weight) or rows == (vocabulary_size(self.model.config),)


def as_matrix(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a shape as one matrix (1, rows, columns): its first dimension, and the others together."""
    return (1, shape[0], math.prod(shape[1:])) if shape else (1, 1, 1)
