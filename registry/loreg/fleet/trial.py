"""Evaluate one merged adapter of a sweep on another machine: it travels as bytes, with how it is evaluated."""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loreg.entities import SweepCandidate
from loreg.errors import ConflictError, LoregError, UsageError, explain_os_errors
from loreg.sweeping.command_runner import CommandRunner
from loreg.sweeping.evaluators import Evaluate, Measurement, choose_evaluator, measure_with
from loreg.version import VERSION


@dataclass(frozen=True)
class Evaluation:
    """How the trials of a sweep are evaluated: by what ``text`` means, or if it is empty by a pickled ``function``.

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
        if self.text:
            return choose_evaluator(self.text, self.base, self.metric, CommandRunner(self.timeout))
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
    files: Mapping[str, bytes]
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
        if self.version != VERSION:
            raise ConflictError(
                f"{socket.gethostname()} has loreg {VERSION}, the sweep was begun by loreg {self.version}",
                hint=f"pip install loreg=={self.version} on every node",
            )
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


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of an adapter, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an adapter. Raises LoregError if there is no room for them."""
    with explain_os_errors(folder, "free some space there, then run it again: what was measured is kept"):
        for name, content in files.items():
            (folder / name).write_bytes(content)
