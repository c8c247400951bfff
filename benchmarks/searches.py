"""Search a catalog in PostgreSQL in every way that people do: run alone, or as a part of ``make bench-serve``.

``python benchmarks/searches.py 1000000`` fills a catalog of so many adapters, and prints medians and 95th percentiles
of 300 searches of each kind; tasks, bases and words are asked for as often as the data have them. Of three rounds the
first two warm what PostgreSQL keeps in memory, and are not counted.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from filling import BASES, TASKS, WORDS, fill

from loreg.catalog import Catalog, Transaction, summaries
from loreg.catalog.facets import count_facets
from loreg.catalog.search import search
from loreg.entities import Query
from loreg.parsing import parse_best, parse_metric_condition, parse_sort

SEARCHES = 300
RELEVANCE = parse_sort("relevance")


def task_base_metric(drawn: random.Random) -> Query:
    """The question that a server is asked most."""
    metric = parse_metric_condition(f"accuracy>={drawn.uniform(0.5, 0.99):.3f}")
    return Query(tasks=(task(drawn),), base=base(drawn), metrics=(metric,))


def task(drawn: random.Random) -> str:
    return f"task{1 + int(TASKS * drawn.random() ** 2)}"


def base(drawn: random.Random) -> str:
    return f"org/base{1 + int(BASES * drawn.random() ** 2)}"


def word(drawn: random.Random) -> str:
    return f"w{int(WORDS * drawn.random() ** 3)}"


#: Each kind of search, as a query that is drawn.
KINDS: dict[str, Callable[[random.Random], Query]] = {
    "task, base, metric": task_base_metric,
    "the best, task, base": lambda d: Query(tasks=(task(d),), base=base(d), sort=parse_best("accuracy"), best=True),
    "the best on a dataset": lambda d: Query(sort=parse_best(f"accuracy@{task(d).replace('task', 'data')}"), best=True),
    "the best of all": lambda d: Query(sort=parse_best("accuracy"), best=True, variant="lora"),
    "a word": lambda d: Query(text=f"{word(d)} ", sort=RELEVANCE),
    "two words": lambda d: Query(text=f"{word(d)} {word(d)}", sort=RELEVANCE),
    "a word of half of all": lambda d: Query(text="w0 adapter", sort=RELEVANCE),
    "a word and a task": lambda d: Query(text=word(d), tasks=(task(d),), sort=RELEVANCE),
    "a name, cut short": lambda d: Query(text=f"adapter{int(10_000 * d.random())}", sort=RELEVANCE),
}
#: Those that a person waits for, and no program asks for a thousand times.
SLOW: dict[str, Callable[[random.Random], Query]] = {
    "near names": lambda d: Query(tasks=(task(d).upper(),), base=base(d).removeprefix("org/")),
}
FACETS: dict[str, Callable[[random.Random], Query]] = {
    "facets of all": lambda d: Query(),
    "facets of a task": lambda d: Query(tasks=(task(d),)),
    "facets of a word": lambda d: Query(text=word(d)),
    "facets of task, base": lambda d: Query(tasks=(task(d),), base=base(d)),
}
LISTS: dict[str, Callable[[Transaction], object]] = {
    "loreg tasks": lambda tx: summaries.list_tasks(tx, 50, None),
    "loreg bases": lambda tx: summaries.list_bases(tx, 50, None),
    "loreg metric ls": lambda tx: summaries.list_metrics(tx, 50, None),
}


def measure(url: str, kind: Callable[[random.Random], Query]) -> tuple[float, float, float]:
    """Median and 95th percentile in ms of a page of 50, and how many versions it has in the mean."""
    return _measure(url, kind, lambda tx, query: len(search(tx, query).items), SEARCHES)


def _measure(
    url: str, kind: Callable[[random.Random], Query], ask: Callable[[Transaction, Query], int], count: int
) -> tuple[float, float, float]:
    catalog, times, hits = Catalog(url), [], 0
    for seed in (1, 2, 3):
        drawn, times, hits = random.Random(seed), [], 0
        for _ in range(count):
            query = kind(drawn)
            begin = time.perf_counter()
            with catalog.read() as tx:
                hits += ask(tx, query)
            times.append(1000 * (time.perf_counter() - begin))
    catalog.close()
    return statistics.median(times), statistics.quantiles(times, n=20)[-1], hits / count


def print_searches(url: str) -> None:
    """Measure every kind of search, facets and lists."""
    for name, kind in KINDS.items():
        p50, p95, versions = measure(url, kind)
        print(f"  {name:24} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   {versions:4.0f} on the page", flush=True)
    for name, kind in SLOW.items():
        p50, p95, versions = _measure(url, kind, lambda tx, query: len(search(tx, query).items), 20)
        print(f"  {name:24} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   {versions:4.0f} on the page", flush=True)
    for name, kind in FACETS.items():
        p50, p95, counted = _measure(url, kind, lambda tx, query: count_facets(tx, query).versions, 40)
        print(f"  {name:24} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   {counted:4.0f} counted", flush=True)
    catalog = Catalog(url)
    for name, ask in LISTS.items():
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            with catalog.read() as tx:
                ask(tx)
            times.append(1000 * (time.perf_counter() - begin))
        print(f"  {name:24} {statistics.median(times):8.0f} ms", flush=True)
    catalog.close()


def main() -> None:
    """Fill a catalog of its own and measure."""
    from services import postgres_server

    adapters = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with postgres_server(shared_buffers="3GB", max_wal_size="2GB") as url:
        Catalog(url).upgrade()
        begin = time.perf_counter()
        fill(url, adapters)
        print(f"{adapters:,} adapters were made in {time.perf_counter() - begin:.0f} s\n", flush=True)
        print_searches(url)
        if "--wait" in sys.argv:
            print(url, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main()
