"""Run the schedules of many seeds, and say what happened in them."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterable, Iterator

from simulation.inputs import HISTORY, start
from simulation.schedules import Outcome, plan, run, shrink

_SHOWN = ("schedules", "steps", "pushes", "commits", "exports", "jobs", "deletions", "prunings", "backups")
_REMOVED = ("collections", "removed blobs")
_FAILURES = ("commits sent back", "crashes", "lost answers", "violations")


def run_chunk(seeds: range) -> tuple[Counter[str], list[int]]:
    """Run the schedules of some seeds; return what happened, and which of them broke a rule."""
    start(0)
    start(HISTORY)
    counts: Counter[str] = Counter()
    broken = []
    with _without_gc():
        for seed in seeds:
            outcome = run(plan(seed))
            counts += outcome.counts
            if outcome.violation:
                broken.append(seed)
    return counts, broken


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Search for no garbage meanwhile: a schedule leaves little, and a search looks at all that was imported."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def summarize(results: Iterable[tuple[Counter[str], list[int]]]) -> tuple[Counter[str], list[int]]:
    """Add up what the chunks found."""
    counts: Counter[str] = Counter()
    broken: list[int] = []
    for part, seeds in results:
        counts += part
        broken += seeds
    return counts, broken


def describe(counts: Counter[str]) -> str:
    """Return the counts as one line."""
    return ", ".join(f"{counts[name]:,} {name}" for name in (*_SHOWN, *_REMOVED, *_FAILURES))


def explain(seed: int) -> Outcome:
    """Return the shortest schedule that breaks the rule which that of the seed breaks."""
    return shrink(run(plan(seed)))
