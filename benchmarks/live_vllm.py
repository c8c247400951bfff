"""How long from a publish to the first answer of the new version from a real vLLM: ``make bench-live``.

A server on PostgreSQL and SeaweedFS, and vLLM on CPU with loreg's middleware, of the environment that ``make truth``
makes (left out with a word where there is none). A trainer publishes a small adapter under an alias; when that has
returned, each replica is asked for the alias, all at once. Printed is the time from the beginning of the publish until
all have answered, with the new version's name in each answer. Its parts are what the same request takes otherwise:

    publish   until the call returns: the version is durable, and the alias means it
    answer    a request for the pinned name of a version that is loaded
    resolve   what a request for the alias takes more than that, while the alias means what is loaded
    load      what the first request for the alias after the publish takes more than that: fetched, verified, loaded

    python benchmarks/live_vllm.py [PUBLISHES]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import httpx
from live_processes import ENDPOINT, registry_on_postgres_and_s3

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "truth"))

import beside_vllm
import environment
from plugin import vllm_server

from adapters import make, on
from bases import write_bases
from loreg.registry import Registry, connect

PUBLISHES = int(sys.argv[1]) if len(sys.argv) > 1 else 40
NAME, ALIAS, BASE = "team/policy", "team/policy:live", "untied"
OPTIONS = (
    "--max-model-len", "64", "--max-num-seqs", "4", "--max-loras", "1", "--max-cpu-loras", "2",
    "--middleware", "loreg.plugins.vllm_middleware.FollowAliases",
)  # fmt: skip


class Replicas:
    """Running vLLM servers, asked all at once."""

    def __init__(self, urls: Sequence[str], pool: ThreadPoolExecutor) -> None:
        self._clients = [httpx.Client(base_url=url, timeout=300) for url in urls]
        self._pool = pool

    def ask(self, model: str) -> tuple[float, set[str]]:
        """Ask each for a word; returns the milliseconds until all have answered, and the versions that did."""
        body = {"model": model, "prompt": [1, 17, 45, 301], "max_tokens": 1, "temperature": 0}
        begin = time.perf_counter()
        answers = list(self._pool.map(lambda client: client.post("/v1/completions", json=body), self._clients))
        took = 1000 * (time.perf_counter() - begin)
        return took, {answer.raise_for_status().json()["model"] for answer in answers}


def measure(registry: Registry, source: Path, replicas: Replicas, first_step: int) -> dict[str, list[float]]:
    """Publish, and ask; returns the milliseconds of each part and of all, for each publish but the first two."""
    weights = source / "adapter_model.safetensors"
    content = weights.read_bytes()
    times: dict[str, list[float]] = {"publish": [], "resolve": [], "load": [], "answer": [], "all": []}
    for step in range(first_step, first_step + PUBLISHES + 2):
        weights.write_bytes(content[:-8] + step.to_bytes(8, "little"))
        begin = time.perf_counter()
        published = registry.publish(source, NAME, step=step, aliases=["live"])
        publish = 1000 * (time.perf_counter() - begin)
        first, answered = replicas.ask(ALIAS)
        if answered != {published.version.pinned}:
            raise SystemExit(f"published {published.version.pinned}, and {sorted(answered)} have answered")
        again, answer = (
            statistics.median(replicas.ask(model)[0] for _ in range(3)) for model in (ALIAS, published.version.pinned)
        )
        if step < first_step + 2:  # vLLM's first requests take their time
            continue
        parts = {"publish": publish, "resolve": again - answer, "load": first - again, "answer": answer}
        for part, took in {**parts, "all": publish + first}.items():
            times[part].append(took)
    return times


def main() -> None:
    if not (environment.HOME / "vllm").exists():
        print("vLLM is left out: `make truth` makes its environment, 3.5 GB")
        return
    beside_vllm.install()
    with (
        registry_on_postgres_and_s3() as backed,
        connect(endpoint=ENDPOINT, author="bench", home=None) as registry,
        ExitStack() as stack,
    ):
        bases, room = backed.root / "bases", backed.root
        write_bases(bases, [BASE])
        make("policy", on("q_proj", "k_proj", "v_proj", "o_proj"), bases, room / "policy")
        megabytes = (room / "policy" / "adapter_model.safetensors").stat().st_size / 1e6
        print(f"{PUBLISHES} publishes of {megabytes:.1f} MB: p50 and p95 in ms until every replica has answered\n")
        urls = list[str]()
        for count in (1, 2):
            settings = {"LOREG_ENDPOINT": ENDPOINT, "LOREG_HOME": str(room / f"home{count}")}
            server = vllm_server(bases / BASE, room, options=OPTIONS, name=f"vllm-{count}", variables=settings)
            urls.append(stack.enter_context(server)[0])
            with ThreadPoolExecutor(count) as pool:
                times = measure(registry, room / "policy", Replicas(urls, pool), count * 10 * PUBLISHES)
            cells = [
                f"{part} {statistics.median(took):4.0f} {statistics.quantiles(took, n=20)[-1]:4.0f}"
                for part, took in times.items()
            ]
            print(f"  {count} {'replica ' if count == 1 else 'replicas'}   " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
