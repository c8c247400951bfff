"""The pages over a million adapters, beside an empty page of the same framework: ``make bench-pages``.

A catalog that is filled within PostgreSQL, and one ``loreg serve``. Each page is asked for over one connection that
stays open, and every time for other versions, words or conditions; the empty page is FastAPI and Jinja2 on the same
uvicorn, in the same run. Then Chromium: what comes over the wire for the first page, compressed, and how long a lineage
of a thousand versions takes from the click until it is drawn.

``python benchmarks/pages.py 1000000 URL`` uses a catalog in PostgreSQL that ``filling.fill`` filled before.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import httpx
import psycopg
from filling import BASES, TASKS, WORDS, fill
from serve import endpoint, migrated, process_at, serving

from browsers import chromium
from services import postgres_server

ADAPTERS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
PORT, EMPTY_PORT = 8469, 8468
WARM, COUNTED = 40, 200
NODES = 1000

EMPTY = """
import sys, uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Environment
page = Environment(autoescape=True).from_string("<!doctype html><title>{{ title }}</title><p>{{ title }}</p>")
app = FastAPI()
@app.get("/empty")
async def empty(): return HTMLResponse(page.render(title="An empty page"))
uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="asyncio", log_config=None, access_log=False)
"""

_MERGED = """
INSERT INTO merges (version_id, recipe, certificate)
  SELECT id, '{{"method": "linear"}}', '{{}}' FROM versions WHERE id BETWEEN 2 AND {nodes} ON CONFLICT DO NOTHING;
INSERT INTO lineage (child_id, position, parent_label, parent_digest, weight)
  SELECT child.id, 0, 'parent', parent.digest, 0.5 FROM versions child, versions parent
  WHERE child.id BETWEEN 2 AND {nodes} AND parent.id = 1 ON CONFLICT DO NOTHING;
"""


def measure(port: int, label: str, draw: Callable[[random.Random], str]) -> None:
    """Print the median and the 95th percentile of asking for a page that is drawn anew each time."""
    drawn, times, sizes = random.Random(7), [], []
    with httpx.Client(base_url=endpoint(port), headers={"Accept": "text/html"}, timeout=60) as client:
        for _ in range(WARM + COUNTED):
            begin = time.perf_counter()
            response = client.get(draw(drawn))
            times.append(1000 * (time.perf_counter() - begin))
            sizes.append(len(response.content))
            assert response.status_code == 200, (response.url, response.status_code)
    times, p95 = times[WARM:], statistics.quantiles(times[WARM:], n=20)[-1]
    size = statistics.median(sizes) / 1000
    print(f"  {label:34} p50 {statistics.median(times):6.1f} ms   p95 {p95:6.1f} ms   {size:6.1f} kB", flush=True)


def some_versions(url: str) -> list[str]:
    """The paths of versions all over the catalog."""
    query = """
      SELECT namespace, name, number FROM versions JOIN adapters ON adapters.id = adapter_id
      WHERE versions.id % (SELECT greatest(1, max(id) / 2000) FROM versions) = 1 ORDER BY versions.id"""
    with psycopg.connect(url) as connection:
        return [f"/{namespace}/{name}/v{number}" for namespace, name, number in connection.execute(query)]


def measure_pages(url: str) -> None:
    versions = some_versions(url)

    def task(drawn: random.Random) -> int:
        return 1 + int(TASKS * drawn.random() ** 2)

    def base(drawn: random.Random) -> int:
        return 1 + int(BASES * drawn.random() ** 2)

    def word(drawn: random.Random) -> int:
        return int(WORDS * drawn.random() ** 3)

    pages: dict[str, Callable[[random.Random], str]] = {
        "/start": lambda drawn: "/start",
        "/": lambda drawn: "/",
        "/ of a task and a base": lambda drawn: f"/?task=task{task(drawn)}&base=org/base{base(drawn)}",
        "/ the best of a task on a base": lambda drawn: (
            f"/?task=task{task(drawn)}&base=org/base{base(drawn)}&best=accuracy"
        ),
        "/ with a bound of a metric": lambda drawn: f"/?task=task{task(drawn)}&metric=accuracy>=0.9",
        "/ with a word": lambda drawn: f"/?text=w{word(drawn)}&sort=relevance",
        "/facets": lambda drawn: "/facets",
        "/facets of a task": lambda drawn: f"/facets?task=task{task(drawn)}",
        "an adapter": lambda drawn: drawn.choice(versions).rpartition("/")[0],
        "a version": lambda drawn: drawn.choice(versions),
        "a lineage": lambda drawn: drawn.choice(versions) + "/lineage",
        "/bases": lambda drawn: "/bases",
        "/checks": lambda drawn: "/checks",
        "/audit": lambda drawn: "/audit",
        "/deployments": lambda drawn: "/deployments",
    }
    with process_at(EMPTY_PORT, [sys.executable, "-c", EMPTY, str(EMPTY_PORT)], {}):
        measure(EMPTY_PORT, "an empty page of FastAPI and Jinja2", lambda drawn: "/empty")
        for label, draw in pages.items():
            measure(PORT, label, draw)


def measure_browser(url: str) -> None:
    """Print what the first page weighs, and when a lineage of many versions is drawn."""
    with psycopg.connect(url) as connection:
        connection.execute(_MERGED.format(nodes=NODES))
        (parent,) = connection.execute("SELECT namespace || '/' || name FROM adapters WHERE id = 1").fetchone() or ("",)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        received = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")

        def count(event: dict[str, float]) -> None:
            nonlocal received
            received += int(event["encodedDataLength"])

        session.on("Network.loadingFinished", count)
        page.goto(endpoint(PORT) + "/", wait_until="networkidle")
        print(f"\n  the first page with all that it needs, over the wire: {received / 1000:.1f} kB (aim 100)")
        times = []
        for _ in range(7):
            page.goto(f"{endpoint(PORT)}/{parent}/v1")
            begin = time.perf_counter()
            page.get_by_role("link", name="Lineage", exact=True).click()
            page.wait_for_url("**/lineage")
            page.locator("svg.lineage").wait_for()
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            times.append(time.perf_counter() - begin)
        drawn = page.locator("svg.lineage a").count()
        print(f"  a lineage, from the click until {drawn} versions are drawn: {statistics.median(times):.2f} s (aim 1)")


@contextlib.contextmanager
def catalog() -> Iterator[str]:
    """A catalog of so many adapters, made for this run unless one is named."""
    if len(sys.argv) > 2:
        yield sys.argv[2]
        return
    with postgres_server(shared_buffers="3GB", max_wal_size="2GB") as url:
        fill(migrated(url), ADAPTERS)
        yield url


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as folder, catalog() as url:
        os.environ["LOREG_HOME"] = f"{folder}/home"
        print(f"{ADAPTERS:,} adapters in PostgreSQL, one server process\n")
        with serving(PORT, {"LOREG_DATABASE_URL": url, "LOREG_STORAGE_URL": f"{folder}/store"}):
            measure_pages(url)
            measure_browser(url)


if __name__ == "__main__":
    main()
