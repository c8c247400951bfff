"""The tensors of a baked model while it is decided what becomes of each, and where a weight lies among them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loreg.adapters.header import Tensor
from loreg.baking.configuration import vocabulary_of
from loreg.baking.dtypes import FLOATS
from loreg.baking.shard import OutputTensor
from loreg.baking.weight_tying import TiedGroup, tied_groups
from loreg.bases import names
from loreg.bases.architecture import transformers_release
from loreg.bases.identify import digest_tensor
from loreg.bases.model import Model
from loreg.bases.weight_lookup import WeightLookup, is_in_a_layer
from loreg.errors import MergeError


class ResultTensors:
    """The tensors of a model that is being made of a base.

    ``kept`` are those of the base by their names in its files, ``added`` those that it does not have, ``whole`` the
    tensors of an adapter that took a place among both; ``groups`` are weights that are one tensor in the base.
    """

    def __init__(self, model: Model, lookup: WeightLookup, dtype: str | None) -> None:
        self.model, self.lookup, self.dtype = model, lookup, dtype
        self.files = model.tensors
        self.raw = names.by_canonical_name({name: name for name in self.files})
        self.groups = tied_groups(lookup, self.raw, self._is_same_in_files)
        self.kept: dict[str, OutputTensor] = {name: self._as_it_is(name, *found) for name, found in self.files.items()}
        self.added: dict[str, OutputTensor] = {}
        self.whole: dict[str, Tensor] = {}
        #: Tensors of the base before an adapter's take their place: what a weight that is parted from them begins as.
        self.untrained: dict[str, OutputTensor] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.added or name in self.kept

    def __getitem__(self, name: str) -> OutputTensor:
        """What is known so far of the tensor of that name."""
        return self.added.get(name) or self.kept[name]

    def decide(self, output: OutputTensor) -> None:
        """Decide anew on a tensor that is there."""
        (self.added if output.name in self.added else self.kept)[output.name] = output

    def place(self, weight: str, label: str) -> str | None:
        """The tensor that is the weight of the adapter ``label``; None if the base has none.

        One that the base has under the name of another weight, to which it is tied, begins as a copy of that.
        """
        name = self.name_of(weight)
        if name is None:
            return None
        if (group := self.group_of(weight)) is not None:
            self.make_member(group, name)
        else:
            self._refuse_what_may_be_tied(weight, label)
        return name

    def name_of(self, weight: str) -> str | None:
        """What the weight is called in the result, whether it has a tensor of its own there or not."""
        if (group := self.group_of(weight)) is not None:
            (member,) = self.lookup.forms(weight) & group.members.keys()
            return group.members[member]
        places = self.lookup.find(weight)
        return self.raw[places[0].name] if places else None

    def group_of(self, weight: str) -> TiedGroup | None:
        """The weights that are one tensor with this one."""
        forms = self.lookup.forms(weight)
        return next((group for group in self.groups if not forms.isdisjoint(group.members)), None)

    def make_member(self, group: TiedGroup, name: str) -> None:
        """Give a tied weight a tensor of its own, which begins as the one that the files have."""
        if name not in self:
            self.added[name] = replace(self.untrained.get(group.source) or self.kept[group.source], name=name)

    def is_same(self, one: str, other: str) -> bool:
        """Whether two tensors have the same content before any factors are added."""
        tensor_digests = [digest_tensor(output.file, output.source) for output in (self[one], self[other])]
        return tensor_digests[0] == tensor_digests[1]

    def usual_dtype(self) -> str:
        """The dtype of most numbers of the base, or that which the result shall have."""
        counted: Counter[str] = Counter()
        for _, tensor in self.files.values():
            if tensor.dtype in FLOATS:
                counted[tensor.dtype] += tensor.parameters
        return self.dtype or counted.most_common(1)[0][0]

    def with_a_row_a_token(self) -> set[str]:
        """The tensors that have a row for each token of the vocabulary."""
        old = vocabulary_of(self.model.config)
        sized = {name for name, (_, t) in self.files.items() if t.shape[:1] == (old,) and not is_in_a_layer(name)}
        named = {name for name in self.whole if names.is_head(name) or names.is_embedding(name)}
        tied = {self.name_of(weight) for group in self.lookup.could_be_tied for weight in group}
        return sized | named | {name for name in tied if name is not None}

    def more_tokens(self) -> int:
        """How many rows more, or fewer, the tensors with a row for each token have than in the base.

        Raises MergeError where they do not all have so many: then no number of tokens is right for all of them.
        """
        in_files = {name: name for name in self.files}
        in_files |= {name: group.source for group in self.groups for name in group.members.values()}
        replaced = self.with_a_row_a_token() & self.whole.keys() & in_files.keys()
        changes = {n: self.whole[n].shape[0] - self.files[in_files[n]][1].shape[0] for n in sorted(replaced)}
        if len(set(changes.values())) > 1:
            told = " and ".join(f"{name} by {more}" for name, more in changes.items())
            raise MergeError(f"the vocabulary grew unevenly, {told} rows", hint="serve it as an adapter")
        return next(iter(changes.values()), 0)

    def _as_it_is(self, name: str, file: Path, tensor: Tensor) -> OutputTensor:
        dtype = self.dtype if self.dtype and tensor.dtype in FLOATS else tensor.dtype
        return OutputTensor(name, file, tensor, dtype, as_matrix(tensor.shape))

    def _is_same_in_files(self, one: str, other: str) -> bool:
        tensor_digests = [digest_tensor(*self.files[name]) for name in (one, other)]
        return tensor_digests[0] == tensor_digests[1]

    def _refuse_what_may_be_tied(self, weight: str, label: str) -> None:
        """Raise MergeError for a weight that is shared, or may be: the class of the model is not known."""
        if self.lookup.is_tied_otherwise(weight):
            raise MergeError(
                f"{label} cannot be baked: {weight} is shared between layers of this model",
                hint="serve it as an adapter",
            )
        config = self.model.config
        if self.lookup.architecture is not None or is_in_a_layer(weight) or config.get("tie_word_embeddings") is False:
            return
        if not self._is_of_the_vocabulary(weight):
            return
        if config.get("model_type"):
            named = next(iter(self.model.architectures), config["model_type"])
            what = f"the class of {self.model.path}, {named}, is none of transformers {transformers_release()}"
        elif names.head_among(self.raw):
            return
        else:
            what = f"{self.model.path} has no config.json that says its class"
        raise MergeError(
            f"{label} cannot be baked: {what}, so whether {weight} is tied to another weight is not known",
            hint="serve it as an adapter, or bake one that changes layers alone",
        )

    def _is_of_the_vocabulary(self, weight: str) -> bool:
        """Whether a weight has a row for each token, as an embedding and a head have, or is called like one."""
        places = self.lookup.find(weight)
        rows = self.files[self.raw[places[0].name]][1].shape[:1] if places else ()
        return names.is_head(weight) or names.is_embedding(weight) or rows == (vocabulary_of(self.model.config),)


def as_matrix(shape: Sequence[int]) -> tuple[int, int, int]:
    """A tensor as one matrix: its first dimension, and the others together."""
    return (1, shape[0], math.prod(shape[1:])) if shape else (1, 1, 1)
