"""Untie weights that were one tensor where a bake does not change all of them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loreg.adapters.header import Tensor
from loreg.baking.result import ResultTensors
from loreg.baking.tensor_updates import TensorUpdate, is_same_update
from loreg.baking.token_rows import TokenRowUpdate
from loreg.baking.weight_tying import TiedGroup, untied_config
from loreg.bases.architecture import Tie
from loreg.errors import MergeError


@dataclass(frozen=True)
class PlannedChanges:
    """What adapters change, by the tensor's name in the result: low-rank updates, rows of tokens, whole tensors."""

    updates: dict[str, list[TensorUpdate]]
    rows: dict[str, tuple[TokenRowUpdate, ...]]
    full_tensors: Mapping[str, Tensor]

    @property
    def names(self) -> set[str]:
        """Every tensor that changes."""
        return {*self.updates, *self.rows, *self.full_tensors}


def resolve_ties(result: ResultTensors, changes: PlannedChanges, notes: list[str]) -> dict[str, object]:
    """Untie the weights of one flag where some of them change and others do not, or not alike.

    One flag holds for all that it ties: where one group is untied, all of its groups are. Weights that all change alike
    stay one tensor. Returns the changed fields of ``config.json``. Raises MergeError where the flag ties layers as
    well, or the model computes by it.
    """
    config: dict[str, object] = {}
    for tie in result.lookup.ties:
        groups = [group for group in result.groups if group.tie is tie]
        if changes.rows and not tie.not_in_config:
            _spread_rows(result, tie, changes)
        affected = [group for group in groups if not changes.names.isdisjoint(group.members.values())]
        if all(_change_identically(result, group, changes) for group in affected):
            for name in {name for group in affected for name in {*group.members.values()} - {*group.stored}}:
                result.added.pop(name, None)
                changes.updates.pop(name, None)
                changes.rows.pop(name, None)
            continue
        if (tie.patterns or tie.changes_computation) and not tie.forced:
            members = " and ".join(sorted(set(groups[0].members.values())))
            effect = "ties layers of this model too" if tie.patterns else "also changes what this model computes"
            raise MergeError(
                f"{members} would have to be parted, and the flag that ties them {effect}",
                hint="serve it as an adapter",
            )
        for group in groups:
            for name in group.members.values():
                result.give_own_tensor(group, name)
            notes.append(_describe_group(group))
        config |= untied_config(tie, {**result.model.config, **config})
    return config


def _spread_rows(result: ResultTensors, tie: Tie, changes: PlannedChanges) -> None:
    """Apply the trained rows of an embedding to all weights that its class ties to it.

    PEFT trains them together and saves them once; it goes by the class and the flag alone, and not by whether the
    weights are one tensor.
    """
    for group in tie.groups:
        names = {name: weight for weight in group if (name := result.name_of(weight)) is not None}
        with_rows = [name for name in names if name in changes.rows]
        if len(with_rows) == 1:
            for name, weight in names.items():
                result.ensure_tensor(weight, "the adapter")
                changes.rows.setdefault(name, changes.rows[with_rows[0]])


def _change_identically(result: ResultTensors, group: TiedGroup, changes: PlannedChanges) -> bool:
    updates, rows, full_tensors = changes.updates, changes.rows, changes.full_tensors
    first, *others = set(group.members.values())
    return all(
        rows.get(first) == rows.get(name)
        and (first in full_tensors) == (name in full_tensors)
        and (first not in full_tensors or result.is_same(first, name))
        and is_same_update(updates.get(first, ()), updates.get(name, ()))
        for name in others
    )


def _describe_group(group: TiedGroup) -> str:
    """Return the note for the user on weights that are no longer one tensor."""
    members = sorted(set(group.members.values()))
    count = {2: "two", 3: "three", 4: "four"}.get(len(members), str(len(members)))
    flag = f"{group.tie.flag}.tie_word_embeddings".lstrip(".")
    reason = "transformers ties what is equal alone" if group.tie.forced else f"{flag} is false"
    return f"{' and '.join(members)} were one tensor; they are {count} now: {reason}"
