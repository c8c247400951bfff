"""How long others wait while a stranger attacks: ``python benchmarks/attacks.py``; nothing here is a test.

A server with tokens, on SQLite and a folder, one process. A person asks for a version, again and again, each time over
a connection of his own: alone, and while each attack goes on. Printed are the median and the slowest of these,
the server's memory, and how the median compares with the person alone: the aim is 2 at most.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from deployments import SCIENCE

PORT = 8476
TOKEN = "lrg_" + "r" * 43
PATH = "/api/v1/adapters/team/science/versions/latest"
ASKED = 150
LOREG = str(Path(sys.executable).with_name("loreg"))
POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"

Stop = threading.Event


def ask() -> float:
    """Seconds for one answer, over a new connection."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request("GET", PATH, headers={"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, response.status
    return time.perf_counter() - begin


def connected() -> socket.socket:
    return socket.create_connection(("127.0.0.1", PORT), timeout=60)


def slow_connections(stop: Stop) -> None:
    """300 connections that send a byte of a header, and a byte more every second; what was closed is made again."""
    editable: list[socket.socket] = []
    while not stop.wait(1):
        for connection in list(editable):
            try:
                connection.send(b"x")
            except OSError:
                editable.remove(connection)
        editable += [connected() for _ in range(300 - len(editable))]
    for connection in editable:
        connection.close()


def endless_headers(stop: Stop) -> None:
    """One header without an end, as fast as the server takes it, over and over."""
    while not stop.is_set():
        with connected() as connection, contextlib.suppress(OSError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
            while not stop.is_set():
                connection.sendall(b"x" * 65536)
        stop.wait(0.1)


def brackets(authorization: bytes, path: bytes, size: int) -> Callable[[Stop], None]:
    """Brackets, once a second."""

    def attack(stop: Stop) -> None:
        body = b"[" + b"[]," * (size // 3) + b"[]]"
        while not stop.is_set():
            with connected() as connection, contextlib.suppress(OSError):
                connection.sendall(POST % (path, len(body), authorization) + body)
                connection.recv(1000)
            stop.wait(1)

    return attack


def held_bodies(authorization: bytes, size: int) -> Callable[[Stop], None]:
    """30 bodies of which the last eight bytes do not come."""

    def attack(stop: Stop) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                connection = stack.enter_context(connected())
                with contextlib.suppress(OSError):
                    connection.sendall(POST % (b"/api/v1/jobs", size, authorization) + b" " * (size - 8))
            stop.wait()

    return attack


def pipelined(stop: Stop) -> None:
    """Requests without number on one connection, whose answers nobody reads."""
    while not stop.is_set():
        with connected() as connection, contextlib.suppress(OSError):
            connection.settimeout(1)
            while not stop.is_set():
                connection.sendall(b"GET /api/v1/adapters HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        stop.wait(0.1)


def memory(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    from loreg.registry import connect

    environment = {**os.environ, "LOREG_HOME": str(folder), "LOREG_ADMIN_TOKEN": TOKEN}
    with connect(home=str(folder)) as registry:
        registry.push(SCIENCE, "team/science")
    command = [LOREG, "serve", "--port", str(PORT), "--require-tokens"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError):
                ask()
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def measured(
    label: str, attack: Callable[[Stop], None] | None, alone: float, process: subprocess.Popen[bytes]
) -> float:
    stop = Stop()
    thread = threading.Thread(target=attack, args=(stop,), daemon=True) if attack else None
    if thread:
        thread.start()
        time.sleep(3)  # until it is under way
    times = [ask() for _ in range(ASKED)]
    used = memory(process)
    stop.set()
    if thread:
        thread.join()
    median = statistics.median(times)
    beside = f"   {median / alone:5.2f} × alone" if alone else ""
    print(
        f"  {label:44} median {1000 * median:6.1f} ms   slowest {1000 * max(times):7.1f} ms   {used:4.0f} MB{beside}",
        flush=True,
    )
    return median


def main() -> None:
    known = b"Authorization: Bearer %s\r\n" % TOKEN.encode()
    with tempfile.TemporaryDirectory(prefix="loreg-attacks-") as name, serving(Path(name)) as process:
        print(f"a version is asked for {ASKED} times, each over a new connection\n")
        for label, attack in (
            ("300 slow connections", slow_connections),
            ("endless headers", endless_headers),
            ("8 MB of brackets a second, no token", brackets(b"", b"/nothing", 8_000_000)),
            ("1 MB of brackets a second, an administrator", brackets(known, b"/api/v1/jobs", 1_000_000)),
            ("30 held bodies of 8 MB, no token", held_bodies(b"", 8_000_000)),
            ("30 held bodies of 1 MB, an administrator", held_bodies(known, 1_000_000)),
            ("requests ahead of their answers", pipelined),
        ):
            alone = measured("nobody else", None, 0, process)  # anew: other programs run on the machine too
            measured(label, attack, alone, process)


if __name__ == "__main__":
    main()
