"""Run many schedules, on several processes, and print what was tried and what was found.

``PYTHONPATH=tests python -m simulation --schedules 100000 --jobs 2``
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from simulation.batch import describe, explain, run_chunk, summarize

_CHUNK = 50  # schedules that a process is given at a time


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
