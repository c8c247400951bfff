"""Trials of a sweep on a cluster: merged here, one after another, and evaluated there, side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loreg.entities import SweepCandidate, SweepOptions
from loreg.errors import EvaluationError, LoregError, UsageError
from loreg.fleet.carried_files import read_files
from loreg.fleet.executor import Executor, run_each
from loreg.fleet.ray_tasks import RayExecutor, parse_cluster, pickle_function
from loreg.fleet.trial import Evaluation, TrialTask
from loreg.sweeping.evaluators import Function, Measurement
from loreg.verbs.sweep_trials import TrialBook

_JOBS = {"jobs": "on a cluster"}  # the key under which a sweep keeps how many there were room for


@dataclass(frozen=True)
class Outcome:
    """What was measured of a candidate, and the seconds of merging and evaluating; or the ``error`` of its trial."""

    candidate: SweepCandidate
    measured: Measurement | None = None
    error: str = ""
    merge_seconds: float = 0.0
    evaluate_seconds: float = 0.0


@dataclass(frozen=True)
class TrialCluster:
    """Workers that evaluate ``jobs`` trials side by side, each as ``evaluation`` says."""

    executor: Executor[TrialTask]
    jobs: int
    evaluation: Evaluation

    def evaluate(self, book: TrialBook, candidates: Sequence[SweepCandidate]) -> Iterator[Outcome]:
        """Yield what became of each candidate as it ended; one whose worker or machine was lost is evaluated again.

        Raises what a worker raises for which no candidate is to blame: UsageError, ConflictError, NotFoundError.
        """
        seconds: dict[SweepCandidate, float] = {}
        unmerged: deque[Outcome] = deque()

        def merge() -> Iterator[TrialTask]:
            for candidate in candidates:
                try:
                    merged, seconds[candidate] = book.timed_merge(candidate)
                    with book.write(merged) as folder:
                        task = TrialTask(candidate, read_files(folder), self.evaluation)
                except LoregError as error:
                    unmerged.append(Outcome(candidate, error=error.message))
                else:
                    yield task

        for task, answer in run_each(self.executor, merge(), self.jobs):
            candidate = task.candidate
            if isinstance(answer, LoregError):  # it ended whoever evaluated it
                yield Outcome(candidate, error=answer.message)
            elif isinstance(answer.error, EvaluationError):
                yield Outcome(candidate, error=answer.error.message)
            elif answer.error is not None:
                raise answer.error
            else:
                yield Outcome(candidate, answer.measured, "", seconds[candidate], answer.seconds)
        yield from unmerged


@contextmanager
def open_cluster(book: TrialBook, evaluate: str | Function, options: SweepOptions, on: str) -> Iterator[TrialCluster]:
    """Yield the cluster ``on``; what still runs there when the context ends is ended.

    Raises MissingExtraError, UnavailableError, and UsageError for a function that cannot travel or a cluster without
    room for a trial.
    """
    executor: RayExecutor[TrialTask] = RayExecutor(parse_cluster(on), options.gpus)
    with closing(executor):
        text, function = (evaluate, b"") if isinstance(evaluate, str) else ("", pickle_function(evaluate))
        evaluation = Evaluation(
            text,
            function,
            base=book.base_folder,
            metric=options.metric,
            timeout=options.timeout,
            folder=Path.cwd(),
        )
        yield TrialCluster(executor, options.jobs or _jobs(book, executor.capacity(), options.gpus), evaluation)


def _jobs(book: TrialBook, capacity: int, gpus: int) -> int:
    """Return how many trials there was room for when the sweep began: which are tried depends on it.

    Raises UsageError if there is room for none.
    """
    kept = book.journal.recall(_JOBS)
    if kept is not None:
        return int(kept["count"])
    if not capacity:
        has = f"no machine with {gpus} GPUs" if gpus else "no processor"
        raise UsageError(f"the cluster has {has} for a trial", hint="--jobs 2 if it grows; or --gpus 1")
    book.journal.record(_JOBS, {"count": capacity})
    return capacity
