"""Turn what is known of a saved state into what a version says of itself: tasks, metrics, labels, message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from loreg.entities import Metric, VersionMetadata
from loreg.errors import UsageError
from loreg.parsing import parse_label
from loreg.runs.facts import build_metric
from loreg.runs.source import RunAdapter, SavedState

_MAX_VALUE = 256  # characters of a label


def describe_state(adapter: RunAdapter, state: SavedState) -> VersionMetadata:
    """Return the metadata of a state; its aliases are ``best`` and ``last`` where it is that one of its run.

    Numbers keep the names that the trainer gave them. They are of the dataset of the run where that is a single one,
    those of evaluations of the one that it was evaluated on, if that is known.
    """
    facts = state.facts
    return VersionMetadata(
        tasks=facts.tasks,
        metrics=tuple(_metrics(state)),
        labels={key: value for key, value in _labels(adapter, state) if _is_label(key, value)},
        aliases=tuple(alias for alias, is_so in (("best", state.is_best), ("last", state.is_last)) if is_so),
        message=describe_moment(adapter, state),
    )


def describe_moment(adapter: RunAdapter, state: SavedState) -> str:
    """Return a line on which moment of which run the state is."""
    run = PurePath(adapter.location).name
    when = [f"step {state.step}"] if state.step is not None else []
    when += [f"epoch {state.epoch:g}"] if state.epoch is not None else []
    moment = f"{state.label or 'final state'} of the run {run}"
    return moment + (f": {', '.join(when)}" if when else "")


def _metrics(state: SavedState) -> Iterator[Metric]:
    facts = state.facts
    trained_on = _only(facts.datasets)
    tested_on = trained_on if facts.eval_datasets is None else _only(facts.eval_datasets)
    measured = [
        metric
        for name, value in state.numbers.items()
        if (metric := build_metric(name, value, tested_on if name.startswith("eval") else trained_on))
    ]
    yield from {(metric.name, metric.dataset): metric for metric in measured}.values()
    if state.is_last or not state.label:  # a card tells of the finished run
        for metric in facts.metrics:
            if not any(_is_same(metric, other) for other in measured):
                yield metric


def _only(datasets: Sequence[str]) -> str:
    return datasets[0] if len(datasets) == 1 else ""


def _is_same(of_card: Metric, measured: Metric) -> bool:
    """Return whether a card repeats a number, which cards do under a shorter name and rounded to four digits."""
    return measured.name.endswith(of_card.name.lower()) and abs(of_card.value - measured.value) < 1e-4


def _labels(adapter: RunAdapter, state: SavedState) -> Iterator[tuple[str, str]]:
    facts = state.facts
    yield from facts.versions.items()
    yield from facts.arguments.items()
    yield "source", facts.source
    yield "trainer", facts.trainer
    yield "dataset", ",".join(facts.datasets)
    yield "seed", facts.seed
    yield "base_revision", facts.base_revision
    yield "run", PurePath(adapter.location).name
    yield "checkpoint", state.label
    yield "step", str(state.step) if state.step is not None else ""
    yield "epoch", f"{state.epoch:g}" if state.epoch is not None else ""


def _is_label(key: str, value: str) -> bool:
    if not value or len(value) > _MAX_VALUE:
        return False
    try:
        parse_label(f"{key}={value}")
    except UsageError:
        return False
    return True
