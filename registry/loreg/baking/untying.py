"""What becomes of weights that were one tensor: one still, if all change alike, else each a tensor of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.header import Tensor
from loreg.baking.result import ResultTensors
from loreg.baking.tensor_updates import TensorUpdate, is_same_update
from loreg.baking.token_rows import TokenRowUpdate
from loreg.baking.weight_tying import TiedGroup, untied_config
from loreg.bases.architecture import Tie
from loreg.errors import MergeError


@dataclass(frozen=True)
class PlannedChanges:
    """What adapters change, by the tensor of the result: parts of factors, rows of tokens, whole tensors."""

    updates: dict[str, list[TensorUpdate]]
    rows: dict[str, tuple[TokenRowUpdate, ...]]
    whole: Mapping[str, Tensor]

    @property
    def names(self) -> set[str]:
        """Every tensor that changes."""
        return {*self.updates, *self.rows, *self.whole}


def resolve_ties(result: ResultTensors, changes: PlannedChanges, notes: list[str]) -> dict[str, Any]:
    """Part the weights that one flag ties where some of them change and others do not.

    One flag holds for all that it ties: where one group is parted, all of its groups are. Weights that all change alike
    stay one. Returns the changed fields of ``config.json``. Raises MergeError where the flag ties layers as well,
    or the model computes by it.
    """
    config: dict[str, Any] = {}
    for tie in result.lookup.ties:
        groups = [group for group in result.groups if group.tie is tie]
        if changes.rows and not tie.unlisted:
            _spread_rows(result, tie, changes)
        touched = [group for group in groups if not changes.names.isdisjoint(group.members.values())]
        if all(_change_identically(result, group, changes) for group in touched):
            for name in {name for group in touched for name in {*group.members.values()} - {*group.stored}}:
                result.added.pop(name, None)
                changes.updates.pop(name, None)
                changes.rows.pop(name, None)
            continue
        if (tie.patterns or tie.computes) and not tie.forced:
            both = " and ".join(sorted(set(groups[0].members.values())))
            does = "ties layers of this model too" if tie.patterns else "also changes what this model computes"
            raise MergeError(
                f"{both} would have to be parted, and the flag that ties them {does}", hint="serve it as an adapter"
            )
        for group in groups:
            for name in group.members.values():
                result.make_member(group, name)
            notes.append(_describe_group(group))
        config |= untied_config(tie, {**result.model.config, **config})
    return config


def _spread_rows(result: ResultTensors, tie: Tie, changes: PlannedChanges) -> None:
    """PEFT trains the rows of an embedding together with those of all that its class ties to it, and saves them once.

    It asks the class and the flag alone, and not whether the weights are one tensor.
    """
    for group in tie.groups:
        names = {name: weight for weight in group if (name := result.name_of(weight)) is not None}
        given = [name for name in names if name in changes.rows]
        if len(given) == 1:
            for name, weight in names.items():
                result.place(weight, "the adapter")
                changes.rows.setdefault(name, changes.rows[given[0]])


def _change_identically(result: ResultTensors, group: TiedGroup, changes: PlannedChanges) -> bool:
    hits, rows, whole = changes.updates, changes.rows, changes.whole
    first, *others = set(group.members.values())
    return all(
        rows.get(first) == rows.get(name)
        and (first in whole) == (name in whole)
        and (first not in whole or result.is_same(first, name))
        and is_same_update(hits.get(first, ()), hits.get(name, ()))
        for name in others
    )


def _describe_group(group: TiedGroup) -> str:
    """What to tell a person of weights that are no longer one tensor."""
    many = sorted(set(group.members.values()))
    count = {2: "two", 3: "three", 4: "four"}.get(len(many), str(len(many)))
    flag = f"{group.tie.flag}.tie_word_embeddings".lstrip(".")
    said = "transformers ties what is equal alone" if group.tie.forced else f"{flag} is false"
    return f"{' and '.join(many)} were one tensor; they are {count} now: {said}"
