"""Run lm-evaluation-harness (EleutherAI, 0.4.10 or later) on a base with a merged adapter, and read its results."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from loreg.errors import MissingExtraError, UsageError

_PREFIX = "lm-eval:"
_EXAMPLE = "--eval 'lm-eval:hellaswag,arc_easy --batch_size 16'"

#: By task, the numbers by metric; a key is the metric's name, a comma, and the filter of the answers: ``acc,none``.
Metrics: TypeAlias = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class HarnessRun:
    """How the harness is run: ``program`` are the words that start it, ``options`` are its own."""

    program: Sequence[str]
    tasks: str
    options: Sequence[str]
    base: Path

    def command(self, adapter: Path, results: Path) -> str:
        """Return the shell command that evaluates ``adapter`` on the base; it writes a file beside ``results``.

        The file is named ``results_DATE.json`` where ``results`` is ``results.json``. Folders go in JSON: in the
        harness's short form, ``key=value,key=value``, a comma or a quote in a path would end it.
        """
        model = json.dumps({"pretrained": str(self.base), "peft": str(adapter)})
        words = (*self.program, "--model", "hf", "--tasks", self.tasks, *self.options)
        return shlex.join((*words, "--model_args", model, "--output_path", str(results)))


@dataclass(frozen=True)
class HarnessScores:
    """The number of each task; ``metric`` is what all of them measure, empty if they measure different things.

    ``higher_is_better`` is None where the harness does not know.
    """

    numbers: Mapping[str, object]
    metric: str
    higher_is_better: bool | None


def is_harness(text: str) -> bool:
    """Return whether an evaluation names tasks of the harness.

    >>> is_harness("lm-eval:hellaswag"), is_harness("lm_eval --tasks hellaswag")
    (True, False)
    """
    return text.startswith(_PREFIX)


def parse_harness(text: str, base: Path | None) -> HarnessRun:
    """Parse ``lm-eval:TASK,TASK [OPTION …]``, where the options are those that the harness's own command has.

    Raises UsageError for text without tasks, or with another model; MissingExtraError if there is no harness.
    """
    try:
        words = shlex.split(text.removeprefix(_PREFIX))
    except ValueError as error:
        raise UsageError(f"cannot read {text[:80]!r}: {error}", hint=_EXAMPLE) from error
    first_option = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    options = words[first_option:]
    tasks = [task for word in words[:first_option] for task in word.split(",") if task]
    if not tasks:
        raise UsageError(f"{text[:80]!r} names no task", hint=_EXAMPLE)
    if any(re.fullmatch(r"(--model|-M)(=.*)?", word) for word in options):
        raise UsageError(
            "lm-eval:TASKS runs the base with Transformers: it takes no other --model",
            hint="run the harness by a command that has {dir} in it, and prints the file of its results",
        )
    program = _find_program()
    if base is None:
        raise UsageError("lm-evaluation-harness runs a model: which?", hint="--base DIR")
    return HarnessRun(program, ",".join(tasks), options, base)


def _find_program() -> Sequence[str]:
    """Return the words that start the harness: that of this environment, or of another one whose program is found."""
    if importlib.util.find_spec("lm_eval") is not None:
        return (sys.executable, "-m", "lm_eval")
    if (program := shutil.which("lm_eval")) is not None:
        return (program,)
    raise MissingExtraError("lm-evaluation-harness is not installed", hint="pip install 'lm-eval[hf]'")


def is_harness_results(value: Mapping[Any, Any]) -> bool:
    """Return whether a document is what the harness writes, or what its function ``simple_evaluate`` returns."""
    return {"results", "configs", "versions"} <= value.keys() and isinstance(value["results"], Mapping)


def read_harness_results(document: Mapping[str, Any], metric: str) -> HarnessScores:
    """Return the numbers of one metric: ``metric``, or the first that all tasks have, or else the first of each.

    A group that has the metric stands for its members, so that nothing counts twice; one that has none is no task.
    Raises UsageError for a task that has no such metric, and for metrics of which some are better when lower.
    """
    members = document.get("group_subtasks") or {}
    metrics = _find_metrics(document["results"])
    tasks = [
        task for task in _outermost(metrics, members, metric) if task not in members or _has(metrics[task], metric)
    ]
    chosen = {task: _choose_key(task, metrics, tasks, metric) for task in tasks}
    names = {_name(key) for key in chosen.values()}
    directions = {
        task: (document.get("higher_is_better") or {}).get(task, {}).get(_name(key)) for task, key in chosen.items()
    }
    _refuse_two_directions(chosen, directions)
    known = {direction for direction in directions.values() if direction is not None}
    return HarnessScores(
        {task: metrics[task][key] for task, key in chosen.items()},
        _word(metric or names.pop()) if len(names) == 1 else "",
        known.pop() if known else None,
    )


def _find_metrics(results: Metrics) -> Metrics:
    """Return the metrics alone: without names, numbers of samples, and standard errors."""
    return {
        task: {key: value for key, value in fields.items() if "," in key and not _name(key).endswith("_stderr")}
        for task, fields in results.items()
    }


def _outermost(metrics: Metrics, members: Mapping[str, Sequence[str]], metric: str) -> list[str]:
    """Return the tasks that are in no group that has the metric."""

    def within(task: str) -> Iterator[str]:
        for member in members.get(task, ()):
            yield member
            yield from within(member)

    counted = {member for task, fields in metrics.items() if _has(fields, metric) for member in within(task)}
    return [task for task in metrics if task not in counted]


def _has(fields: Mapping[str, object], metric: str) -> bool:
    return any(_is_of(key, metric) for key in fields)


def _is_of(key: str, metric: str) -> bool:
    return metric in ("", key, _name(key))


def _name(key: str) -> str:
    return key.partition(",")[0]


def _choose_key(task: str, metrics: Metrics, tasks: Sequence[str], metric: str) -> str:
    keys = list(metrics[task])
    if not _has(metrics[task], metric):
        raise UsageError(
            f"the task {task} has no metric {metric!r}, only {', '.join(key.removesuffix(',none') for key in keys)}"
            if keys
            else f"the harness measured nothing of the task {task}",
            hint=f"--metric {_name(keys[0])}" if keys else _EXAMPLE,
        )
    shared = next((key for key in keys if all(_has(metrics[other], _name(key)) for other in tasks)), "")
    return next(key for key in keys if _is_of(key, metric or _name(shared)))


def _refuse_two_directions(chosen: Mapping[str, str], directions: Mapping[str, bool | None]) -> None:
    """Raise UsageError if some numbers are better when higher and others when lower: no sum of them means anything."""
    higher = [task for task, direction in directions.items() if direction]
    lower = [task for task, direction in directions.items() if direction is False]
    if higher and lower:
        raise UsageError(
            f"{chosen[higher[0]]} of {higher[0]} is better when higher, {chosen[lower[0]]} of {lower[0]} when lower",
            hint=f"--eval lm-eval:{','.join(higher)}, or --metric with one that all tasks have",
        )


def _word(metric: str) -> str:
    """Return the name of a metric as versions have it: ``pass@1`` is ``pass-1``."""
    return re.sub(r"[^\w.\-/]+", "-", metric, flags=re.ASCII).strip("-._/")[:128]
