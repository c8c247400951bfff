"""Drive a run: give chunks to workers, record what they say, and find the adapter that ends whoever reads it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from loreg.entities import MapChunk, MapReport, MapRun, Progress
from loreg.errors import CollectedError
from loreg.fleet.chunk import ChunkAnswer, ChunkTask
from loreg.fleet.executor import Executor, Lost
from loreg.probes.probe import Probe
from loreg.upkeep import Maps

_MAX_DEATHS = 3  # of workers that had a chunk, seen by this driver, until it is halved
_MAX_ATTEMPTS = 10  # of a chunk, whatever became of the drivers, until it is halved
_MAX_LISTED = 100


@dataclass
class _Tally:
    """What came of a run so far."""

    recorded: int = 0
    retries: int = 0
    failed_count: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


class Driver:
    """Who drives a run. What it knows by itself is only which chunks workers ended with: all else is in the catalog."""

    def __init__(
        self,
        maps: Maps,
        run: MapRun,
        probe: Probe,
        executor: Executor[ChunkTask],
        make_task: Callable[[MapChunk], ChunkTask],
    ) -> None:
        self._maps = maps
        self._run = run
        self._probe = probe
        self._executor = executor
        self._make_task = make_task
        self._queue: deque[MapChunk] = deque()
        self._deaths: Counter[int] = Counter()  # by the number of the chunk
        self._tally = _Tally()
        self._done = run.done

    def drive(self, progress: Progress) -> MapReport:
        """Probe what is left of the run. Raises what a worker raised for which no version is to blame.

        Whoever ends it meanwhile loses nothing: the next driver goes on.
        """
        began = monotonic()
        in_flight = 0
        progress("probing", self._done, self._run.versions)
        while True:
            in_flight += self._fill()
            if not in_flight:
                break
            ended = self._executor.wait()
            in_flight += self._fill() - len(ended)  # workers first: what they said is recorded while they go on
            for task, answer in ended:
                self._take(task.chunk, answer)
            progress("probing", self._done, self._run.versions)
        self._maps.close(self._run)
        tally = self._tally
        return MapReport(
            self._run,
            tally.recorded,
            tuple(tally.failed),
            tally.failed_count,
            self._run.versions - self._run.done - tally.recorded,
            tally.retries,
            monotonic() - began,
        )

    def _fill(self) -> int:
        """Give every worker that is free a chunk; return how many were begun."""
        count = 0
        while (room := self._executor.room()) > 0:
            if not self._queue:
                self._queue.extend(self._maps.claim(self._run, 2 * room))
            if not self._queue:
                break
            self._executor.submit(self._make_task(self._queue.popleft()))
            count += 1
        return count

    def _take(self, chunk: MapChunk, answer: ChunkAnswer | Lost) -> None:
        if isinstance(answer, Lost):
            self._deaths[chunk.number] += answer is Lost.WORKER
            self._begin_again(chunk)
        elif answer.error is not None:
            raise answer.error
        else:
            self._record(chunk, answer)

    def _begin_again(self, chunk: MapChunk) -> None:
        """Try a chunk again with which a worker ended; halve it in the end, and give up on the one that is left."""
        self._tally.retries += 1
        if self._deaths[chunk.number] < _MAX_DEATHS and chunk.attempts < _MAX_ATTEMPTS:
            self._maps.give_back(chunk)
        elif len(chunk.versions) > 1:
            self._maps.split(chunk)
        else:
            failure = self._probe.failure(f"its worker ended, the last of {chunk.attempts} times that it was begun")
            self._record(chunk, ChunkAnswer({version.id: failure for version in chunk.versions}))

    def _record(self, chunk: MapChunk, answer: ChunkAnswer) -> None:
        try:
            recorded = self._maps.finish(chunk, answer.facts, answer.made)
        except CollectedError:  # a collection took what the worker found in the store
            self._begin_again(chunk)
            return
        if recorded is None:
            return
        tally = self._tally
        self._done += len(chunk.versions)
        tally.recorded += len(recorded)
        refs = {version.id: version.ref for version in chunk.versions}
        failures = [(refs[version_id], facts.error) for version_id, facts in recorded.items() if facts.error]
        tally.failed_count += len(failures)
        tally.failed += failures[: _MAX_LISTED - len(tally.failed)]
