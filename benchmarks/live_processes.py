"""The processes that ``make bench-live`` measures: a server, folders that follow it, and what they take."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from shapes import write

from services import ACCESS_KEY, SECRET_KEY, S3Server, postgres_server, s3_server

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
ENDPOINT = f"http://127.0.0.1:{PORT}"
LOREG = str(Path(sys.executable).with_name("loreg"))
KEEP = 2
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Backed:
    """A server with what lies behind it: its process id, the environment that names both, and the store."""

    pid: int
    environment: dict[str, str]
    s3: S3Server
    root: Path


class Follower(NamedTuple):
    """One ``loreg sync --watch``: the link that it writes, and its process id."""

    link: Path
    pid: int


@contextlib.contextmanager
def registry_on_postgres_and_s3() -> Iterator[Backed]:
    """Run PostgreSQL, SeaweedFS and ``loreg serve`` on them, with a folder for all else."""
    with postgres_server() as database, s3_server() as s3, tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        environment = {
            **os.environ,
            "LOREG_DATABASE_URL": database,
            "LOREG_STORAGE_URL": f"s3://{s3.bucket}/live",
            "LOREG_STORAGE_ENDPOINT": s3.endpoint,
            "LOREG_HOME": str(root / "served"),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        subprocess.run([LOREG, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        with server(environment) as process:
            yield Backed(process, environment, s3, root)


def adapter(folder: Path, megabytes: float, seed: int) -> Path:
    side, layers = (512, 4) if megabytes < 10 else (4096, 32)
    rank = max(1, int(megabytes * 1e6 / (4 * layers * 2 * side * 2)))
    shapes = {f"model.layers.{layer}.self_attn.{name}_proj": (side, side) for layer in range(layers) for name in "qkvo"}
    return write(folder, shapes, rank, seed)


@contextlib.contextmanager
def server(environment: dict[str, str]) -> Iterator[int]:
    """Run ``loreg serve``; yields its process id."""
    with subprocess.Popen(
        [LOREG, "serve", "--port", str(PORT)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(is_ready)
        try:
            yield process.pid
        finally:
            process.terminate()


def is_ready() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.001)


@contextlib.contextmanager
def followers(name: str, root: Path, count: int) -> Iterator[list[Follower]]:
    """Run ``loreg sync --watch`` so many times, once each has shown its first version."""
    environment = {**os.environ, "LOREG_ENDPOINT": ENDPOINT, "LOREG_HOME": str(root / "home"), "LOREG_AUTHOR": "bench"}
    folders = [root / f"follower{number}" for number in range(count)]
    options = ["--watch", "--keep", str(KEEP)]
    processes = [
        subprocess.Popen(
            [LOREG, "sync", f"{name}:live", str(folder), *options, "--server-name", folder.name],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    running = [Follower(folder / name, process.pid) for folder, process in zip(folders, processes, strict=True)]
    try:
        wait_until(lambda: all(follower.link.exists() for follower in running))
        time.sleep(2)  # all of them listen
        yield running
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() // 2**20
