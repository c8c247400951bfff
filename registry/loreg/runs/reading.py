"""Read all that lies beside the states of an adapter, and say which of them was the best and which the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loreg.adapters.card import CARD_NAME, read_card
from loreg.adapters.config import CONFIG_NAME
from loreg.errors import LoregError
from loreg.runs.adapter_folder import AdapterFolder, FolderFiles
from loreg.runs.card_facts import read_card_facts
from loreg.runs.configs import read_configs
from loreg.runs.digests import DigestMemory
from loreg.runs.documents import read_json, real_file_in
from loreg.runs.facts import RunFacts, combine, select_metrics, to_text
from loreg.runs.source import FileDigests, SavedState
from loreg.runs.torchtune import count_epochs, has_card_of_base, steps_of_epoch
from loreg.runs.trackers import Trackers, read_mlflow_run
from loreg.runs.trainer_state import TrainerState, read_trainer_state
from loreg.runs.training_args import ARGUMENTS_NAME, read_training_args

#: What Trainer's example scripts, TRL and LLaMA-Factory write of the finished run, the most particular first.
_RESULTS = ("eval_results.json", "predict_results.json", "train_results.json", "all_results.json")
#: By which states are compared where the run chose no best one.
_LOSS = "eval_loss"


def read_states(group: Sequence[AdapterFolder], memory: DigestMemory, trackers: Trackers) -> tuple[SavedState, ...]:
    """Return the states of one adapter, which are given the oldest first."""
    run = group[0].run
    trainer = _latest_state(run, group)
    of_run = combine(_read_run(group, trainer, trackers))
    epoch_steps = steps_of_epoch(run)
    states, final = [], None
    for adapter in group:
        of_state = combine(_read_folder(adapter.folder, run))
        step = adapter.step if adapter.label.startswith(("checkpoint", "global_step", "step")) else None
        epochs = count_epochs(adapter.label)
        if epochs is not None and epoch_steps is not None:
            step = epochs * epoch_steps
        is_final = not adapter.label
        if is_final and trainer is not None:
            step = trainer.step
        facts = combine([of_state, of_run])
        numbers = dict(of_run.history.get(step, {})) if step is not None else {}
        if is_final:
            numbers |= {**(trainer.final if trainer is not None else {}), **of_run.results}
        epoch = trainer.epochs.get(step) if trainer is not None and step is not None else epochs
        card = of_state.card or (of_run.card if is_final else "")
        facts = replace(facts, card=card)
        files = FolderFiles(adapter.folder, memory)
        is_untold = "learning_rate" not in facts.arguments and (adapter.folder / ARGUMENTS_NAME).exists()
        states.append(SavedState(files, adapter.label, step, epoch, numbers, facts, has_pickled_arguments=is_untold))
        final = states[-1] if is_final else final
    if final is not None:
        states = _join_final(states, final)
    return _mark(states, trainer)


def _join_final(states: list[SavedState], final: SavedState) -> list[SavedState]:
    """Return the states with the final one in the place of the checkpoint that it is a copy of, if it is one.

    Trainer saves the last weights again at the end, or the best ones; that folder has more beside them.
    """
    if len(states) == 1:
        return states
    content = _content(final)
    for i, state in enumerate(states):
        if state is not final and content is not None and _content(state) == content:
            numbers = {**state.numbers, **final.numbers} if state.step == final.step else state.numbers
            joined = replace(state, files=final.files, numbers=numbers, facts=combine([final.facts, state.facts]))
            others = [other for other in states if other is not final]
            return [*others[:i], joined, *others[i + 1 :]]
    return states


def _content(state: SavedState) -> FileDigests | None:
    try:
        state.files.list_files()  # before anything is opened: it refuses pipes and links to elsewhere
        return state.files.digests()
    except (LoregError, OSError):  # whatever it is, the plan says so
        return None


def _mark(states: list[SavedState], trainer: TrainerState | None) -> tuple[SavedState, ...]:
    """Mark the best state and the last: the best is the run's own choice, else that of the lowest ``eval_loss``."""
    if trainer is None and len(states) < 2:
        return tuple(states)
    labels = [state.label for state in states]
    best = labels.index(trainer.best) if trainer is not None and trainer.best in labels else None
    losses = [state.numbers.get(_LOSS) for state in states]
    if (trainer is None or not trainer.best) and len(states) > 1 and None not in losses:
        best = min(range(len(states)), key=lambda i: losses[i] or 0.0)
    last = len(states) - 1
    return tuple(replace(state, is_best=i == best, is_last=i == last) for i, state in enumerate(states))


def _latest_state(run: Path, group: Sequence[AdapterFolder]) -> TrainerState | None:
    """Return what Trainer wrote last: each checkpoint has the history up to itself."""
    folders = {run, *(adapter.run / adapter.label for adapter in group)}
    states = [state for folder in sorted(folders) if (state := read_trainer_state(folder, run)) is not None]
    return max(states, key=lambda state: (state.step, len(state.history)), default=None)


def _read_run(group: Sequence[AdapterFolder], trainer: TrainerState | None, trackers: Trackers) -> Iterator[RunFacts]:
    """Yield what is said of a run as a whole, the source that is nearest to the training first."""
    run = group[0].run
    yield from read_configs(run)
    if trainer is not None:
        yield RunFacts(arguments=trainer.arguments, history=trainer.history)
    yield RunFacts(results=_read_results(run))
    yield read_card_facts(_read_card(run, run))
    yield _read_arguments(run, group)
    yield trackers.read_run(run)
    if (logged := read_mlflow_run(group[0].folder)) is not None:
        yield logged[1]
    if trainer is not None:
        yield RunFacts(trainer="transformers Trainer")


def _read_arguments(run: Path, group: Sequence[AdapterFolder]) -> RunFacts:
    """Return what Trainer kept of its arguments in the folder of the run, or in the last state that has them."""
    folders = [run, *(adapter.run / adapter.label for adapter in reversed(group))]
    return next((facts for folder in folders if (facts := read_training_args(folder, run)) != RunFacts()), RunFacts())


def _read_folder(folder: Path, run: Path) -> Iterator[RunFacts]:
    """Yield what is said of one state of the run: the configuration of the adapter and the card beside it."""
    document: Any = read_json(folder / CONFIG_NAME)
    base = document.get("base_model_name_or_path")
    versions = {"peft_version": text} if (text := to_text(document.get("peft_version"))) else {}
    revision = to_text(document.get("revision"))
    yield RunFacts(
        base=base if isinstance(base, str) else "",
        base_revision="" if revision == "main" else revision,
        versions=versions,
    )
    if not has_card_of_base(folder):
        yield read_card_facts(_read_card(folder, run))


def _read_card(folder: Path, run: Path) -> str:
    card = real_file_in(folder / CARD_NAME, run)
    return read_card(card) if card is not None else ""


def _read_results(run: Path) -> dict[str, float]:
    results: dict[str, float] = {}
    for name in _RESULTS:
        results = {**select_metrics(read_json(run / name)), **results}
    return results
