"""Ask a program or a function how good a merged adapter is: a number, numbers by task, or the loss of each token."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from loreg.errors import EvaluationError, NotFoundError, UsageError
from loreg.sweeping.command_runner import TAIL, CommandRunner
from loreg.sweeping.lm_evaluation_harness import (
    HarnessRun,
    is_harness,
    is_harness_results,
    parse_harness,
    read_harness_results,
)
from loreg.sweeping.loss_model import Array

#: Returns how good the merged adapter in a folder is; what it may return, ``read_measurement`` says.
Function: TypeAlias = Callable[[Path], object]
Evaluate: TypeAlias = Callable[[Path], "Measurement"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FOLDER = re.compile(r"""(["']?)\{dir\}\1""")
_ONLY_TASK = "score"
_MAX_TASKS = 100
_MAX_NAME = 1000  # characters of a task's
_MAX_LOSS = 1e30  # nats of a token: larger ones have no mean


@dataclass(frozen=True)
class Measurement:
    """The score of each task; ``losses`` has the loss of each token by task where they are known.

    ``metric`` is what the scores measure, ``higher_is_better`` which way it is better, where the evaluation says so.
    """

    scores: Mapping[str, float]
    losses: Mapping[str, Array] = field(default_factory=dict)
    metric: str = ""
    higher_is_better: bool | None = None


def choose_evaluator(text: str, base: Path | None, metric: str, commands: CommandRunner) -> Evaluate:
    """Return the evaluator that ``text`` means: a shell command, ``module:function``, or ``lm-eval:TASK,TASK OPTIONS``.

    ``metric`` is the one to take of what lm-evaluation-harness measures, the first where it is empty.

    Raises UsageError for a command that does not name ``{dir}`` and for what the harness cannot run, NotFoundError for
    a function that is not there, EvaluationError for one whose module fails, and MissingExtraError without a harness.
    """
    if is_harness(text):
        return _run_harness(parse_harness(text, base), metric, commands)
    if _FUNCTION.fullmatch(text):
        return measure_with(_import_function(text), metric)
    if "{dir}" not in text:
        raise UsageError(
            f"the evaluation {text[:80]!r} does not say where the merged adapter goes",
            hint="--eval 'python score.py {dir}', or --eval module:function",
        )
    # {dir} in quotes of its own is the same: the name is quoted here
    return lambda folder: parse_output(commands.run(_FOLDER.sub(lambda _: shlex.quote(str(folder)), text)), metric)


def measure_with(function: Function, metric: str = "") -> Evaluate:
    """Return the evaluator that calls ``function``. What it raises is an EvaluationError of the trial."""

    def measure(folder: Path) -> Measurement:
        try:
            returned = function(folder)
        except (Exception, SystemExit) as error:
            raise EvaluationError(f"{type(error).__name__}: {error}"[:TAIL], hint="mend the function") from error
        return read_measurement(returned, metric)

    return measure


def read_measurement(value: object, metric: str = "") -> Measurement:
    """Read a number, ``{"task": number}``, ``{"losses": {"task": [number, …]}}``, or results of lm-evaluation-harness.

    Raises EvaluationError for anything else, UsageError for results without ``metric``.

    >>> read_measurement(0.5).scores, read_measurement({"losses": {"qa": [1.0, 3.0]}}).scores
    ({'score': 0.5}, {'qa': 2.0})
    """
    if isinstance(value, Mapping) and isinstance(value.get("losses"), Mapping) and len(value) == 1:
        losses = {_name(task): _vector(task, numbers) for task, numbers in value["losses"].items()}
        measured = Measurement({task: float(numbers.mean()) for task, numbers in losses.items()}, losses)
    elif isinstance(value, Mapping) and is_harness_results(value):
        read = read_harness_results(value, metric)
        scores = {task: _number(task, number) for task, number in read.numbers.items()}
        measured = Measurement(scores, metric=read.metric, higher_is_better=read.higher_is_better)
    elif isinstance(value, Mapping):
        measured = Measurement({_name(task): _number(task, number) for task, number in value.items()})
    else:
        measured = Measurement({_ONLY_TASK: _number(_ONLY_TASK, value)})
    if not 0 < len(measured.scores) <= _MAX_TASKS:
        raise _unexpected(f"{len(measured.scores)} tasks")
    return measured


def parse_output(text: str, metric: str = "") -> Measurement:
    """Read what a program printed: JSON, or its last line. Raises what ``read_measurement`` does."""
    lines = [line for line in text.splitlines() if line.strip()]
    for part in (text, lines[-1] if lines else ""):
        with contextlib.suppress(ValueError, RecursionError):
            return read_measurement(json.loads(part), metric)
    raise _unexpected(f"{lines[-1][:60]!r}" if lines else "no output")


def _import_function(text: str) -> Function:
    module, _, name = text.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function: Function = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise NotFoundError(f"cannot import {text}: {error}", hint=f"python -c 'import {module}'") from error
    except (Exception, SystemExit) as error:
        message = f"cannot import {text}: {type(error).__name__}: {error}"[:TAIL]
        raise EvaluationError(message, hint=f"python -c 'import {module}'") from error
    finally:
        sys.path.remove(here)
    if here not in sys.path:
        sys.path.append(here)  # for what the function imports when it is called
    if not callable(function):
        raise UsageError(
            f"{text} is {function!r}"[:TAIL] + ", expected a function of a folder", hint="--eval MODULE:NAME"
        )
    return function


def _run_harness(run: HarnessRun, metric: str, commands: CommandRunner) -> Evaluate:
    """Return the evaluator that runs lm-evaluation-harness on its base with the merged adapter."""

    def measure(folder: Path) -> Measurement:
        with tempfile.TemporaryDirectory(prefix="loreg-sweep-") as output:
            commands.run(run.command(folder, Path(output, "results.json")))
            files = list(Path(output).glob("results_*.json"))
            if len(files) != 1:
                raise EvaluationError("lm-evaluation-harness wrote no results", hint="run it by hand: lm_eval --help")
            return read_measurement(json.loads(files[0].read_bytes()), metric)

    return measure


def _name(task: object) -> str:
    """Return the name of a task, under which arrays can be kept: in an archive a name ends at a NUL."""
    name = str(task)
    if len(name) > _MAX_NAME or any(character == "\0" or "\ud800" <= character <= "\udfff" for character in name):
        raise _unexpected(f"a task called {name[:40]!r}")
    return name


def _number(task: object, value: object) -> float:
    number = math.nan
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError, TypeError):  # an integer that no float holds, a complex number
            number = float(value)
    if not math.isfinite(number):
        raise _unexpected(f"{task} = {value!r}"[:80])
    return number


def _vector(task: object, value: object) -> Array:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _unexpected(f"{task}: losses that are no numbers") from error
    if numbers.ndim != 1 or not numbers.size or not (abs(numbers) < _MAX_LOSS).all():
        raise _unexpected(f"{task}: losses of shape {numbers.shape}, or some that are not finite")
    return numbers


def _unexpected(what: str) -> EvaluationError:
    return EvaluationError(
        f"the evaluation gave {what}", hint='a finite number, {"task": number} or {"losses": {"task": [number, …]}}'
    )
