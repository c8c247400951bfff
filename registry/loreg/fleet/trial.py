"""Evaluate one merged adapter of a sweep on another machine: it travels as bytes, with how it is evaluated."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loreg.entities import SweepCandidate
from loreg.errors import LoregError, UsageError
from loreg.fleet.carried_files import Files, write_files
from loreg.fleet.worker_machine import refuse_other_version
from loreg.sweeping.command_runner import CommandRunner
from loreg.sweeping.evaluators import Evaluate, Measurement, choose_evaluator, measure_with
from loreg.version import VERSION


@dataclass(frozen=True)
class Evaluation:
    """How the trials of a sweep are evaluated: by a pickled ``function``, or if it is empty by what ``text`` means.

    ``folder`` is where the sweep was started, and where programs are run and functions found.
    """

    text: str
    function: bytes
    base: Path | None
    metric: str
    timeout: float | None
    folder: Path

    def open(self) -> Evaluate:
        """Return the evaluator, on the machine and in the folder in which it is asked for.

        Raises UsageError, NotFoundError and MissingExtraError for what this machine does not have.
        """
        if not self.function:
            return choose_evaluator(self.text, self.base, self.metric, CommandRunner(self.timeout))
        if (folder := str(self.folder)) not in sys.path:
            sys.path.append(folder)  # where the modules of the person's own program are
        try:
            return measure_with(pickle.loads(self.function), self.metric)  # noqa: S301  the person's own, from here
        except Exception as error:
            raise UsageError(
                f"{socket.gethostname()} cannot load the function that evaluates: {type(error).__name__}: {error}",
                hint="pip install there what it imports",
            ) from error


@dataclass(frozen=True)
class TrialTask:
    """A candidate of a sweep, the files of the adapter that it was merged to, and how it is evaluated.

    ``version`` is that of the loreg that drives the sweep.
    """

    candidate: SweepCandidate
    files: Files
    evaluation: Evaluation
    version: str = VERSION

    def __str__(self) -> str:
        return "the evaluation"

    def run(self) -> TrialAnswer:
        """Evaluate the adapter in a temporary folder of this machine; what is run is run in the folder of the sweep."""
        try:
            self._refuse_other_machine()
            os.chdir(self.evaluation.folder)  # a worker is there for one sweep alone
            with tempfile.TemporaryDirectory(prefix="loreg-sweep-") as temporary:
                write_files(Path(temporary), self.files)
                evaluate = self.evaluation.open()
                start = time.perf_counter()
                measured = evaluate(Path(temporary))
                return TrialAnswer(measured, seconds=time.perf_counter() - start)
        except LoregError as error:
            return TrialAnswer(error=error)

    def _refuse_other_machine(self) -> None:
        """Raise ConflictError on a machine with another loreg, UsageError on one without the folder of the sweep."""
        refuse_other_version(self.version)
        if not self.evaluation.folder.is_dir():
            raise UsageError(
                f"{socket.gethostname()} has no folder {self.evaluation.folder}, in which the sweep was started",
                hint="cd to a folder that every node has at the same path, then run it again",
            )


@dataclass(frozen=True)
class TrialAnswer:
    """What was measured, and in how many seconds; or the ``error``: an EvaluationError is one of this trial alone."""

    measured: Measurement | None = None
    error: LoregError | None = None
    seconds: float = 0.0
