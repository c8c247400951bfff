"""The server beside its floors and its peers, in one run, on PostgreSQL and SeaweedFS: ``make bench-serve``.

Transfers: one adapter of 200 MB to and from the same S3 server, by plain boto3 and through loreg, and down by
huggingface_hub from loreg. Requests: from several processes with connections that stay open, beside a route of FastAPI
that does nothing, in the same server. Small pushes from eight clients. The server's memory over all of it. Medians.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import ACCESS_KEY, SECRET_KEY, S3Server, postgres_server, s3_server

MEGABYTES, ROUNDS = 200, 5
CLIENTS, REQUESTS = 4, 2000
PUSHERS, PUSHES = 8, 25
PORT = 8479
ENDPOINT = f"http://127.0.0.1:{PORT}"


def large_adapter(folder: Path, megabytes: int, seed: int) -> Path:
    """A LoRA of random numbers on 32 × 4 square modules, about so large."""
    import torch
    from shapes import write

    side = 4096
    rank = max(1, megabytes * 1_000_000 // (128 * 2 * side * 2))  # two bytes a number
    shapes = {f"model.layers.{layer}.self_attn.{name}_proj": (side, side) for layer in range(32) for name in "qkvo"}
    torch.manual_seed(seed)
    return write(folder, shapes, rank, seed)


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def transfers(folder: Path, s3: S3Server) -> None:
    import boto3
    from botocore.config import Config

    from loreg.registry import connect

    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1", config=config)
    rows: dict[str, list[float]] = {name: [] for name in ("boto up", "loreg up", "boto down", "loreg down", "hub down")}
    with connect(endpoint=ENDPOINT) as registry:
        for number in range(ROUNDS):
            source = large_adapter(folder / f"a{number}", MEGABYTES, number)
            weights = str(source / "adapter_model.safetensors")
            key, name, down = f"plain/{number}", f"team/large{number}", folder / f"d{number}"
            rows["boto up"].append(timed(lambda w=weights, k=key: client.upload_file(w, s3.bucket, k)))
            rows["loreg up"].append(timed(lambda s=source, n=name: registry.push(s, n)))
            down.mkdir()
            target = str(down / "boto")
            rows["boto down"].append(timed(lambda k=key, t=target: client.download_file(s3.bucket, k, t)))
            rows["loreg down"].append(timed(lambda n=name, d=down: registry.pull(n, d / "loreg")))
            rows["hub down"].append(timed(lambda n=name, d=down: hub(n, d / "hub")))
            size = Path(weights).stat().st_size
            shutil.rmtree(source)
            shutil.rmtree(down)
    print(f"one adapter of {size / 1e6:.0f} MB, median of {ROUNDS}\n")
    median = {name: statistics.median(times) for name, times in rows.items()}
    for name, peer in (("boto up", "boto up"), ("loreg up", "boto up"), ("boto down", "boto down"),
                       ("loreg down", "boto down"), ("hub down", "boto down")):  # fmt: skip
        rate = size / median[name] / 1e6
        print(f"  {name:12} {median[name]:6.2f} s {rate:6.0f} MB/s   {median[peer] / median[name]:5.2f} of {peer}")
    print()


def hub(name: str, folder: Path) -> None:
    """In a process that is up already huggingface_hub would read its endpoint too early: so it is told here."""
    from huggingface_hub import HfApi

    HfApi(endpoint=ENDPOINT, token=False).snapshot_download(name, cache_dir=folder)


def ask(path: str, count: int, times: multiprocessing.Queue[list[float]]) -> None:
    where = urlsplit(ENDPOINT)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        found.append(time.perf_counter() - begin)
    times.put(found)


def requests(label: str, path: str, count: int = REQUESTS) -> float:
    """Requests a second from all clients together."""
    times: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=ask, args=(path, count, times)) for _ in range(CLIENTS)]
    begin = time.perf_counter()
    for process in processes:
        process.start()
    every = sorted(one for _ in processes for one in times.get())
    took = time.perf_counter() - begin
    for process in processes:
        process.join()
    rate = len(every) / took
    p50, p99 = every[len(every) // 2], every[int(len(every) * 0.99)]
    print(f"  {label:44} {rate:7.0f} a second   p50 {1000 * p50:5.1f} ms   p99 {1000 * p99:5.1f} ms", flush=True)
    return rate


def push_some(number: int, folder: str, barrier: object) -> None:
    from loreg.registry import connect

    with connect(endpoint=ENDPOINT) as registry:
        registry.adapters()
        barrier.wait()  # type: ignore[attr-defined]
        for index in range(PUSHES):
            registry.push(Path(folder) / f"s{number}-{index}", f"team{number}/small{index}")


def small_pushes(folder: Path) -> None:
    from shapes import SQUARE, write

    for number in range(PUSHERS):
        for index in range(PUSHES):
            write(folder / f"s{number}-{index}", SQUARE, 1, 1000 * number + index)
    barrier = multiprocessing.Barrier(PUSHERS + 1)
    processes = [
        multiprocessing.Process(target=push_some, args=(number, str(folder), barrier)) for number in range(PUSHERS)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    begin = time.perf_counter()
    for process in processes:
        process.join()
    took = time.perf_counter() - begin
    print(
        f"  {PUSHERS} clients push {PUSHERS * PUSHES} small adapters: {PUSHERS * PUSHES / took:.0f} a second (aim 50)\n"
    )


def memory(process: subprocess.Popen[bytes]) -> float:
    """Resident megabytes of the server."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


SERVER = """
import os, sys
from fastapi.responses import Response
from loreg.server.serve import open_service
from loreg.server.app import create_app
from loreg.settings import load
import uvicorn
app = create_app(open_service(load({{}}, os.environ), is_open=True))
@app.get("/empty")
def empty(): return Response(b"{{}}", media_type="application/json")
app.router.routes.insert(0, app.router.routes.pop())
uvicorn.run(app, host="127.0.0.1", port={port}, log_config=None, access_log=False)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name, postgres_server() as database, s3_server() as s3:
        folder = Path(name)
        os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "HF_HUB_DISABLE_XET": "1"}
        os.environ |= {"LOREG_HOME": str(folder / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        place = {
            "LOREG_DATABASE_URL": database,
            "LOREG_STORAGE_URL": f"s3://{s3.bucket}/bench",
            "LOREG_STORAGE_ENDPOINT": s3.endpoint,
        }
        environment = {**os.environ, **place}
        loreg = str(Path(sys.executable).with_name("loreg"))
        subprocess.run([loreg, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        process = subprocess.Popen([sys.executable, "-c", SERVER.format(port=PORT)], env=environment)
        try:
            wait()
            begin = memory(process)
            transfers(folder, s3)
            after_transfers = memory(process)
            print(f"requests, {CLIENTS} processes of {REQUESTS} each, one server process\n")
            empty = requests("a route that does nothing", "/empty")
            for label, path in {
                "show a version": "/api/v1/adapters/team/large0/versions/latest",
                "list adapters": "/api/v1/adapters",
                "search": "/api/v1/search",
            }.items():
                rate = requests(label, path, REQUESTS // 4)
                print(f"  {'':44} {rate / empty:7.2f} of the empty route (aim 0.5)")
            print()
            small_pushes(folder)
            print(
                f"the server's memory: {begin:.0f} MB at first, {after_transfers:.0f} MB after the transfers, ", end=""
            )
            print(f"{memory(process):.0f} MB after all requests and pushes")
        finally:
            process.kill()
            process.wait()


def wait() -> None:
    import httpx

    while True:
        try:
            if httpx.get(f"{ENDPOINT}/readyz").is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
