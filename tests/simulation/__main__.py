"""Run many schedules, on several processes, and print what was tried and what was found.

``PYTHONPATH=tests python -m simulation --schedules 100000 --jobs 2``
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable

from simulation.inputs import start
from simulation.schedules import Outcome, plan, run, shrink

_CHUNK = 100
_SHOWN = ("schedules", "steps", "pushes", "commits", "exports", "jobs", "collections", "removed blobs")
_FAILURES = ("commits sent back", "crashes", "lost answers", "violations")


def run_chunk(seeds: range) -> tuple[Counter[str], list[int]]:
    """Run the schedules of some seeds; return what happened, and which of them broke a rule."""
    start(0)
    gc.disable()  # a schedule leaves little, and a collection looks at all that was imported
    counts: Counter[str] = Counter()
    broken = []
    for seed in seeds:
        outcome = run(plan(seed))
        counts += outcome.counts
        if outcome.violation:
            broken.append(seed)
    gc.collect()
    return counts, broken


def summarize(results: Iterable[tuple[Counter[str], list[int]]]) -> tuple[Counter[str], list[int]]:
    """Add up what the chunks found."""
    counts: Counter[str] = Counter()
    broken: list[int] = []
    for part, found in results:
        counts += part
        broken += found
    return counts, broken


def describe(counts: Counter[str]) -> str:
    """Return the counts as one line."""
    return ", ".join(f"{counts[name]:,} {name}" for name in (*_SHOWN, *_FAILURES))


def explain(seed: int) -> Outcome:
    """Return the shortest schedule that breaks the rule which that of the seed breaks."""
    return shrink(run(plan(seed)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.schedules)
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        counts, broken = summarize(pool.imap_unordered(run_chunk, chunks))
    seconds = time.monotonic() - began
    print(f"{describe(counts)}; {seconds:.0f} s on {arguments.jobs} processes, from seed {arguments.first}")
    if broken:
        print("\nseeds that break a rule:", *sorted(broken)[:20])
        print(explain(min(broken)).describe())
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
