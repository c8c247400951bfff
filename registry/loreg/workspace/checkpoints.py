"""Say which states of a run are meant by ``best``, ``last``, a step, or ``all``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loreg.entities import Metric, VersionMetadata
from loreg.errors import NotFoundError, UsageError
from loreg.runs.digests import DigestMemory
from loreg.runs.folders import FolderSource
from loreg.runs.metadata import describe_state
from loreg.runs.source import RunAdapter, SavedState
from loreg.workspace.context import Context
from loreg.workspace.metric_directions import declared_directions, directed

_MAX_SHOWN = 6  # runs or adapters that a message names


def select_states(adapter: RunAdapter, checkpoints: str) -> Sequence[SavedState]:
    """Return the states that ``checkpoints`` names: ``all``, or some of ``best``, ``last`` and steps, with commas.

    An adapter that is no run has one state, which every word means. Raises UsageError for another word, NotFoundError
    for a step that was not saved.
    """
    words = _words(checkpoints)
    if "all" in words:
        return adapter.states
    selected = []
    for word in words:
        if word not in ("best", "last") and not word.isdecimal():
            raise UsageError(
                f"invalid checkpoint {word!r}: expected best, last, a step such as 200, or all",
                hint="--checkpoints best",
            )
        states = [state for state in adapter.states if _is_meant(state, word)]
        if not states and len(adapter.states) == 1:
            states = list(adapter.states)
        if not states and word.isdecimal():
            saved = ", ".join(state.label or "the final state" for state in adapter.states)
            raise NotFoundError(
                f"{adapter.location} has no checkpoint {word}; it has {saved}", hint="--checkpoints last"
            )
        if not states:  # the run does not say which was the best
            states = [adapter.states[-1]]
        selected += states
    return [state for state in adapter.states if any(state is other for other in selected)]


def notes_on_best(adapters: Sequence[RunAdapter], checkpoints: str) -> tuple[str, ...]:
    """Say of which runs the last state is taken for the best, because they do not say which one that was."""
    words = _words(checkpoints)
    if "best" not in words or "all" in words:
        return ()
    names = [adapter.name for adapter in adapters if _lacks_best(adapter)]
    if not names:
        return ()
    do, its = ("1 run does", "its last") if len(names) == 1 else (f"{len(names)} runs do", "the last of each")
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    shown = ", ".join(names[:_MAX_SHOWN])
    return (f"{do} not say which checkpoint was the best, so {its} is taken: {shown}{more}",)


def _lacks_best(adapter: RunAdapter) -> bool:
    return len(adapter.states) > 1 and not any(state.is_best for state in adapter.states)


def _words(checkpoints: str) -> list[str]:
    return [word.strip() for word in checkpoints.split(",")]


def select_checkpoint(context: Context, folder: Path, checkpoint: str) -> tuple[SavedState, VersionMetadata]:
    """Return the state of the run in ``folder`` that ``best``, ``last`` or a step means, and what is known of it.

    Raises UsageError if several adapters lie there, NotFoundError if there is no such state.
    """
    adapters = list(FolderSource([folder], digest_memory(context)).adapters())
    if len(adapters) > 1:
        places = ", ".join(Path(adapter.location).name for adapter in adapters[:_MAX_SHOWN])
        raise UsageError(
            f"{folder} has {len(adapters)} adapters: {places}; --checkpoint takes one of a single run",
            hint=f"loreg import {shlex.quote(adapters[0].location)} --checkpoints {checkpoint} --dry-run",
        )
    (adapter,) = adapters
    states = select_states(adapter, checkpoint)
    if checkpoint == "all" or "," in checkpoint:
        raise UsageError(f"--checkpoint takes one, {checkpoint!r} means several", hint=f"loreg import {folder}")
    if checkpoint == "best" and _lacks_best(adapter):
        raise NotFoundError(
            f"{folder} does not say which of its {len(adapter.states)} checkpoints was the best: it has no evaluation",
            hint=f"loreg import {shlex.quote(str(folder))} --checkpoints last --dry-run",
        )
    read = describe_state(adapter, states[-1])
    measured = [metric for metric in read.metrics if isinstance(metric, Metric)]
    return states[-1], msgspec.structs.replace(read, metrics=directed(measured, declared_directions(context.backend)))


def digest_memory(context: Context) -> DigestMemory:
    """Return what is remembered of the files of this machine that were hashed for imports."""
    return DigestMemory(context.base_cache.parent / "imports.json")


def _is_meant(state: SavedState, word: str) -> bool:
    if word in ("best", "last"):
        return state.is_best if word == "best" else state.is_last
    return state.step == int(word) or state.label.rpartition("-")[2] == word or state.label.rpartition("_")[2] == word
