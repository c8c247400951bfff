"""Measure the loss of adapters before and after an upgrade on texts of their tasks, each base loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from loreg.adapters.structure import AdapterStructure
from loreg.entities import AdapterUpgrade, ProbeLoss, Progress, UnreadableVersion, UpgradeVerdict
from loreg.errors import LoregError, UsageError
from loreg.sweeping.evaluation_data import EvaluationData, read_evaluation_data
from loreg.workspace.opened_base import OpenedBase
from loreg.workspace.resolve_sources import require_torch

#: Summed loss and tokens by task, without an adapter (None) and with that at a position.
_Losses = dict[int | None, dict[str, tuple[float, int]]]


def probe_upgrade(
    before: OpenedBase,
    after: OpenedBase,
    adapters: Sequence[AdapterUpgrade],
    structures: Sequence[AdapterStructure],
    probe_set: str,
    device: str,
    progress: Progress,
) -> tuple[list[AdapterUpgrade], list[UnreadableVersion]]:
    """Return the adapters with their losses on the texts of their tasks, and those that cannot be measured.

    The weights of an adapter are where its structure says. Raises UsageError for texts or models that do not do.
    """
    data = _read_texts(probe_set)
    tasks_of = {
        i: _tasks(adapter, data)
        for i, adapter in enumerate(adapters)
        if adapter.verdict in (UpgradeVerdict.EXACT, UpgradeVerdict.COPY)
    }
    problems = [
        UnreadableVersion(adapters[i].version.ref, "the probe set has no text of its tasks")
        for i, tasks in tasks_of.items()
        if not tasks
    ]
    measured = {i: tasks for i, tasks in tasks_of.items() if tasks}
    old, new = (
        _losses(base.model.path, adapters, structures, measured, data, device, progress, problems)
        for base in (before, after)
        if base.model is not None
    )
    results = []
    for i, adapter in enumerate(adapters):
        losses = tuple(
            ProbeLoss(
                task,
                old[None][task][1],
                *(total / tokens for total, tokens in (old[None][task], old[i][task], new[None][task], new[i][task])),
            )
            for task in measured.get(i, ())
            if i in old and i in new
        )
        results.append(replace(adapter, losses=losses))
    return results, list(dict.fromkeys(problems))


def _read_texts(probe_set: str) -> EvaluationData:
    """Read JSON Lines with tasks, ``TASK=FILE``, or one file of plain text."""
    is_plain = "=" not in probe_set and Path(probe_set).suffix not in (".jsonl", ".json")
    return read_evaluation_data([f"texts={probe_set}" if is_plain else probe_set])


def _tasks(adapter: AdapterUpgrade, data: EvaluationData) -> tuple[str, ...]:
    """Return the tasks of the texts that are the adapter's, by its tasks or its name; the only one is for all."""
    if len(data.tasks) == 1:
        return data.tasks
    version = adapter.version
    return tuple(task for task in data.tasks if task in (*version.tasks, version.adapter.name))


def _losses(
    folder: Path,
    adapters: Sequence[AdapterUpgrade],
    structures: Sequence[AdapterStructure],
    tasks_of: Mapping[int, Sequence[str]],
    data: EvaluationData,
    device: str,
    progress: Progress,
    problems: list[UnreadableVersion],
) -> _Losses:
    """Load a base, and measure it alone and with each adapter on the texts of its tasks."""
    require_torch()
    from loreg.merging.device import choose_device
    from loreg.merging.inputs import MergeInput
    from loreg.merging.source_factors import read_source_factors
    from loreg.sweeping.in_place import InPlaceModel

    model = InPlaceModel(folder, choose_device(device))
    documents = (*data.chosen_on, *data.confirmed_on)
    rows = {
        task: model.tokenize([document for document in documents if document.task == number])
        for number, task in enumerate(data.tasks)
        if any(task in tasks for tasks in tasks_of.values())
    }

    def measure(tasks: Sequence[str]) -> dict[str, tuple[float, int]]:
        return {task: (float(model.losses(rows[task]).sum()), int(rows[task].tokens().sum())) for task in tasks}

    losses: _Losses = {None: measure(list(rows))}
    for done, (i, tasks) in enumerate(tasks_of.items()):
        progress(f"evaluating on {folder.name}", done, len(tasks_of))
        version = adapters[i].version
        try:
            _refuse_dora(structures[i])
            source = MergeInput(structures[i], version.ref, version.digest, None, folder)
            (factors,) = read_source_factors([source])
            with model.adding(factors):
                losses[i] = measure(tasks)
        except LoregError as error:
            problems.append(UnreadableVersion(version.ref, f"it was not probed: {error.message}"))
    return losses


def _refuse_dora(structure: AdapterStructure) -> None:
    """Raise UsageError for DoRA: its delta has full rank, and factors of a higher rank would only come near it."""
    if any("magnitude" in module.tensors for module in structure.modules.values()):
        raise UsageError("DoRA's delta is more than factors", hint="measure it with PEFT on both bases")
